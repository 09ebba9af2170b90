"""Checks of schedule tables against the matrices, their uses and the array; without trust in what made them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.ir.schedule import READ, WRITE, shares_of

_CHUNK_COLUMNS = 1 << 22  # of permutations that are sorted at a time


class MatrixSize(Protocol):
    """What a schedule needs to know of a layer."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def groups(self) -> int:
        """Independent matrices."""

    @property
    def inputs(self) -> int:
        """Rows of each."""

    @property
    def outputs(self) -> int:
        """Columns of each."""


class Scheduled(Protocol):
    """What is scheduled: a `Network`, or shapes alone."""

    @property
    def layers(self) -> Sequence[MatrixSize]:
        """One per layer."""

    @property
    def matrices(self) -> Sequence[int]:
        """Owner of each layer's matrix, see `Network.matrices`."""

    @property
    def uses(self) -> Sequence[Use]:
        """See `Network.uses`."""


def check_schedule(schedule: Schedule, work: Scheduled, spec: ArraySpec) -> list[str]:
    """All findings; empty where the schedule can be executed and is what it says."""
    # steps refer to tiles, and durations to steps: with wrong ones there is no telling what the next does
    return check_tables(schedule, work) or check_steps(schedule, work) or check_durations(schedule, work, spec)


def check_tables(schedule: Schedule, work: Scheduled) -> list[str]:
    """Findings in tiles, copies and permutations."""
    return check_tiles(schedule, work) + check_placement(schedule)


def check_tiles(schedule: Schedule, work: Scheduled) -> list[str]:
    """Every weight of every matrix is in exactly one tile, under the first layer that uses the matrix."""
    findings: list[str] = []
    layers, owners = work.layers, set(work.matrices)
    layer_of = schedule.tiles["layer"]
    if len(layer_of) and (layer_of.min() < 0 or layer_of.max() >= len(layers)):
        return [f"tiles: layer indices outside 0..{len(layers) - 1}"]
    tiles = schedule.tiles[np.argsort(layer_of, kind="stable")]
    edges = np.searchsorted(tiles["layer"], np.arange(len(layers) + 1)).tolist()
    in_rows = _cut_into_rows(tiles, layers)
    for i, layer in enumerate(layers):
        mine = tiles[edges[i] : edges[i + 1]]
        if i not in owners:
            if len(mine):
                owner = layers[work.matrices[i]].name
                findings.append(
                    f"tiles: layer {layer.name!r} has tiles of its own, but its matrix is that of {owner!r}"
                )
            continue
        if in_rows[i]:
            continue
        bounds = [("group", 0, layer.groups - 1), ("k0", 0, layer.inputs), ("m0", 0, layer.outputs)]
        bounds += [("k1", 0, layer.inputs), ("m1", 0, layer.outputs)]
        outside = [n for n, low, high in bounds if len(mine) and (mine[n].min() < low or mine[n].max() > high)]
        if outside:
            findings.append(f"tiles: layer {layer.name!r} has {outside[0]} outside its matrix")
            continue
        if np.any(mine["k1"] <= mine["k0"]) or np.any(mine["m1"] <= mine["m0"]):
            findings.append(f"tiles: layer {layer.name!r} has an empty tile")
            continue
        row, column, count = _coverage(mine, layer)
        weights = np.diff(row)[:, None] * np.diff(column)
        for what, wrong in (("in no tile", count < 1), ("in more than one tile", count > 1)):
            if wrong.any():
                g, k, m = (int(v[0]) for v in np.nonzero(wrong))
                findings.append(
                    f"tiles: {int((wrong * weights).sum())} weights of layer {layer.name!r} are {what}, "
                    f"the first at group {g}, row {int(row[k])}, column {int(column[m])}"
                )
    return findings


