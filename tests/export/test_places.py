"""Where weights sit, against a loop over all cells; and back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import convolution_model, convolution_program
from xbcompile.errors import ProgramError
from xbcompile.export.places import cell_content, parse_cell, parse_place, weight_place

TARGETS = ["m2tj4", "sot", "mram64", "multicell", "memristor20"]


@pytest.fixture(scope="module", params=TARGETS)
def program(request):
    return xbcompile.compile(convolution_model(), request.param)


def test_every_weight_is_in_the_cell_that_is_named(program):
    levels, cells = program.spec.levels, program.cells(np.arange(program.schedule.images))
    seen = set()
    for layer in program.network.layers:
        real = layer.weight_code.dequantized()
        for index in product(*map(range, layer.shape)):
            place = weight_place(program, layer.name, index)
            at = place["image"], place["row"], place["column"]
            assert at not in seen, "two weights in one cell"
            seen.add(at)
            stored = cells[at]
            assert place["cell_value"] == (stored if levels is None else levels[stored])
            assert place["level"] == (None if levels is None else stored)
            assert place["weight"] == pytest.approx(real[index], rel=1e-5, abs=1e-7)
            assert (
                place["arrays"]
                == program.schedule.copies["array"][program.schedule.copies["image"] == place["image"]].tolist()
            )


def test_a_cell_names_the_weight_that_named_it(program):
    rng = np.random.default_rng(1)
    for layer in program.network.layers:
        for _ in range(10):
            place = weight_place(program, layer.name, [int(rng.integers(size)) for size in layer.shape])
            found = cell_content(program, place["arrays"][0], place["row"], place["column"])
            assert place in found
            assert len({each["image"] for each in found}) == len(found)


def test_weights_of_convolutions_are_counted_as_onnx_does():
    """Cells that hold real values give the model's own weights back, to the rounding of float32."""
    model = convolution_model()
    program = xbcompile.compile(model, "memristor20")
    (wanted,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    weights = np.frombuffer(wanted.raw_data, np.float32).reshape(wanted.dims)
    for index in np.ndindex(*weights.shape):
        place = weight_place(program, "conv", index)
        assert place["onnx_index"] == list(index)
        assert place["weight"] == pytest.approx(weights[index], rel=1e-5)


def test_cells_without_a_weight_hold_none(program):
    columns = program.schedule.columns
    array = program.schedule.arrays - 1
    contents = [cell_content(program, array, row, column) for row in range(4) for column in range(columns)]
    total = sum(map(len, contents))
    images = program.schedule.copies["image"][program.schedule.copies["array"] == array]
    tiles = program.schedule.tiles[np.isin(program.schedule.tiles["image"], images)]
    rows = np.clip(tiles["row"] + tiles["k1"] - tiles["k0"], 0, 4) - np.clip(tiles["row"], 0, 4)
    assert total == int((rows * (tiles["m1"] - tiles["m0"])).sum())


@pytest.mark.parametrize(
    ("layer", "index", "said"),
    [
        ("conv1", (0, 0), "no matrix layer 'conv1'; it has conv, fc"),
        ("fc", (24, 0), "no weight [0, 24, 0]; allowed: below [1, 24, 5]"),
        ("fc", (0,), "has 1 numbers"),
        ("conv", (0, 0), "has 2 numbers"),
        ("conv", (6, 0, 0, 0), "allowed: below [6, 1, 3, 3]"),
        ("conv", (0, 9, 0), "allowed: below [2, 9, 3]"),
    ],
)
def test_what_is_not_there_is_told(layer, index, said):
    with pytest.raises(ProgramError, match=said.replace("[", r"\[").replace("]", r"\]")):
        weight_place(convolution_program(), layer, index)


@pytest.mark.parametrize("text", ["fc1", "fc1[]", "fc1[a]", "[1,2]", "fc1[1;2]", "fc1[-1,2]", ""])
def test_texts_that_name_no_weight(text):
    with pytest.raises(ProgramError, match="names no weight"):
        parse_place(text)


def test_texts_that_name_weights_and_cells():
    assert parse_place("fc1[3,7]") == ("fc1", (3, 7))
    assert parse_place("a[0]/b[ 1, 2 ,3]") == ("a[0]/b", (1, 2, 3))
    assert parse_cell(" 0, 12,63") == (0, 12, 63)
    for text in ("", "1,2", "1,2,3,4", "a,b,c", "-1,0,0", "1,2,²"):
        with pytest.raises(ProgramError, match="names no cell"):
            parse_cell(text)


@pytest.mark.parametrize(("place", "said"), [((9, 0, 0), "array 9"), ((0, 4, 0), "row 4"), ((0, 0, 4), "column 4")])
def test_cells_that_are_not_there(place, said):
    with pytest.raises(ProgramError, match=said):
        cell_content(convolution_program(), *place)
