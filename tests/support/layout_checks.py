"""What must hold of layouts in order of execution and of layouts whose tiles may not share rows or columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbcompile.tiler import Layout, MatrixShape


def check_tiles(layout: Layout, shapes: Sequence[MatrixShape], *, share_rows: bool, share_columns: bool) -> None:
    """Every weight in one tile; what each tile takes of its image is its own; honest bounds."""
    weights = [np.zeros((s.groups, s.inputs, s.outputs), dtype=int) for s in shapes]
    taken = np.zeros((layout.images, layout.rows, layout.columns), dtype=int)
    for layer, group, k0, k1, m0, m1, *_ in layout.tiles.tolist():
        weights[layer][group, k0:k1, m0:m1] += 1
    for _, _, k0, k1, m0, m1, image, row, column in layout.tiles.tolist():
        rows, columns = slice(row, row + k1 - k0), slice(column, column + m1 - m0)
        assert 0 <= rows.start < rows.stop <= layout.rows
        assert 0 <= columns.start < columns.stop <= layout.columns
        own = np.zeros((layout.rows, layout.columns), dtype=bool)
        own[rows, columns] = True
        if not share_rows:
            own[rows] = True
        if not share_columns:
            own[:, columns] = True
        assert not taken[image, rows, columns].any()
        taken[image][own] += 1
    assert all((w == 1).all() for w in weights)
    assert (taken.max(axis=(1, 2)) >= 1).all()  # no image is empty
    assert layout.area_lower_bound <= layout.images_lower_bound <= layout.images
    assert (layout.packing_status == "optimal") == (layout.images == layout.images_lower_bound)


def check_order(layout: Layout) -> None:
    """Each image's layers end before or where the next image's begin."""
    first, last = np.full(layout.images, np.iinfo(np.int64).max), np.full(layout.images, -1)
    np.minimum.at(first, layout.tiles["image"], layout.tiles["layer"])
    np.maximum.at(last, layout.tiles["image"], layout.tiles["layer"])
    assert (last[:-1] <= first[1:]).all()
