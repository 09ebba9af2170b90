"""Greedy and balanced cuts: published numbers of tiles, and the staggering of residual strips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbcompile.ir.schedule import TILE
from xbcompile.tiler import plan_layout
from xbcompile.tiler.cuts.blocks import cut_balanced, cut_greedy
from xbcompile.tiler.shapes import MatrixShape


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
    assert table["row"].tolist() == [0, 3, 0, 3, 0, 3]
    assert table["m1"].tolist() == [4, 8, 10, 4, 8, 10]


def test_tiles_are_ordered_by_layer_group_column_row():
    table = cut_greedy([MatrixShape(2, 5, 5), MatrixShape(1, 1, 1)], 4, 4)
    keys = [tuple(t) for t in table[["layer", "group", "m0", "k0"]].tolist()]
    assert keys == sorted(keys)
    assert len(keys) == 9


def test_strips_of_groups_are_staggered_too():
    # 9 x 1 kernels: 7 of them one above the other in 64 rows, so that 7 * 64 share an array without moving
    table = cut_greedy([MatrixShape(8, 9, 1)], 64, 64)
    assert table["row"].tolist() == [0, 9, 18, 27, 36, 45, 54, 0]
    assert plan_layout([MatrixShape(448, 9, 1)], 64, 64, fixed_rows=True).images == 1


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_balanced_blocks_are_as_many_and_nearly_equal(groups, inputs, outputs, rows, columns):
    shape = [MatrixShape(groups, inputs, outputs)]
    balanced, greedy = cut_balanced(shape, rows, columns), cut_greedy(shape, rows, columns)
    assert len(balanced) == len(greedy)
    for first, last, length, size in (("k0", "k1", inputs, rows), ("m0", "m1", outputs, columns)):
        lengths = balanced[last] - balanced[first]
        assert lengths.min() >= 1
        assert lengths.max() <= min(size, lengths.min() + 1)
        spans = np.unique(np.stack([balanced[first], balanced[last]], axis=1), axis=0)
        assert spans[0, 0] == 0
        assert spans[-1, 1] == length
        assert (spans[1:, 0] == spans[:-1, 1]).all()
    if inputs <= rows:
        assert np.array_equal(balanced["row"], greedy["row"])
    assert (balanced["row"] + balanced["k1"] - balanced["k0"] <= rows).all()
