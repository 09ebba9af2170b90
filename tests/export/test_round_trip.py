"""Exported files, computed with numpy alone by the program of docs/howto/export_a_program.md, for all that programs may be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import xbcompile
from tests.support.model_kit import model_of
from tests.support.recurrence_kit import sequence_model
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.export.folder import export_program
from xbcompile.ir.vectors import collect, gather
from xbcompile.reference.evaluate import layer_inputs
from xbcompile.runtime.placed import no_corrections

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "export_a_program.md"
TARGETS = ("ideal", "m2tj4", "memristor20", "mram64", "multicell", "sot", "sot-single")


@pytest.fixture(scope="module")
def layer_outputs():
    """The function that the page shows."""
    (source,) = re.findall(r"^```python\n(# ideal_array.py.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found: dict = {}
    exec(source, found)
    return found["layer_outputs"]


def check(program, feeds, layer_outputs, folder) -> None:
    """Each layer gives its decoded inputs times its dequantized weights; a last layer, the network's outputs."""
    export_program(program, folder, feeds)
    stored = np.load(folder / "drives.npz")
    inputs = layer_inputs(program.network, feeds)
    for layer in program.network.layers:
        found = layer_outputs(str(folder), layer.name)
        drive, count, gain, shift = (
            stored[f"{layer.name}/{key}"] for key in ("drive", "coefficients", "gain", "shift")
        )
        decoded = np.einsum("s,gvsk->gvk", count, drive.astype(float)) * gain[:, None] + shift[:, None]
        given = np.concatenate([gather(layer, x)[0] for x in inputs[layer.name]], axis=1)
        assert given.shape == decoded.shape
        weights = layer.weight_code.dequantized().astype(float)
        wanted = np.einsum("gvk,gkm->gvm", decoded, weights) + layer.bias.reshape(layer.groups, 1, -1)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
        if layer.output == program.network.outputs[0].name:
            none = replace(no_corrections(program), program=program.digest, chip="ideal seed 0")
            session = xbcompile.Session(program, "ideal", corrections=none)
            (exact,) = session.run(feeds).values()
            vectors = collect(layer, exact)
            np.testing.assert_allclose(
                np.concatenate([*found], axis=1), vectors, atol=1e-4 * max(1, np.abs(vectors).max())
            )


@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_with_groups_on_every_family(target, layer_outputs, tmp_path):
    feeds = {"x": images(3, 2, 4, 4)}
    program = xbcompile.compile(convolution_model(), target, arrays=0, calibration={"x": images(20, 2, 4, 4)})
    check(program, feeds, layer_outputs, tmp_path)


PIPELINES = {
    "bits in series": ("sot", "quantize{scheme=ternary},bitserial{bits=4}"),
    "thermometer": ("mram64", "quantize{scheme=binary},thermometer{bits=5}"),
    "range of each vector": ("mram64", "quantize{scheme=binary},bitserial{bits=3}"),
    "principal components": ("sot", "pca{components=3},quantize{scheme=ternary},analogue"),
    "planes": ("sot", "planes{k=2 scheme=ternary},analogue"),
    "spare cells": ("sot", "use-spare-cells{outputs=2},quantize{scheme=ternary},analogue"),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_ways_of_coding(name, layer_outputs, tmp_path):
    target, passes = PIPELINES[name]
    x = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    calibration = None if name == "range of each vector" else {"x": x}
    program = xbcompile.compile(dense_model(6, 4, 3), target, passes=passes, calibration=calibration)
    check(program, {"x": x[:5]}, layer_outputs, tmp_path)


def test_steps_of_a_recurrence(layer_outputs, tmp_path):
    """Vectors of all steps stand one step after another."""
    model = sequence_model("LSTM", 3)
    shape = [each.dim_value or 2 for each in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {model.graph.input[0].name: np.random.default_rng(4).normal(size=shape).astype(np.float32)}
    program = xbcompile.compile(model, "sot")
    assert program.network.recurrences
    check(program, feeds, layer_outputs, tmp_path)


@pytest.mark.parametrize("target", ["m2tj4", "sot"])
def test_integer_layers(target, layer_outputs, tmp_path):
    """MatMulInteger: sums of whole numbers."""
    rng = np.random.default_rng(6)
    weights = rng.integers(-1, 2, (6, 3)).astype(np.int8)
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="fc")
    graph = onnx.helper.make_graph(
        [node],
        "integers",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["n", 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ["n", 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    program = xbcompile.compile(model, target)
    check(program, {"x": rng.integers(0, 255, (4, 6)).astype(np.uint8)}, layer_outputs, tmp_path)


def test_layers_that_share_a_matrix(layer_outputs, tmp_path):
    weights = np.random.default_rng(7).normal(size=(6, 6)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        onnx.helper.make_node("Relu", ["a"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "w"], ["y"], name="second"),
    ]
    program = xbcompile.compile(model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": weights}), "sot")
    assert len(set(program.network.matrices)) == 1
    check(program, {"x": images(4, 6)}, layer_outputs, tmp_path)
