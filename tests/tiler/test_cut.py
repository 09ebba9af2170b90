"""Greedy cuts: published numbers of tiles, and the staggering of residual strips."""

import pytest

from xbcompile.ir.schedule import TILE
from xbcompile.tiler.cut import MatrixShape, cut_greedy


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "tiles"),
    [(784, 128, 64, 26), (128, 10, 64, 2), (784, 128, 4, 6272), (128, 10, 4, 96), (87, 128, 4, 704)],
)
def test_published_numbers_of_tiles(inputs, outputs, size, tiles):
    table = cut_greedy([MatrixShape(1, inputs, outputs)], size, size)
    assert table.dtype == TILE
    assert len(table) == tiles
    assert table["image"].tolist() == list(range(tiles))


def test_residual_strips_are_staggered_by_column_block():
    table = cut_greedy([MatrixShape(1, 9, 20)], 7, 4)  # 2 rows left over: 3 slots in 7 rows
    strips = table[table["k0"] == 7]
    assert strips["m0"].tolist() == [0, 4, 8, 12, 16]
    assert strips["row"].tolist() == [0, 2, 4, 0, 2]
    assert not table["row"][table["k0"] == 0].any()
    assert not table["column"].any()


def test_matrix_lower_than_the_array_is_a_residual_strip():
    table = cut_greedy([MatrixShape(2, 3, 10)], 8, 4)
    assert table["group"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["row"].tolist() == [0, 3, 0, 0, 3, 0]
    assert table["m1"].tolist() == [4, 8, 10, 4, 8, 10]


def test_tiles_are_ordered_by_layer_group_column_row():
    table = cut_greedy([MatrixShape(2, 5, 5), MatrixShape(1, 1, 1)], 4, 4)
    keys = [tuple(t) for t in table[["layer", "group", "m0", "k0"]].tolist()]
    assert keys == sorted(keys)
    assert len(keys) == 9
