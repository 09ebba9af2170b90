"""thermometer: its error, its levels, and the noise that its slices add."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.support.model_kit import model_of
from tests.support.small_programs import dense_model
from xbcompile.errors import PassError
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.thermometer import Thermometer
from xbcompile.testing.passes import context_of, network_of, outputs_of, text_of


@pytest.fixture
def identity():
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", 1]}, ["y"], {"w": np.eye(1)})
    return network_of(model)


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 255])
def test_error_and_levels(identity, bits):
    """T slices give T + 1 equidistant values from low to high, each input the nearest: half a step at most."""
    low, high = -1.0, 2.0
    coded = Thermometer(bits=bits, low=low, high=high)(identity, context_of())
    x = np.linspace(low, high, 20_001, dtype=np.float32)[:, None]
    y = outputs_of(coded, {"x": x})["y"]
    step = (high - low) / bits
    assert np.abs(y - x).max() <= step / 2 * (1 + 1e-5)
    assert np.abs(y - x).max() >= step / 2 * 0.99  # the bound is reached
    np.testing.assert_allclose(np.unique(np.round(y, 4)), np.linspace(low, high, bits + 1), atol=1e-4)
    code = coded.layers[0].input_code
    assert (code.steps, code.bits, coded.layers[0].slices) == (bits, bits, bits)


def test_noise_power():
    """Slices of equal weight and independent read noise s: sum of squared coefficients. For 8 levels 7 s^2, against
    1 + 4 + 16 = 21 s^2 in 3 binary digits (Jung et al. 2022, Methods).
    """
    network = network_of(dense_model(2, 1))
    thermometer, digits = (
        each(network, context_of()).layers[0].input_code for each in (Thermometer(bits=7), BitSerial(bits=3))
    )
    assert thermometer.steps == digits.steps == 7
    assert np.square(thermometer.coefficients).sum() == 7
    assert np.square(digits.coefficients).sum() == 21
    assert thermometer.coefficients.sum() == digits.coefficients.sum() == 7


def test_text():
    network = Thermometer()(network_of(dense_model(6, 4, 3)), context_of())
    assert text_of(network) == [
        "matrix fc0: x -> a0: [1x6x4], real weights, thermometer x8",
        "digital digital1: (a0) -> (r0): Relu",
        "matrix fc1: r0 -> y: [1x4x3], real weights, thermometer x8",
    ]


def test_options():
    for wrong in (0, -1, 256):
        with pytest.raises(PassError, match=f"bits={wrong} is out of range; allowed: 1 to 255"):
            Thermometer(bits=wrong)
