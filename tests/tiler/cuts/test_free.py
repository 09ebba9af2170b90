"""Free cuts: the area bound is reached, with few tiles, for few strips and for many."""

import numpy as np
import pytest

from tests.support.tiler_kit import MLP, check_layout, residual_sizes
from xbcompile.tiler import MatrixShape, plan_layout


def test_strips_of_the_reference_network_share_one_array():
    layout = plan_layout(MLP, 64, 64, cuts="free")
    assert sorted(residual_sizes(layout)) == [(16, 40), (16, 44), (16, 44), (64, 10), (64, 10)]


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([MatrixShape(1, 3, 3)] * 16, 4),  # 9 of 16 cells each: whole, they fill 16 arrays; cut, 9
        ([MatrixShape(1, 5, 5)], 4),
        ([MatrixShape(6, 3, 7), MatrixShape(1, 7, 3)], 4),
        ([MatrixShape(1, 33, 33)] * 3, 32),
    ],
)
def test_area_bound_is_reached(shapes, size):
    layout = plan_layout(shapes, size, size, cuts="free")
    check_layout(layout, shapes)
    assert layout.images == layout.images_lower_bound == layout.area_lower_bound


def test_greedy_cuts_stand_where_they_reach_the_bound():
    shapes = [MatrixShape(1, 8, 8), MatrixShape(1, 2, 4), MatrixShape(1, 2, 4)]
    assert plan_layout(shapes, 4, 4, cuts="free") == plan_layout(shapes, 4, 4)


def test_many_strips_are_repaired_in_chunks():
    sizes = np.random.Generator(np.random.Philox(key=3)).integers(1, 200, (250, 2))
    shapes = [MatrixShape(1, int(k), int(m)) for k, m in sizes]
    greedy, free = (plan_layout(shapes, 64, 64, cuts=cuts, effort=0.1) for cuts in ("greedy", "free"))
    check_layout(free, shapes)
    assert free.area_lower_bound <= free.images < greedy.images
    assert len(free.tiles) < 1.6 * len(greedy.tiles)
    assert free.packing_status == ("optimal" if free.images == free.area_lower_bound else "feasible")
