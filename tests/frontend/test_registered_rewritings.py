"""Rewritings of other packages: an operator of theirs goes onto arrays, and the rules that they keep."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.support.installed import installed
from xbcompile.errors import ExtensionError
from xbcompile.frontend import Replacement, StaysDigital
from xbcompile.testing.passes import assert_equals_model, network_of

GROUP = "xbcompile.rewritings"


def rewrite_dft(r: Replacement) -> bool:
    """The discrete Fourier transform of real vectors, [batch, n, 1] -> [batch, n, 2], as one product."""
    shape = r.graph.shape(r.node.input[0])
    if shape is None or len(shape) != 3 or shape[2] != 1 or shape[1] is None:
        raise StaysDigital("only real vectors of known length")
    n = shape[1]
    angle = -2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    weights = np.stack([np.cos(angle), np.sin(angle)], axis=2).reshape(n, 2 * n).astype(np.float32)
    product = r.emit("MatMul", r.squeeze(r.node.input[0], [2]), r.constant(weights), name=r.matrix_name())
    r.emit("Reshape", product, r.constant([-1, n, 2]), output=r.node.output[0])
    return True


def rewrite_without_answer(r: Replacement) -> None:
    """Forgets to say whether it has rewritten."""


def fourier_model():
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("DFT", ["x"], ["y"], "fourier", axis=1)],
            "fourier",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )


def test_an_operator_goes_onto_arrays():
    model = fourier_model()
    assert network_of(model).layers == ()
    with installed(GROUP, ("fourier", "DFT", f"{__name__}:rewrite_dft")):
        network = network_of(model)
        (found,) = xbcompile.explain(model).nodes
    assert [(layer.name, layer.weights.shape) for layer in network.layers] == [("fourier", (1, 8, 16))]
    assert (found.operator, found.reason) == ("DFT", "")
    assert_equals_model(network, model, {"x": np.random.default_rng(0).normal(size=(3, 8, 1)).astype("f")})
    assert network_of(model).layers == ()


@pytest.mark.parametrize("name", ["Gemm", "LSTM", "ai.onnx.ml.LinearRegressor", "qonnx.custom_op.general.Quant"])
def test_an_operator_that_is_taken_is_refused(name):
    with (
        installed(GROUP, ("mine", name, "mine:rewrite")),
        pytest.raises(ExtensionError, match=rf"'{name}' comes with both xbcompile .* and mine \(mine:rewrite\)"),
    ):
        network_of(fourier_model())


def test_a_rewriting_is_loaded_only_for_its_operator():
    with installed(GROUP, ("mine", "my.domain.Fancy", "no_such_module:rewrite"), ("mine", "Det", "neither:rewrite")):
        assert network_of(fourier_model()).layers == ()
    with (
        installed(GROUP, ("mine", "DFT", "no_such_module:rewrite")),
        pytest.raises(ExtensionError, match=r"rewriting of operator 'DFT' of package mine .* cannot be loaded"),
    ):
        network_of(fourier_model())


def test_a_rewriting_must_answer():
    with (
        installed(GROUP, ("mine", "DFT", f"{__name__}:rewrite_without_answer")),
        pytest.raises(TypeError, match="rewrite_without_answer of mine gave None; a rewriting gives True or False"),
    ):
        network_of(fourier_model())
