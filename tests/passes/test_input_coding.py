"""What thermometer, bitserial and analogue share: the range of a layer's inputs.

A layer whose weights are the identity gives back its coded inputs, so that onnxruntime shows the code itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model
from xbcompile import Session
from xbcompile.errors import PassError
from xbcompile.passes.analogue import Analogue
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.thermometer import Thermometer
from xbcompile.testing.passes import assert_idempotent, context_of, network_of, outputs_of

CODINGS = (Thermometer, BitSerial, Analogue)


def identity(size=4):
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", size]}, ["y"], {"w": np.eye(size)}
    )


def convolution(pads=0, constant=None):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[pads] * 4)]
    return model_of(nodes, {"x": ["n", 1, 5, 5]}, ["y"], {"w": np.ones((1, 1, 3, 3)) if constant is None else constant})


@pytest.mark.parametrize("coding", CODINGS)
def test_calibrated_range(coding):
    """Each layer's own smallest and largest input; the second layer's are the activations in onnxruntime."""
    model = dense_model(6, 4, 3)
    x = np.random.default_rng(1).normal(size=(30, 6)).astype("f")
    network = coding()(network_of(model), context_of(calibration={"x": x}))
    model.graph.output.append(helper.make_empty_tensor_value_info("r0"))
    hidden = run_onnxruntime(model, {"x": x})["r0"]
    codes = [layer.input_code for layer in network.layers]
    assert [code.scheme for code in codes] == [coding.name] * 2
    for code, values in zip(codes, (x, hidden), strict=True):
        assert (code.low, code.high) == pytest.approx((values.min(), values.max()), rel=1e-6)
        assert not code.is_dynamic


@pytest.mark.parametrize("coding", CODINGS)
def test_explicit_range(coding):
    """It goes before calibration, and is every layer's."""
    x = np.random.default_rng(1).normal(size=(30, 6)).astype("f")
    for context in (context_of(), context_of(calibration={"x": x})):
        network = coding(low=-2.0, high=3.5)(network_of(dense_model(6, 4, 3)), context)
        assert [(layer.input_code.low, layer.input_code.high) for layer in network.layers] == [(-2.0, 3.5)] * 2


@pytest.mark.parametrize("coding", CODINGS)
def test_values_outside_are_clipped(coding):
    network = coding(low=-1.0, high=1.0)(network_of(identity()), context_of())
    x = np.array([[-5, -1, 1, 7]], np.float32)
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], [[-1, -1, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_own_range(coding):
    """Without calibration inputs each vector has its own range: its smallest and largest entry are exact."""
    network = coding()(network_of(identity()), context_of())
    assert network.layers[0].input_code.is_dynamic
    x = np.random.default_rng(2).normal(size=(20, 4)).astype("f") * np.logspace(-3, 3, 20, dtype="f")[:, None]
    y = outputs_of(network, {"x": x})["y"]
    for name in ("argmin", "argmax"):
        index = getattr(x, name)(axis=1)[:, None]
        np.testing.assert_allclose(np.take_along_axis(y, index, 1), np.take_along_axis(x, index, 1), rtol=1e-5)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e30, -1e30])
def test_constant_inputs(coding, value):
    """A range without width would divide by zero; the constant itself stays exact."""
    x = np.full((5, 4), value, np.float32)
    for context in (context_of(), context_of(calibration={"x": x})):
        network = coding()(network_of(identity()), context)
        np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], x, rtol=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_range_of_a_convolution_holds_its_padding(coding):
    """All inputs lie in 2..3, but padded rows are driven with 0."""
    x = np.random.default_rng(3).uniform(2, 3, (4, 1, 5, 5)).astype("f")
    network = coding()(network_of(convolution(pads=1)), context_of(calibration={"x": x}))
    code = network.layers[0].input_code
    assert (code.low, code.high) == pytest.approx((0, x.max()))
    network = coding()(network_of(convolution(pads=1)), context_of(calibration={"x": -x}))
    code = network.layers[0].input_code
    assert (code.low, code.high) == pytest.approx((-x.max(), 0))


