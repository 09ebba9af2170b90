"""Lower bounds on the number of arrays that hold given rectangles.

The bounds are dual feasible functions: a function f of sizes, such that sizes that fit side by side keep fitting. For
such f on widths and g on heights, sum f(w) g(h) is at most f(columns) g(rows) in one array. S. P. Fekete and
J. Schepers, "A general framework for bounds for higher-dimensional orthogonal packing problems", Math. Methods of OR 60
(2004) 311-329. With thresholds above one half they count tiles that are too wide and too tall to share an array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.shapes import MatrixShape

_MAX_VALUES = 24
_STEPS = (1, 2, 3, 4, 5)
_MAX_SCALE = 1 << 20  # largest value of a dual feasible function: sums of products stay within int64
_SCALES = 6  # dual feasible functions per direction and family where they are kept for many questions
_ROW_LINES = 24  # rows in which widths meet that are kept for many questions


def area_bound(shapes: Sequence[MatrixShape], rows: int, columns: int) -> int:
    """Images that the weights alone need, whatever the cuts: ceil(weights / (rows * columns))."""
    return -(-sum(shape.weights for shape in shapes) // (rows * columns))


def strip_bound(shapes: Sequence[MatrixShape], rules: PackingRules) -> int:
    """Images that matrices need whatever the cuts, where tiles may not share columns, or rows, or either.

    A column of a matrix of K inputs is in at least ceil(K / rows) tiles, each of which takes a column of its image for
    itself; likewise the rows.
    """
    columns = sum(s.groups * s.outputs * -(-s.inputs // rules.rows) for s in shapes)
    rows = sum(s.groups * s.inputs * -(-s.outputs // rules.columns) for s in shapes)
    best = area_bound(shapes, rules.rows, rules.columns)
    if not rules.share_columns:
        best = max(best, -(-columns // rules.columns))
    return best if rules.share_rows else max(best, -(-rows // rules.rows))


def bound_kinds(kinds: np.ndarray, counts: np.ndarray, rules: PackingRules) -> int:
    """Images that footprints need under the rules: `packing_bound`, on a diagonal of full heights and of full widths."""
    return max(packing_bound(view, counts, rules.rows, rules.columns) for view in _views(kinds, rules))


def _views(kinds: np.ndarray, rules: PackingRules) -> list[np.ndarray]:
    """Rectangles that must not overlap; on a diagonal there are two such views of the tiles."""
    if not rules.diagonal:
        return [kinds]
    columns, rows = kinds.copy(), kinds.copy()
    columns[:, 0], columns[:, 1] = -1, rules.rows
    rows[:, 2] = rules.columns
    return [columns, rows]


def conservative_scales(kinds: np.ndarray, rules: PackingRules) -> tuple[np.ndarray, np.ndarray]:
    """Weights of rectangles of which one array never holds more than its capacity.

    Args:
        kinds: int64 [kinds, 3], footprints: row (-1 when free to move), height, width.
        rules: array and sharing.

    Returns:
        int64 [kinds, scales] and int64 [scales], the capacities. Rectangles need at least ceil(sum of weights / capacity)
        images for every scale; that number never falls when rectangles are added, and is subadditive.
    """
    values: list[np.ndarray] = []
    caps: list[np.ndarray] = []
    for view in _views(kinds, rules):
        row, height, width = view.T
        of_width, width_caps = _dual_feasible(width, rules.columns, _SCALES)
        of_height, height_caps = _dual_feasible(height, rules.rows, _SCALES)
        values.append((of_width[:, None, :] * of_height[None, :, :]).reshape(-1, len(kinds)))
        caps.append((width_caps[:, None] * height_caps[None, :]).reshape(-1))
        for start in _thin(np.unique(row[row >= 0]), _ROW_LINES):
            values.append(of_width * ((row >= 0) & (row <= start) & (start < row + height)))
            caps.append(width_caps)
    return np.concatenate(values).T.copy(), np.concatenate(caps)


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


def _thin(values: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the values, evenly chosen."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def _dual_feasible(sizes: np.ndarray, capacity: int, most: int = _MAX_VALUES) -> tuple[np.ndarray, np.ndarray]:
    """Values of several dual feasible functions, int64 [functions, sizes], and their values at `capacity`."""
    small = np.unique(sizes[sizes <= capacity // 2])
    complements = capacity - np.unique(sizes[sizes > capacity // 2]) + 1
    thresholds = _thin(np.unique(np.concatenate([small, complements[complements <= capacity // 2]])), most)
    steps_of = np.unique(np.concatenate([_thin(np.unique(capacity // sizes), most), _STEPS]))
    steps_of = steps_of[steps_of <= max(_STEPS[-1], _MAX_SCALE // capacity)]
    values, caps = [sizes], [capacity]
    for threshold in thresholds:
        values.append(np.where(sizes > capacity - threshold, capacity, np.where(sizes < threshold, 0, sizes)))
        caps.append(capacity)
    for steps in steps_of:
        scaled = (steps + 1) * sizes
        values.append(np.where(scaled % capacity == 0, steps * sizes, scaled // capacity * capacity))
        caps.append(steps * capacity)
    return np.array(values, dtype=np.int64), np.array(caps, dtype=np.int64)