def _cut_into_rows(tiles: np.ndarray, layers: Sequence[MatrixSize]) -> np.ndarray:
    """Whether the tiles of each layer are bands of columns cut into rows, one after another from end to end, bool [layers].

    Then every weight is in one tile. What is cut in another way is for `_coverage` to say.

    Args:
        tiles: TILE table in order of layer.
        layers: sizes.
    """
    sizes = np.array([(each.groups, each.inputs, each.outputs) for each in layers], dtype=np.int64).reshape(-1, 3)
    held = np.bincount(tiles["layer"], minlength=len(layers)) > 0
    tiles = tiles[np.lexsort((tiles["k0"], tiles["m0"], tiles["group"], tiles["layer"]))]
    layer, group, k0, k1, m0, m1 = (tiles[name].astype(np.int64) for name in ("layer", "group", "k0", "k1", "m0", "m1"))
    groups, inputs, outputs = sizes[layer].T

    def starts(*names: np.ndarray) -> np.ndarray:
        changes = np.zeros(len(tiles) + 1, dtype=bool)
        changes[[0, -1]] = True
        for each in names:
            changes[1:-1] |= each[1:] != each[:-1]
        return changes

    new_layer, new_group, new_band = starts(layer), starts(layer, group), starts(layer, group, m0)
    first_layer, first_group, first = new_layer[:-1], new_group[:-1], new_band[:-1]
    last_layer, last_group, last = new_layer[1:], new_group[1:], new_band[1:]

    def before(values: np.ndarray) -> np.ndarray:
        return np.append(0, values[:-1])

    right = (k0 < k1) & (m0 < m1) & (k0 == np.where(first, 0, before(k1))) & (~last | (k1 == inputs))
    right &= (m0 == np.where(first_group, 0, np.where(first, before(m1), before(m0)))) & (~last_group | (m1 == outputs))
    right &= first | (m1 == before(m1))
    right &= (group == np.where(first_layer, 0, before(group) + first_group)) & (~last_layer | (group == groups - 1))
    whole: np.ndarray = held & (np.bincount(layer, weights=~right, minlength=len(layers)) == 0)
    return whole


