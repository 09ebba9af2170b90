"""Gathering vectors and laying out outputs, against onnxruntime's Conv, MatMul and Gemm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError
from xbcompile.ir import Contraction, Geometry, MatrixLayer, Patches
from xbcompile.ir.vectors import collect, count_vectors, gather, lay_out, vectors_per_sample

SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def layer_of(weights: np.ndarray, geometry: Geometry) -> MatrixLayer:
    bias = np.zeros(weights.shape[0] * weights.shape[2], np.float32)
    return MatrixLayer("layer", "x", "y", weights, bias, geometry)


def execute(layer: MatrixLayer, x: np.ndarray) -> np.ndarray:
    """Gather, multiply, lay out; on the way what both functions promise of each other."""
    vectors, shape = gather(layer, x)
    assert vectors.shape[::2] == (layer.groups, layer.inputs)
    products = np.stack([vectors[g] @ layer.weights[g] for g in range(layer.groups)], axis=1)
    y = products.reshape(len(products), -1)
    assert count_vectors(layer, x.shape) == len(y)
    assert vectors_per_sample(layer, x.shape) * len(x) == len(y) or isinstance(layer.geometry, Contraction)
    tensor = lay_out(layer, y, shape)
    assert np.array_equal(collect(layer, tensor), y)
    return tensor


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[MatrixLayer, np.ndarray]:
    rank = draw(st.integers(1, 3))
    size = st.lists(st.integers(1, 7), min_size=rank, max_size=rank)
    small = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    spatial, kernel, strides, dilations = draw(size), draw(small), draw(small), draw(small)
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto_pad.startswith("SAME"):
        dilations = [1] * rank  # onnxruntime refuses SAME with dilations
    pads = draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
    groups, per_group, outputs, batch = (draw(st.integers(1, 3)) for _ in range(4))
    used = [0] * 2 * rank if auto_pad != "NOTSET" else pads
    fits = [
        s + used[i] + used[i + rank] >= (k - 1) * d + 1
        for i, (s, k, d) in enumerate(zip(spatial, kernel, dilations, strict=True))
    ]
    assume(auto_pad.startswith("SAME") or all(fits))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.normal(size=(groups, per_group * int(np.prod(kernel)), outputs)).astype("f")
    geometry = Patches(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads), auto_pad)
    return layer_of(weights, geometry), rng.normal(size=(batch, groups * per_group, *spatial)).astype("f")


def run_conv(layer: MatrixLayer, x: np.ndarray) -> np.ndarray:
    geometry = layer.geometry
    assert isinstance(geometry, Patches)
    attributes = {name: list(getattr(geometry, name)) for name in ("strides", "dilations")}
    if geometry.auto_pad == "NOTSET":
        attributes["pads"] = list(geometry.pads)
    kernel = layer.weights.transpose(0, 2, 1).reshape(layer.groups * layer.outputs, -1, *geometry.kernel)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=layer.groups, auto_pad=geometry.auto_pad, **attributes)
    return run_onnxruntime(model_of([node], {"x": x.shape}, ["y"], {"w": kernel}), {"x": x})["y"]


@settings(max_examples=250, **SETTINGS)
@given(convolutions())
def test_convolutions_equal_onnxruntime(case: tuple[MatrixLayer, np.ndarray]) -> None:
    layer, x = case
    expected = run_conv(layer, x)
    assert isinstance(layer.geometry, Patches)
    assert expected.shape[2:] == layer.geometry.output_size(x.shape[2:])
    np.testing.assert_allclose(execute(layer, x), expected, rtol=0, atol=2e-5)


def test_images_of_one_row_or_one_column() -> None:
    rng = np.random.default_rng(4)
    for spatial in [(1, 9), (9, 1), (1, 1)]:
        for kernel, pads in (
            ((1, 1), (0, 0, 0, 0)),
            ((3, 3), (1, 1, 1, 1)),
            ((1, 3), (0, 1, 0, 1)),
            ((3, 1), (1, 0, 2, 0)),
        ):
            layer = layer_of(
                rng.normal(size=(2, 2 * kernel[0] * kernel[1], 3)).astype("f"), Patches(kernel, (1, 1), (1, 1), pads)
            )
            x = rng.normal(size=(2, 4, *spatial)).astype("f")
            np.testing.assert_allclose(execute(layer, x), run_conv(layer, x), rtol=0, atol=2e-5)


@settings(max_examples=100, **SETTINGS)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 5),
    st.sampled_from(["right", "left", "right vector", "left vector"]),
    st.integers(0, 2**32 - 1),
)
def test_products_equal_onnxruntime(shape: list[int], outputs: int, side: str, seed: int) -> None:
    """The constant on either side of MatMul, as a matrix or a vector, x of any rank."""
    assume(side.startswith("right") or len(shape) > 1)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype("f")
    axis = -1 if side.startswith("right") else -2
    weights = rng.normal(size=(1, shape[axis], 1 if "vector" in side else outputs)).astype("f")
    constant = weights[0, :, 0] if "vector" in side else weights[0] if axis == -1 else weights[0].T
    output_axis = -2 if side == "left" else -1
    layer = layer_of(weights, Contraction(axis, output_axis, squeeze="vector" in side))
    node = helper.make_node("MatMul", ["x", "w"] if axis == -1 else ["w", "x"], ["y"])
    expected = run_onnxruntime(model_of([node], {"x": shape}, ["y"], {"w": constant}), {"x": x})["y"]
    found = execute(layer, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_gemm_equals_onnxruntime_with_every_transposition() -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(1, 4, 3)).astype("f")
    for trans_a in (0, 1):
        x = rng.normal(size=(4, 6) if trans_a else (6, 4)).astype("f")
        right = helper.make_node("Gemm", ["x", "w"], ["y"], transA=trans_a)
        expected = run_onnxruntime(model_of([right], {"x": x.shape}, ["y"], {"w": weights[0]}), {"x": x})["y"]
        layer = layer_of(weights, Contraction(-2 if trans_a else -1))
        np.testing.assert_allclose(execute(layer, x), expected, rtol=0, atol=1e-6)
        left = helper.make_node("Gemm", ["w", "x"], ["y"], transB=1 - trans_a)
        expected = run_onnxruntime(model_of([left], {"x": x.shape}, ["y"], {"w": weights[0].T}), {"x": x})["y"]
        layer = layer_of(weights, Contraction(-2 if trans_a else -1, output_axis=-2))
        np.testing.assert_allclose(execute(layer, x), expected, rtol=0, atol=1e-6)


def test_vectors_of_one_sample_are_neighbours() -> None:
    """Noise counters of a chunk start at first sample times vectors per sample: sample s owns V/N vectors from s V/N."""
    layer = layer_of(np.ones((1, 3 * 4, 2), np.float32), Patches((2, 2), (1, 1), (1, 1), (0, 0, 0, 0)))
    x = np.broadcast_to(np.arange(5, dtype=np.float32)[:, None, None, None], (5, 3, 4, 4))
    vectors, _ = gather(layer, x)
    per_sample = vectors_per_sample(layer, x.shape)
    assert per_sample == 9
    assert np.array_equal(vectors[0, :, 0], np.repeat(np.arange(5), per_sample))
    layer = layer_of(np.ones((1, 4, 2), np.float32), Contraction(-2, -2))
    vectors, _ = gather(layer, x)
    assert count_vectors(layer, x.shape) == 5 * 12
    assert vectors_per_sample(layer, x.shape) == 3 * 4
    assert np.array_equal(vectors[0, :, 0], np.repeat(np.arange(5), 12))


def test_axes_that_a_tensor_does_not_have():
    """A program from a stranger may say any axis of samples; every way to vectors and back says so."""
    flat = replace(layer_of(np.ones((1, 3, 2), np.float32), Contraction(-1, -1, False)), sample_axis=8)
    patches = layer_of(np.ones((1, 9, 2), np.float32), Patches((3, 3), (1, 1), (1, 1), (0, 0, 0, 0), "NOTSET"))
    for refused in (
        lambda: count_vectors(flat, (4, 3)),
        lambda: vectors_per_sample(flat, (4, 3)),
        lambda: collect(flat, np.ones((4, 2))),
        lambda: vectors_per_sample(patches, (4, 3)),
        lambda: collect(patches, np.ones((4, 2))),
    ):
        with pytest.raises(DataError, match="layer 'layer'"):
            refused()
