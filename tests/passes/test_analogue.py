"""analogue: exact inside the range, and only where rows take any value."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.passes.analogue import Analogue
from xbcompile.testing.passes import assert_equals_model, context_of, network_of, spec_with, text_of


@pytest.mark.parametrize("model", [dense_model(6, 4, 3), convolution_model()], ids=["dense", "convolution"])
def test_exact_inside_the_range(model):
    """On the inputs that it was calibrated on, and on any within an explicit range."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(1).normal(size=(40, *shape)).astype("f")
    assert_equals_model(Analogue()(network_of(model), context_of(calibration={"x": x})), model, {"x": x})
    assert_equals_model(Analogue(low=-100.0, high=100.0)(network_of(model), context_of()), model, {"x": x})
    assert_equals_model(Analogue()(network_of(model), context_of()), model, {"x": x})  # own ranges


def test_one_slice():
    code = Analogue()(network_of(dense_model(2, 1)), context_of()).layers[0].input_code
    assert (code.bits, code.steps, code.coefficients.tolist()) == (1, 0, [1])


def test_text():
    network = Analogue()(network_of(dense_model(6, 4)), context_of())
    assert text_of(network) == ["matrix fc0: x -> y: [1x6x4], real weights, analogue x1"]


@pytest.mark.parametrize("drive", ["bipolar", "unipolar"])
def test_binary_rows(drive):
    message = f"the target's rows take {drive} drives only; use thermometer{{}} or bitserial{{}}"
    with pytest.raises(PassError) as caught:
        Analogue()(network_of(dense_model(6, 4)), context_of(spec_with([-1, 1], drive)))
    assert str(caught.value) == message


def test_rows_of_both_signs_have_a_symmetric_range():
    """An input of 0 then drives nothing, whatever the inputs were on the calibration data."""
    context = context_of(spec_with([-1, 0, 1], "signed"), {"x": np.array([[-1.0, 3], [0.5, 2]], "f")})
    code = Analogue()(network_of(dense_model(2, 1)), context).layers[0].input_code
    assert (code.low, code.high) == (-3, 3)
    zeros = context_of(spec_with([-1, 0, 1], "signed"), {"x": np.zeros((2, 2), "f")})
    code = Analogue()(network_of(dense_model(2, 1)), zeros).layers[0].input_code
    assert (code.low, code.high) == (-1, 1)
