"""Codes of weights that lie on a grid of few values already, as quantized models have them: found, not fitted.

The smallest and the greatest weight of a column are on its grid, so its step is their distance over a whole number, which
is at most the number of steps in the level table. Numbers are ruled out by single weights, the one that misses the grid by
most first, until one fits all weights or none is left. Least squares finds codes of no error too, but searches for them:
of 256 levels at minutes per million weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-6  # assumed: of the column's largest weight, and not above _COARSEST
ROUNDING = 2.0**-24  # of float32, of a column's largest weight: no grid is told apart below it
_COARSEST = 0.01  # of a step: a tolerance above it would call anything a grid
_BLOCK_VALUES = 1 << 22  # weights at once: bounds the memory
_FIRST_ROWS = 8  # weights that rule numbers out before all others are looked at


class ExactCodes(NamedTuple):
    """Codes of the columns that were found to be on a grid.

    Attributes:
        found: bool [problems], the columns of which the rest speaks.
        codes: [inputs, found columns], 0 for the smallest weight, of the smallest unsigned type that numbers the levels.
        scale: float64 [found columns], such that weights are `scale * levels[codes] + offset`.
        offset: float64 [found columns].
    """

    found: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.unsignedinteger]
    scale: Floats
    offset: Floats


def find(weights: npt.NDArray[np.floating], levels: Floats, apart: bool = True) -> ExactCodes:
    """The columns whose weights are on a grid of at most as many values as there are levels, and their codes.

    Codes start at the first level. Two values have codes whatever they are.

    Args:
        weights: finite [inputs, problems].
        levels: equidistant table [L], rising.
        apart: codes of neighbouring values lie as far apart as the table allows, so that reads err least in units of the
            weights; False: neighbouring values have neighbouring codes.
    """
    inputs, problems = weights.shape
    most = len(levels) - 1
    found = np.zeros(problems, np.bool_)
    scale, offset = np.zeros(problems), np.zeros(problems)
    codes, kind = [], np.min_scalar_type(most)
    size = max(1, _BLOCK_VALUES // max(inputs, most))
    for first in range(0, problems, size):
        columns = weights[:, first : first + size].astype(np.float64)
        low = columns.min(axis=0)
        columns -= low
        steps = _numbers_of_steps(columns, np.abs(low), most)
        kept = np.flatnonzero(steps)
        columns, steps, at = columns[:, kept], steps[kept], kept + first
        step = columns.max(axis=0) / steps if kept.size else np.zeros(0)
        stride = most // np.maximum(steps, 1) if apart else np.ones_like(steps)
        codes.append((np.rint(columns / step) * stride).astype(kind))
        found[at] = True
        scale[at] = step / (stride * (levels[-1] - levels[0]) / most)
        offset[at] = low[kept] - scale[at] * levels[0]
    joined = np.concatenate(codes, axis=1) if codes else np.zeros((inputs, 0), kind)
    return ExactCodes(found, joined, scale[found], offset[found])


def _numbers_of_steps(distance: Floats, lowest: Floats, most: int) -> npt.NDArray[np.int64]:
    """Steps of each column's coarsest grid, 0 where it has none of at most `most` steps or all its weights are the same.

    Args:
        distance: of the weights from the column's smallest [inputs, columns].
        lowest: size of that smallest weight [columns].
        most: largest number of steps.
    """
    span = distance.max(axis=0)
    largest = np.maximum(lowest, span)
    tolerance = np.minimum(TOLERANCE * largest, _COARSEST * span / most)
    result = np.where((span > 0) & ((distance == 0) | (distance == span)).all(axis=0), 1, 0)
    active = np.flatnonzero((result == 0) & (tolerance > ROUNDING * largest))
    numbers = np.arange(1, most + 1)
    alive = np.ones((most, active.size), np.bool_)
    for row in distance[:_FIRST_ROWS, active]:
        alive &= _misses(row, span[active] / numbers[:, None]) <= tolerance[active]
    while active.size:
        left = alive.any(axis=0)
        active, alive = active[left], alive[:, left]
        smallest = alive.argmax(axis=0)
        miss = _misses(distance[:, active], span[active] / numbers[smallest])
        worst = miss.argmax(axis=0) if active.size else smallest
        fits = miss.max(axis=0, initial=0.0) <= tolerance[active]
        result[active[fits]] = numbers[smallest[fits]]
        active, alive, worst = active[~fits], alive[:, ~fits], worst[~fits]
        alive &= _misses(distance[worst, active], span[active] / numbers[:, None]) <= tolerance[active]
    return result


def _misses(distance: Floats, step: Floats) -> Floats:
    """How far values are from the nearest multiple of a step."""
    return np.abs(distance - np.rint(distance / step) * step)
