"""Globally optimal least-squares codes for columns of weights.

Every column of `weights` is one problem of its own, under the weight code of an analogue array::

    w[k, m] ~= g[k, m] * scale[m] * level[q[k, m]] + offset[m]

    [8.57, 8.58, 11.97, 12.06]  ->  codes [0, 0, 3, 3], levels at 8.575, 9.722, 10.868, 12.015

Two and three levels about 0 have closed forms (`closed_forms.py`). Alternating between codes and (scale, offset), as Lloyd's
algorithm does, stops in local optima, so `fit_levels` searches the plane of the two numbers by branch and bound (Land and Doig,
Econometrica 28, 1960) and proves a lower bound. Two levels, and the single unknown under row weights, are scanned
completely instead.

How a box of positions (a, b) of the first and last level is bounded from below. Level j lies at
`p_j = (1 - t_j) a + t_j b`, the threshold between levels j and j + 1 at their midpoint `m_j`. Outside the strips that
the thresholds sweep over the box every weight keeps its level: a convex quadratic of (a, b), by prefix sums over the
sorted weights. A weight in one strip costs `min((v - p_j)^2, (v - p_j+1)^2)`, which equals the mean of the two squares
less `(p_j+1 - p_j) |v - m_j|`; the subtracted sum is convex in `m_j`, hence below its chord over the strip: again a
quadratic. A weight in several strips costs at least 0. The minimum of the sum over the box is the bound; its error
falls with the square of the box, and a box costs O(levels) whatever the number of weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xbcompile.deferred import njit
from xbcompile.passes.fit.checks import Codes, Floats, checked_row_weight, checked_weights, real

MAX_LEVELS = 256
DEFAULT_MAX_BOXES = 100_000

_ROUNDING = 1e-13  # differences of squared error below this share of sum((w - mean)^2) are float64 rounding
_EQUIDISTANT = 1e-14  # how far a level of an equidistant table may be from its place, as a share of the range
_NEAREST = 1e-6  # three levels closer than this share of the range could put the others too far out to search
_LLOYD_STEPS = 100

_Box = tuple[float, float, float, float]  # a from, a to, b from, b to
_Form = tuple[float, float, float, float, float, float]  # aa, ab, bb, a_sum, b_sum, rest: see _put
_ColumnFit = tuple[Codes, float, float, float, float]  # the fields of LevelsFit

_compiled: Callable[..., Any] = njit(cache=True)


@dataclass(frozen=True, eq=False)
class LevelsFit:
    """Codes of a batch of columns, and what is proven about them.

    Attributes:
        codes: uint8 [inputs, outputs], index into the level table.
        scale: float64 [outputs], weight units per level unit, at least 0.
        offset: float64 [outputs], weight units; 0 where the row weights of the column differ.
        lower_bound: float64 [outputs], weight units squared. No scale >= 0, offset and codes reach a squared error
            below this, up to float64 rounding (1e-13 of the column's sum of squares).
        squared_error: float64 [outputs], weight units squared, summed over the column, of this very fit.
    """

    codes: Codes
    scale: Floats
    offset: Floats
    lower_bound: Floats
    squared_error: Floats


def fit_levels(
    weights: npt.ArrayLike,
    levels: npt.ArrayLike,
    row_weight: npt.ArrayLike | None = None,
    relative_gap: float = 1e-9,
    max_boxes: int = DEFAULT_MAX_BOXES,
) -> LevelsFit:
    """Codes on a level table, scale >= 0 and offset that minimise the squared error of each column.

    Where the row weights of a column differ the offset is 0, because an offset is added digitally as
    `offset * sum(x)` and never passes through the cells that g multiplies; the table must then be symmetric, so that
    no offset is needed. In a column whose row weights are all alike they only divide the scale.

    Where a fit of equal error can be written with a smaller scale and codes further out (two distinct values on any
    table; a multiple of the codes on equidistant levels), it is: few distinct values lie on the outermost levels. A
    constant column has scale 0 and all codes 0 (with an offset).

    Args:
        weights: real [inputs, outputs], finite.
        levels: real [L], strictly increasing, finite, 2 <= L <= 256; in level units, not necessarily equidistant.
        row_weight: real [inputs, outputs], positive factor of each cell; None means 1.
        relative_gap: the search of a column ends when its squared error is proven to exceed the optimum by no more
            than this share of it (plus rounding, 1e-13 of the column's sum of squares about its mean).
        max_boxes: bound on the work per column: number of boxes whose lower bound is computed. When it is reached,
            the best fit found is returned and `lower_bound` tells how much it may lack. A column of normal weights on
            equidistant levels takes about 500 boxes for 4 levels, 2,000 for 16 and 30,000 to 400,000 for 256.

    Returns:
        A `LevelsFit`.

    Raises:
        ValueError: a shape, value or dtype outside of the above.
    """
    w = checked_weights(weights)
    g = np.ones_like(w) if row_weight is None else checked_row_weight(row_weight, w.shape)
    table = _checked_levels(levels)
    if not (np.isfinite(relative_gap) and 0 <= relative_gap < 1):
        raise ValueError(f"relative_gap is {relative_gap}; allowed are 0 <= relative_gap < 1")
    if max_boxes < 1:
        raise ValueError(f"max_boxes is {max_boxes}; at least 1 box is needed")
    uniform = (g == g[0]).all(axis=0)
    if not uniform.all() and not np.allclose(table, -table[::-1], rtol=0, atol=1e-12 * (table[-1] - table[0])):
        raise ValueError(
            f"the level table must be symmetric about 0 where row weights differ, found {table[0]} .. {table[-1]}"
            f" for column {int(np.argmin(uniform))}; centre the levels or drop row_weight"
        )
    plan = _search_plan(table)
    fits = [
        _fit_with_offset(w[:, m], float(g[0, m]), table, plan, relative_gap, max_boxes)
        if uniform[m]
        else _fit_without_offset(w[:, m], g[:, m], table)
        for m in range(w.shape[1])
    ]
    scale, offset, bound, error = (np.array([fit[i] for fit in fits]) for i in range(1, 5))
    return LevelsFit(np.stack([fit[0] for fit in fits], axis=1), scale, offset, np.minimum(bound, error), error)


class _SearchPlan(NamedTuple):
    """What a level table says about where an optimum can lie, in units of the range of the weights."""

    place: Floats  # t_j, from 0 for the first level to 1 for the last
    threshold: Floats  # place of the midpoints of neighbouring levels
    equidistant: bool
    below: float  # how far the first level can lie below the smallest weight
    above: float  # how far the last level can lie above the greatest weight
    span: float  # how far the first and last level can lie apart


class _Column(NamedTuple):
    """Weights of mean 0 and range 1, with what makes any range of them cost O(1)."""

    v: Floats  # rising
    sum_v: Floats  # [n + 1], sums of the first k weights
    sum_vv: Floats  # [n + 1], sums of their squares


def _checked_levels(levels: npt.ArrayLike) -> Floats:
    table = real("levels", levels)
    if table.ndim != 1 or not 2 <= table.size <= MAX_LEVELS:
        raise ValueError(f"levels must be a list of 2 to {MAX_LEVELS} values, found shape {table.shape}")
    step = np.diff(table)
    if step.min() <= 0:
        at = int(np.argmin(step))
        raise ValueError(f"levels must increase strictly, found {table[at]} then {table[at + 1]} at index {at + 1}")
    near = np.flatnonzero(table[2:] - table[:-2] < _NEAREST * (table[-1] - table[0]))
    if near.size:
        at = int(near[0])
        raise ValueError(f"levels {at} to {at + 2} lie within {_NEAREST} of the table's range: merge them")
    return table


def _search_plan(levels: Floats) -> _SearchPlan:
    """Where an optimum must lie, from what holds at one (weights span 1; lowest and highest level in use: i < j).

    Each level in use is nearest to its weights, so `p_j-1 + p_j - p_i - p_i+1 <= 2`, and the mean of the levels in
    use is that of the weights. If i and j are the only levels in use, the first and last do as well. On equidistant
    levels, in addition, i = 0 does as well, and so does any multiple of the codes that the table can hold: at least
    half of the table is in use.
    """
    count = levels.size
    place = (levels - levels[0]) / (levels[-1] - levels[0])
    threshold = (place[:-1] + place[1:]) / 2
    even = np.arange(count) / (count - 1)
    if np.abs(place - even).max() <= _EQUIDISTANT:
        used = (count - 1) // 2 + 1
        step = 1.0 / max(1, used - 1)
        return _SearchPlan(even, threshold, True, step / 2, step * (count - used - 0.5), step * (count - 1))
    span = 2 / float((place[2:] - place[:-2]).min())
    return _SearchPlan(place, threshold, False, 1 + span * place[-2], 1 + span * (1 - place[1]), span)


def _fit_with_offset(
    w: Floats, g: float, levels: Floats, plan: _SearchPlan, relative_gap: float, max_boxes: int
) -> _ColumnFit:
    if (w == w[0]).all():
        return np.zeros(w.size, dtype=np.uint8), 0.0, w[0], 0.0, 0.0
    top = _power_of_two(np.abs(w).max())
    x = w / top
    width = x.max() - x.min()
    v = (x - x.mean()) / width
    rising = np.sort(v)
    column = _Column(rising, _prefix_sums(rising), _prefix_sums(rising * rising))
    if levels.size == 2:
        first, last, bound = _best_split(column)
    else:
        first, last, bound = _branch_and_bound(column, plan, relative_gap, max_boxes)
    codes = _outermost(np.searchsorted(first + (last - first) * plan.threshold, v, side="right"), plan)
    used = levels[codes]
    from_mean = used - used.mean()
    slope = (from_mean * (x - x.mean())).sum() / np.square(from_mean).sum()
    offset = top * (x.mean() - slope * used.mean())
    error = np.square(w - (top * slope * used + offset)).sum()
    return codes, top * slope / g, offset, bound * (width * top) ** 2, error


def _outermost(codes: npt.NDArray[np.int64], plan: _SearchPlan) -> Codes:
    """Codes of the same fit that lie further out, where the table has such."""
    used, end = np.unique(codes), plan.threshold.size
    if used.size == 2:
        codes = np.where(codes == used[0], 0, end)
    elif plan.equidistant:
        codes = (codes - used[0]) * (end // (used[-1] - used[0]))
    return codes.astype(np.uint8)


def _power_of_two(x: float) -> float:
    """The power of two at or below x: dividing by it keeps squares in range without rounding."""
    return float(np.ldexp(1.0, np.frexp(x)[1] - 1))


def _fit_without_offset(w: Floats, g: Floats, levels: Floats) -> _ColumnFit:
    """Scan of all codes that any scale can give, under row weights; the table is symmetric, so sizes suffice."""
    middle = levels.size // 2
    half = ((levels - levels[::-1]) / 2)[middle:]
    if not w.any():
        return np.full(w.size, middle, dtype=np.uint8), 0.0, 0.0, 0.0, 0.0
    top, g_top = _power_of_two(np.abs(w).max()), _power_of_two(g.max())
    size, g1 = np.abs(w) / top, g / g_top
    ratio = size / g1
    order = np.argsort(-ratio, kind="stable")
    best = _scan_scales(ratio[order], (size * g1)[order], np.square(g1)[order], half)
    at = np.searchsorted(best * (half[:-1] + half[1:]) / 2, ratio)
    codes = np.where(w >= 0, middle + at, levels.size - 1 - middle - at).astype(np.uint8)
    scale = top / g_top * (size * g1 * half[at]).sum() / np.square(g1 * half[at]).sum()
    error = np.square(w - g * scale * levels[codes]).sum()
    return codes, scale, 0.0, error, error


@_compiled
def _scan_scales(ratio: Floats, gw: Floats, gg: Floats, half: Floats) -> float:
    """Best scale for weights in falling order of ratio = |w|/g: as the scale falls, weights climb the half table."""
    moment, power = half[0] * gw.sum(), half[0] ** 2 * gg.sum()
    gain, best = (moment**2 / power, moment / power) if power > 0 else (0.0, 0.0)
    # (-scale at which weight k climbs from half[j - 1], j, k), falling scales first: a heap as it stands
    heads = [(-2 * ratio[0] / (half[j - 1] + half[j]), j, 0) for j in range(1, half.size)]
    while len(heads) > 0:
        _, j, k = heappop(heads)
        moment += gw[k] * (half[j] - half[j - 1])
        power += gg[k] * (half[j] ** 2 - half[j - 1] ** 2)
        value = moment**2 / power
        if value >= gain * (1 - _ROUNDING):  # of scales that are equal up to rounding, the smaller
            best = moment / power
        gain = max(gain, value)
        if k + 1 < ratio.size and ratio[k + 1] > 0:
            heappush(heads, (-2 * ratio[k + 1] / (half[j - 1] + half[j]), j, k + 1))
    return best


@_compiled
def _prefix_sums(values: Floats) -> Floats:
    """Sums of the first k values, [n + 1], with Knuth's two-sum compensation as differences of them are taken."""
    sums = np.zeros(values.size + 1)
    total, lost = 0.0, 0.0
    for k in range(values.size):
        new = total + values[k]
        part = new - total
        lost += (total - (new - part)) + (values[k] - part)
        total = new
        sums[k + 1] = total + lost
    return sums


def _best_split(column: _Column) -> tuple[float, float, float]:
    """(a, b, squared error) of the best two levels: the means of the halves of the best split."""
    n, left = column.v.size, column.sum_v[1:-1]
    k, right = np.arange(1, n), column.sum_v[-1] - left
    gain = left**2 / k + right**2 / (n - k)
    i = int(np.argmax(gain))
    return left[i] / k[i], right[i] / (n - k[i]), max(0.0, column.sum_vv[n] - gain[i])


@_compiled
def _refit(column: _Column, plan: _SearchPlan, a: float, b: float) -> tuple[float, float, float]:
    """(squared error, a, b) of the best fit with the codes that (a, b) gives."""
    n, sums = column.v.size, column.sum_v
    origin, tc, ttc, tv = 0.0, 0.0, 0.0, 0.0
    start = 0
    for j in range(plan.place.size):
        stop = np.searchsorted(column.v, a + (b - a) * plan.threshold[j]) if j < plan.threshold.size else n
        if start == 0:
            origin = plan.place[j]  # the first level in use: levels may lie close together, far from 0
        t = plan.place[j] - origin
        tc += t * (stop - start)
        ttc += t * t * (stop - start)
        tv += t * (sums[stop] - sums[start])
        start = stop
    mean = sums[n] / n
    spread, covariance = ttc - tc * tc / n, tv - tc * mean
    slope = covariance / spread if spread > 0 else 0.0  # one level for all weights
    a = mean - slope * (origin + tc / n)
    return column.sum_vv[n] - n * mean * mean - slope * covariance, a, a + slope


@_compiled
def _lloyd(column: _Column, plan: _SearchPlan, a: float, b: float) -> tuple[float, float, float]:
    """Alternate between codes and refit until the squared error stops falling."""
    best = _refit(column, plan, a, b)
    for _ in range(_LLOYD_STEPS):
        new = _refit(column, plan, best[1], best[2])
        if new[0] >= best[0]:
            break
        best = new
    return best


@_compiled
def _put(form: _Form, t: float, p: float, count: float, total: float, square: float) -> _Form:
    """Add the quadratic `sum (v - p - (1 - t) a - t b)^2` over weights of that count, sum and sum of squares.

    A form is `aa a^2 + 2 ab a b + bb b^2 - 2 (a_sum a + b_sum b) + rest`, with a and b from the centre of the box.
    """
    aa, ab, bb, a_sum, b_sum, rest = form
    c, moment = 1 - t, total - count * p
    aa, ab, bb = aa + count * c * c, ab + count * c * t, bb + count * t * t
    return aa, ab, bb, a_sum + moment * c, b_sum + moment * t, rest + square - p * (total + moment)


@_compiled
def _least_on_box(form: _Form, a1: float, b1: float) -> tuple[float, float, float]:
    """(value, a, b) of the minimum of a convex form over |a| <= a1, |b| <= b1."""
    aa, ab, bb, a_sum, b_sum, rest = form
    det = aa * bb - ab * ab
    if det > 1e-12 * aa * bb:
        a, b = (bb * a_sum - ab * b_sum) / det, (aa * b_sum - ab * a_sum) / det
        if abs(a) <= a1 and abs(b) <= b1:
            return rest - (a_sum * a + b_sum * b), a, b
    least, at_a, at_b = np.inf, 0.0, 0.0
    for side in (-1.0, 1.0):  # otherwise the minimum lies on the border
        a = side * a1
        b = 0.0 if bb <= 0 else min(max((b_sum - ab * a) / bb, -b1), b1)
        for _ in range(2):
            value = aa * a * a + 2 * ab * a * b + bb * b * b - 2 * (a_sum * a + b_sum * b)
            if value < least:
                least, at_a, at_b = value, a, b
            b = side * b1
            a = 0.0 if aa <= 0 else min(max((a_sum - ab * b) / aa, -a1), a1)
    return rest + least, at_a, at_b


@_compiled
def _bound(column: _Column, plan: _SearchPlan, box: _Box) -> tuple[float, float, float]:
    """(lower bound, a, b where it is attained) of the squared error over a box; see the head of this file."""
    a0, a1, b0, b1 = box
    a, b = (a0 + a1) / 2, (b0 + b1) / 2
    sums, squares, place, threshold = column.sum_v, column.sum_vv, plan.place, plan.threshold
    form = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    strip, start, stop, single = 0, 0, 0, False  # the last strip met, or several merged: weights start .. stop
    for j in range(place.size):
        low = high = column.v.size
        if j < threshold.size:
            low = np.searchsorted(column.v, a0 + (b0 - a0) * threshold[j])
            high = np.searchsorted(column.v, a1 + (b1 - a1) * threshold[j])
            if low < stop:
                stop, single = high, False
                continue
        if single and stop > start:
            u, count = threshold[strip], stop - start
            total, square = sums[stop] - sums[start], squares[stop] - squares[start]
            m0, m1 = a0 + (b0 - a0) * u, a1 + (b1 - a1) * u
            at_m0, at_m1 = total - count * m0, count * m1 - total  # sum of |v - m| at both ends of the strip
            for i in (strip, strip + 1):
                form = _put(form, place[i], a + (b - a) * place[i], count / 2, total / 2, square / 2)
            gap = (place[strip + 1] - place[strip]) * (b1 - a0)
            slope = (at_m1 - at_m0) / (m1 - m0)
            form = _put(form, u, 0.0, 0.0, gap * slope / 2, -gap * (at_m0 + at_m1) / 2)  # less gap times the chord
        t, total, square = place[j], sums[low] - sums[stop], squares[low] - squares[stop]
        form = _put(form, t, a + (b - a) * t, low - stop, total, square)
        strip, start, stop, single = j, low, high, True
    least, from_a, from_b = _least_on_box(form, (a1 - a0) / 2, (b1 - b0) / 2)
    return max(0.0, least), a + from_a, b + from_b


@_compiled
def _branch_and_bound(
    column: _Column, plan: _SearchPlan, relative_gap: float, max_boxes: int
) -> tuple[float, float, float]:
    """(a, b, lower bound): best positions of the first and last level found, best-first over boxes of both."""
    v, n = column.v, column.v.size
    mean = column.sum_v[n] / n
    slack = _ROUNDING * column.sum_vv[n]
    best = _lloyd(column, plan, v[0], v[-1])
    bound, boxes = np.inf, 0
    heap = [(0.0, v[0] - plan.below, mean, mean, v[-1] + plan.above)]
    while len(heap) > 0:
        if heap[0][0] >= best[0] * (1 - relative_gap) - slack or boxes >= max_boxes:
            bound = min(bound, heap[0][0])
            break
        parent, a0, a1, b0, b1 = heappop(heap)
        a, b = (a0 + a1) / 2, (b0 + b1) / 2
        halves = ((a0, a1, b0, b), (a0, a1, b, b1))
        if a1 - a0 >= b1 - b0:
            halves = ((a0, a, b0, b1), (a, a1, b0, b1))
        for box in halves:
            if box[2] - box[1] > plan.span:
                continue
            boxes += 1
            lower, a, b = _bound(column, plan, box)
            lower = max(lower, parent)
            if lower < best[0] * (1 - relative_gap) - slack:
                new = _refit(column, plan, a, b)
                if new[0] < best[0] - slack:
                    best = _lloyd(column, plan, new[1], new[2])
                heappush(heap, (lower, box[0], box[1], box[2], box[3]))
            else:
                bound = min(bound, lower)
    return best[1], best[2], bound