def _coverage(tiles: np.ndarray, layer: MatrixSize) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns at which tiles begin or end, and how many tiles hold each piece [group, row, column] between those."""
    row = np.unique(np.concatenate([[0, layer.inputs], tiles["k0"], tiles["k1"]]))
    column = np.unique(np.concatenate([[0, layer.outputs], tiles["m0"], tiles["m1"]]))
    corners = np.zeros((layer.groups, len(row), len(column)), np.int32)  # difference array
    for k, m, sign in (("k0", "m0", 1), ("k1", "m0", -1), ("k0", "m1", -1), ("k1", "m1", 1)):
        place = tiles["group"], np.searchsorted(row, tiles[k]), np.searchsorted(column, tiles[m])
        np.add.at(corners, place, sign)
    return row, column, corners.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]


def check_placement(schedule: Schedule) -> list[str]:
    """Tiles lie inside their array and do not overlap; permutations are bijective; arrays and images exist."""
    tiles, findings = schedule.tiles, []
    height, width = tiles["k1"] - tiles["k0"], tiles["m1"] - tiles["m0"]
    if np.any(tiles["image"] < 0) or np.any(tiles["image"] >= schedule.images):
        return [f"tiles: image indices outside 0..{schedule.images - 1}"]
    inside = (tiles["row"] >= 0) & (tiles["row"] + height <= schedule.rows)
    inside &= (tiles["column"] >= 0) & (tiles["column"] + width <= schedule.columns)
    if not inside.all():
        findings.append(
            f"tiles: tile {int(np.flatnonzero(~inside)[0])} lies outside its {schedule.rows}x{schedule.columns} array"
        )
    else:
        findings += _overlaps(schedule, height, width)
    table = schedule.column_permutation
    if table.shape != (schedule.images, schedule.columns):
        findings.append(f"permutations: table has shape {table.shape}")
    else:
        rows = table if table.strides[0] else table[:1]  # one row, seen as many times
        step = max(1, _CHUNK_COLUMNS // max(schedule.columns, 1))
        for start in range(0, len(rows), step):
            wrong = np.any(np.sort(rows[start : start + step], axis=1) != np.arange(schedule.columns), axis=1)
            if wrong.any():
                image = start + int(np.flatnonzero(wrong)[0])
                findings.append(f"permutations: image {image} has no bijection of its columns")
                break
    return findings + _copies(schedule)


def _copies(schedule: Schedule) -> list[str]:
    """Each image has a copy, in order, on arrays that exist; no array holds two images at the start of a batch."""
    copies, findings = schedule.copies, []
    for name, high in (("array", schedule.arrays), ("image", schedule.images)):
        if np.any(copies[name] < 0) or np.any(copies[name] >= high):
            return [f"copies: {name} indices outside 0..{high - 1}"]
    flat = copies["image"].astype(np.int64) * schedule.arrays + copies["array"]
    if np.any(np.diff(flat) <= 0):
        findings.append("copies: not in order of image, then array, or an image is on one array twice")
    missing = np.flatnonzero(np.bincount(copies["image"], minlength=schedule.images) == 0)
    if len(missing):
        return [f"copies: image {int(missing[0])} is on no array"]
    if schedule.initial.shape != (schedule.arrays,):
        return [*findings, f"initial images: table has shape {schedule.initial.shape}"]
    held = np.flatnonzero(schedule.initial >= 0)
    if not np.isin(schedule.initial[held].astype(np.int64) * schedule.arrays + held, flat).all():
        findings.append("initial images: an array starts with an image that has no copy on it")
    return findings


def _overlaps(schedule: Schedule, height: np.ndarray, width: np.ndarray) -> list[str]:
    tiles = schedule.tiles
    order = np.argsort(tiles["image"], kind="stable")
    image = tiles["image"][order]
    starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]]) if len(image) else np.array([], int)
    ends = np.r_[starts[1:], len(image)]
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        mine = order[start:end][(height[order[start:end]] > 0) & (width[order[start:end]] > 0)]
        tile = _overlapping(tiles["row"][mine], tiles["column"][mine], height[mine], width[mine])
        if tile is not None:
            return [f"tiles: tile {int(mine[tile])} overlaps another in image {int(image[start])}"]
    return []


def _overlapping(row: np.ndarray, column: np.ndarray, height: np.ndarray, width: np.ndarray) -> int | None:
    """A rectangle that overlaps one before it, where there is one.

    A line sweeps over the columns and holds the rows of those that it crosses, which overlap no other until the first does: so
    each new one is compared with its neighbours alone.
    """
    tiles = np.arange(len(row))
    events = np.lexsort((np.tile(row, 2), np.repeat([1, 0], len(row)), np.concatenate([column, column + width])))
    rows, bottoms = row.tolist(), (row + height).tolist()
    crossed: list[tuple[int, int]] = []  # first row and tile, in order
    for event in np.concatenate([tiles, tiles + len(row)])[events].tolist():
        tile = event % len(rows)
        place = bisect_left(crossed, (rows[tile], -1))
        if event >= len(rows):
            del crossed[place]
            continue
        for other in crossed[max(place - 1, 0) : place + 1]:
            if other[0] < bottoms[tile] and rows[tile] < bottoms[other[1]]:
                return max(tile, other[1])
        crossed.insert(place, (rows[tile], tile))
    return None


def check_steps(schedule: Schedule, work: Scheduled) -> list[str]:
    """Written before read, right image present, no array used twice at a time, each tile read once per use, uses in order."""
    steps = schedule.steps
    reads, writes = steps["operation"] == READ, steps["operation"] == WRITE
    if not np.all(reads | writes):
        return ["steps: an operation is neither write nor read"]
    for name, high in (("array", schedule.arrays), ("image", schedule.images)):
        if np.any(steps[name] < 0) or np.any(steps[name] >= high):
            return [f"steps: {name} indices outside 0..{high - 1}"]
    if np.any(steps["end_s"] < steps["start_s"]):
        return ["steps: a step ends before it starts"]
    if np.any(np.diff(steps["start_s"]) < 0):
        return ["steps: the table is not in order of start time"]
    for name, high in (("tile", len(schedule.tiles)), ("use", len(work.uses))):
        if np.any(steps[name][writes] != -1):
            return [f"steps: a write names a {name}; only reads have one"]
        if np.any(steps[name][reads] < 0) or np.any(steps[name][reads] >= high):
            return [f"steps: {name} indices outside 0..{high - 1}"]
    tile = steps["tile"][reads]
    findings = _reads_of_uses(schedule, work)
    if np.any(schedule.tiles["image"][tile] != steps["image"][reads]):
        findings.append("steps: a read names another image than the one that holds its tile")
    pairs = schedule.copies["image"].astype(np.int64) * schedule.arrays + schedule.copies["array"]
    if not np.isin(steps["image"].astype(np.int64) * schedule.arrays + steps["array"], pairs).all():
        findings.append("steps: a step uses an array on which its image has no copy")
    order = np.lexsort((np.arange(len(steps)), steps["start_s"], steps["array"]))
    ordered = steps[order]
    same = ordered["array"][1:] == ordered["array"][:-1]
    late = ordered["start_s"][1:] < ordered["end_s"][:-1] * (1 - 1e-12) - 1e-18
    if np.any(same & late):
        findings.append(f"steps: array {int(ordered['array'][1:][same & late][0])} is used by two steps at a time")
    return findings + _images_present(schedule, ordered) + _use_order(schedule, work)


def _images_present(schedule: Schedule, ordered: np.ndarray) -> list[str]:
    """Each read finds its image; arrays end a batch as they started it. `ordered`: steps by array, then time."""
    if schedule.initial.shape != (schedule.arrays,) or not len(ordered):
        return []
    # The image present in an array is that of its last write, else that of the start.
    last = np.maximum.accumulate(np.where(ordered["operation"] == WRITE, np.arange(len(ordered)), -1))
    written = (last >= 0) & (ordered["array"][last] == ordered["array"])
    present = np.where(written, ordered["image"][last], schedule.initial[ordered["array"]])
    absent = (ordered["operation"] == READ) & (present != ordered["image"])
    if np.any(absent):
        wrong = ordered[absent][0]
        return [
            f"steps: tile {int(wrong['tile'])} is read from array {int(wrong['array'])} before its image is written"
        ]
    ends = np.flatnonzero(np.append(ordered["array"][1:] != ordered["array"][:-1], True))
    start = schedule.initial[ordered["array"][ends]]
    changed = (start >= 0) & (present[ends] != start)
    if np.any(changed):
        array = int(ordered["array"][ends][changed][0])
        return [f"steps: array {array} does not hold at the end of a batch what it held at the start"]
    return []


def _reads_of_uses(schedule: Schedule, work: Scheduled) -> list[str]:
    """Each use reads every copy of every tile of its matrix once, and no other tile."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    layers, uses = work.layers, work.uses
    matrix = np.array([use.matrix for use in uses], dtype=np.int64)
    foreign = schedule.tiles["layer"][reads["tile"]] != matrix[reads["use"]]
    if np.any(foreign):
        wrong = reads[foreign][0]
        name = layers[uses[wrong["use"]].layer].name
        return [f"steps: tile {int(wrong['tile'])} is read for layer {name!r}, whose matrix it is no part of"]
    pair = reads["use"].astype(np.int64) * len(schedule.tiles) + reads["tile"]
    # a copy is a tile on an array
    _, where, times = np.unique(pair * schedule.arrays + reads["array"], return_index=True, return_counts=True)
    if np.any(times != 1):
        wrong = reads[where[times != 1][0]]
        return [
            f"steps: tile {int(wrong['tile'])} is read {int(times[times != 1][0])} times for layer "
            f"{layers[uses[wrong['use']].layer].name!r}; each tile's reads must enter its sum once"
        ]
    read = np.bincount(reads["use"], minlength=len(uses))
    copies = np.bincount(schedule.copies["image"], minlength=schedule.images)[schedule.tiles["image"]]
    wanted = np.bincount(schedule.tiles["layer"], weights=copies, minlength=len(layers)).astype(np.int64)[matrix]
    missing = np.flatnonzero(read != wanted)
    return [
        f"steps: {int(wanted[use] - read[use])} tiles of layer {layers[uses[use].layer].name!r} are never read"
        for use in missing[:1]
    ]


