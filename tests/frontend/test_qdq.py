"""Groups between DequantizeLinear and QuantizeLinear: the same bits as onnxruntime's default session gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.model_kit import run_onnxruntime
from xbcompile.frontend import import_network, load_model


class Builder:
    """A quantized model of one float input, node by node; each method gives the name of its result."""

    def __init__(self, seed: int, x_shape: tuple[int, ...], dtype: str = "uint8", weight_dtype: str = "int8") -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = x_shape
        self.dtype, self.weight_dtype = np.dtype(dtype), np.dtype(weight_dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def quantize(self, x: str, scale: float = 0.05, zero_point: int | None = None) -> tuple[str, str, str]:
        limits = np.iinfo(self.dtype)
        zero = self.rng.integers(limits.min + 90, limits.max - 90) if zero_point is None else zero_point
        names = self.constant(np.float32(scale)), self.constant(self.dtype.type(zero))
        return self.node("QuantizeLinear", x, *names), *names

    def pair(self, x: str, scale: float = 0.05, zero_point: int | None = None) -> str:
        """Quantized and back."""
        return self.node("DequantizeLinear", *self.quantize(x, scale, zero_point))

    def weights(self, shape: tuple[int, ...], axis: int | None = None) -> tuple[str, np.ndarray]:
        """Dequantized constant weights and their scales; one per index of `axis`, or one."""
        limits = np.iinfo(self.weight_dtype)
        scale = self.rng.uniform(0.005, 0.02, () if axis is None else shape[axis]).astype(np.float32)
        whole = self.rng.integers(limits.min, limits.max + 1, shape).astype(self.weight_dtype)
        symmetric = self.weight_dtype.kind == "i"
        zero = np.full(scale.shape, 0 if symmetric else 120, self.weight_dtype)
        names = (self.constant(v) for v in (whole, scale, zero))
        attributes = {} if axis is None else {"axis": axis}
        return self.node("DequantizeLinear", *names, **attributes), scale

    def bias(self, size: int, scale: np.ndarray) -> str:
        """A dequantized int32 bias."""
        whole = self.rng.integers(-2000, 2000, size).astype(np.int32)
        unit = np.broadcast_to(np.float32(0.05) * scale, (size,)).astype(np.float32)
        attributes = {"axis": 0} if scale.ndim else {}
        names = (self.constant(v) for v in (whole, unit if scale.ndim else unit[0], np.zeros_like(whole)))
        whole_name, unit_name, zeros = names
        self.constants[zeros] = np.zeros(self.constants[unit_name].shape, np.int32)
        return self.node("DequantizeLinear", whole_name, unit_name, zeros, **attributes)

    def model(self, output: str, opset: int = 17) -> onnx.ModelProto:
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["y"], "last")],
            "quantized",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape[1:]])],
            [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)

    def check(self, output: str) -> xbcompile.Program:
        """Compile for exact arrays, and demand the same bits as onnxruntime's."""
        proto = self.model(output)
        x = self.rng.normal(size=self.shape).astype(np.float32) * 2
        program = xbcompile.compile(proto, "ideal")
        found = xbcompile.Session(program).run({"x": x})["y"]
        np.testing.assert_array_equal(found, run_onnxruntime(proto, {"x": x})["y"])
        return program


def whole_layers(program: xbcompile.Program) -> list[bool]:
    """For each layer whether its sums are int32."""
    return [layer.element_type == TensorProto.INT32 for layer in program.network.layers]


dtypes = st.sampled_from([("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")])
seeds = st.integers(0, 2**31)


