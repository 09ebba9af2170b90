"""Weights as sums of few-level planes with one scale each, in weights or on data.

Every column `w` of a matrix is one problem of its own, P planes of codes q_p on a level table::

    min over codes q, scales s >= 0, offset o:   w_hat H w_hat - 2 w_hat b
    w_hat[k] = sum_p g[p, k] s[p] level[q[p, k]] + o

With H the identity and b = w this is the squared error of the weights; with the H and b of `data_aware` it is that of the
outputs on calibration inputs. The offset is eliminated in closed form.

What is done in turn, until nothing changes: the scales (and offset) by least squares for given codes; every weight by
trying all level^P combinations, the others given (for H the identity without offset that is its optimum outright).
Neither step makes the objective larger; the result is a local optimum, and the better one of the starts given.
Source: Lin et al., ABC-Net (2017), section 3.1 (a linear combination of binary bases by least squares); the alternation
over codes is block coordinate descent.

Columns that lie on a grid of at most level^P values already need none of it: their codes are the grid's, digit by digit in
base `level`, and scales that are that base's powers make no error (`exact`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbcompile.deferred import njit
from xbcompile.passes.fit import exact_codes

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]

MAX_ROUNDS = 50
MAX_SWEEPS = 20

_FALL = 1e-10  # a step must lower the objective by this share of its size
_SINGULAR = 1e-12  # ridge of the scales' equations, as a share of their trace

_compiled: Callable[..., Any] = njit(cache=True, nogil=True)


@dataclass(frozen=True, eq=False)
class PlaneFit:
    """Planes of a batch of columns.

    Attributes:
        codes: uint8 [planes, inputs, outputs], index into the level table.
        scale: float64 [planes, outputs], weight units per level unit, at least 0.
        offset: float64 [outputs], weight units, of the sum.
    """

    codes: Codes
    scale: Floats
    offset: Floats

    def weights(self, levels: npt.NDArray[Any], row_weight: Floats) -> Floats:
        """The sum of the planes, float64 [inputs, outputs]."""
        return (row_weight * self.scale[:, None] * levels.astype(np.float64)[self.codes]).sum(axis=0) + self.offset


def digits(codes: npt.NDArray[Any], scale: Floats, offset: Floats, base: int, planes: int) -> PlaneFit:
    """Codes of one table of `base ** planes` equidistant levels from -1 to 1 as planes of `base` such levels.

    The unit of the fine table is `2 scale / (base ** planes - 1)`; plane p counts `base ** (planes - 1 - p)` of them, so that
    the planes' levels add up to the fine one.

    Args:
        codes: [inputs, outputs], index into the fine table.
        scale: float64 [outputs], weight units per unit of the fine table.
        offset: float64 [outputs], weight units.
        base: levels of a plane.
        planes: how many.
    """
    power = base ** np.arange(planes, dtype=np.int64)[::-1]
    found = codes.astype(np.int64)[None] // power[:, None, None] % base
    unit = 2 * scale / (base**planes - 1)
    return PlaneFit(found.astype(np.uint8), power[:, None] * (unit * (base - 1) / 2), offset)


def exact(
    weights: Floats, levels: npt.NDArray[Any], planes: int, apart: bool = True
) -> tuple[npt.NDArray[np.bool_], PlaneFit]:
    """The columns that planes hold without error, bool [outputs], and those columns' planes.

    Codes lie in the middle of what the planes can count: symmetric weights need no offset of ternary planes. None are found
    where the levels are not equidistant about 0.

    Args:
        weights: float64 [inputs, outputs].
        levels: float [L], strictly increasing.
        planes: how many.
        apart: whether the values of a grid may be several units of the lowest plane apart, which lowers the error of reads;
            False: whole numbers are sums of planes of whole numbers.
    """
    base, constant = len(levels), (weights == weights[0]).all(axis=0)
    if not is_even(levels):
        constant[:] = False
        return constant, digits(np.zeros((len(weights), 0)), np.zeros(0), np.zeros(0), base, planes)
    fine = np.linspace(-1.0, 1.0, base**planes)
    found = exact_codes.find(weights, fine, apart)
    codes = np.zeros(weights.shape, np.int64)
    codes[:, found.found] = found.codes
    scale, offset = np.zeros(weights.shape[1]), weights[0].copy()  # of the constant columns
    middle = (len(fine) - 1 - codes.max(axis=0)) // 2
    scale[found.found] = found.scale
    offset[found.found] = found.offset - found.scale * 2 / (len(fine) - 1) * middle[found.found]
    offset[np.abs(offset) <= exact_codes.ROUNDING * np.abs(weights).max(axis=0)] = 0.0
    kept = found.found | constant
    return kept, digits((codes + middle)[:, kept], scale[kept], offset[kept], base, planes)


def is_even(levels: npt.NDArray[Any]) -> bool:
    """Whether levels are equidistant from -1 to 1."""
    return bool(np.allclose(levels, np.linspace(-1, 1, len(levels)), atol=1e-6))


def refine(
    hessian: Floats,
    linear: Floats,
    levels: npt.NDArray[Any],
    starts: list[PlaneFit],
    row_weight: Floats,
    with_offset: bool = True,
) -> PlaneFit:
    """Descend from each start, column by column, and keep the best.

    Args:
        hessian: float64 [inputs, inputs], positive definite.
        linear: float64 [inputs, outputs].
        levels: float [L], strictly increasing.
        starts: their offsets do not count.
        row_weight: float64 [planes, inputs, outputs].
        with_offset: whether a column whose row weights are all alike may have an offset.

    Returns:
        the best fit found of each column.
    """
    table = levels.astype(np.float64)
    row_sum, linear_sum = hessian.sum(axis=1), linear.sum(axis=0)
    total = float(row_sum.sum())
    centred = hessian - np.outer(row_sum, row_sum) / total
    centred_linear = linear - np.outer(row_sum, linear_sum) / total
    codes, scale = starts[0].codes.copy(), starts[0].scale.astype(np.float64)
    offset = np.zeros(linear.shape[1])
    for m in range(linear.shape[1]):
        gain = np.ascontiguousarray(row_weight[:, :, m])
        free = with_offset and bool((gain == gain[0, 0]).all())
        h, b = (centred, centred_linear[:, m]) if free else (hessian, linear[:, m])
        best = np.inf
        for start in starts:  # the first one of equals
            found = np.ascontiguousarray(start.codes[:, :, m])
            sizes = start.scale[:, m].astype(np.float64)
            value = _alternate(h, np.ascontiguousarray(b), gain, table, found, sizes)
            if best == np.inf or value < best - _FALL * abs(best):
                best, codes[:, :, m], scale[:, m] = value, found, sizes
        if free:
            used = (scale[:, m, None] * gain * table[codes[:, :, m]]).sum(axis=0)
            offset[m] = (linear_sum[m] - row_sum @ used) / total
    return PlaneFit(codes, scale, offset)


@_compiled
def _alternate(h: Floats, b: Floats, gain: Floats, levels: Floats, codes: Codes, scale: Floats) -> float:
    """Scales and codes in turn, in place; the objective."""
    planes, count = codes.shape
    best = 0.0  # of all weights zero
    for round_ in range(MAX_ROUNDS):
        w = np.zeros(count)
        for p in range(planes):
            for k in range(count):
                w[k] += scale[p] * gain[p, k] * levels[codes[p, k]]
        pull = h @ w - b
        _choose_codes(h, gain, levels, scale, codes, w, pull)
        value = float(w @ (h @ w) - 2 * (w @ b))
        refitted = _best_scales(h, b, gain, levels, codes)
        if refitted.min() >= 0:
            w[:] = 0.0
            for p in range(planes):
                for k in range(count):
                    w[k] += refitted[p] * gain[p, k] * levels[codes[p, k]]
            lower = float(w @ (h @ w) - 2 * (w @ b))
            if lower < value:
                value = lower
                scale[:] = refitted
        if round_ > 0 and not value < best - _FALL * abs(best):
            break
        best = value
    return best


@_compiled
def _best_scales(h: Floats, b: Floats, gain: Floats, levels: Floats, codes: Codes) -> Floats:
    """Least-squares scales of planes of given codes."""
    planes, count = codes.shape
    u = np.empty((planes, count))
    for p in range(planes):
        for k in range(count):
            u[p, k] = gain[p, k] * levels[codes[p, k]]
    normal = u @ h @ u.T
    ridge = _SINGULAR * np.trace(normal) + 1e-300
    for p in range(planes):
        normal[p, p] += ridge
    return np.asarray(np.linalg.solve(normal, u @ b), np.float64)


@_compiled
def _choose_codes(
    h: Floats, gain: Floats, levels: Floats, scale: Floats, codes: Codes, w: Floats, pull: Floats
) -> None:
    """Every weight's best combination, the others given, until none changes; `pull` is `h w - b`."""
    planes, count = codes.shape
    combinations = levels.size**planes
    for _ in range(MAX_SWEEPS):
        changed = False
        for k in range(count):
            if not h[k, k] > 0:
                continue
            old = w[k]
            lowest, chosen, new = 0.0, -1, old
            for c in range(combinations):
                value, rest = 0.0, c
                for p in range(planes):
                    value += scale[p] * gain[p, k] * levels[rest % levels.size]
                    rest //= levels.size
                step = value - old
                change = step * (2 * pull[k] + step * h[k, k])
                if change < lowest - _FALL * h[k, k] * (value * value + old * old):
                    lowest, chosen, new = change, c, value
            if chosen >= 0:
                changed = True
                rest = chosen
                for p in range(planes):
                    codes[p, k] = rest % levels.size
                    rest //= levels.size
                for j in range(count):
                    pull[j] += h[k, j] * (new - old)
                w[k] = new
        if not changed:
            break