def _use_order(schedule: Schedule, work: Scheduled) -> list[str]:
    """Each use starts when those that it waits for are complete."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    layers, uses = work.layers, work.uses
    first, last = np.full(len(uses), np.inf), np.full(len(uses), -np.inf)
    np.minimum.at(first, reads["use"], reads["start_s"])
    np.maximum.at(last, reads["use"], reads["end_s"])
    # Where steps take no time, the order of the table is the order of execution.
    position = np.arange(len(reads))
    first_position, last_position = np.full(len(uses), len(reads)), np.full(len(uses), -1)
    np.minimum.at(first_position, reads["use"], position)
    np.maximum.at(last_position, reads["use"], position)
    for i, use in enumerate(uses):
        for j in use.waits_for:
            if first[i] < last[j] * (1 - 1e-12) - 1e-18 or first_position[i] < last_position[j]:
                names = layers[use.layer].name, layers[uses[j].layer].name
                return [
                    f"steps: layer {names[0]!r} is read before layer {names[1]!r}, on which it depends, is complete"
                ]
    return []


def check_durations(schedule: Schedule, work: Scheduled, spec: ArraySpec) -> list[str]:
    """Each step lasts as long as the target's writes and reads do; what the schedule says of itself is true."""
    steps = schedule.steps
    if (schedule.rows, schedule.columns) != (spec.rows, spec.columns):
        return [
            f"schedule: it is for an array of {schedule.rows}x{schedule.columns}, "
            f"the target's is {spec.rows}x{spec.columns}"
        ]
    if schedule.batch < 1:
        return [f"schedule: batch is {schedule.batch}"]
    reads = steps["operation"] == READ
    if np.any(steps["rows"][reads] != 0) or np.any(steps["rows"][~reads] < 0) or np.any(steps["rows"] > spec.rows):
        return [f"steps: rows written are outside 0..{spec.rows}, or a read writes some"]
    expected = steps["rows"] * spec.t_write_row_s
    valid = reads & (steps["use"] >= 0) & (steps["use"] < len(work.uses))
    expected[valid] = _reads_of_steps(schedule, work, steps[valid]) * spec.t_read_s
    # Times are whole multiples of a tick that is at most 2**-50 of the sum of all work, a write for every read included.
    largest = expected.sum() + len(steps) * spec.t_write_s
    wrong = ~np.isclose(steps["end_s"] - steps["start_s"], expected, rtol=1e-9, atol=1e-14 * largest)
    findings = [f"steps: step {int(i)} does not last as long as the target's" for i in np.flatnonzero(wrong)[:1]]
    if np.any(steps["start_s"] < 0):
        findings.append("steps: a step starts before its batch does")
    waves = -(-schedule.initial_writes // (spec.writes_at_a_time or schedule.arrays or 1))
    if not np.isclose(schedule.setup_s, waves * spec.t_write_s, rtol=1e-9, atol=0):
        findings.append(f"schedule: setup takes {schedule.setup_s:g} s, but there are {waves} writes after each other")
    findings += _overlapping_batches(schedule) + _concurrent_writes(schedule, spec) + _bounds(schedule, work)
    return findings


def _bounds(schedule: Schedule, work: Scheduled) -> list[str]:
    """The bound of images is the weights' own; no other bound contradicts what was reached.

    What a search has proven beyond that, its proof is needed for: those bounds are what the schedule's maker says.
    """
    findings = []
    owners = [work.layers[matrix] for matrix in sorted(set(work.matrices))]
    weights = sum(layer.groups * layer.inputs * layer.outputs for layer in owners)
    fewest = -(-weights // (schedule.rows * schedule.columns))
    if schedule.images_lower_bound != fewest:
        findings.append(
            f"schedule: lower bound of images is {fewest}, as many as {weights:,} weights fill; it says "
            f"{schedule.images_lower_bound}"
        )
    for what, bound, value in (
        ("weight updates", schedule.weight_updates_lower_bound, schedule.weight_updates),
        ("makespan", schedule.makespan_lower_bound_s * (1 - 1e-9), schedule.makespan_s),
        ("period", schedule.period_lower_bound_s * (1 - 1e-9), schedule.period_s),
    ):
        if not bound <= value:
            findings.append(f"schedule: lower bound of {what} is above the schedule's own {value:g}")
    return findings


def _reads_of_steps(schedule: Schedule, work: Scheduled, steps: np.ndarray) -> np.ndarray:
    """Reads per batch that each read step makes: its copy's share of the vectors times the slices of each, int64."""
    images = schedule.images
    copies = np.bincount(schedule.copies["image"], minlength=images)
    first = np.cumsum(copies) - copies
    pairs = schedule.copies["image"].astype(np.int64) * schedule.arrays + schedule.copies["array"]
    at = np.searchsorted(pairs, steps["image"].astype(np.int64) * schedule.arrays + steps["array"])
    number, count = at - first[steps["image"]], copies[steps["image"]]
    vectors = np.array([use.vectors * schedule.batch for use in work.uses], dtype=np.int64)[steps["use"]]
    slices = np.array([use.reads // use.vectors for use in work.uses], dtype=np.int64)[steps["use"]]
    return shares_of(number, count, vectors) * slices


def _overlapping_batches(schedule: Schedule) -> list[str]:
    """Batches follow each other without using an array for two steps at a time; only weights that stay may overlap."""
    makespan, period, steps = schedule.makespan_s, schedule.period_s, schedule.steps
    steps = steps[steps["end_s"] > steps["start_s"]]
    if period >= makespan * (1 - 1e-9):
        return []
    if not schedule.stationary:
        return [f"schedule: batches overlap (period {period:g} s, makespan {makespan:g} s) while weights are rewritten"]
    tolerance = 1e-9 * makespan
    busy = np.bincount(steps["array"], weights=steps["end_s"] - steps["start_s"], minlength=schedule.arrays)
    start = np.mod(steps["start_s"], period)
    start[start > period - tolerance] = 0.0  # a rounded multiple of the period
    order = np.lexsort((start, steps["array"]))
    array, start = steps["array"][order], start[order]
    end = start + (steps["end_s"] - steps["start_s"])[order]
    same = array[1:] == array[:-1]
    late = same & (start[1:] < end[:-1] - tolerance)
    first = np.searchsorted(array, np.arange(schedule.arrays))
    last = np.searchsorted(array, np.arange(schedule.arrays), side="right") - 1
    used = last >= first
    around = end[last[used]] - period > start[first[used]] + tolerance
    if np.any(late) or np.any(around) or np.any(busy > period + tolerance):
        return [f"schedule: with a period of {period:g} s an array is used for two batches at a time"]
    return []


def _concurrent_writes(schedule: Schedule, spec: ArraySpec) -> list[str]:
    """No more writes at a time than the target allows, and none beside a read where it forbids that."""
    steps = schedule.steps
    tolerance = 1e-9 * schedule.makespan_s
    lasting = steps[steps["end_s"] > steps["start_s"] + tolerance]
    writes = lasting[lasting["operation"] == WRITE]
    if spec.writes_at_a_time and len(writes):
        at = np.concatenate([writes["start_s"] + tolerance, writes["end_s"] - tolerance])
        change = np.concatenate([np.ones(len(writes), np.int64), np.full(len(writes), -1)])
        most = int(np.cumsum(change[np.argsort(at, kind="stable")]).max())
        if most > spec.writes_at_a_time:
            return [f"steps: {most} arrays are written at a time; the target allows {spec.writes_at_a_time}"]
    if not spec.writes_while_reading and len(writes):
        reads = lasting[lasting["operation"] == READ]
        ends = np.maximum.accumulate(reads["end_s"]) if len(reads) else np.zeros(0)
        before = (
            np.searchsorted(reads["start_s"], writes["end_s"] - tolerance) - 1
        )  # reads that start before a write ends
        if np.any(ends[before[before >= 0]] > writes["start_s"][before >= 0] + tolerance):
            return ["steps: an array is written while another one is read, which the target does not allow"]
    return []
