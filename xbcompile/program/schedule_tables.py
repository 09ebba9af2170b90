"""What the tables of a schedule must be for a run to follow them: every index is of something that is there, and steps come in an
order in which they can be executed. Asked when a program is loaded, and by verification, which asks for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from xbcompile.ir import Schedule, Use
from xbcompile.ir.schedule import READ, WRITE

_LATEST = 1e100  # seconds: sums of so many batches stay finite
_COLUMNS_AT_ONCE = 2**22  # of which permutations are looked at


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


def check_indices(schedule: Schedule, work: Scheduled) -> list[str]:
    """Tiles lie inside their matrix and their array, and have images; permutations are bijective; arrays and images exist.

    Args:
        schedule: its tables, of their own element types.
        work: layers and matrices; their uses are not asked for.

    Returns:
        findings, one line each.
    """
    return _tiles_of_matrices(schedule, work) or _tiles_on_arrays(schedule) + _permutations(schedule) + _copies(
        schedule
    )


def _tiles_of_matrices(schedule: Schedule, work: Scheduled) -> list[str]:
    """Each tile is a piece of a matrix, under the first layer that uses the matrix."""
    tiles, layers, owners = schedule.tiles, work.layers, np.array(work.matrices, dtype=np.int64)
    if len(tiles) and (tiles["layer"].min() < 0 or tiles["layer"].max() >= len(layers)):
        return [f"tiles: layer indices outside 0..{len(layers) - 1}"]
    layer = tiles["layer"]
    foreign = np.flatnonzero(~np.isin(layer, owners))
    if len(foreign):
        wrong = int(layer[foreign[0]])
        owner = layers[work.matrices[wrong]].name
        return [f"tiles: layer {layers[wrong].name!r} has tiles of its own, but its matrix is that of {owner!r}"]
    sizes = np.array([(each.groups, each.inputs, each.outputs) for each in layers], dtype=np.int64).reshape(-1, 3)[
        layer
    ]
    for name, of in (("group", 0), ("k0", 1), ("m0", 2), ("k1", 1), ("m1", 2)):
        outside = np.flatnonzero((tiles[name] < 0) | (tiles[name] > sizes[:, of] - (name == "group")))
        if len(outside):
            return [f"tiles: layer {layers[int(layer[outside[0]])].name!r} has {name} outside its matrix"]
    empty = np.flatnonzero((tiles["k1"] <= tiles["k0"]) | (tiles["m1"] <= tiles["m0"]))
    return [f"tiles: layer {layers[int(layer[empty[0]])].name!r} has an empty tile"] if len(empty) else []


def _tiles_on_arrays(schedule: Schedule) -> list[str]:
    """Each tile is in an image, inside of an array."""
    tiles = schedule.tiles
    if np.any(tiles["image"] < 0) or np.any(tiles["image"] >= schedule.images):
        return [f"tiles: image indices outside 0..{schedule.images - 1}"]
    row, column = tiles["row"].astype(np.int64), tiles["column"].astype(np.int64)
    inside = (row >= 0) & (row + tiles["k1"] - tiles["k0"] <= schedule.rows)
    inside &= (column >= 0) & (column + tiles["m1"] - tiles["m0"] <= schedule.columns)
    if inside.all():
        return []
    return [f"tiles: tile {int(np.flatnonzero(~inside)[0])} lies outside its {schedule.rows}x{schedule.columns} array"]


def _permutations(schedule: Schedule) -> list[str]:
    """Each image has a bijection of its columns."""
    table = schedule.column_permutation
    if table.shape != (schedule.images, schedule.columns):
        return [f"permutations: table has shape {table.shape}"]
    table = table if table.strides[0] else table[:1]  # one row, seen as many times
    step = max(1, _COLUMNS_AT_ONCE // schedule.columns)
    for first in range(0, len(table), step):
        some = table[first : first + step]
        found = np.zeros(some.shape, bool)
        np.put_along_axis(found, np.minimum(some, schedule.columns - 1).astype(np.intp), True, axis=1)
        wrong = ~found.all(axis=1) | np.any(some >= schedule.columns, axis=1)
        if wrong.any():
            return [f"permutations: image {first + int(np.flatnonzero(wrong)[0])} has no bijection of its columns"]
    return []


def _copies(schedule: Schedule) -> list[str]:
    """Each image has a copy, in order, on arrays that exist; no array holds two images at the start of a batch."""
    copies, findings = schedule.copies, []
    for name, high in (("array", schedule.arrays), ("image", schedule.images)):
        if np.any(copies[name] < 0) or np.any(copies[name] >= high):
            return [f"copies: {name} indices outside 0..{high - 1}"]
    if schedule.initial.shape != (schedule.arrays,):
        return [f"initial images: table has shape {schedule.initial.shape}"]
    flat = copies["image"].astype(np.int64) * schedule.arrays + copies["array"]
    if np.any(np.diff(flat) <= 0):
        findings.append("copies: not in order of image, then array, or an image is on one array twice")
    missing = np.flatnonzero(np.bincount(copies["image"], minlength=schedule.images) == 0)
    if len(missing):
        return [f"copies: image {int(missing[0])} is on no array"]
    held = np.flatnonzero(schedule.initial >= 0)
    if not np.isin(schedule.initial[held].astype(np.int64) * schedule.arrays + held, flat).all():
        findings.append("initial images: an array starts with an image that has no copy on it")
    return findings


def check_steps(schedule: Schedule, work: Scheduled) -> list[str]:
    """Written before read, right image present, no array used twice at a time, each tile read once per use, uses in order."""
    steps = schedule.steps
    reads, writes = steps["operation"] == READ, steps["operation"] == WRITE
    if not np.all(reads | writes):
        return ["steps: an operation is neither write nor read"]
    for name, high in (("array", schedule.arrays), ("image", schedule.images)):
        if np.any(steps[name] < 0) or np.any(steps[name] >= high):
            return [f"steps: {name} indices outside 0..{high - 1}"]
    if not all(np.all(np.abs(steps[name]) <= _LATEST) for name in ("start_s", "end_s")):
        return [f"steps: a time is no number of seconds up to {_LATEST:g}"]
    if np.any(steps["end_s"] < steps["start_s"]):
        return ["steps: a step ends before it starts"]
    if np.any(steps["rows"][reads] != 0) or np.any(steps["rows"] < 0) or np.any(steps["rows"] > schedule.rows):
        return [f"steps: rows written are outside 0..{schedule.rows}, or a read writes some"]
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
