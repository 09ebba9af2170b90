"""Building small models, and executing a network without any part of the package: numpy for its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.recurrence_kit import run_recurrence
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import Contraction, Executed, MatrixLayer, Network, Recurrence


def run_layer(layer: MatrixLayer, x: np.ndarray) -> np.ndarray:
    """The layer's arithmetic as its definition has it, in float64."""
    dtype, weights, bias = x.dtype, layer.weights.astype(np.float64), layer.bias.astype(np.float64)
    x = x.astype(np.float64)
    geometry = layer.geometry
    if isinstance(geometry, Contraction):
        y = np.moveaxis(np.moveaxis(x, geometry.input_axis, -1) @ weights[0] + bias, -1, geometry.output_axis)
        return np.asarray(np.squeeze(y, geometry.output_axis) if geometry.squeeze else y).astype(dtype)
    rank = len(geometry.kernel)
    spatial = x.shape[2:]
    pads = geometry.resolved_pads(spatial)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    extent = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
    windows = sliding_window_view(x, extent, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, s) for s in geometry.strides] + [slice(None, None, d) for d in geometry.dilations]
    windows = windows[(slice(None), slice(None), *steps)]
    batch, size = x.shape[0], windows.shape[2 : 2 + rank]
    assert size == geometry.output_size(spatial)
    grouped = windows.reshape(batch, layer.groups, -1, *size, int(np.prod(geometry.kernel)))
    vectors = np.moveaxis(grouped, 2, -2).reshape(batch, layer.groups, *size, layer.inputs)
    flat = vectors.reshape(batch, layer.groups, -1, layer.inputs) @ weights
    y = np.moveaxis(flat, -1, 2).reshape(batch, layer.groups * layer.outputs, *size)
    return (y + bias.reshape(-1, *(1,) * rank)).astype(dtype)


def run_node(node: Executed, values: dict[str, Any]) -> dict[str, Any]:
    if isinstance(node, MatrixLayer):
        assert helper.np_dtype_to_tensor_dtype(values[node.input].dtype) == node.element_type
        return {node.output: run_layer(node, values[node.input])}
    return run_onnxruntime(node.model, {name: values[name] for name in node.input_names})


def run_network(network: Network, feeds: dict[str, Any]) -> dict[str, Any]:
    values = dict(feeds)
    for node in network.nodes:
        if isinstance(node, Recurrence):
            values.update(run_recurrence(node, values, run_node))
        else:
            values.update(run_node(node, values))
    return {value.name: values[value.name] for value in network.outputs}


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right, tolerance)
        return
    assert np.asarray(found).shape == np.asarray(expected).shape
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    if np.asarray(expected).dtype.kind in "OUS":
        np.testing.assert_array_equal(found, expected)
        return
    scale = np.abs(expected).max(initial=1.0) if np.asarray(expected).dtype.kind == "f" else 1.0
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


def imported(
    model: onnx.ModelProto,
    feeds: dict[str, Any],
    tolerance: float = 2e-5,
    digital: Sequence[str] = (),
    optimized: bool = True,
) -> Network:
    """Load and import a model, run it and compare with onnxruntime on the model as given.

    Without `optimized`, onnxruntime does not replace DequantizeLinear and MatMul by its less exact integer kernels.
    """
    before = model.SerializeToString(deterministic=True)
    network = import_network(load_model(model), digital)
    assert model.SerializeToString(deterministic=True) == before, "the model was changed"
    expected, found = run_onnxruntime(model, feeds, optimized), run_network(network, feeds)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_same(found[name], expected[name], tolerance)
    return network


@pytest.fixture(scope="session")
def build() -> Callable[..., onnx.ModelProto]:
    return model_of


@pytest.fixture(scope="session")
def check() -> Callable[..., Network]:
    return imported


@pytest.fixture(scope="session")
def compare() -> Callable[[Any, Any, float], None]:
    return assert_same


@pytest.fixture(scope="session")
def execute() -> Callable[[Network, dict[str, Any]], dict[str, Any]]:
    return run_network


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
