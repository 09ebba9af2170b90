"""Lower bounds on the number of arrays that hold given rectangles.

The bounds are dual feasible functions: a function f of sizes, such that sizes that fit side by side keep fitting. For
such f on widths and g on heights, sum f(w) g(h) is at most f(columns) g(rows) in one array. S. P. Fekete and
J. Schepers, "A general framework for bounds for higher-dimensional orthogonal packing problems", Math. Methods of OR 60
(2004) 311-329. With thresholds above one half they count tiles that are too wide and too tall to share an array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbcompile.tiler.cut import MatrixShape

_MAX_VALUES = 24
_STEPS = (1, 2, 3, 4, 5)


def area_bound(shapes: Sequence[MatrixShape], rows: int, columns: int) -> int:
    """Images that the weights alone need, whatever the cuts: ceil(weights / (rows * columns))."""
    return -(-sum(shape.weights for shape in shapes) // (rows * columns))


def packing_bound(kinds: np.ndarray, counts: np.ndarray, rows: int, columns: int) -> int:
    """Images that rectangles need, each kept whole.

    Args:
        kinds: int64 [kinds, 3]: row (-1 when free to move), height, width.
        counts: int64 [kinds], rectangles of each kind.
        rows: rows of an array.
        columns: columns of an array.

    Returns:
        The best of the area bound, the products of dual feasible functions, and for fixed rows the widths that meet in
        one row.
    """
    if not len(kinds):
        return 0
    row, height, width = kinds.T
    of_width, width_caps = _dual_feasible(width, columns)
    of_height, height_caps = _dual_feasible(height, rows)
    weighted = of_width * counts
    best = _max_ratio(weighted @ of_height.T, width_caps[:, None] * height_caps[None, :])
    starts = np.unique(row[row >= 0])
    for start in starts:
        meets = (row >= 0) & (row <= start) & (start < row + height)
        best = max(best, _max_ratio(weighted[:, meets].sum(axis=1), width_caps))
    return best


def _max_ratio(totals: np.ndarray, caps: np.ndarray) -> int:
    return int((-(-totals // caps)).max())


def _thin(values: np.ndarray) -> np.ndarray:
    """At most `_MAX_VALUES` of the values, evenly chosen."""
    if len(values) <= _MAX_VALUES:
        return values
    return values[np.linspace(0, len(values) - 1, _MAX_VALUES).astype(np.int64)]


def _dual_feasible(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of several dual feasible functions, int64 [functions, sizes], and their values at `capacity`."""
    small = np.unique(sizes[sizes <= capacity // 2])
    complements = capacity - np.unique(sizes[sizes > capacity // 2]) + 1
    thresholds = _thin(np.unique(np.concatenate([small, complements[complements <= capacity // 2]])))
    steps_of = np.unique(np.concatenate([_thin(np.unique(capacity // sizes)), _STEPS]))
    values, caps = [sizes], [capacity]
    for threshold in thresholds:
        values.append(np.where(sizes > capacity - threshold, capacity, np.where(sizes < threshold, 0, sizes)))
        caps.append(capacity)
    for steps in steps_of:
        scaled = (steps + 1) * sizes
        values.append(np.where(scaled % capacity == 0, steps * sizes, scaled // capacity * capacity))
        caps.append(steps * capacity)
    return np.array(values, dtype=np.int64), np.array(caps, dtype=np.int64)
