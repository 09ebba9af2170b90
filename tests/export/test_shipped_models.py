"""The ONNX export of every shipped network: a model by the standard's own checks, which plain onnxruntime runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import xbcompile
from tests.support.model_kit import MODELS
from xbcompile.export.model import annotated_model, layer_metadata, overlay, write_model
from xbcompile.report.summary import summarize

# One of each kind: those left out are trained otherwise, with the same nodes.
NAMES = (
    "digits_mlp", "fashion_bnn", "letters_mlp", "mnist_bnn_live", "mnist_lenet5", "mnist_lenet5_int8", "mnist_lenet5_ternary",
    "mnist_lstm", "mnist_mlp_pca87", "mnist_tanh", "mnist_vgg8", "scenes_detector", "xor",
)  # fmt: skip
OPTIONS = {"cuts": "greedy", "packing": "none", "effort": 0.0}


@pytest.mark.parametrize("name", NAMES)
def test_the_export_is_a_model_elsewhere(name, tmp_path):
    program = xbcompile.compile(onnx.load(MODELS / f"{name}.onnx"), "sot", **OPTIONS)
    path = tmp_path / "host.onnx"
    write_model(program, path)
    onnx.checker.check_model(str(path), full_check=True)  # with shape inference
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    (value,) = model.graph.input
    shape = [2, *(each.dim_value for each in value.type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(1).random(shape, np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {value.name: x})
    wanted = xbcompile.Session(program, "ideal").run({value.name: x})
    for output, each in zip(session.get_outputs(), found, strict=True):
        np.testing.assert_allclose(each, wanted[output.name], rtol=1e-3, atol=1e-3 * max(1, np.abs(each).max()))
    check_metadata(program, model)


def check_metadata(program, model) -> None:
    """Every layer's node, wherever in the graph it stands, has what the table has; the overlay has each once."""
    rows = {row["layer"]: row for row in summarize(program)["layers"]}
    told = {node.name: {each.key: each.value for each in node.metadata_props} for node in nodes(model.graph)}
    assert rows.keys() <= told.keys()
    for name, row in rows.items():
        assert float(told[name]["xbcompile.e_read_per_inference_j"]) == row["e_read_per_inference_j"]
        assert told[name]["xbcompile.arrays"] == "0"  # one recycled array
    check_overlay(overlay(program), set(told))


def check_overlay(given: dict, names: set[str]) -> None:
    """Model Explorer's GraphNodeData: numbers by ids of nodes, and colours at 0 and 1."""
    assert set(given) == {"results", "gradient"}
    assert set(given["results"]) <= names
    assert all(set(each) == {"value"} and isinstance(each["value"], int) for each in given["results"].values())
    assert [each["stop"] for each in given["gradient"]] == [0, 1]
    assert all(set(each) == {"stop", "bgColor"} and len(each["bgColor"]) == 7 for each in given["gradient"])


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def test_metadata_of_layers_on_several_arrays():
    """Ranges of array numbers are those that hold an image with a tile of the layer."""
    program = xbcompile.compile(onnx.load(MODELS / "digits_mlp.onnx"), "m2tj4", arrays=0, **OPTIONS)
    schedule = program.schedule
    for i, (name, found) in enumerate(layer_metadata(program, summarize(program)).items()):
        assert name == program.network.layers[i].name
        told = set()
        for part in found["arrays"].split(", "):
            first, _, last = part.partition("-")
            told |= set(range(int(first), int(last or first) + 1))
        images = set(schedule.tiles["image"][schedule.tiles["layer"] == i].tolist())
        assert told == {int(each["array"]) for each in schedule.copies if int(each["image"]) in images}
    assert annotated_model(program).metadata_props[0].value == program.digest