def test_explicit_range_without_zero_codes_the_padding_as_its_end():
    """Range 1..3 in 2 steps: a padded 0 is driven as 1, so a corner of the 3 x 3 sum holds 4 inputs and 5 paddings."""
    network = Thermometer(bits=2, low=1.0, high=3.0)(network_of(convolution(pads=1)), context_of())
    y = outputs_of(network, {"x": np.full((1, 1, 5, 5), 2, np.float32)})["y"][0, 0]
    assert y[2, 2] == pytest.approx(9 * 2)
    assert y[0, 0] == pytest.approx(4 * 2 + 5 * 1)


@pytest.mark.parametrize("coding", CODINGS)
def test_layers_that_are_coded_already_stay(coding):
    context = context_of()
    network = network_of(dense_model(6, 4, 3))
    first = Thermometer(bits=3, low=0, high=1).code(network.layers[0], None)
    mixed = network.with_layers([replace(network.layers[0], input_code=first)])
    after = coding()(mixed, context)
    assert after.layers[0].input_code == first
    assert after.layers[1].input_code.scheme == coding.name
    assert_idempotent(coding(), after, context)
    for other in CODINGS:
        assert_idempotent(other(), after, context)


@pytest.mark.parametrize("coding", CODINGS)
def test_inputs_that_are_not_finite(coding):
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"], "fc")]
    model = model_of(nodes, {"x": ["n", 2]}, ["y"], {"w": np.eye(2)})
    with pytest.raises(PassError, match="inputs of layer 'fc' are not finite on the calibration inputs"):
        coding()(network_of(model), context_of(calibration={"x": np.full((3, 2), 1000, np.float32)}))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("scale", [1e38, 1e19, 1e-20, 1e-38, 1e-44, 0.0])
def test_calibration_at_the_ends_of_float32(coding, scale):
    """Finite outputs without a warning (which would be an error here), also on inputs far outside of the range."""
    x = (np.linspace(0, 1, 12).reshape(6, 2) * scale).astype(np.float32)
    program = xbcompile.compile(
        identity(2), "ideal", passes=f"quantize{{scheme=continuous}},{coding()}", calibration={"x": x}
    )
    code = program.network.layers[0].input_code
    assert (code.high - code.low) / max(code.steps, 1) >= np.finfo(np.float32).tiny  # a step that float32 resolves
    for inputs in (x, np.full_like(x, 3e38), np.full_like(x, -3e38)):
        y = Session(program).run({"x": inputs})["y"]
        assert np.isfinite(y).all()
        if scale > 1e-38 and inputs is x:
            np.testing.assert_allclose(y, x, atol=scale / 8)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("coding", CODINGS)
def test_calibration_that_float32_cannot_span(coding, symmetric):
    layer = network_of(dense_model(2, 1)).layers[0]
    values = [np.array([[-3e38, 3e38]], np.float32)]
    with pytest.raises(
        PassError, match=r"inputs of layer 'fc0' go from -3e\+38 to 3e\+38 on the .* float32 cannot hold"
    ):
        coding().code(layer, values, symmetric)
    with pytest.raises(PassError, match="float32 cannot hold"):
        Analogue().code(layer, [np.full((1, 2), 3e38, np.float32)], symmetric)


@pytest.mark.parametrize("coding", CODINGS)
def test_options(coding):
    with pytest.raises(PassError, match="give both low= and high=, or neither"):
        coding(low=0.0)
    with pytest.raises(PassError, match="give both low= and high=, or neither"):
        coding(high=0.0)
    for low, high in ((1, 1), (2, 1), (np.nan, 1), (0, np.inf), (-np.inf, 0), (0, 1e39), (-3e38, 3e38), (1, 1 + 1e-12)):
        with pytest.raises(PassError, match=r"is no range; low must be below high, both finite as float32"):
            coding(low=low, high=high)
