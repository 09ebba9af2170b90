"""Grids of tensors, checked by brute force: every value that onnxruntime gives is on the grid that was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.model_kit import run_onnxruntime
from xbcompile.frontend.grids import Grid
from xbcompile.frontend.integer_layers import find_grids
from xbcompile.onnx_graph.graph import from_model
from xbcompile.onnx_graph.types import infer_types

S = np.float32(0.1)


def graph_of(nodes: list[tuple[Any, ...]], constants: dict[str, Any], dtype: Any = np.uint8, shape: Any = (2, 4, 6, 6)):
    """Nodes as (operator, inputs, output, attributes); the input `x` holds integers."""
    made = [
        helper.make_node(op, inputs.split(), [output], output, **attributes) for op, inputs, output, attributes in nodes
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    x = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
    graph = helper.make_graph(made, "grids", [x], [onnx.ValueInfoProto(name=made[-1].output[0])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def check(nodes: list[tuple[Any, ...]], constants: dict[str, Any], dtype: Any = np.uint8) -> Grid | None:
    """The grid of the last node's output, after a look whether its values on all integers of the type are on it."""
    proto = graph_of(nodes, constants, dtype)
    grid = find_grids(infer_types(from_model(proto))).get(nodes[-1][2])
    limits = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(limits.min, limits.max + 1, (2, 4, 6, 6)).astype(dtype)
    x.flat[:2] = limits.min, limits.max
    if grid is not None and grid.is_bounded:
        values = run_onnxruntime(proto, {"x": x}, optimized=False)[nodes[-1][2]].astype(float)
        index = (values - grid.low) / grid.step
        np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
        assert index.min() > -0.5
        assert index.max() < grid.steps + 0.5
    return grid


DEQUANTIZED = [("DequantizeLinear", "x s z", "d", {})]
CONSTANTS = {"s": S, "z": np.uint8(100)}


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("Reshape", "d shape", {}),
        ("Transpose", "d", {"perm": [0, 2, 3, 1]}),
        ("Flatten", "d", {}),
        ("MaxPool", "d", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Gather", "d indices", {"axis": 1}),
        ("Slice", "d one two", {}),
        ("Concat", "d d", {"axis": 1}),
        ("Pad", "d pads", {}),
        ("Identity", "d", {}),
    ],
)
def test_values_that_are_moved_keep_their_grid(operator, inputs, attributes):
    constants = {"shape": np.array([2, -1]), "indices": np.array([2, 0]), "one": np.array([1]), "two": np.array([2])}
    constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    grid = check([*DEQUANTIZED, (operator, inputs, "y", attributes)], {**CONSTANTS, **constants})
    assert grid is not None
    assert (grid.steps, np.float32(grid.step)) == (255, S)


def test_relu_and_clip_cut_the_grid():
    grid = check([*DEQUANTIZED, ("Relu", "d", "y", {})], CONSTANTS)
    assert (grid.low, grid.steps) == (0, 155)
    constants = {**CONSTANTS, "low": np.float32(-1), "high": np.float32(2)}
    assert check([*DEQUANTIZED, ("Clip", "d low high", "y", {})], constants).steps == 30


def test_limits_off_the_grid_end_it():
    constants = {**CONSTANTS, "low": np.float32(-1.05), "high": np.float32(2)}
    assert check([*DEQUANTIZED, ("Clip", "d low high", "y", {})], constants) is None


def test_integers_less_their_zero_point():
    nodes = [("Cast", "x", "i", {"to": TensorProto.INT32}), ("Sub", "i z", "y", {})]
    grid = check(nodes, {"z": np.int32(7)}, np.int8)
    assert (grid.low, grid.high, grid.step) == (-135, 120, 1)


def test_sums_that_would_wrap_have_no_grid():
    nodes = [("Cast", "x", "i", {"to": TensorProto.INT32}), ("Add", "i z", "y", {})]
    assert check(nodes, {"z": np.int32(2**31 - 100)}) is None


@pytest.mark.parametrize("operator", ["AveragePool", "Sigmoid", "Softmax"])
def test_other_operators_leave_the_grid(operator):
    attributes = {"kernel_shape": [2, 2]} if operator == "AveragePool" else {}
    assert check([*DEQUANTIZED, (operator, "d", "y", attributes)], CONSTANTS) is None


def test_a_scale_per_channel_is_no_grid():
    constants = {"s": np.full(4, S) * np.arange(1, 5, dtype=np.float32), "z": np.zeros(4, np.uint8)}
    assert check([("DequantizeLinear", "x s z", "d", {"axis": 1})], constants) is None


def test_padding_off_the_grid_ends_it():
    constants = {**CONSTANTS, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "fill": np.float32(0.05)}
    assert check([*DEQUANTIZED, ("Pad", "d pads fill", "y", {})], constants) is None


def test_unequal_grids_do_not_join():
    nodes = [*DEQUANTIZED, ("DequantizeLinear", "x t z", "e", {}), ("Concat", "d e", "y", {"axis": 1})]
    assert check(nodes, {**CONSTANTS, "t": np.float32(0.3)}) is None


def test_a_user_model_s_own_signs_are_no_quantizer():
    """Sign and Where of the model itself: passes that average over repeated reads stay as the user chose them."""
    assert check([*DEQUANTIZED, ("Sign", "d", "y", {})], CONSTANTS) is None
