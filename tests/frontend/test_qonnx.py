"""QONNX's quantizers against their definition in numpy, written from the text of the QONNX operator pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.model_kit import run_onnxruntime
from xbcompile.cli.verifying import compare_with_model
from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model, runnable

GENERAL = "qonnx.custom_op.general"
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}


def quant(x, scale, zero_point, bits, signed, narrow, mode):
    """Clip to the integers of so many bits, round, and back; one signed bit is a sign."""
    scale, zero_point = np.float32(scale), np.float32(zero_point)
    y = x / scale + zero_point
    if signed and bits == 1:
        y = np.where(y >= 0, np.float32(1), np.float32(-1))
    else:
        low = -(2 ** (bits - 1)) + narrow if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        y = ROUNDINGS[mode](np.clip(y, np.float32(low), np.float32(high)))
    return ((y - zero_point) * scale).astype(np.float32)


def model(nodes, x_shape, constants, version: int = 1, opset: int = 13, domain: str = GENERAL) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "qonnx",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(operator: str, inputs: list[str], output: str = "q", domain: str = GENERAL, **attributes: Any):
    return helper.make_node(operator, inputs, [output], f"{operator}_{output}", domain=domain, **attributes)


def product(x: str = "q") -> onnx.NodeProto:
    """A layer with the unit matrix, through which a quantizer's result is seen as it is."""
    return helper.make_node("MatMul", [x, "w"], ["y"], "product")


