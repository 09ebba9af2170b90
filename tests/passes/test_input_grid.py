"""Input codes of layers whose inputs the model itself quantizes: exactly the grid's values, without calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tests.support.model_kit import model_of
from xbcompile.ir import InputGrid
from xbcompile.passes.analogue import Analogue
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.thermometer import Thermometer
from xbcompile.testing.passes import context_of, network_of, outputs_of, spec_with

CALIBRATION = {"x": np.linspace(-9, 9, 40).reshape(10, 4).astype(np.float32)}


def network_on(low, step, steps, tensor="x"):
    """The unit matrix behind inputs that are said to be on a grid."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
    network = network_of(model_of([node], {"x": ["n", 4]}, ["y"], {"w": np.eye(4)}))
    return network.with_layers([replace(network.layers[0], input_grid=InputGrid(tensor, low, step, steps))])


def convolution_on(low, step, steps):
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4)
    network = network_of(model_of([node], {"x": ["n", 1, 3, 4]}, ["y"], {"w": np.ones((1, 1, 1, 1))}))
    return network.with_layers([replace(network.layers[0], input_grid=InputGrid("x", low, step, steps))])


def coded(network, each, calibration=None, **spec):
    context = context_of(spec_with(None, **spec) if spec else "ideal", calibration)
    result = each(network, context)
    return result, result.layers[0].input_code


@pytest.mark.parametrize(
    ("each", "steps", "slices"),
    [(BitSerial(bits=8), 15, 4), (BitSerial(bits=4), 15, 4), (BitSerial(bits=8), 10, 4), (Thermometer(bits=8), 3, 3)],
)
def test_values_are_kept_with_as_few_slices_as_there_are_values(each, steps, slices):
    network, code = coded(network_on(-0.3, 0.1, steps), each, CALIBRATION)
    assert code.bits == slices
    values = (-0.3 + 0.1 * np.arange(steps + 1)).astype(np.float32)
    x = np.resize(values, (8, 4))
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], x, atol=1e-6)


@pytest.mark.parametrize("each", [BitSerial(bits=3), Thermometer(bits=14)])
def test_too_many_values_are_calibrated(each):
    _, code = coded(network_on(0.0, 0.1, 15), each, CALIBRATION)
    assert (code.bits, code.low, code.high) == (each.bits, -9, 9)


def test_analogue_takes_the_range():
    assert (coded(network_on(-0.5, 0.25, 8), Analogue(), CALIBRATION)[1].low) == -0.5
    code = coded(network_on(-0.5, 0.25, 8), Analogue(), CALIBRATION, drive="signed")[1]
    assert (code.low, code.high) == (-1.5, 1.5)


@pytest.mark.parametrize("each", [BitSerial(bits=8, low=-2.0, high=2.0), Thermometer(bits=8, low=-2.0, high=2.0)])
def test_an_explicit_range_wins(each):
    _, code = coded(network_on(0.0, 0.1, 3), each)
    assert (code.bits, code.low, code.high) == (8, -2, 2)


def test_the_grid_of_another_tensor_says_nothing():
    """A pass has put something before the layer since."""
    _, code = coded(network_on(0.0, 0.1, 3, tensor="before"), BitSerial(bits=8), CALIBRATION)
    assert (code.bits, code.low, code.high) == (8, -9, 9)


@pytest.mark.parametrize(
    ("low", "step", "steps", "slices"),
    [(-1.0, 2.0, 1, 2), (0.5, 0.5, 3, 3), (-1.5, 0.5, 2, 2), (-0.75, 0.25, 6, 3)],
)
def test_padding_is_on_the_grid_too(low, step, steps, slices):
    """Between -1 and 1, above all values, below all values, in the middle: 0 is driven exactly beside the values."""
    network, code = coded(convolution_on(low, step, steps), BitSerial(bits=8))
    assert code.bits == slices
    x = np.resize((low + step * np.arange(steps + 1)).astype(np.float32), (2, 1, 3, 4))
    y = outputs_of(network, {"x": x})["y"]
    np.testing.assert_allclose(y, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), atol=1e-6)


def test_a_grid_without_place_for_padding_is_calibrated():
    x = np.linspace(-3, 3, 24).reshape(2, 1, 3, 4).astype(np.float32)
    _, code = coded(convolution_on(0.1, 0.3, 3), BitSerial(bits=8), {"x": x})
    assert (code.bits, code.low, code.high) == (8, -3, 3)


@pytest.mark.parametrize("low", [0, -255, -128, -3])
def test_a_window_found_when_it_runs_takes_as_many_slices_as_it_has_values(low):
    """x - z of bytes lies on -255..255, but those of one tensor in a window of 255 steps about 0."""
    network = network_on(-25.5, 0.1, 510)
    grid = replace(network.layers[0].input_grid, window=255)
    for each, bits, kept in [(BitSerial(bits=8), 8, True), (Thermometer(bits=8), 8, False)]:
        result, code = coded(network.with_layers([replace(network.layers[0], input_grid=grid)]), each)
        assert (code.bits, code.low, code.high, code.span is not None) == (bits, None, None, kept)
        x = (0.1 * (low + np.random.default_rng(1).integers(0, 256, (50, 4)))).astype(np.float32)
        x[0], x[1] = 0.1 * low, 0.1 * (low + 255)
        error = np.abs(outputs_of(result, {"x": x})["y"] - x).max()
        assert error < 1e-5 if kept else error > 0.1
    assert not coded(network.with_layers([replace(network.layers[0], input_grid=grid)]), Analogue())[1].span
