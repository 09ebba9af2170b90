"""Exchanging equal tiles: the places stay, the images serve fewer layers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import array_sizes, shape_lists
from xbcompile.ir.schedule import TILE
from xbcompile.tiler import MatrixShape, plan_layout
from xbcompile.tiler.cuts.blocks import cut_greedy
from xbcompile.tiler.pack.dense import Packer
from xbcompile.tiler.pack.regroup import regroup
from xbcompile.tiler.pack.rules import PackingRules


def tile_table(*layers_of_images):
    """2 x 2 tiles of the given layers, side by side in images of 2 x 4."""
    rows = []
    for image, layers in enumerate(layers_of_images):
        rows += [(layer, 0, 0, 2, 0, 2, image, 0, 2 * slot) for slot, layer in enumerate(layers)]
    return np.array(rows, dtype=TILE)


def layers_of(tiles):
    return sorted(sorted(tiles["layer"][tiles["image"] == image].tolist()) for image in np.unique(tiles["image"]))


def test_equal_tiles_of_one_layer_meet():
    assert layers_of(regroup(tile_table((1, 5), (5, 1)), PackingRules(2, 4))) == [[1, 1], [5, 5]]


def test_neighbouring_layers_meet():
    tiles = tile_table((0, 2), (1, 3))
    assert layers_of(regroup(tiles, PackingRules(2, 4))) == [[0, 1], [2, 3]]


def test_tiles_at_other_rows_are_not_exchanged_when_rows_are_fixed():
    tiles = tile_table((1, 5), (5, 1))
    tiles["row"][[0, 3]] = 1
    fixed = regroup(tiles, PackingRules(4, 4, fixed_rows=True))
    assert np.array_equal(fixed["row"], tiles["row"])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(shape_lists, array_sizes, st.booleans())
def test_places_and_sizes_stay(shapes, size, fixed_rows):
    rows, columns = size
    rules = PackingRules(rows, columns, fixed_rows=fixed_rows)
    packed = Packer(cut_greedy(shapes, *size), rules).improve(0).tiles
    again = regroup(packed, rules)
    assert np.array_equal(again[["layer", "group", "k0", "m0"]], packed[["layer", "group", "k0", "m0"]])

    def occupied(tiles):
        spans = zip(tiles["k1"] - tiles["k0"], tiles["m1"] - tiles["m0"], strict=True)
        return sorted(
            (*tile.tolist(), *span) for tile, span in zip(tiles[["image", "row", "column"]], spans, strict=True)
        )

    assert occupied(again) == occupied(packed)
    if fixed_rows:
        assert np.array_equal(again["row"], packed["row"])


def test_fewer_weight_updates_for_equal_images():
    shapes = [MatrixShape(1, 12, 9)] * 8
    layout = plan_layout(shapes, 16, 36)
    visits = len(np.unique(layout.tiles[["image", "layer"]]))
    assert layout.images == 2
    assert visits == 8
