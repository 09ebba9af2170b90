"""Every output is saved, whatever its name and type, and numpy.load gives it back."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import model_of
from xbcompile.cli.saving import save_outputs
from xbcompile.errors import DataError

NAMES = [
    "file",
    "allow_pickle",
    "args",
    "self",
    "arr_0",
    "/x/y:0",
    "a/../b",
    "a",
    "a.npy",
    "a.npy.npy",
    "é 中",
    "x\\y",
    ".",
]


def test_any_name(tmp_path):
    outputs = {name: np.arange(i, i + 3, dtype=np.float32) for i, name in enumerate(NAMES)}
    save_outputs(tmp_path / "out.npz", outputs)
    with np.load(tmp_path / "out.npz") as found:
        for name, value in outputs.items():
            assert np.array_equal(found[name], value), name
            assert found[name].dtype == np.float32


def test_sequences_maps_and_texts(tmp_path):
    outputs = {
        "texts": np.array(["one", "twelve"], object),
        "sequence": [np.zeros(2), np.ones((1, 3), np.int64)],
        "map": {"a": 1.0, "b": 2.0},
        "table": [{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}],
        "joined": np.array([{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}], object),  # as runs of several chunks give it
        "different": [{0: 0.25}, {1: 0.5}],
        "scalar": np.float32(3),
        "nothing": None,
        "empty": [],
    }
    save_outputs(tmp_path / "out.npz", outputs)
    with np.load(tmp_path / "out.npz") as archive:
        found = {name: archive[name].tolist() for name in archive.files}
    table = {"keys": [0, 1], "values": [[0.25, 0.75], [0.5, 0.5]]}
    assert found == {
        "texts": ["one", "twelve"],
        "sequence/0": [0, 0],
        "sequence/1": [[1, 1, 1]],
        "map/keys": ["a", "b"],
        "map/values": [1, 2],
        **{f"table/{key}": value for key, value in table.items()},
        **{f"joined/{key}": value for key, value in table.items()},
        "different/0/keys": [0],
        "different/0/values": [0.25],
        "different/1/keys": [1],
        "different/1/values": [0.5],
        "scalar": 3,
    }


def test_a_part_that_is_the_name_of_another_output(tmp_path):
    with pytest.raises(DataError, match="output 's' cannot be saved: its part 's/0' is the name of another output"):
        save_outputs(tmp_path / "out.npz", {"s/0": np.zeros(1), "s": [np.zeros(1)]})
    assert not (tmp_path / "out.npz").exists()


def test_names_through_the_command_line(done, folder):
    """Inputs and outputs of a model with names that Python and markup have for themselves."""
    inputs, outputs = ["self", "labels", "file"], ["file_", "allow_pickle", "[/bold]"]
    nodes = [helper.make_node("MatMul", [x, "w"], [y], name=y) for x, y in zip(inputs, outputs, strict=True)]
    model = model_of(nodes, {name: ["n", 2] for name in inputs}, outputs, {"w": np.eye(2) * 3})
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", 2]))
    onnx.save(model, folder / "m.onnx")
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    buffer = io.BytesIO()
    save_outputs(folder / "d.npz", {name: x + i for i, name in enumerate(inputs)})
    assert not buffer.getvalue()
    done("compile", "m.onnx", "-o", "p.xbar", "--target", "ideal")
    run = ("run", "p.xbar", "--data", "d.npz", "-o", "out.npz")
    assert json.loads(done(*run, "--json").out)["samples"] == 3
    assert "[/bold]" in done(*run).out
    with np.load("out.npz") as found:
        assert [found[name].tolist() for name in outputs] == [((x + i) * 3).tolist() for i in range(3)]
