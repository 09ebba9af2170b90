"""bitserial: its error and its levels. Its noise is beside the thermometer's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.support.model_kit import model_of
from tests.support.small_programs import dense_model
from xbcompile.errors import PassError
from xbcompile.passes.bitserial import BitSerial
from xbcompile.testing.passes import context_of, network_of, outputs_of, text_of


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_error_and_levels(bits):
    """B slices give 2^B equidistant values from low to high, each input the nearest: half a step at most."""
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", 1]}, ["y"], {"w": np.eye(1)})
    low, high = -1.0, 2.0
    coded = BitSerial(bits=bits, low=low, high=high)(network_of(model), context_of())
    x = np.linspace(low, high, 20_001, dtype=np.float32)[:, None]
    y = outputs_of(coded, {"x": x})["y"]
    step = (high - low) / (2**bits - 1)
    assert step / 2 * 0.99 <= np.abs(y - x).max() <= step / 2 * (1 + 1e-5)
    np.testing.assert_allclose(np.unique(np.round(y, 4)), np.linspace(low, high, 2**bits), atol=1e-4)


def test_slices_are_binary_digits():
    code = BitSerial(bits=4)(network_of(dense_model(2, 1)), context_of()).layers[0].input_code
    assert code.coefficients.tolist() == [1, 2, 4, 8]
    assert (code.bits, code.steps) == (4, 15)


def test_text():
    network = BitSerial(bits=4)(network_of(dense_model(6, 4)), context_of())
    assert text_of(network) == ["matrix fc0: x -> y: [1x6x4], real weights, bitserial x4"]


def test_options():
    for wrong in (0, -1, 17):
        with pytest.raises(PassError, match=f"bits={wrong} is out of range; allowed: 1 to 16"):
            BitSerial(bits=wrong)
