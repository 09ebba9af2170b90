"""Tiles that may not share rows, or columns, or either: derived counts, and the invariants for any shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.layout_checks import check_tiles
from tests.support.oracle_pack import Piece, fewest_images
from tests.support.tiler_kit import array_sizes, shape_lists
from xbcompile.tiler import MatrixShape, plan_layout
from xbcompile.tiler.effort import Allowance
from xbcompile.tiler.pack.bands import Bin, images_of
from xbcompile.tiler.pack.bounds import bound_kinds, strip_bound
from xbcompile.tiler.pack.diagonal import prove_or_improve_diagonal
from xbcompile.tiler.pack.rules import PackingRules

NO_COLUMNS, NO_ROWS = {"share_columns": False}, {"share_rows": False}
DIAGONAL = {**NO_COLUMNS, **NO_ROWS}


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    shape_lists,
    array_sizes,
    st.sampled_from(["greedy", "balanced", "free"]),
    st.booleans(),
    st.sampled_from([{}, NO_COLUMNS, NO_ROWS, DIAGONAL]),
)
def test_any_layout_is_valid(shapes, size, cuts, fixed_rows, sharing):
    layout = plan_layout(shapes, *size, cuts=cuts, fixed_rows=fixed_rows, effort=0.02, **sharing)
    check_tiles(layout, shapes, **{"share_rows": True, "share_columns": True, **sharing})
    assert layout.images >= strip_bound(shapes, PackingRules(*size, **sharing))


@pytest.mark.parametrize(
    ("shapes", "sharing", "images"),
    [
        # 8 x 8 cells; tiles of 2 x 3: 2 side by side and 4 one above the other
        ([MatrixShape(8, 2, 3)], {}, 1),
        ([MatrixShape(8, 2, 3)], NO_COLUMNS, 4),
        ([MatrixShape(8, 2, 3)], NO_ROWS, 2),
        ([MatrixShape(8, 2, 3)], DIAGONAL, 4),
        # a tile that takes all columns is alone, one that takes all rows is not
        ([MatrixShape(2, 2, 8)], NO_COLUMNS, 2),
        ([MatrixShape(2, 8, 2)], NO_COLUMNS, 1),
        # 5 + 3 rows and 3 + 5 columns meet on the diagonal
        ([MatrixShape(1, 5, 3), MatrixShape(1, 3, 5)], DIAGONAL, 1),
        ([MatrixShape(1, 5, 3), MatrixShape(1, 4, 5)], DIAGONAL, 2),
        # heights 5, 5, 3, 3 and widths 2, 4, 6, 4: only 5 x 2 with 3 x 6 and 5 x 4 with 3 x 4
        ([MatrixShape(1, k, m) for k, m in ((5, 4), (5, 2), (3, 4), (3, 6))], DIAGONAL, 2),
    ],
)
def test_derived_counts(shapes, sharing, images):
    layout = plan_layout(shapes, 8, 8, **sharing)
    assert (layout.images, layout.packing_status) == (images, "optimal")


def test_fixed_rows_on_a_diagonal():
    # staggered at rows 0, 3, 0: the first two share an image, the third starts where the first does
    shapes = [MatrixShape(3, 3, 2)]
    assert plan_layout(shapes, 8, 8, **DIAGONAL).images == 2
    fixed = plan_layout(shapes, 8, 8, fixed_rows=True, **DIAGONAL)
    assert fixed.tiles["row"].tolist() == [0, 3, 0]
    assert fixed.images == 2


@pytest.mark.parametrize(
    ("sharing", "bound"),
    [
        ({}, 3),  # ceil(5 * 9 / 16)
        (NO_COLUMNS, 5),  # 9 columns of 5 inputs in 2 tiles each, 4 columns per image
        (NO_ROWS, 4),  # 5 rows of 9 outputs in 3 tiles each, 4 rows per image
        (DIAGONAL, 5),
    ],
)
def test_bound_for_any_cut(sharing, bound):
    shapes = [MatrixShape(1, 5, 9)]
    assert strip_bound(shapes, PackingRules(4, 4, **sharing)) == bound
    assert plan_layout(shapes, 4, 4, cuts="free", **sharing).images_lower_bound == bound


def test_bound_on_a_diagonal_counts_widths_and_heights():
    for kind in ((-1, 1, 3), (-1, 3, 1)):  # 3 + 3 > 4: each alone
        assert bound_kinds(np.array([kind]), np.array([3]), PackingRules(4, 4, **DIAGONAL)) == 3


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=6), st.booleans()
)
def test_solver_on_a_diagonal_agrees_with_exhaustive_search(tiles, fixed_rows):
    kinds = [(row % (6 - height) if fixed_rows else -1, height, width) for height, width, row in tiles]
    rules = PackingRules(5, 5, fixed_rows=fixed_rows, **DIAGONAL)
    alone = [Bin(1, [(kind, max(row, 0), 0)]) for kind, (row, _, _) in enumerate(kinds)]
    bins, bound = prove_or_improve_diagonal(
        kinds, [1] * len(kinds), rules, bins=alone, bound=1, allowance=Allowance(10.0)
    )
    pieces = [Piece(height, width, 0, row if fixed_rows else None) for row, height, width in kinds]
    assert images_of(bins) == bound == fewest_images(pieces, 5, 5, share=(False, False))
    for b in bins:
        rows = [place + i for kind, place, _ in b.placed for i in range(kinds[kind][1])]
        columns = [place + i for kind, _, place in b.placed for i in range(kinds[kind][2])]
        assert len(set(rows)) == len(rows)
        assert len(set(columns)) == len(columns)
        assert max(rows + columns) < 5


def test_many_tiles_on_a_diagonal():
    sizes = np.random.Generator(np.random.Philox(key=1)).integers(1, 32, (1500, 2))
    shapes = [MatrixShape(1, int(k), int(m)) for k, m in sizes]
    layout = plan_layout(shapes, 64, 64, **DIAGONAL)
    check_tiles(layout, shapes, share_rows=False, share_columns=False)
    assert layout.images <= 1.1 * layout.images_lower_bound
