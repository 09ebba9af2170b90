"""Integer products: on the exact device bit for bit what onnxruntime gives on the model as it came."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.integer_sums import within_reach
from tests.support.model_kit import run_onnxruntime
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import InputGrid

TYPES = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}
MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(0)


def node(operator: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], f"{operator}_node", **attributes)


def model(nodes: list[onnx.NodeProto], x: np.ndarray, constants: dict[str, Any], shape: Any = None, opset: int = 17):
    """A model of one input `x` and one output `y`; constants of Python floats are float32."""
    arrays = {n: np.asarray(v, np.float32 if isinstance(v, float) else None) for n, v in constants.items()}
    element_type = TYPES.get(x.dtype, TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", element_type, x.shape if shape is None else shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(v, n) for n, v in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compare(proto: onnx.ModelProto, x: np.ndarray, layers: int = 1) -> np.ndarray:
    """Compile for exact arrays, run, and demand the same bits as onnxruntime's."""
    program = xbcompile.compile(proto, "ideal")
    assert len(program.network.layers) == layers
    found = xbcompile.Session(program).run({"x": x})["y"]
    expected = run_onnxruntime(proto, {"x": x})["y"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    return expected


def integers(dtype: Any, shape: tuple[int, ...], seed: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape)
    return within_reach(np.asarray(values, dtype))


dtypes = st.sampled_from([np.uint8, np.int8])
seeds = st.integers(0, 2**31)


@settings(max_examples=12, deadline=None)
@given(seeds, dtypes, dtypes, st.integers(1, 40), st.booleans(), st.sampled_from([None, (), (5,)]))
def test_matmul_integer(seed, dtype, weight_dtype, inputs, batched, zero_points):
    x = integers(dtype, (2, 3, inputs) if batched else (3, inputs), seed)
    constants: dict[str, Any] = {"w": integers(weight_dtype, (inputs, 5), seed + 1)}
    names = ["x", "w"]
    if zero_points is not None:
        constants |= {"zx": integers(dtype, (), seed + 2), "zw": integers(weight_dtype, zero_points, seed + 3)}
        names += ["zx", "zw"]
    compare(model([node("MatMulInteger", names)], x, constants), x)


def test_constant_on_the_left():
    x = integers(np.uint8, (6, 4), 1)
    constants = {"w": integers(np.uint8, (5, 6), 2), "zw": np.uint8(7), "zx": np.uint8(200)}
    compare(model([node("MatMulInteger", ["w", "x", "zw", "zx"])], x, constants), x)


def test_sums_that_float32_cannot_hold():
    """1500 x 255 x 127 = 48,577,500 is over 2**24, and odd sums of that size have no float32."""
    x = integers(np.uint8, (4, 1500), 3)
    x[0] = 255
    x[0, 0] = 254
    w = np.full((1500, 3), 127, np.int8)
    expected = compare(model([node("MatMulInteger", ["x", "w"])], x, {"w": w}), x)
    assert expected[0, 0] == 1500 * 255 * 127 - 127
    assert np.float32(expected[0, 0]) != expected[0, 0]


def test_convolution_whose_sums_float32_cannot_hold():
    x = integers(np.uint8, (1, 400, 3, 3), 4)
    w = np.full((2, 400, 3, 3), 127, np.int8)
    x[:] |= 1
    expected = compare(model([node("ConvInteger", ["x", "w"])], x, {"w": w}), x)
    assert np.abs(expected).min() > 2**24


@settings(max_examples=12, deadline=None)
@given(seeds, st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans())
def test_conv_integer(seed, spatial, groups, padded, strided):
    """A padded place holds the zero point, which stands for 0."""
    x = integers(np.uint8, (2, 4, *(6,) * spatial), seed)
    constants = {
        "w": integers(np.uint8, (4, 4 // groups, *(3,) * spatial), seed + 1),
        "zx": integers(np.uint8, (), seed + 2),
        "zw": integers(np.uint8, (), seed + 3),
    }
    attributes: dict[str, Any] = {"group": groups}
    if padded:
        attributes["pads"] = [1] * (2 * spatial)
    if strided:
        attributes["strides"] = [2] * spatial
    compare(model([node("ConvInteger", ["x", "w", "zx", "zw"], **attributes)], x, constants), x)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from([(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]), st.booleans())
def test_qlinear_matmul(seed, pair, per_column):
    """Scales whose quotients are powers of two give many ties, which are rounded to even."""
    dtype, weight_dtype = pair
    rng = np.random.default_rng(seed)
    scale = np.asarray(rng.choice([0.25, 0.013, 0.5, 0.07], 6 if per_column else ()), np.float32)
    x = integers(dtype, (7, 9), seed)
    constants = {
        "w": integers(weight_dtype, (9, 6), seed + 1),
        "sx": float(rng.choice([0.5, 0.011])),
        "sw": scale,
        "sy": float(rng.choice([64.0, 33.3])),
        "zx": integers(dtype, (), seed + 2),
        "zw": integers(weight_dtype, scale.shape, seed + 3),
        "zy": integers(dtype, (), seed + 4),
    }
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    compare(model([node("QLinearMatMul", names)], x, constants), x)


@settings(max_examples=15, deadline=None)
@given(
    seeds,
    st.sampled_from([(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 4]),
)
def test_qlinear_conv(seed, pair, per_output, biased, groups):
    dtype, weight_dtype = pair
    rng = np.random.default_rng(seed)
    x = integers(dtype, (2, 4, 6, 5), seed)
    scale = np.asarray(rng.choice([0.25, 0.013, 0.07], 8 if per_output else ()), np.float32)
    constants: dict[str, Any] = {
        "w": integers(weight_dtype, (8, 4 // groups, 3, 3), seed + 1),
        "sx": 0.5,
        "sw": scale,
        "sy": float(rng.choice([32.0, 33.3])),
        "zx": integers(dtype, (), seed + 2),
        "zw": np.zeros(scale.shape, weight_dtype) if weight_dtype is np.int8 else integers(weight_dtype, (), seed + 3),
        "zy": integers(dtype, (), seed + 4),
        "b": rng.integers(-(2**20), 2**20, 8).astype(np.int32),
    }
    if constants["zw"].shape != scale.shape:
        constants["zw"] = np.full(scale.shape, constants["zw"])
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", *(["b"] if biased else [])]
    attributes = {"pads": [1, 0, 1, 1], "strides": [2, 1], "group": groups}
    compare(model([node("QLinearConv", names, **attributes)], x, constants), x)


@pytest.mark.parametrize("channels_last", [0, 1])
def test_qlinear_conv_of_microsoft(channels_last):
    shape = (2, 5, 6, 3) if channels_last else (2, 3, 5, 6)
    x = integers(np.uint8, shape, 5)
    constants = {"w": integers(np.int8, (4, 3, 3, 3), 6), "sx": 0.1, "sw": 0.2, "sy": 4.0}
    constants |= {"zx": np.uint8(3), "zw": np.int8(0), "zy": np.uint8(100)}
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    conv = node("QLinearConv", names, domain=MICROSOFT, channels_last=channels_last, pads=[1, 1, 1, 1])
    compare(model([conv], x, constants), x)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_qgemm(trans_b, per_column, quantized):
    shape = (6,) if per_column else ()
    x = integers(np.uint8, (5, 9), 1)
    constants: dict[str, Any] = {
        "w": integers(np.int8, (6, 9) if trans_b else (9, 6), 2),
        "sw": RNG.uniform(0.01, 0.02, shape).astype(np.float32),
        "zw": integers(np.int8, shape, 3),
        "b": RNG.integers(-1000, 1000, 6).astype(np.int32),
        "sx": 0.03,
        "zx": np.uint8(9),
        "sy": 0.37,
        "zy": np.uint8(120),
    }
    names = ["x", "sx", "zx", "w", "sw", "zw", "b", *(["sy", "zy"] if quantized else [])]
    compare(model([node("QGemm", names, domain=MICROSOFT, transB=trans_b, alpha=0.7)], x, constants), x)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_dynamic_quantization(per_column, biased):
    """The range of the input, and so its zero point, is found when it runs: it is no part of the layer."""
    shape = (6,) if per_column else ()
    x = RNG.normal(size=(5, 9)).astype(np.float32)
    constants: dict[str, Any] = {
        "w": integers(np.int8, (9, 6), 2),
        "sw": RNG.uniform(0.01, 0.02, shape).astype(np.float32),
        "zw": integers(np.int8, shape, 3),
        "b": RNG.normal(size=6).astype(np.float32),
    }
    names = ["x", "w", "sw", "zw", *(["b"] if biased else [])]
    proto = model([node("DynamicQuantizeMatMul", names, domain=MICROSOFT)], x, constants)
    compare(proto, x)
    (layer,) = import_network(load_model(proto)).layers
    assert layer.input_grid is not None
    assert layer.input_grid == InputGrid(layer.input, -255, 1, 510, window=255)


LATE = {
    "MatMulInteger": (["x", "w", "z", "zw"], {}, (5, 9), (9, 6)),
    "MatMulInteger of a batch": (["x", "w", "z", "zw"], {}, (2, 5, 9), (9, 6)),
    "MatMulInteger of a constant on the left": (["w", "x", "zw", "z"], {}, (9, 5), (6, 9)),
    "ConvInteger": (["x", "w", "z", "zw"], {"pads": [1] * 4}, (2, 4, 5, 5), (6, 4, 3, 3)),
    "ConvInteger of groups": (["x", "w", "z", "zw"], {"pads": [1] * 4, "group": 2}, (2, 4, 5, 5), (6, 2, 3, 3)),
    "MatMulIntegerToFloat": (["x", "w", "s", "s", "z", "zw"], {"domain": MICROSOFT}, (5, 9), (9, 6)),
    "QLinearMatMul": (["x", "s", "z", "w", "s", "zw", "t", "zx"], {}, (5, 9), (9, 6)),
    "QLinearConv": (["x", "s", "z", "w", "s", "zw", "t", "zx"], {"pads": [1] * 4}, (2, 4, 5, 5), (6, 4, 3, 3)),
    "QGemm": (["x", "s", "z", "w", "s", "zw", "", "t", "zx"], {"domain": MICROSOFT}, (5, 9), (9, 6)),
}


@pytest.mark.parametrize("passes", ["quantize{scheme=ternary},bitserial{bits=8}", "quantize{scheme=ternary},analogue"])
@pytest.mark.parametrize("kind", LATE)
def test_a_zero_point_found_when_it_runs_meets_the_weights_that_the_array_holds(kind, passes):
    """Ternary cells hold other weights than the model's: the same as where the model has the zero point as a constant."""
    names, attributes, shape, weights = LATE[kind]
    dtype = np.int8 if kind == "MatMulInteger of a batch" else np.uint8
    x, zero = integers(dtype, shape, 1), integers(dtype, (), 7)
    constants: dict[str, Any] = {"w": integers(dtype, weights, 2), "zw": integers(dtype, (), 3)}
    constants |= {"s": 0.05, "t": 9.0, "zx": dtype(120)}
    used = {name: value for name, value in constants.items() if name in names}
    product = node(kind.split()[0], names, **attributes)
    late = model([product], x, used)
    late.graph.input.append(helper.make_tensor_value_info("z", TYPES[x.dtype], ()))
    found, wanted = (
        xbcompile.Session(xbcompile.compile(proto, "sot", passes=passes), device="ideal").run(feeds)["y"]
        for proto, feeds in [(late, {"x": x, "z": zero}), (model([product], x, used | {"z": zero}), {"x": x})]
    )
    ties = float(found.dtype.kind in "iu")  # sums of real weights are rounded
    np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=5e-5, atol=ties)


def test_inputs_at_their_zero_point_give_nothing():
    """[128, 128, 128] less 128, whatever the array holds; on [3, 1, 0] ternary cells give other column sums."""
    quantizer = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    x = np.array([[-128, -128, -128], [0, 0, 0], [127, 127, 127]], np.float32)
    proto = model([quantizer, node("MatMulInteger", ["q", "w", "z"])], x, {"w": np.array([[3], [1], [0]], np.int8)})
    session = xbcompile.Session(xbcompile.compile(proto, "sot"), device="ideal")
    assert session.run({"x": x})["y"][1] == 0


def test_integer_product_to_float():
    x = integers(np.uint8, (5, 9), 1)
    constants: dict[str, Any] = {"w": integers(np.int8, (9, 6), 2), "sx": 0.011, "zx": np.uint8(77)}
    constants |= {"sw": RNG.uniform(0.01, 0.02, 6).astype(np.float32), "b": RNG.normal(size=6).astype(np.float32)}
    names = ["x", "w", "sx", "sw", "zx", "", "b"]
    compare(model([node("MatMulIntegerToFloat", names, domain=MICROSOFT)], x, constants), x)


def test_sizes_may_be_open():
    x = integers(np.uint8, (3, 4, 5, 5), 1)
    constants = {"w": integers(np.int8, (2, 4, 3, 3), 2), "sx": 0.1, "sw": 0.1, "sy": 3.0}
    constants |= {"zx": np.uint8(7), "zw": np.int8(0), "zy": np.uint8(9)}
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    compare(model([node("QLinearConv", names)], x, constants, shape=["n", 4, "h", "w"]), x)


def test_opset_of_the_first_integer_operators():
    x = integers(np.uint8, (3, 8), 1)
    constants = {"w": integers(np.int8, (8, 4), 2), "sx": 0.1, "sw": 0.1, "sy": 3.0}
    constants |= {"zx": np.uint8(7), "zw": np.int8(0), "zy": np.uint8(9)}
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"]
    compare(model([node("QLinearMatMul", names)], x, constants, opset=10), x)


def test_reasons_to_stay_digital():
    x = integers(np.uint8, (4, 4), 1)
    constants = {"w": integers(np.uint8, (4, 4), 2), "zx": np.zeros(4, np.uint8)}
    nodes = [node("MatMulInteger", ["x", "x"], "a"), node("MatMulInteger", ["x", "w"], "b"), node("Add", ["a", "b"])]
    records = {r.layers or r.reason for r in import_network(load_model(model(nodes, x, constants))).records}
    assert 'both operands are activations: "x" is a graph input' in records


@pytest.mark.parametrize("opset", [10, 17])
def test_the_host_graph_says_the_same(opset):
    """Plain onnxruntime on the program's own model gives the integers too, beyond what float32 holds."""
    x = integers(np.uint8, (4, 1500), 3)
    x[0] = 255
    x[0, 0] = 254
    w = np.full((1500, 3), 127, np.int8)
    program = xbcompile.compile(model([node("MatMulInteger", ["x", "w"])], x, {"w": w}, opset=opset), "ideal")
    host = program.host if isinstance(program.host, onnx.ModelProto) else program.host.joined()
    expected = x.astype(np.int64) @ w.astype(np.int64)
    np.testing.assert_array_equal(run_onnxruntime(host, {"x": x})["y"], expected)


def test_sums_beyond_int32_wrap_around():
    """x @ w = 40,000 x 255 x 255 = 2,601,000,000 = 2**32 - 1,693,967,296."""
    x = np.full((1, 40_000), 255, np.uint8)
    expected = compare(model([node("MatMulInteger", ["x", "w"])], x, {"w": np.full((40_000, 1), 255, np.uint8)}), x)
    assert expected[0, 0] == 40_000 * 255 * 255 - 2**32
