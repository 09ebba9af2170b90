"""Checks of tiles take time that grows with their number alone, and find what counting every cell finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import matrix_shapes
from xbcompile.ir.schedule import TILE
from xbcompile.tiler.cuts.blocks import cut_balanced, cut_greedy
from xbcompile.verification.schedule_checks import _coverage, _cut_into_rows, _overlapping

MANY = settings(deadline=None, derandomize=True, max_examples=300)
rectangles = st.lists(st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 4)] * 2), min_size=2, max_size=8)


@MANY
@given(rectangles)
def test_overlaps_are_those_of_the_cells(given_rectangles):
    row, column, height, width = np.array(given_rectangles).T
    cells = np.zeros((10, 10), int)
    for at, left, high, wide in given_rectangles:
        cells[at : at + high, left : left + wide] += 1
    found = _overlapping(row, column, height, width)
    assert (found is not None) == (cells.max() > 1)
    if found is not None:
        at, left, high, wide = given_rectangles[found]
        assert cells[at : at + high, left : left + wide].max() > 1


@MANY
@given(st.lists(matrix_shapes, min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 9), st.data())
def test_bands_of_rows_hold_every_weight_once(shapes, rows, columns, data):
    for cut in (cut_greedy, cut_balanced):
        tiles = cut(shapes, rows, columns)
        assert _cut_into_rows(tiles, shapes).all()
    name = data.draw(st.sampled_from(["group", "k0", "k1", "m0", "m1", "layer"]))
    at = data.draw(st.integers(0, len(tiles) - 1))
    size = {"group": "groups", "layer": ""}.get(name, "inputs" if name[0] == "k" else "outputs")
    limit = len(shapes) - 1 if name == "layer" else getattr(shapes[tiles["layer"][at]], size) - (name == "group")
    tiles[name][at] = data.draw(st.integers(0, limit))
    tiles = tiles[np.argsort(tiles["layer"], kind="stable")]
    for layer, right in enumerate(_cut_into_rows(tiles, shapes)):
        mine = tiles[tiles["layer"] == layer]
        inside = all((mine[b] <= getattr(shapes[layer], s)).all() for b, s in (("k1", "inputs"), ("m1", "outputs")))
        inside &= bool((mine["group"] < shapes[layer].groups).all())
        assert not right or (inside and (_counted(mine, shapes[layer]) == 1).all())


def _counted(tiles, shape):
    """How many tiles hold each piece between the cuts."""
    row = np.unique(np.concatenate([[0, shape.inputs], tiles["k0"], tiles["k1"]]))
    column = np.unique(np.concatenate([[0, shape.outputs], tiles["m0"], tiles["m1"]]))
    return _coverage(tiles, shape, row, column)


def test_no_tiles():
    assert _cut_into_rows(np.zeros(0, TILE), []).tolist() == []