def result(proto: onnx.ModelProto, x: np.ndarray, pipeline: str | None = None) -> tuple[Any, np.ndarray]:
    program = xbcompile.compile(proto, "ideal", passes=pipeline)
    return program, xbcompile.Session(program).run({"x": x})["y"]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(ROUNDINGS)),
    st.sampled_from([0.5, 0.1, 1.0]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from(["Quant", "IntQuant"]),
)
def test_activation(seed, bits, signed, narrow, mode, scale, zero_point, operator):
    """Half of the inputs lie half-way between two values, where the rounding modes differ."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 10)).astype(np.float32) * np.float32(scale * 2**bits)
    x[::2] = (np.round(x[::2] / np.float32(scale)) + np.float32(0.5)) * np.float32(scale)
    constants = {"s": scale, "z": zero_point, "b": bits, "w": np.eye(10)}
    quantizer = node(operator, ["x", "s", "z", "b"], signed=int(signed), narrow=int(narrow), rounding_mode=mode.lower())
    program, found = result(model([quantizer, product()], ["n", 10], constants), x)
    expected = quant(x, scale, zero_point, bits, signed, narrow, mode)
    np.testing.assert_array_equal(found, expected)
    if bits == 1 and narrow:
        return
    grid = program.network.layers[0].input_grid
    assert grid is not None
    assert grid.steps == (1 if bits == 1 else 2**bits - 1 - narrow)
    assert set(np.round((expected.ravel() - grid.low) / grid.step)) <= set(range(grid.steps + 1))


@pytest.mark.parametrize("mode", sorted(ROUNDINGS))
def test_rounding_modes(mode):
    """Quarters from -3 to 3: whole, half-way, and on either side of it."""
    x = np.arange(-12, 13, dtype=np.float32).reshape(1, 25) / 4
    quantizer = node("Quant", ["x", "s", "z", "b"], signed=1, narrow=0, rounding_mode=mode)
    _, found = result(model([quantizer, product()], [1, 25], {"s": 1.0, "z": 0.0, "b": 4, "w": np.eye(25)}), x)
    np.testing.assert_array_equal(found, ROUNDINGS[mode](x))


@pytest.mark.parametrize("shape", [(), (1, 4), (3, 1)])
def test_weights_become_constants_on_a_grid(shape):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 4)).astype(np.float32)
    scale = rng.uniform(0.1, 0.5, shape).astype(np.float32)
    nodes = [node("Quant", ["w", "s", "z", "b"], signed=1, narrow=1, rounding_mode="ROUND"), product("x")]
    nodes[1].input[:] = ["x", "q"]
    network = import_network(load_model(model(nodes, [2, 3], {"w": w, "s": scale, "z": 0.0, "b": 3.0})))
    assert not network.segments
    np.testing.assert_array_equal(network.layers[0].weights[0], quant(w, scale, 0.0, 3, True, True, "ROUND"))


def test_bipolar():
    x = np.array([[-2.0, -0.0, 0.0, 1e-30, 5.0]], np.float32)
    nodes = [node("BipolarQuant", ["x", "s"]), product()]
    program, found = result(model(nodes, [1, 5], {"s": 0.25, "w": np.eye(5)}), x)
    np.testing.assert_array_equal(found, [[-0.25, 0.25, 0.25, 0.25, 0.25]])
    grid = program.network.layers[0].input_grid
    assert (grid.low, grid.step, grid.steps) == (-0.25, 0.5, 1)


@pytest.mark.parametrize("mode", ["FLOOR", "ROUND", "CEIL"])
@pytest.mark.parametrize("zero_point", [0.0, 4.0])
def test_trunc_of_version_1(mode, zero_point):
    """8 bits less their lower 4: the integers are divided by 16 and rounded; the scale stays."""
    x = np.arange(-100, 100, dtype=np.float32).reshape(4, 50) * np.float32(0.125)
    constants = {"s": 0.125, "z": zero_point, "i": 8, "o": 4, "w": np.eye(50)}
    nodes = [node("Trunc", ["x", "s", "z", "i", "o"], rounding_mode=mode), product()]
    _, found = result(model(nodes, [4, 50], constants), x)
    whole = np.arange(-100, 100).reshape(4, 50) + zero_point
    np.testing.assert_array_equal(found, (ROUNDINGS[mode](whole / 16) - zero_point) * 0.125)


@pytest.mark.parametrize("signed", [0, 1])
def test_trunc_of_version_2(signed):
    """From steps of 0.125 to steps of 0.5: integers are divided by 4, limited to 4 bits, and rounded."""
    x = np.arange(-100, 100, dtype=np.float32).reshape(4, 50) * np.float32(0.125)
    constants = {"s": 0.125, "z": 0.0, "i": 8, "t": 0.5, "o": 4, "w": np.eye(50)}
    nodes = [
        node("Trunc", ["x", "s", "z", "i", "t", "o"], rounding_mode="FLOOR", signed=signed, narrow=0),
        product(),
    ]
    program, found = result(model(nodes, [4, 50], constants, version=2), x)
    low, high = (-8, 7) if signed else (0, 15)
    expected = np.floor(np.clip(np.arange(-100, 100).reshape(4, 50) / 4, low, high)) * 0.5
    np.testing.assert_array_equal(found, expected)
    assert program.network.layers[0].input_grid.steps == 15


def test_float_quant():
    """Exponents of 3 bits with bias 3, mantissas of 2 bits: the values are known, each input goes to the nearest."""
    positive = [m / 4 * 2.0**-2 for m in range(4)]
    positive += [(1 + m / 4) * 2.0**e for e in range(-2, 5) for m in range(4)]
    values = np.array(sorted({v for p in positive for v in (p, -p)}))
    x = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32) * 8
    x[0] *= 4
    constants = {"s": 1.0, "e": 3, "m": 2, "bias": 3, "max": 28.0, "w": np.eye(20)}
    attributes = {"has_inf": 0, "has_nan": 0, "has_subnormal": 0, "saturation": 1, "rounding_mode": "ROUND"}
    nodes = [node("FloatQuant", ["x", "s", "e", "m", "bias", "max"], **attributes), product()]
    _, found = result(model(nodes, [8, 20], constants), x)
    np.testing.assert_array_equal(found, values[np.abs(x[..., None] - values).argmin(axis=-1)])


@pytest.mark.parametrize("opset", [9, 10, 13, 17])
@pytest.mark.parametrize("domain", [GENERAL, "onnx.brevitas"])
def test_opsets_and_domains(opset, domain):
    x = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32) * 3
    constants = {"s": 0.3, "z": 0.0, "b": 4, "w": np.eye(10)}
    quantizer = node("Quant", ["x", "s", "z", "b"], domain=domain, signed=1, narrow=0, rounding_mode="ROUND")
    _, found = result(model([quantizer, product()], [4, 10], constants, opset=opset, domain=domain), x)
    np.testing.assert_array_equal(found, quant(x, 0.3, 0.0, 4, True, False, "ROUND"))


def brevitas_like() -> tuple[onnx.ModelProto, np.ndarray]:
    """Conv with 3-bit weights per channel, BatchNormalization, 4-bit activation, MaxPool, Gemm with binary weights."""
    rng = np.random.default_rng(1)
    constants: dict[str, Any] = {
        "w": rng.normal(size=(6, 3, 3, 3)),
        "sw": rng.uniform(0.2, 0.4, (6, 1, 1, 1)),
        "z": 0.0,
    }
    constants |= {"b3": 3, "b4": 4, "b8": 8, "sx": 0.05, "sa": 0.1, "v": rng.normal(size=(5, 6 * 9)), "sv": 0.25}
    constants |= {n: rng.uniform(0.5, 1.5, 6) for n in ("gamma", "beta", "mean", "variance")}
    conv = {"pads": [1] * 4}
    nodes = [
        node("Quant", ["x", "sx", "z", "b8"], "xq", signed=1, narrow=0, rounding_mode="ROUND"),
        node("Quant", ["w", "sw", "z", "b3"], "wq", signed=1, narrow=1, rounding_mode="ROUND"),
        helper.make_node("Conv", ["xq", "wq"], ["c"], "conv", **conv),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        node("Quant", ["r", "sa", "z", "b4"], "a", signed=0, narrow=0, rounding_mode="ROUND"),
        helper.make_node("MaxPool", ["a"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        node("BipolarQuant", ["v", "sv"], "vq"),
        helper.make_node("Gemm", ["f", "vq"], ["y"], "gemm", transB=1),
    ]
    return model(nodes, ["n", 3, 6, 6], constants), rng.normal(size=(3, 3, 6, 6)).astype(np.float32)


def test_network_with_few_bits_is_coded_without_error():
    """On 8 levels and 8 bits in series: 3-bit and binary weights, 8- and 4-bit inputs, and no error but float32's."""
    proto, x = brevitas_like()
    _, expected = result(proto, x)
    program, found = result(proto, x, "quantize{levels=8},bitserial{bits=8}")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert [layer.slices for layer in program.network.layers] == [8, 4]
    assert {r.node: r.lowered for r in program.network.records} == {"conv": True, "gemm": True}