@settings(max_examples=12, deadline=None)
@given(seeds, dtypes, st.booleans(), st.sampled_from(["none", "int32"]), st.sampled_from([1, 4]))
def test_conv(seed, pair, per_output, bias, groups):
    b = Builder(seed, (2, 4, 6, 5), *pair)
    w, scale = b.weights((8, 4 // groups, 3, 3), 0 if per_output else None)
    inputs = [b.pair("x"), w] + ([b.bias(8, scale)] if bias == "int32" else [])
    y = b.node("Conv", *inputs, group=groups, pads=[1, 1, 1, 1])
    assert whole_layers(b.check(b.pair(y, 0.1))) == [True]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_activation_that_the_quantizer_contains(dtype, activation):
    """Behind a zero point at the lower end, Relu changes nothing; a Clip beyond the upper end neither."""
    b = Builder(1, (2, 3, 6, 6), dtype)
    y = b.node("Conv", b.pair("x"), b.weights((4, 3, 3, 3), 0)[0])
    y = (
        b.node("Relu", y)
        if activation == "Relu"
        else b.node("Clip", y, b.constant(np.float32(0)), b.constant(np.float32(90)))
    )
    assert whole_layers(b.check(b.pair(y, 0.1, np.iinfo(dtype).min))) == [True]


def test_activation_that_changes_something():
    """Relu before a zero point in the middle: onnxruntime stays with floats, and so does the layer."""
    b = Builder(2, (2, 3, 6, 6))
    y = b.node("Relu", b.node("Conv", b.pair("x"), b.weights((4, 3, 3, 3))[0]))
    program = b.check(b.pair(y, 0.1, 50))
    assert whole_layers(program) == [False]
    grid = program.network.layers[0].input_grid
    assert grid is not None
    assert (grid.steps, np.float32(grid.step)) == (255, np.float32(0.05))


@settings(max_examples=10, deadline=None)
@given(seeds, dtypes, st.booleans(), st.booleans())
def test_matmul(seed, pair, per_column, quantized):
    b = Builder(seed, (5, 9), *pair)
    y = b.node("MatMul", b.pair("x"), b.weights((9, 6), 1 if per_column else None)[0])
    assert whole_layers(b.check(b.pair(y, 0.1) if quantized else y)) == [True]


@settings(max_examples=10, deadline=None)
@given(seeds, dtypes, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_gemm(seed, pair, per_column, quantized, trans_b, bias):
    b = Builder(seed, (5, 9), *pair)
    w, scale = b.weights((6, 9) if trans_b else (9, 6), None if not per_column else 0 if trans_b else 1)
    inputs = [b.pair("x"), w] + ([b.bias(6, scale)] if bias else [])
    y = b.node("Gemm", *inputs, transB=int(trans_b))
    assert whole_layers(b.check(b.pair(y, 0.1) if quantized else y)) == [True]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_residual_network(dtype):
    """A tensor with two readers: uint8 stays whole; int8 is where onnxruntime returns to floats on x86."""
    b = Builder(3, (4, 3, 8, 8), dtype)
    low = np.iinfo(dtype).min
    first = b.pair(b.node("Relu", b.node("Conv", b.pair("x"), b.weights((6, 3, 3, 3), 0)[0], pads=[1] * 4)), 0.1, low)
    second = b.pair(b.node("Conv", first, b.weights((6, 6, 3, 3), 0)[0], pads=[1] * 4), 0.2)
    y = b.pair(b.node("Add", first, second), 0.2)
    y = b.pair(b.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.2, 7)
    y = b.pair(b.node("AveragePool", y, kernel_shape=[2, 2]), 0.15)
    y = b.pair(b.node("Concat", y, y, axis=1), 0.15)
    y = b.pair(b.node("GlobalAveragePool", y), 0.1)
    y = b.pair(b.node("Flatten", y), 0.1)
    y = b.pair(b.node("Gemm", y, b.weights((12, 5))[0]), 0.2)
    program = b.check(y)
    assert len(program.network.layers) == 3
    assert whole_layers(program)[0] is (dtype == "uint8")


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_16_bits_stay_float(dtype):
    """onnxruntime has no 16-bit integer products: float ones, equal up to their rounding, which may turn one step."""
    b = Builder(4, (3, 4, 6, 6), dtype)
    limits = np.iinfo(dtype)
    b.dtype = np.dtype(dtype)
    y = b.node("Conv", b.pair("x", 1e-3, (limits.min + limits.max) // 2), b.weights((4, 4, 3, 3))[0])
    proto = b.model(b.pair(y, 1e-3, (limits.min + limits.max) // 2), opset=21)
    x = b.rng.normal(size=b.shape).astype(np.float32)
    program = xbcompile.compile(proto, "ideal")
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x})["y"], rtol=0, atol=1.001e-3)
    assert program.network.layers[0].input_grid is not None
    assert program.network.layers[0].input_grid.steps == 2**16 - 1


def test_weights_quantized_from_floats():
    """An exporter may leave weights as floats behind their own QuantizeLinear."""
    b = Builder(5, (4, 9))
    real = b.constant(b.rng.normal(size=(9, 6)).astype(np.float32))
    scale, zero = b.constant(np.full(6, 0.02, np.float32)), b.constant(np.zeros(6, np.int8))
    w = b.node("DequantizeLinear", b.node("QuantizeLinear", real, scale, zero, axis=1), scale, zero, axis=1)
    assert whole_layers(b.check(b.pair(b.node("MatMul", b.pair("x"), w), 0.1))) == [True]


def test_float_bias_is_rounded_as_onnxruntime_does():
    """The input is 0, so the outputs are the rounded bias, in steps finer than those that it is rounded to."""
    b = Builder(6, (2, 3, 6, 6))
    w, scale = b.weights((4, 3, 3, 3), 0)
    unit = 0.05 * float(scale.min())
    y = b.node("Conv", b.pair("x"), w, b.constant((b.rng.uniform(-90, 90, 4) * unit).astype(np.float32)))
    proto = b.model(b.pair(y, unit / 1.3, 128))
    x = np.zeros(b.shape, np.float32)
    program = xbcompile.compile(proto, "ideal")
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_array_equal(found, run_onnxruntime(proto, {"x": x})["y"])
    assert whole_layers(program) == [True]


def test_bias_in_other_units_stays_float():
    """A bias whose scale is not that of the sums is no integer among them."""
    b = Builder(10, (2, 3, 6, 6))
    w, scale = b.weights((4, 3, 3, 3), 0)
    proto = b.model(b.pair(b.node("Conv", b.pair("x"), w, b.bias(4, 3 * scale)), 0.1))
    x = b.rng.normal(size=b.shape).astype(np.float32)
    program = xbcompile.compile(proto, "ideal")
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x}, optimized=False)["y"], rtol=0, atol=0.1001)
    assert whole_layers(program) == [False]


def test_clip_within_the_quantizer_s_range():
    b = Builder(11, (2, 3, 6, 6))
    y = b.node("Conv", b.pair("x"), b.weights((4, 3, 3, 3), 0)[0])
    y = b.node("Clip", y, b.constant(np.float32(0)), b.constant(np.float32(3)))
    proto = b.model(b.pair(y, 0.1, 0))
    x = b.rng.normal(size=b.shape).astype(np.float32) * 2
    program = xbcompile.compile(proto, "ideal")
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x})["y"], rtol=0, atol=0.1001)
    assert found.max() <= 3.01
    assert whole_layers(program) == [False]


