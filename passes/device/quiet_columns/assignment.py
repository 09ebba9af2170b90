"""Which physical column each logical column of each image takes, for the least error of outputs that matter.

Images are taken in turn, in rounds, until nothing moves: mean errors add up over the tiles of an output, so what one image costs
depends on where the others are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from xbcompile.ir import Schedule

Floats = npt.NDArray[np.float64]
Columns = npt.NDArray[np.intp]
# Physical column of each logical one, from float64 [logical, physical], what each costs on each, and where they are now.
Assign = Callable[[Floats, Columns], Columns]

_MAX_ROUNDS = 5  # assumed: later ones hardly move anything


@dataclass(frozen=True, eq=False)
class TileColumns:
    """Every column of every tile, one entry each.

    Args:
        tile: intp [entries].
        image: intp [entries], the tile's image.
        logical: intp [entries], the logical column.
        output: intp [entries], number of the layer output that it adds to.
        weight: float64 [entries], what a squared error of its readings costs.
        sign: float64 [entries], sign that the chip's route gives to its readings.
    """

    tile: npt.NDArray[np.intp]
    image: npt.NDArray[np.intp]
    logical: npt.NDArray[np.intp]
    output: npt.NDArray[np.intp]
    weight: Floats
    sign: Floats


@dataclass(frozen=True, eq=False)
class TileColumnErrors:
    """Errors on every physical column.

    Args:
        entries: the columns of tiles.
        row: intp [entries], row of each in the tables.
        mean: float64 [rows, columns], mean error of readings that nothing later removes.
        power: float64 [rows, columns], mean squared error of the same.
    """

    entries: TileColumns
    row: npt.NDArray[np.intp]
    mean: Floats
    power: Floats


def chosen_columns(
    schedule: Schedule,
    column: Columns,
    errors: TileColumnErrors,
    assign: Assign,
    offset_of: Callable[[Floats], Floats] | None,
) -> Columns:
    """Physical columns [images, columns]: image after image, in rounds, until nothing moves.

    Args:
        schedule: where images are.
        column: intp [images, columns], where columns are now.
        errors: of each on each.
        assign: of one image.
        offset_of: digital offsets of columns from their mean errors, which a later pass will add; they are fitted anew before
            every round. None: no offsets.
    """
    entries, column = errors.entries, column.astype(np.intp)
    array = schedule.copies["array"][np.searchsorted(schedule.copies["image"], np.arange(len(column)))]
    order = np.argsort(entries.image, kind="stable")
    bounds = np.searchsorted(entries.image[order], np.arange(len(column) + 1)).tolist()
    runs = [order[start:end] for start, end in pairwise(bounds)]
    offset = np.zeros((schedule.arrays, column.shape[1]))
    for _ in range(_MAX_ROUNDS if errors.mean.any() else 1):
        before = column.copy()
        if offset_of is not None:
            offset = offset_of(mean_errors(errors, column, array, schedule.arrays))
        sweep(errors, column, offset[array], assign, runs)
        if np.array_equal(before, column):
            break
    return column


def mean_errors(errors: TileColumnErrors, column: Columns, array: np.ndarray, arrays: int) -> Floats:
    """Mean errors [arrays, columns] of physical columns with logical ones where they are."""
    entries = errors.entries
    here = column[entries.image, entries.logical]
    place = (array[entries.image], here)
    total, count = np.zeros((2, arrays, column.shape[1]))
    np.add.at(total, place, errors.mean[errors.row, here])
    np.add.at(count, place, 1)
    return np.asarray(total / np.maximum(count, 1))


def sweep(
    errors: TileColumnErrors, column: Columns, offset: Floats, assign: Assign, runs: list[npt.NDArray[np.intp]]
) -> None:
    """Move every image's columns in turn, in place, the others where they are; the whole error never rises.

    Mean errors add up over the tiles of an output: where the others add B, one tile costs
    E[(B + e)^2] - B^2 = E[e^2] + 2 B E[e].

    Args:
        errors: of readings, before offsets.
        column: intp [images, columns], physical columns.
        offset: float64 [images, columns], added to the readings of each physical column.
        assign: of one image.
        runs: entries of each image.
    """
    entries = errors.entries
    here = column[entries.image, entries.logical]
    mean = entries.sign * (errors.mean[errors.row, here] + offset[entries.image, here])
    collected = np.bincount(entries.output, mean)
    for image, mine in enumerate(runs):
        logical, (output, tile) = entries.logical[mine], np.unique(entries.output[mine], return_inverse=True)
        weight, error, shift = entries.weight[mine, None], errors.mean[errors.row[mine]], offset[image]
        mean = entries.sign[mine, None] * (error + shift)
        power = weight * (errors.power[errors.row[mine]] + 2 * shift * error + np.square(shift))
        place, now = np.arange(len(mine)), column[image][logical]
        rest = collected[output] - np.bincount(tile, mean[place, now])
        cost = np.zeros((column.shape[1], column.shape[1]))
        np.add.at(cost, logical, power + 2 * weight * rest[tile, None] * mean)
        found = assign(cost, column[image])
        single = power - weight * np.square(mean)
        before, after = (_whole(single, mean, at, rest, tile, weight[:, 0]) for at in (now, found[logical]))
        if after < before:
            column[image] = found
        collected[output] = rest + np.bincount(tile, mean[place, column[image][logical]])


def _whole(single: Floats, mean: Floats, at: np.ndarray, rest: np.ndarray, tile: np.ndarray, weight: Floats) -> float:
    """What one image's columns cost at physical columns `at`: tiles of one output that share an image add up too, which
    a linear assignment cannot know.

    Args:
        single: float64 [entries, columns], cost of what varies.
        mean: float64 [entries, columns], mean errors.
        at: intp [entries].
        rest: float64 [outputs], what other images add.
        tile: intp [entries], output of each.
        weight: float64 [entries], what a squared error costs.
    """
    place = np.arange(len(at))
    chosen = mean[place, at]
    total = (2 * rest + np.bincount(tile, chosen, minlength=len(rest)))[tile]
    return float((single[place, at] + weight * chosen * total).sum())
