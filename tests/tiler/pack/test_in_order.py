"""Packing that follows execution: order, optimality on small instances, published networks, one write per image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.layout_checks import check_order, check_tiles
from tests.support.oracle_pack import cut, fewest_images
from tests.support.tiler_kit import LENET_5, MLP, MLP_200, array_sizes, array_spec, shape_lists, uses_of
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.cuts.blocks import cut_greedy
from xbcompile.tiler.pack import contents as pack_contents
from xbcompile.tiler.pack import order_search
from xbcompile.tiler.pack.contents import RelaxedOracle
from xbcompile.tiler.pack.in_order import OrderedPacker, number_in_order
from xbcompile.tiler.pack.order_search import OrderSearch
from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.shapes import reads_of

RESNET_8 = [(27, 16), (144, 16), (144, 16), (144, 32), (144, 32), (288, 32), (288, 64), (288, 64), (576, 64), (64, 10)]
AUTOENCODER = [(640, 128), *[(128, 128)] * 3, (128, 8), (8, 128), *[(128, 128)] * 3, (128, 640)]
DS_CNN = [(40, 64), *[(64, 64)] * 4, (64, 12)]
MOBILENET_V2 = [
    *[(27, 32), (32, 16), (16, 96), (96, 24), (24, 144), (144, 24), (24, 144), (144, 32)],
    *[(32, 192), (192, 32)] * 2,
    *[(32, 192), (192, 64)],
    *[(64, 384), (384, 64)] * 3,
    *[(64, 384), (384, 96)],
    *[(96, 576), (576, 96)] * 2,
    *[(96, 576), (576, 160)],
    *[(160, 960), (960, 160)] * 2,
    *[(160, 960), (960, 320), (320, 1280), (1280, 10)],
]
CUTS = st.sampled_from(["greedy", "balanced", "free"])
small_shapes = st.lists(st.builds(MatrixShape, st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)), max_size=4)


def one_group(sizes):
    return [MatrixShape(1, *size) for size in sizes]


@settings(deadline=None, derandomize=True, max_examples=80)
@given(shape_lists, array_sizes, CUTS, st.booleans(), st.booleans(), st.booleans())
def test_any_layout_in_order_is_valid(shapes, size, cuts, fixed_rows, share_rows, share_columns):
    sharing = {"share_rows": share_rows, "share_columns": share_columns}
    layout = plan_layout(shapes, *size, cuts=cuts, fixed_rows=fixed_rows, in_order=True, effort=0.02, **sharing)
    check_tiles(layout, shapes, **sharing)
    check_order(layout)
    if fixed_rows and cuts != "free":
        cut_alone = plan_layout(shapes, *size, cuts=cuts, pack=False)
        assert np.array_equal(layout.tiles["row"], cut_alone.tiles["row"])


@settings(deadline=None, derandomize=True, max_examples=80)
@given(small_shapes, st.tuples(st.integers(2, 4), st.integers(2, 4)), st.sampled_from(["greedy", "balanced"]))
def test_exhaustive_search_finds_nothing_better(shapes, size, cuts):
    rows, columns = size
    pieces = cut(shapes, rows, columns, cuts)
    if len(pieces) > 8:
        return
    layout = plan_layout(shapes, *size, cuts=cuts, in_order=True)
    assert layout.images == fewest_images(pieces, *size, in_order=True)
    assert layout.images_lower_bound <= layout.images


def test_a_full_tile_between_parts_what_could_share_an_image():
    shapes = one_group([(4, 2), (4, 4), (4, 2)])
    assert plan_layout(shapes, 4, 4).images == 2
    ordered = plan_layout(shapes, 4, 4, in_order=True)
    assert (ordered.images, ordered.images_lower_bound, ordered.packing_status) == (3, 3, "optimal")
    assert ordered.tiles["image"].tolist() == [0, 1, 2]
    # half of the full tile beside each neighbour
    free = plan_layout(shapes, 4, 4, in_order=True, cuts="free")
    assert (free.images, len(free.tiles)) == (2, 4)


def test_an_image_serves_the_end_of_one_layer_some_and_the_start_of_another():
    # 5 = 4 + 1 columns, then 1, then 2 + 4: one image takes 1 + 1 + 2
    shapes = one_group([(4, 5), (4, 1), (4, 6)])
    layout = plan_layout(shapes, 4, 4, in_order=True)
    assert layout.images == 3
    assert [sorted(layout.tiles["layer"][layout.tiles["image"] == i].tolist()) for i in range(3)] == [
        [0],
        [0, 1, 2],
        [2],
    ]


@pytest.mark.parametrize(
    ("shapes", "size", "options", "images", "bound", "tiles"),
    [
        (MLP, 64, {}, 26, 26, 28),
        (LENET_5, 64, {}, 17, 17, 24),
        (LENET_5, 64, {"cuts": "free"}, 16, 16, 31),
        (MLP_200, 64, {}, 50, 50, 72),
        (MLP_200, 64, {"cuts": "free"}, 49, 49, 74),
        (one_group(AUTOENCODER), 256, {}, 5, 5, 14),
        (one_group(RESNET_8), 256, {}, 2, 2, 15),
        (one_group(DS_CNN), 256, {}, 1, 1, 6),
        (one_group(MOBILENET_V2), 256, {}, 48, 48, 91),
        (one_group(MOBILENET_V2), 256, {"cuts": "free", "effort": 0.0}, 33, 33, 200),
    ],
)
def test_published_networks_write_each_image_once_on_one_array(shapes, size, options, images, bound, tiles):
    layout = plan_layout(shapes, size, size, in_order=True, **options)
    check_tiles(layout, shapes, share_rows=True, share_columns=True)
    check_order(layout)
    assert (layout.images, layout.images_lower_bound) == (images, bound)
    assert len(layout.tiles) <= tiles
    chain = uses_of([1] * len(shapes), [[], *[[i] for i in range(len(shapes) - 1)]])
    schedule = make_schedule(layout, chain, array_spec(size, size), arrays=1)
    assert schedule.weight_updates == images


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shape_lists, array_sizes, CUTS, st.booleans(), st.permutations([0.0, 0.02, 0.1, 0.3]))
def test_more_effort_never_gives_more_images_or_tiles(shapes, size, cuts, in_order, efforts):
    less, more = sorted(efforts[:2])
    found = [plan_layout(shapes, *size, cuts=cuts, in_order=in_order, effort=effort) for effort in (less, more)]
    assert (found[1].images, len(found[1].tiles)) <= (found[0].images, len(found[0].tiles))
    assert found[1].images_lower_bound >= found[0].images_lower_bound


@pytest.mark.parametrize("cuts", ["greedy", "free"])
def test_many_layers_reach_the_bound(cuts):
    sizes = np.random.Generator(np.random.Philox(key=4)).integers(1, 30, (450, 2))
    shapes = one_group(sizes.tolist())
    layout = plan_layout(shapes, 16, 16, cuts=cuts, in_order=True)
    check_tiles(layout, shapes, share_rows=True, share_columns=True)
    check_order(layout)
    assert layout.packing_status == "optimal"


def relaxed_bound(shapes, size, enumerated):
    """Lower bound of the search in order; with `enumerated` 0, no sets of tiles are tried but what bounds them."""
    rules = PackingRules(*size)
    packer = OrderedPacker(cut_greedy(shapes, *size), rules, len(shapes))
    if not len(packer.residuals.kinds):
        return packer.full
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_search, "_ENUMERATED", enumerated)
        relaxed = RelaxedOracle(packer.residuals.kinds, rules)
        return packer.full + OrderSearch(packer.layers, relaxed, relax=True).run()[0]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(small_shapes, st.tuples(st.integers(2, 4), st.integers(2, 4)), st.sampled_from([0, 64]))
def test_relaxed_search_bounds_every_packing_in_order(shapes, size, enumerated):
    rows, columns = size
    pieces = cut(shapes, rows, columns, "greedy")
    if pieces and len(pieces) <= 8:
        assert relaxed_bound(shapes, size, enumerated) <= fewest_images(pieces, *size, in_order=True)


@pytest.mark.parametrize(
    ("sizes", "array", "images"),
    [
        ([(3, 10), (9, 1), (2, 5)], (5, 9), 2),
        ([(6, 11), (10, 6)], (7, 9), 3),
        ([(3, 11), (2, 6), (4, 10), (10, 10)], (6, 6), 7),
    ],
)
def test_bound_where_one_set_stands_for_all(sizes, array, images):
    assert plan_layout(one_group(sizes), *array, in_order=True).images == images
    assert relaxed_bound(one_group(sizes), array, 0) <= images


@pytest.mark.parametrize(
    ("sizes", "array", "images"),
    [
        ([(13, 9), (11, 9), (10, 6), (12, 2)], (9, 6), 7),
        ([(11, 10), (3, 10), (1, 8), (6, 13), (3, 13)], (9, 6), 7),
        ([(7, 11), (11, 9), (10, 13)], (5, 6), 11),
    ],
)
def test_several_ways_to_fill_an_image_are_followed(sizes, array, images, monkeypatch):
    layout = plan_layout(one_group(sizes), *array, in_order=True)
    assert (layout.images, layout.packing_status) == (images, "optimal")
    monkeypatch.setattr(order_search, "_STATES", 1)
    narrow = plan_layout(one_group(sizes), *array, in_order=True)
    assert narrow.images == images + 1
    assert narrow.images_lower_bound <= images  # it does not claim more than it has shown


@pytest.mark.parametrize(
    ("sizes", "array", "images"),
    [([(7, 11), (1, 11), (1, 2), (7, 5)], (8, 4), 5), ([(4, 2), (8, 5), (1, 3), (1, 8)], (9, 8), 1)],
)
def test_what_heuristics_fail_to_pack_is_not_taken_for_impossible(sizes, array, images, monkeypatch):
    assert plan_layout(one_group(sizes), *array, in_order=True).images == images
    monkeypatch.setattr(pack_contents, "_FILL_CHECKS", 0)
    weak = plan_layout(one_group(sizes), *array, in_order=True, effort=0)
    assert weak.images == images + 1
    assert weak.images_lower_bound <= images


def test_depthwise_layers_are_cut_group_by_group():
    # 3 full tiles' worth of 9 x 1 kernels between two layers that leave a quarter of an array each
    shapes = [MatrixShape(1, 12, 16), MatrixShape(80, 9, 1), MatrixShape(1, 16, 12)]
    layout = plan_layout(shapes, 16, 16, cuts="free", in_order=True)
    check_tiles(layout, shapes, share_rows=True, share_columns=True)
    check_order(layout)
    assert layout.packing_status == "optimal"
    assert layout.images == 5  # ceil((192 + 720 + 192) / 256)


def test_images_are_numbered_as_they_are_executed():
    tiles = plan_layout(one_group([(2, 2)] * 4), 2, 2).tiles
    tiles["image"] = [7, 3, 3, 5]
    tiles["layer"] = [0, 0, 1, 0]
    assert number_in_order(tiles)["image"].tolist() == [0, 2, 2, 1]


def test_free_cuts_end_with_a_run_of_full_tiles():
    shapes = one_group([*[(3, 3)] * 16, (8, 4)])
    layout = plan_layout(shapes, 4, 4, in_order=True, cuts="free")
    check_tiles(layout, shapes, share_rows=True, share_columns=True)
    assert layout.images == 11  # ceil(16 * 9 / 16) + 2


def test_nothing_to_pack():
    assert plan_layout([], 4, 4, in_order=True).images == 0
    assert plan_layout(one_group([(8, 4)]), 4, 4, in_order=True, cuts="free").images == 2


def test_free_cuts_are_made_where_they_cost_few_reads():
    """LeNet-5 on MNIST: its convolutions are read 784 and 100 times per inference, its dense layers once."""
    sizes = ((25, 6), (150, 16), (400, 120), (120, 84), (84, 10))
    read = [MatrixShape(1, *size, reads) for size, reads in zip(sizes, (784, 100, 1, 1, 1), strict=True)]
    alike = [MatrixShape(1, *size) for size in sizes]
    by_reads, by_tiles = (plan_layout(shapes, 64, 64, cuts="free", in_order=True) for shapes in (read, alike))
    assert by_reads.images == by_tiles.images == 16
    assert reads_of(by_reads.tiles, read) <= reads_of(by_tiles.tiles, read)
    assert reads_of(by_tiles.tiles, alike) == len(by_tiles.tiles) <= len(by_reads.tiles)
    # neither convolution is cut more often than its 1 x 1 and 3 x 1 blocks ask for
    assert [int((by_reads.tiles["layer"] == layer).sum()) for layer in (0, 1)] == [1, 3]
