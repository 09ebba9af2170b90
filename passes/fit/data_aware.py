"""Codes of weight columns that keep a layer's outputs, on the inputs that it really sees.

Every column `w` of a layer is one problem of its own, under the weight code of an analogue array::

    min over codes q, scale s >= 0, offset o and bias:  mean |x0 @ w - x @ w_hat - bias|^2 + damping |w - w_hat|^2
    w_hat[k] = g[k] s level[q[k]] + o

`x` are the inputs that the quantized earlier layers give, `x0` those of the original network. The free bias takes the
mean error, so only centred inputs count::

    [w] -> nearest level of each weight           |x @ (w - w_hat)| large where inputs move together
    [w] -> levels whose errors cancel over x      |x @ (w - w_hat)| small

With the damped Hessian `H = cov(x, x) + damping I` and `b = cov(x, x0) w + damping w` this is, up to a constant,
`w_hat H w_hat - 2 w_hat b`. The offset term `o sum(x)` is eliminated in closed form, and so is the scale: what is left
to maximise over the codes alone is `(u b)^2 / (u H u)` with `u = g level[q]`. Starts: the least-squares codes, and
sequential rounding whose error the weights not yet rounded compensate through the inverse Hessian. Each start descends
one code at a time, scale and offset refitted for every trial, until no code of any input wants to change.

Exactness: a local optimum over single codes. It never has a larger output error on the calibration inputs than the
least-squares codes that it was given as a start: those have the smallest `|w - w_hat|`, and the sum does not rise.

Sources: second-order weight errors and their compensation: Hassibi and Stork, Optimal Brain Surgeon (1993), equations
3 to 5; in a fixed order through a Cholesky factor: Frantar et al., GPTQ (2022), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from xbcompile.deferred import njit

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]

# Share of the mean variance of the live inputs. Chosen on MNIST training images that were not calibrated on (784-128-10,
# 4 levels): accuracy is flat from 1e-3 to 1e-2, lower on both sides.
DAMPING = 1e-3
# Rounds of sequential rounding at the refitted scale and offset.
MAX_ROUNDS = 8
# Scales at which sequential rounding starts, as multiples of the best one known.
START_SCALES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
MAX_SWEEPS = 100

_SINGULAR = 1e-12  # an energy u H u below this share of its largest value means that u does not vary
_SWEEPS_PER_SUM = 8  # sums of many small changes are made anew after so many sweeps
_RISE = 1e-12  # a change must raise the objective by this share: ties keep their code

_compiled: Callable[..., Any] = njit(cache=True, nogil=True)


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a layer's inputs on the calibration inputs.

    Attributes:
        mean: float64 [inputs], of the inputs behind quantized layers, in input units.
        mean_original: float64 [inputs], of the original network's.
        covariance: float64 [inputs, inputs] of the former, input units squared.
        cross: float64 [inputs, inputs], rows the former, columns the latter.
    """

    mean: Floats
    mean_original: Floats
    covariance: Floats
    cross: Floats


@dataclass(frozen=True, eq=False)
class DataAwareFit:
    """Codes of a batch of columns.

    Attributes:
        codes: uint8 [inputs, outputs], index into the level table.
        scale: float64 [outputs], weight units per level unit, at least 0.
        offset: float64 [outputs], weight units.
    """

    codes: Codes
    scale: Floats
    offset: Floats


def moments(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Moments]:
    """Moments, per group, of pairs (inputs behind quantized layers, the original ones), [groups, vectors, inputs] each.

    Where nothing is quantized before the layer both may be the same object, in all pairs, which costs half. At least
    one vector is needed. The sums run on one thread: their rounding does not depend on the machine's.
    """
    count, same = 0, True
    shift = shift0 = np.zeros(0)
    total: Any = 0.0
    total0: Any = 0.0
    square: Any = 0.0
    cross: Any = 0.0
    with threadpool_limits(limits=1, user_api="blas"):
        for vectors, original in pairs:
            if vectors.shape[1] == 0:
                continue
            if count == 0:  # centring roughly at once keeps the squares small
                same = vectors is original
                shift, shift0 = (v.mean(axis=1, keepdims=True, dtype=np.float64) for v in (vectors, original))
            x = vectors - shift
            count, total, square = count + x.shape[1], total + x.sum(axis=1), square + x.transpose(0, 2, 1) @ x
            if not same:
                x0 = original - shift0
                total0, cross = total0 + x0.sum(axis=1), cross + x.transpose(0, 2, 1) @ x0
    if count == 0:
        raise ValueError("moments need at least one vector")
    mean = total / count
    covariance = square / count - mean[:, :, None] * mean[:, None, :]
    if same:
        return [
            Moments(*each) for each in zip(shift[:, 0] + mean, shift[:, 0] + mean, covariance, covariance, strict=True)
        ]
    mean0 = total0 / count
    cross = cross / count - mean[:, :, None] * mean0[:, None, :]
    return [Moments(*each) for each in zip(shift[:, 0] + mean, shift0[:, 0] + mean0, covariance, cross, strict=True)]