def test_a_node_kept_digital_keeps_its_group():
    b = Builder(7, (5, 9))
    y = b.pair(b.node("MatMul", b.pair("x"), b.weights((9, 9))[0]), 0.1)
    proto = b.model(b.pair(b.node("MatMul", y, b.weights((9, 6))[0]), 0.1))
    first, second = (n.name for n in proto.graph.node if n.op_type == "MatMul")
    network = import_network(load_model(proto), (first,))
    assert [layer.name for layer in network.layers] == [second]
    assert {r.node: r.lowered for r in network.records} == {first: False, second: True}
    assert ("MatMul", first) in [(n.op_type, n.name) for s in network.segments for n in s.model.graph.node]


def test_a_result_that_is_read_twice_is_not_requantized():
    """The float result is read beside the quantized one: the group cannot be joined, and sums are float32."""
    b = Builder(8, (5, 9))
    y = b.node("MatMul", b.pair("x"), b.weights((9, 6))[0])
    proto = b.model(b.node("Concat", y, b.pair(y, 0.1), axis=1))
    x = b.rng.normal(size=b.shape).astype(np.float32)
    program = xbcompile.compile(proto, "ideal")
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x})["y"], rtol=1e-5, atol=1e-5)
    assert whole_layers(program) == [False]


def test_float_bias_of_a_float_result_is_not_rounded():
    """onnxruntime rounds a float bias to integers only where the result is quantized."""
    b = Builder(9, (5, 9))
    bias = b.constant(b.rng.normal(size=6).astype(np.float32))
    proto = b.model(b.node("Gemm", b.pair("x"), b.weights((9, 6))[0], bias))
    x = b.rng.normal(size=b.shape).astype(np.float32)
    found = xbcompile.Session(xbcompile.compile(proto, "ideal")).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(proto, {"x": x})["y"], rtol=1e-6, atol=1e-6)
