"""Packing: exhaustive search agrees on tiny arrays; bounds hold; many tiles are packed well and fast enough."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import check_layout
from xbcompile.ir.schedule import TILE
from xbcompile.tiler import MatrixShape, plan_layout
from xbcompile.tiler.pack.bands import images_of, pack_bands
from xbcompile.tiler.pack.bounds import packing_bound
from xbcompile.tiler.pack.dense import Packer
from xbcompile.tiler.pack.first_fit import pack_fills
from xbcompile.tiler.pack.rules import PackingRules

SIZE = 4
FULL = (1 << SIZE * SIZE) - 1


def places(row, height, width):
    """Occupied cells, as a bit mask, of every place of a rectangle in a SIZE x SIZE array."""
    tops = [row] if row >= 0 else range(SIZE - height + 1)
    shape = sum(((1 << width) - 1) << SIZE * r for r in range(height))
    return [shape << (SIZE * top + left) for top in tops for left in range(SIZE - width + 1)]


def fewest_images(rectangles):
    """Exhaustive: each rectangle in turn in every place of every array."""
    options = [places(*r) for r in rectangles]

    def fits(index, images):
        if index == len(options):
            return True
        for number in dict.fromkeys(images):  # arrays with the same content are alike
            at = images.index(number)
            if any(
                not number & mask and fits(index + 1, (*images[:at], number | mask, *images[at + 1 :]))
                for mask in options[index]
            ):
                return True
        return False

    return next(n for n in range(len(options) + 1) if fits(0, (0,) * n))


@st.composite
def rectangles(draw, *, fixed):
    height, width = draw(st.integers(1, SIZE)), draw(st.integers(1, SIZE))
    row = draw(st.integers(0, SIZE - height)) if fixed else -1
    return row, height, width


def as_tiles(rects):
    """A TILE table with one layer per rectangle."""
    table = [(i, 0, 0, h, 0, w, i, max(r, 0), 0) for i, (r, h, w) in enumerate(rects)]
    return np.array(table, dtype=TILE)


@pytest.mark.parametrize("fixed", [False, True])
def test_exhaustive_search_finds_nothing_better(fixed):
    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(st.lists(rectangles(fixed=fixed), min_size=1, max_size=5))
    def check(rects):
        packing = Packer(as_tiles(rects), PackingRules(SIZE, SIZE, fixed_rows=fixed)).improve(1.0)
        assert packing.images == packing.lower_bound == fewest_images(rects)

    check()


def occupied(bins, kinds, rows, columns):
    """Largest number of rectangles on one cell, and rectangles placed of each kind."""
    placed, worst = np.zeros(len(kinds), dtype=int), 0
    for b in bins:
        cells = np.zeros((rows, columns), dtype=int)
        for kind, row, column in b.placed:
            fixed, height, width = kinds[kind]
            assert fixed in (-1, row)
            assert row + height <= rows
            assert column + width <= columns
            cells[row : row + height, column : column + width] += 1
            placed[kind] += b.copies
        worst = max(worst, cells.max())
    return worst, placed.tolist()


@pytest.mark.parametrize("fixed", [False, True])
def test_heuristics_place_every_rectangle_once(fixed):
    @settings(deadline=None, derandomize=True, max_examples=60)
    @given(
        st.lists(rectangles(fixed=fixed), min_size=1, max_size=8, unique=True),
        st.lists(st.integers(1, 40), min_size=8, max_size=8),
    )
    def check(kinds, counts):
        counts = counts[: len(kinds)]
        bands = pack_bands(kinds, counts, SIZE, SIZE)
        bound = packing_bound(np.array(kinds), np.array(counts), SIZE, SIZE)
        fills = pack_fills(kinds, counts, PackingRules(SIZE, SIZE), best=bands, enough=bound)
        for bins in (bands, fills):
            assert occupied(bins, kinds, SIZE, SIZE) == (1, counts)
        assert bound <= images_of(fills) <= images_of(bands)

    check()


@pytest.mark.parametrize(
    ("kinds", "counts", "bound"),
    [
        ([(-1, 3, 3)], [5], 5),  # too high and too wide to share
        ([(-1, 9, 1)], [64], 10),  # an array of 64 rows holds 7 of them in a column: tested with 64 x 1
        ([(0, 1, 3), (0, 3, 2)], [1, 1], 2),  # they meet in row 0
        ([(-1, 2, 2)], [9], 3),
    ],
)
def test_bounds_see_more_than_the_area(kinds, counts, bound):
    rows, columns = (64, 1) if kinds[0][1] == 9 else (SIZE, SIZE)
    assert packing_bound(np.array(kinds), np.array(counts), rows, columns) == bound


def test_depthwise_kernels_fill_arrays():
    # 9 x 1 kernels: 7 high and 64 wide in an array of 64 x 64
    shapes = [MatrixShape(960, 9, 1)]
    layout = plan_layout(shapes, 64, 64)
    check_layout(layout, shapes)
    assert (layout.images, layout.packing_status) == (3, "optimal")


def test_many_different_tiles_are_packed_close_to_the_bound():
    sizes = np.random.Generator(np.random.Philox(key=0)).integers(1, 64, (5000, 2))
    shapes = [MatrixShape(1, int(k), int(m)) for k, m in sizes]
    layout = plan_layout(shapes, 64, 64)
    check_layout(layout, shapes)
    assert layout.images <= 1.02 * layout.images_lower_bound


def test_no_solver_still_gives_an_honest_status():
    # 16 + 16 rows over the full width and two tiles over the full height: only the solver proves that they need two
    strips = [MatrixShape(1, 16, 128), MatrixShape(1, 128, 10)]
    proved, unproved = (plan_layout(strips, 64, 64, effort=effort) for effort in (1.0, 0.0))
    assert (proved.images, proved.images_lower_bound, proved.packing_status) == (2, 2, "optimal")
    assert (unproved.images, unproved.images_lower_bound, unproved.packing_status) == (2, 1, "feasible")