def fit(
    seen: Moments,
    weights: np.ndarray,
    levels: np.ndarray,
    start: DataAwareFit,
    row_weight: np.ndarray | None = None,
    with_offset: bool = True,
    damping: float = DAMPING,
) -> DataAwareFit:
    """Codes on a level table that keep the outputs `x0 @ weights` of each column up to a bias.

    Args:
        seen: moments of the layer's inputs.
        weights: real [inputs, outputs].
        levels: float [L], strictly increasing.
        start: a least-squares fit of the same form to the weights themselves.
        row_weight: real [inputs, outputs], positive factor of each cell; None means 1.
        with_offset: whether a column whose row weights are alike may have an offset; one that starts with it may at any rate.
        damping: weight of the squared weight error, as a share of the mean variance of inputs that vary. Inputs that
            never vary count by it alone: their codes stay near their own weights.

    Raises:
        ValueError: damping is not positive: without it the Hessian may be singular.

    Returns:
        the codes with their best scale and offset; `mean_original @ weights - mean @ w_hat` is what the bias takes.
    """
    if not damping > 0:
        raise ValueError(f"damping must be positive, found {damping}")
    w = weights.astype(np.float64)
    g = np.ones_like(w) if row_weight is None else row_weight.astype(np.float64)
    codes, scale, offset = start.codes.copy(), start.scale.astype(np.float64), start.offset.astype(np.float64)
    with threadpool_limits(limits=1, user_api="blas"):
        hessian, linear = damped(seen, w, damping)
        target = np.linalg.solve(hessian, linear).astype(np.float64)
        order = np.argsort(-np.diag(hessian), kind="stable")
        lower = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)]))
        factor = np.ascontiguousarray(lower.T, dtype=np.float64)
    alike = (with_offset & (g == g[0]).all(axis=0)) | (offset != 0)
    for columns, offsets in ((np.flatnonzero(alike), True), (np.flatnonzero(~alike), False)):
        if columns.size:
            problem = _Problem(hessian, linear, target, order, factor, levels.astype(np.float64), offsets)
            for m in columns.tolist():
                codes[:, m], scale[m], offset[m] = problem.column(m, g[:, m], codes[:, m], scale[m], offset[m])
    return DataAwareFit(codes, scale, offset)


def damped(seen: Moments, weights: Floats, damping: float = DAMPING) -> tuple[Floats, Floats]:
    """Hessian H [inputs, inputs] and linear term b [inputs, outputs] of the objective above; see `fit`."""
    variance = np.diag(seen.covariance)
    live = variance[variance > 1e-12 * variance.max(initial=0.0)]
    amount = damping * live.mean() if live.size else 1.0
    return seen.covariance + amount * np.eye(len(weights)), seen.cross @ weights + amount * weights