def test_bit_width_must_be_constant():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["b"], "maximum"),
        node("Quant", ["x", "s", "z", "b"], signed=1, narrow=0),
        product(),
    ]
    with pytest.raises(ModelError, match=r'node "Quant_q" \(Quant.*bit width "b" must be constant'):
        import_network(load_model(model(nodes, [1, 4], {"s": 1.0, "z": 0.0, "w": np.eye(4)})))


def test_unknown_rounding_mode():
    nodes = [node("Quant", ["x", "s", "z", "b"], signed=1, narrow=0, rounding_mode="NEAREST"), product()]
    with pytest.raises(ModelError, match='rounding_mode "NEAREST" is unknown; allowed: ROUND'):
        import_network(load_model(model(nodes, [1, 4], {"s": 1.0, "z": 0.0, "b": 4.0, "w": np.eye(4)})))


def as_published(proto: onnx.ModelProto, ir_version: int, integers: bool) -> onnx.ModelProto:
    """Without imports of QONNX's domains, all initializers among the inputs; zero points and bit widths as int64."""
    model = onnx.ModelProto.FromString(proto.SerializeToString())
    model.ir_version = ir_version
    del model.opset_import[1:]
    for tensor in model.graph.initializer:
        if integers and tensor.name in ("z", "b3", "b4", "b8"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int64), tensor.name))
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("integers", [False, True])
def test_files_as_they_are_published(ir_version, integers, tmp_path):
    """Brevitas and QKeras write such files, and the executor of the package qonnx runs them."""
    proto, x = brevitas_like()
    _, expected = result(proto, x)
    published = as_published(proto, ir_version, integers)
    program, found = result(published, x)
    np.testing.assert_array_equal(found, expected)
    assert {r.node: r.lowered for r in program.network.records} == {"conv": True, "gemm": True}
    onnx.save(published, tmp_path / "m.onnx")
    findings, notes = compare_with_model(program, tmp_path / "m.onnx")
    assert (findings, len(notes)) == ([], 1)
    assert float(notes[0].partition("from the model ")[2].partition(",")[0]) < 1e-5


CHANNELS_LAST = "qonnx.custom_op.channels_last"


