"""Checks of schedule tables against the matrices, their uses and the array; without trust in what made them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import READ, WRITE, shares_of
from xbcompile.program.schedule_tables import MatrixSize, Scheduled, check_indices, check_steps

# Pieces into which the cuts of all tiles divide a matrix: so many are compared, of more no finding would be sure.
_MOST_PIECES = 2**26


def check_schedule(schedule: Schedule, work: Scheduled, spec: ArraySpec) -> list[str]:
    """All findings; empty where the schedule can be executed and is what it says."""
    # steps refer to tiles, and durations to steps: with wrong ones there is no telling what the next does
    return check_tables(schedule, work) or check_steps(schedule, work) or check_durations(schedule, work, spec)


def check_tables(schedule: Schedule, work: Scheduled) -> list[str]:
    """Findings in tiles, copies and permutations."""
    return check_indices(schedule, work) or check_coverage(schedule, work) + check_overlaps(schedule)


def check_coverage(schedule: Schedule, work: Scheduled) -> list[str]:
    """Every weight of every matrix is in exactly one tile."""
    findings: list[str] = []
    tiles = schedule.tiles[np.argsort(schedule.tiles["layer"], kind="stable")]
    edges = np.searchsorted(tiles["layer"], np.arange(len(work.layers) + 1)).tolist()
    in_rows = _cut_into_rows(tiles, work.layers)
    for i in sorted(set(work.matrices)):
        if in_rows[i]:
            continue
        layer, mine = work.layers[i], tiles[edges[i] : edges[i + 1]]
        row, column = _cuts(mine, layer)
        if layer.groups * len(row) * len(column) > _MOST_PIECES:
            findings.append(
                f"tiles: layer {layer.name!r} is cut at {len(row):,} rows and {len(column):,} columns, more than can be checked"
            )
            continue
        count = _coverage(mine, layer, row, column)
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


def _cuts(tiles: np.ndarray, layer: MatrixSize) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns at which tiles begin or end, and those of the matrix."""
    row = np.unique(np.concatenate([[0, layer.inputs], tiles["k0"], tiles["k1"]]))
    return row, np.unique(np.concatenate([[0, layer.outputs], tiles["m0"], tiles["m1"]]))


def _coverage(tiles: np.ndarray, layer: MatrixSize, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """How many tiles hold each piece [group, row, column] between cuts."""
    corners = np.zeros((layer.groups, len(row), len(column)), np.int32)  # difference array
    for k, m, sign in (("k0", "m0", 1), ("k1", "m0", -1), ("k0", "m1", -1), ("k1", "m1", 1)):
        place = tiles["group"], np.searchsorted(row, tiles[k]), np.searchsorted(column, tiles[m])
        np.add.at(corners, place, sign)
    count: np.ndarray = corners.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]
    return count


def check_overlaps(schedule: Schedule) -> list[str]:
    """No two tiles of an image have a cell in common."""
    tiles = schedule.tiles
    height, width = tiles["k1"] - tiles["k0"], tiles["m1"] - tiles["m0"]
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
    if not _can_be_counted(schedule, work):
        return [f"schedule: a batch of {schedule.batch:,} makes more reads than 64 bits count"]
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


def _can_be_counted(schedule: Schedule, work: Scheduled) -> bool:
    """Whether the reads of all copies of a batch are numbers of 64 bits."""
    copies = int(np.bincount(schedule.copies["image"], minlength=1).max())
    reads = max((max(use.reads, use.vectors) for use in work.uses), default=0)
    return reads * schedule.batch * (copies + 1) < 2**63


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
    if not period > 0:
        return [f"schedule: with a period of {period:g} s an array is used for two batches at a time"]
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
