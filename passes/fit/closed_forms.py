"""Globally optimal least-squares codes on two or three levels about 0, without offset: closed forms.

Every column of `weights` is one problem of its own, as in `least_squares.py`::

    w[k, m] ~= g[k, m] * scale[m] * level[q[k, m]]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbcompile.passes.fit.checks import Codes, Floats, checked_row_weight, checked_weights

_SORTED_WEIGHTS = 1 << 16  # at a time: they stay in cache


def fit_binary(weights: npt.ArrayLike, row_weight: npt.ArrayLike | None = None) -> tuple[Codes, Floats]:
    """Codes on the levels (-1, +1) without offset that minimise the squared error of each column.

    Args:
        weights: real [inputs, outputs], finite.
        row_weight: real [inputs, outputs], positive factor of each cell; None means 1.

    Returns:
        codes uint8 [inputs, outputs], 1 where the weight is >= 0; scale float64 [outputs] in weight units,
        `sum(g |w|) / sum(g^2)`, so 0 for a column of zeros.

    Raises:
        ValueError: a shape, value or dtype outside of the above.

    Source: Rastegari et al., "XNOR-Net", ECCV 2016, section 3.1, with the factor g added.
    """
    w = checked_weights(weights)
    g = np.ones_like(w) if row_weight is None else checked_row_weight(row_weight, w.shape)
    g_top = g.max(axis=0)
    g = g / g_top
    scale = (g * np.abs(w)).sum(axis=0) / np.square(g).sum(axis=0) / g_top
    return (w >= 0).astype(np.uint8), scale


def fit_ternary(weights: npt.ArrayLike, row_weight: npt.ArrayLike | None = None) -> tuple[Codes, Floats]:
    """Codes on the levels (-1, 0, +1) without offset that minimise the squared error of each column.

    With a support S of nonzero codes the best scale is `sum_S g|w| / sum_S g^2` and lowers the squared error by
    `(sum_S g|w|)^2 / sum_S g^2`. For a given scale s a weight gains by being in S when `|w|/g > s/2`, so the best
    support is a prefix of the weights sorted by `|w|/g`: all of them are tried.

    Args:
        weights: real [inputs, outputs], finite.
        row_weight: real [inputs, outputs], positive factor of each cell; None means 1.

    Returns:
        codes uint8 [inputs, outputs] in {0, 1, 2}; scale float64 [outputs] in weight units. A column of zeros has
        scale 0 and all codes 1.

    Raises:
        ValueError: a shape, value or dtype outside of the above.
    """
    w = checked_weights(weights)
    g = None if row_weight is None else checked_row_weight(row_weight, w.shape)
    columns = np.ascontiguousarray(w.T)
    w_top = np.abs(columns).max(axis=1)
    w_top[w_top == 0] = 1.0  # a column of zeros stays one
    g_top = 1.0 if g is None else g.max(axis=0)
    row_weights = None if g is None or (g == g_top).all() else np.ascontiguousarray((g / g_top).T)
    codes, scale = np.empty(columns.shape, np.uint8), np.empty(w.shape[1])
    step = max(1, _SORTED_WEIGHTS // w.shape[0])
    for first in range(0, w.shape[1], step):
        part = slice(first, first + step)
        size = np.abs(columns[part]) / w_top[part, np.newaxis]
        in_support, scale[part] = _best_largest(size) if row_weights is None else _best_prefix(size, row_weights[part])
        sign = (columns[part] > 0).view(np.int8) - (columns[part] < 0).view(np.int8)
        codes[part] = 1 + in_support.view(np.int8) * sign
    return np.ascontiguousarray(codes.T), scale * w_top / g_top


def _best_largest(size: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Support bool [columns, n] and scale of the best prefix where all row weights are 1: no permutation is needed.

    Args:
        size: float64 [columns, n], not negative.
    """
    falling = np.sort(size, axis=1)[:, ::-1]
    sums = np.cumsum(falling, axis=1)
    last = np.argmax(np.square(sums) / np.arange(1.0, size.shape[1] + 1), axis=1)[:, np.newaxis]
    least = np.take_along_axis(falling, last, axis=1)
    in_support = size >= least  # equal ones are all in it or none: while they are added the gain is convex
    return in_support, (np.take_along_axis(sums, last, axis=1) / (last + 1))[:, 0]


def _best_prefix(size: Floats, g: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Support bool [columns, n] and scale of the best prefix by size / g; of equal ones the first come first.

    Args:
        size: float64 [columns, n], not negative.
        g: float64 [columns, n], positive.
    """
    rising = -size / g
    order = np.argsort(rising, axis=1)
    rising_now = np.take_along_axis(rising, order, axis=1)
    tied = (rising_now[:, 1:] == rising_now[:, :-1]).any(axis=1)
    order[tied] = np.argsort(rising[tied], axis=1, kind="stable")  # ten times slower
    sum_gw = np.cumsum(np.take_along_axis(g * size, order, axis=1), axis=1)
    sum_gg = np.cumsum(np.take_along_axis(g * g, order, axis=1), axis=1)
    last = np.argmax(np.square(sum_gw) / sum_gg, axis=1)[:, np.newaxis]
    in_support = np.empty(size.shape, dtype=np.bool_)
    np.put_along_axis(in_support, order, np.arange(size.shape[1]) <= last, axis=1)
    return in_support, (np.take_along_axis(sum_gw, last, axis=1) / np.take_along_axis(sum_gg, last, axis=1))[:, 0]