def test_channels_last():
    """Against the operators of ONNX on transposed values, weights and result."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 3, 7, 6)).astype(np.float32)
    constants: dict[str, Any] = {"w": rng.normal(size=(5, 3, 3, 2)), "b": rng.normal(size=5)}
    constants |= {n: rng.uniform(0.5, 1.5, 5) for n in ("gamma", "beta", "mean", "variance")}
    conv = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
    norm = ["c", "gamma", "beta", "mean", "variance"]

    def nodes(domain: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", domain=domain, **conv),
            helper.make_node("BatchNormalization", norm, ["n"], "norm", domain=domain, epsilon=0.01),
            helper.make_node("MaxPool", ["n"], ["y"], "pool", domain=domain, **pool),
        ]

    expected = run_onnxruntime(model(nodes(""), x.shape, constants), {"x": x})["y"]
    constants["w"] = constants["w"].transpose(0, 2, 3, 1)
    last = model(nodes(CHANNELS_LAST), (2, 7, 6, 3), constants, domain=CHANNELS_LAST, version=13)
    program, found = result(last, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    assert [(r.node, r.operator, r.lowered) for r in program.network.records] == [("conv", "Conv", True)]


@pytest.mark.parametrize(
    ("layout", "shape"), [("", (4, 6)), ("", (2, 6, 3, 3)), ("", (2, 4, 6)), ("NHWC", (2, 3, 3, 6))]
)
@pytest.mark.parametrize("channels", [1, 6])
def test_multi_threshold(layout, shape, channels):
    """The number of thresholds that a value reaches, equality included, times a scale plus a bias: a known grid.

    Without a layout, axis 1 counts channels, and the last one of three axes (multithreshold.py of qonnx). The second reads what
    the first gives, whose rank is known only then.
    """
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=shape) * 4).astype(np.float32) / 2
    thresholds = np.sort(np.round(rng.normal(size=(channels, 7)) * 4) / 2, axis=1).astype(np.float32)
    axis = layout.index("C") if layout else {3: 2}.get(len(shape), 1)
    attributes = {"out_scale": 0.5, "out_bias": -1.0, "data_layout": layout, "out_dtype": "INT4"}
    nodes = [node("MultiThreshold", [a, "t"], b, **attributes) for a, b in (("x", "p"), ("p", "q"))]
    nodes.append(product())

    def reached(values: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(values, axis, -1)[..., None]
        return np.moveaxis((moved >= thresholds).sum(axis=-1) * 0.5 - 1.0, -1, axis).astype(np.float32)

    program, found = result(model(nodes, shape, {"t": thresholds, "w": np.eye(shape[-1])}), x)
    np.testing.assert_array_equal(found, reached(reached(x)))
    grid = program.network.layers[0].input_grid
    assert (grid.low, grid.step, grid.steps) == (-1.0, 0.5, 7)


def test_xnor_popcount():
    """How many bits agree."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(0, 2, size).astype(np.float32) for size in ((4, 10), (10, 3)))
    program, found = result(model([node("XnorPopcountMatMul", ["x", "w"], "y")], [4, 10], {"w": w}), x)
    np.testing.assert_array_equal(found, (x[:, :, None] == w[None]).sum(axis=1))
    assert len(program.network.layers) == 1


def windows(x: np.ndarray, kernel: tuple[int, int], strides: tuple[int, int], dilations=(1, 1)) -> np.ndarray:
    """[N, H', W', kernel rows, kernel columns, C] of [N, H, W, C]."""
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))
    return view[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]].transpose(0, 1, 2, 4, 5, 3)