class _Problem:
    """What the columns of one matrix share; with an offset, the Hessian that is left when it is eliminated."""

    def __init__(
        self,
        hessian: Floats,
        linear: Floats,
        target: Floats,
        order: npt.NDArray[np.int64],
        factor: Floats,
        levels: Floats,
        with_offset: bool,
    ) -> None:
        self.target, self.order, self.factor, self.with_offset = target, order, factor, with_offset
        self.middle = float(levels[0] + levels[-1]) / 2 if with_offset else 0.0
        self.levels = levels - self.middle
        self.row_sum, self.linear_sum = hessian.sum(axis=1), linear.sum(axis=0)
        self.total = float(self.row_sum.sum())
        self.hessian, self.linear = hessian, linear
        if with_offset:
            self.hessian = hessian - np.outer(self.row_sum, self.row_sum) / self.total
            self.linear = linear - np.outer(self.row_sum, self.linear_sum) / self.total
        self.least_energy = _SINGULAR * float(np.trace(hessian)) * float(np.abs(self.levels).max()) ** 2

    def column(self, m: int, g: Floats, codes: Codes, scale: float, offset: float) -> tuple[Codes, float, float]:
        """Best codes, scale and offset of column m over all starts."""
        linear, target = np.ascontiguousarray(self.linear[:, m]), np.ascontiguousarray(self.target[:, m])
        best, gain, best_scale = self.descend(linear, g, codes)
        size, middle = (best_scale or scale), offset + scale * self.middle
        for factor in START_SCALES:
            rounded = _round_in_order(target, self.order, self.factor, g, self.levels, factor * size, middle)
            found, value, found_scale = self.descend(linear, g, rounded)
            if value > gain * (1 + _RISE):
                best, gain, best_scale = found, value, found_scale
        for _ in range(MAX_ROUNDS):
            middle = self.offset(m, g, best, best_scale)
            rounded = _round_in_order(target, self.order, self.factor, g, self.levels, best_scale, middle)
            found, value, found_scale = self.descend(linear, g, rounded)
            if not value > gain * (1 + _RISE):
                break
            best, gain, best_scale = found, value, found_scale
        return best, best_scale, self.offset(m, g, best, best_scale) - best_scale * self.middle

    def descend(self, linear: Floats, g: Floats, codes: Codes) -> tuple[Codes, float, float]:
        """Codes after descent, the objective's gain over all weights zero, and the scale."""
        result: tuple[Codes, float, float] = _descend(
            self.hessian, linear, g, self.levels, codes.copy(), self.least_energy * float(np.square(g).max())
        )
        return result

    def offset(self, m: int, g: Floats, codes: Codes, scale: float) -> float:
        """Best offset of column m for these codes and this scale, for levels about their middle."""
        if not self.with_offset:
            return 0.0
        used = scale * g * self.levels[codes]
        return float(self.linear_sum[m] - self.row_sum @ used) / self.total


@_compiled
def _nearest(levels: Floats, position: float) -> int:
    """Index of the nearest level; the lower of two."""
    at = int(np.searchsorted(levels, position))
    if at == levels.size or (at > 0 and position - levels[at - 1] <= levels[at] - position):
        at -= 1
    return at


@_compiled
def _round_in_order(
    target: Floats,
    order: npt.NDArray[np.int64],
    factor: Floats,
    g: Floats,
    levels: Floats,
    scale: float,
    offset: float,
) -> Codes:
    """Round one weight after the other; each error moves the weights still to come (GPTQ, equations 2 and 3).

    `factor` is the upper Cholesky factor of the inverse Hessian in that order: row i holds the compensation of weight
    i, once those before it are fixed.
    """
    count = target.size
    left = target[order]
    codes = np.zeros(count, np.uint8)
    for i in range(count):
        k = order[i]
        code = 0
        if scale > 0:
            code = _nearest(levels, (left[i] - offset) / (scale * g[k]))
        codes[k] = code
        error = (left[i] - offset - scale * g[k] * levels[code]) / factor[i, i]
        for j in range(i + 1, count):
            left[j] -= error * factor[i, j]
    return codes


@_compiled
def _descend(
    hessian: Floats, linear: Floats, g: Floats, levels: Floats, codes: Codes, least_energy: float
) -> tuple[Codes, float, float]:
    """Change one code at a time while `(u b)^2 / (u H u)` rises; neighbours and next neighbours are tried."""
    count = codes.size
    pull, energy, moment = np.zeros(count), 0.0, 0.0
    for sweep in range(MAX_SWEEPS):
        if sweep % _SWEEPS_PER_SUM == 0:
            pull[:] = 0.0
            for k in range(count):
                value = g[k] * levels[codes[k]]
                for j in range(count):
                    pull[j] += hessian[k, j] * value
            energy, moment = 0.0, 0.0
            for k in range(count):
                energy += pull[k] * g[k] * levels[codes[k]]
                moment += linear[k] * g[k] * levels[codes[k]]
        changed = False
        for k in range(count):
            gain = moment * moment / energy if moment > 0 and energy > least_energy else 0.0
            old, new = int(codes[k]), int(codes[k])
            for code in range(max(0, old - 2), min(levels.size, old + 3)):
                step = g[k] * (levels[code] - levels[old])
                e = energy + step * (2 * pull[k] + step * hessian[k, k])
                b = moment + step * linear[k]
                if b > 0 and e > least_energy and b * b / e > gain * (1 + _RISE):
                    gain, new = b * b / e, code
            if new != old:
                changed = True
                step = g[k] * (levels[new] - levels[old])
                energy += step * (2 * pull[k] + step * hessian[k, k])
                moment += step * linear[k]
                codes[k] = new
                for j in range(count):
                    pull[j] += hessian[k, j] * step
        if not changed:
            break
    if moment > 0 and energy > least_energy:
        return codes, moment * moment / energy, moment / energy
    return codes, 0.0, 0.0
