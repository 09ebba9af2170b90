"""`--keep-input` and `--input`, as users see them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import model_of

W = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def scaled(folder):
    """`(x @ w) * gain`: w is an initializer and an input, gain an input that is no data."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "fc"), helper.make_node("Mul", ["h", "gain"], ["y"], "mul")]
    model = model_of(nodes, {"x": ["n", 3], "gain": []}, ["y"], {"w": W})
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape))
    onnx.save(model, folder / "m.onnx")
    return "m.onnx"


def test_a_scalar_is_fixed_and_weights_are_on_arrays(done, refused, scaled, folder):
    done("compile", scaled, "-o", "p.xbar", "--target", "ideal", "--input", "gain=2.5")
    np.savez(folder / "data.npz", x=np.eye(3, dtype=np.float32))
    done("run", "p.xbar", "--data", "data.npz", "-o", "out.npz")
    np.testing.assert_allclose(np.load(folder / "out.npz")["y"], 2.5 * W)
    found = json.loads(done("verify", "p.xbar", "--model", scaled, "--json").out)
    assert (found["findings"], len(found["notes"])) == ([], 1)
    done("compile", scaled, "-o", "again.xbar", "--like", "p.xbar")
    assert (folder / "again.xbar").read_bytes() == (folder / "p.xbar").read_bytes()
    assert "--input gain: write --input NAME=VALUE" in refused("compile", scaled, "-o", "q.xbar", "--input", "gain")
    assert "it takes float values; found text" in refused("explain", scaled, "--input", "gain=loud")


def test_kept_weights_are_fed(done, refused, scaled):
    result = done("compile", scaled, "-o", "p.xbar", "--target", "ideal", "--keep-input", "w")
    assert 'MatMul fc: both operands are activations: "x" is a graph input, "w" is a graph input' in result.err
    assert max(map(len, result.err.splitlines())) <= 200
    explained = json.loads(done("explain", scaled, "--keep-input", "w", "--input", "gain=1", "--json").out)
    assert explained["totals"]["macs_on_arrays"] == 0
    planned = json.loads(done("plan", scaled, "--target", "ideal", "--input", "gain=1", "--json").out)
    assert planned["options"]["fixed_inputs"] == {"gain": 1}
    assert "no matrix" in refused("plan", scaled, "--target", "ideal", "--keep-input", "w")
    assert 'has no initializer "x" among its inputs; those are: w' in refused("explain", scaled, "--keep-input", "x")