def test_im2col_is_a_convolution_with_channels_last():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 8, 7, 3)).astype(np.float32), rng.normal(size=(18, 5)).astype(np.float32)
    attributes = {
        "kernel_size": [3, 2],
        "stride": [2, 1],
        "pad_amount": [1, 0, 1, 2],
        "dilations": [1, 2],
        "pad_value": -1,
    }
    nodes = [node("Im2Col", ["x"], "q", input_shape="(2, 8, 7, 3)", **attributes), product()]
    program, found = result(model(nodes, x.shape, {"w": w}), x)
    padded = np.pad(x, [(0, 0), (1, 1), (0, 2), (0, 0)], constant_values=-1)
    columns = windows(padded, (3, 2), (2, 1), (1, 2))
    np.testing.assert_allclose(found, columns.reshape(*columns.shape[:3], -1) @ w, rtol=1e-4, atol=1e-4)
    assert len(program.network.layers) == 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pooling(layout):
    """Sums of 2x2 windows of 4-bit integers have 6 bits, of which QuantAvgPool2d keeps the upper 4; MaxPoolNHWC their largest."""
    x = np.random.default_rng(0).integers(0, 16, (2, 6, 6, 3)).astype(np.float32)
    sums = np.floor(windows(x, (2, 2), (2, 2)).sum(axis=(3, 4)) / 4)
    attributes = {"kernel": 2, "stride": 2, "ibits": 4, "obits": 4, "signed": 0, "data_layout": layout}
    given, expected = (x, sums) if layout == "NHWC" else (x.transpose(0, 3, 1, 2), sums.transpose(0, 3, 1, 2))
    nodes = [node("QuantAvgPool2d", ["x"], "q", **attributes), node("DebugMarker", ["q"], "y", export_debug_name="d")]
    _, found = result(model(nodes, given.shape, {}), np.ascontiguousarray(given))
    np.testing.assert_array_equal(found, expected)
    pool = node("MaxPoolNHWC", ["x"], "y", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
    _, found = result(model([pool], x.shape, {}), x)
    np.testing.assert_array_equal(found, windows(x, (2, 2), (2, 2)).max(axis=(3, 4)))


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (
            [node("GenericPartition", ["x"], "p", model="a.onnx"), node("Fancy", ["p"], "y", domain="finn.other")],
            r"not supported: GenericPartition of qonnx\.custom_op\.general \(GenericPartition_p\); Fancy of finn\.other",
        ),
        ([node("Quant", ["x", "s", "z"], "y")], r'node "Quant_y" \(Quant, .*\): it has 3 inputs; allowed: 4'),
        ([node("MultiThreshold", ["x", "x"], "y")], r'its thresholds "x" must be constant'),
        ([node("MultiThreshold", ["x", "s"], "y")], r"must be \[channels, steps\]; their shape is \[\]"),
        ([node("Conv", ["x", "w"], "y", domain=CHANNELS_LAST)], "it has no kernel_shape"),
        ([node("XnorPopcountMatMul", ["x", "t"], "y")], r'its second operand "t" must be a matrix of known size'),
        ([node("Im2Col", ["x"], "y", kernel_size=[3])], "of other than two axes"),
    ],
)
def test_what_is_not_supported_is_said_at_once(nodes, text):
    constants = {"s": 1.0, "z": 0.0, "w": np.ones((4, 4)), "t": np.ones((1, 4, 4))}
    with pytest.raises(ModelError, match=text):
        import_network(load_model(model(nodes, [1, 4], constants)))


def test_a_rank_that_nothing_says():
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), node("MultiThreshold", ["r", "t"], "y")]
    proto = model(nodes, None, {"t": np.ones((4, 2))})
    proto.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, ["n"]))
    with pytest.raises(ModelError, match=r'MultiThreshold.*: the shape of its input "r" is not known; .* data_layout'):
        import_network(load_model(proto))


def test_quantizers_inside_control_flow_are_named():
    branches = {
        name: helper.make_graph([node("BipolarQuant", ["x", "s"], name)], name, [], [onnx.ValueInfoProto(name=name)])
        for name in ("then", "other")
    }
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branches["then"], else_branch=branches["other"])
    proto = model([choice], [1, 4], {"s": 1.0})
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    with pytest.raises(
        ModelError, match=r"BipolarQuant of .* inside control flow \(BipolarQuant_other, BipolarQuant_then\)"
    ):
        import_network(load_model(proto))


def test_what_the_program_keeps_of_the_model_runs_in_onnxruntime():
    """Device passes are fitted against the user's model; onnxruntime has no QONNX operators."""
    proto, x = brevitas_like()
    _, expected = result(proto, x)
    program = xbcompile.compile(proto, "m2tj4", calibration={"x": x}, passes="quantize,analogue,recalibrate")
    found = xbcompile.Session(program).run({"x": x})["y"]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(run_onnxruntime(runnable(load_model(proto)), {"x": x})["y"], expected, atol=1e-5)
