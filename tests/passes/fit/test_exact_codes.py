"""Weights that are on a grid already: their codes are the grid, against numpy's own reconstruction and least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.model_kit import model_of
from xbcompile.passes.fit import exact_codes
from xbcompile.passes.fit.least_squares import fit_levels
from xbcompile.passes.quantize import Quantize
from xbcompile.testing.passes import context_of, network_of, spec_with


def rebuilt(found: exact_codes.ExactCodes, levels: np.ndarray) -> np.ndarray:
    return found.scale * levels[found.codes] + found.offset


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([2, 3, 4, 16, 255, 256]),
    st.integers(2, 60),
    st.floats(1e-6, 1e6),
    st.floats(-3, 3),
)
def test_every_grid_is_found(seed, count, inputs, step, shift):
    """Whole numbers times a step plus a shift of a few ranges, rounded to float32, whatever divisors they share."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, count, (inputs, 7))
    whole[0], whole[1] = 0, count - 1
    weights = ((whole + np.round(shift * count)) * step).astype(np.float32)
    levels = np.linspace(-1, 1, count)
    found = exact_codes.find(weights, levels)
    assert found.found.all()
    np.testing.assert_allclose(rebuilt(found, levels), weights, rtol=0, atol=2e-6 * np.abs(weights).max())


def test_a_common_divisor_is_found():
    """13, 46, 93, ... have no small number among them; their greatest common divisor is 1."""
    whole = np.array([0, 13, 46, 93, 140, 154, 171, 200, 243])
    found = exact_codes.find((whole * np.float32(0.013)).astype(np.float32)[:, None], np.linspace(-1, 1, 256))
    np.testing.assert_array_equal(found.codes[:, 0], whole)


def test_codes_lie_apart_as_far_as_the_table_allows():
    """Three values on 256 levels: 127 levels apart, so that a step of the weights is 127 of the array's."""
    found = exact_codes.find(np.array([[-0.5], [0.0], [0.5]]), np.linspace(-1, 1, 256))
    assert found.codes[:, 0].tolist() == [0, 127, 254]


@pytest.mark.parametrize("count", [2, 3, 256])
def test_two_values_have_codes_whatever_they_are(count):
    weights = np.array([[1000.0, -1e-3], [1000.0625, 5e6]], np.float32)
    levels = np.linspace(-1, 1, count)
    found = exact_codes.find(weights, levels)
    np.testing.assert_allclose(rebuilt(found, levels), weights, rtol=1e-6)
    assert exact_codes.find(weights, levels, apart=False).codes.tolist() == [[0, 0], [1, 1]]


def test_sixteen_bits():
    """Steps of a 65,535th of the range are told from float32 rounding, which is a 256th of a step."""
    whole = np.random.default_rng(0).integers(-32768, 32768, (200, 3))
    whole[0], whole[1] = -32768, 32767
    found = exact_codes.find((whole * np.float32(0.0131)).astype(np.float32), np.linspace(-1, 1, 2**16))
    np.testing.assert_array_equal(found.codes, whole + 32768)
    real = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    assert not exact_codes.find(real, np.linspace(-1, 1, 2**16)).found.any()


@pytest.mark.parametrize("count", [4, 256])
def test_real_weights_are_left_alone(count):
    weights = np.random.default_rng(0).normal(size=(600, 50)).astype(np.float32)
    assert not exact_codes.find(weights, np.linspace(-1, 1, count)).found.any()


def test_a_grid_of_too_many_values_is_left_alone():
    weights = np.arange(17.0)[:, None] / 8
    assert exact_codes.find(weights, np.linspace(-1, 1, 17)).found.all()
    assert not exact_codes.find(weights, np.linspace(-1, 1, 16)).found.any()


def test_one_weight_off_the_grid_is_seen():
    """A weight a thousandth of a step aside is no rounding."""
    weights = np.arange(9.0)[:, None]
    weights[4] += 1e-3
    assert not exact_codes.find(weights, np.linspace(-1, 1, 16)).found.any()


def test_columns_of_one_value_are_left_to_least_squares():
    assert not exact_codes.find(np.full((5, 2), 0.3), np.linspace(-1, 1, 4)).found.any()


@pytest.mark.parametrize("per", ["column", "matrix"])
def test_quantize_takes_the_grid(per):
    """int8 weights on 256 levels: each code differs from its neighbour's by one integer, no error; real columns as before."""
    rng = np.random.default_rng(1)
    weights = (rng.integers(-127, 128, (40, 6)) * np.float32(0.0131)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
    network = network_of(model_of([node], {"x": ["n", 40]}, ["y"], {"w": weights}))
    context = context_of(spec_with(np.linspace(-1, 1, 256)))
    code = Quantize(per=per)(network, context).layers[0].weight_code
    assert code is not None
    np.testing.assert_allclose(code.dequantized()[0], weights, rtol=0, atol=1e-6)
    steps = np.diff(np.unique(np.stack([code.codes[0, :, 0], np.rint(weights[:, 0] / 0.0131)]), axis=1), axis=1)
    np.testing.assert_array_equal(steps[0], steps[1])


def test_mixed_columns():
    """Columns on a grid and others side by side: the others get what least squares gives them alone."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(30, 4)).astype(np.float32)
    weights[:, 1] = rng.integers(0, 4, 30)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
    network = network_of(model_of([node], {"x": ["n", 30]}, ["y"], {"w": weights}))
    code = Quantize(levels=4)(network, context_of(spec_with(np.linspace(-1, 1, 4)))).layers[0].weight_code
    assert code is not None
    np.testing.assert_allclose(code.dequantized()[0, :, 1], weights[:, 1], atol=1e-6)
    alone = fit_levels(weights[:, [0, 2, 3]], np.linspace(-1, 1, 4))
    np.testing.assert_array_equal(code.codes[0][:, [0, 2, 3]], alone.codes)
