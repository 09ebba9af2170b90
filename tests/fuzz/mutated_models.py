"""The sound models of which `mutations` makes damaged ones: shipped ones and small ones of many operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = ("digits_mlp", "letters_mlp", "mnist_lenet5_ternary", "xor")
FLOAT = TensorProto.FLOAT

Files = dict[str, bytes]  # content by file name; the model is MODEL
MODEL = "model.onnx"


def _values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str] | None],
    outputs: Sequence[str],
    constants: dict[str, Any],
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in options.pop("domains", ()))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **options)


def convolutional() -> onnx.ModelProto:
    """Grouped and plain convolutions with padding, batch normalisation, a residual sum, pooling, MatMul and Add."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4, strides=[2, 2], group=2),
        helper.make_node("BatchNormalization", ["c1", "s", "o", "m", "v"], ["n1"], name="bn"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", auto_pad="SAME_UPPER"),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="residual"),
        helper.make_node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten", axis=1),
        helper.make_node("MatMul", ["f", "w3"], ["d"], name="fc"),
        helper.make_node("Add", ["d", "b3"], ["e"], name="bias"),
        helper.make_node("Softmax", ["e"], ["y"], name="softmax", axis=-1),
    ]
    constants = {
        "w1": _values(4, 1, 3, 3),
        "b1": _values(4),
        "s": _values(4, seed=1),
        "o": _values(4, seed=2),
        "m": _values(4, seed=3),
        "v": np.abs(_values(4, seed=4)) + 0.5,
        "w2": _values(4, 4, 3, 3),
        "w3": _values(16, 5),
        "b3": _values(5),
    }
    return _model(nodes, {"x": ["n", 2, 8, 8]}, ["y"], constants)


def recurrent() -> onnx.ModelProto:
    """A bidirectional LSTM, a GRU and a dense layer."""
    nodes = [
        helper.make_node(
            "LSTM", ["x", "w", "r", "b"], ["s", "", "c"], "lstm", hidden_size=3, direction="bidirectional"
        ),
        helper.make_node("Transpose", ["s"], ["t"], name="transpose", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["u"], name="reshape"),
        helper.make_node("GRU", ["u", "gw", "gr"], ["", "h"], "gru", hidden_size=3, linear_before_reset=1),
        helper.make_node("Squeeze", ["h", "zero"], ["q"], name="squeeze"),
        helper.make_node("Gemm", ["q", "fw", "fb"], ["y"], name="fc", transB=1),
    ]
    constants = {
        "w": _values(2, 12, 4),
        "r": _values(2, 12, 3),
        "b": _values(2, 24),
        "shape": np.array([0, 0, -1], np.int64),
        "gw": _values(1, 9, 6),
        "gr": _values(1, 9, 3),
        "zero": np.array([0], np.int64),
        "fw": _values(2, 3),
        "fb": _values(2),
    }
    return _model(nodes, {"x": ["t", "n", 4]}, ["y", "c"], constants)


def quantized() -> onnx.ModelProto:
    """QDQ: a convolution with weights per channel and int32 bias, and a MatMulInteger behind DynamicQuantizeLinear."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["qx"], name="q_x"),
        helper.make_node("DequantizeLinear", ["qx", "sx", "zx"], ["dx"], name="dq_x"),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["dw"], name="dq_w", axis=0),
        helper.make_node("DequantizeLinear", ["b", "sb"], ["db"], name="dq_b", axis=0),
        helper.make_node("Conv", ["dx", "dw", "db"], ["c"], name="conv"),
        helper.make_node("Flatten", ["c"], ["f"], name="flatten"),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["qf", "sf", "zf"], name="dynamic"),
        helper.make_node("MatMulInteger", ["qf", "wi", "zf"], ["i"], name="integer"),
        helper.make_node("Cast", ["i"], ["j"], name="cast", to=FLOAT),
        helper.make_node("Mul", ["j", "sf"], ["y"], name="scale"),
    ]
    scale = np.array([0.02, 0.03, 0.04], np.float32)
    constants = {
        "sx": np.float32(0.02),
        "zx": np.uint8(128),
        "w": rng.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8),
        "sw": scale,
        "zw": np.zeros(3, np.int8),
        "b": rng.integers(-999, 999, 3).astype(np.int32),
        "sb": np.float32(0.02) * scale,
        "wi": rng.integers(-127, 128, (48, 4)).astype(np.int8),
    }
    return _model(nodes, {"x": ["n", 2, 6, 6]}, ["y"], constants)


def control_flow(times: int = 3) -> onnx.ModelProto:
    """An If whose branches capture outer tensors, and a Loop of so many iterations, between dense layers."""
    nothing: Sequence[int | str] | None = None

    def body(name: str, nodes: list[onnx.NodeProto], result: str) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(result, FLOAT, nothing)])

    then = body("then", [helper.make_node("MatMul", ["r", "w2"], ["ty"], name="then_fc")], "ty")
    other = body("else", [helper.make_node("Mul", ["r", "two"], ["ey"], name="else_mul")], "ey")
    info = helper.make_tensor_value_info
    loop = helper.make_graph(
        [
            helper.make_node("Identity", ["cond"], ["again"]),
            helper.make_node("MatMul", ["state", "w2"], ["product"], name="loop_fc"),
            helper.make_node("Tanh", ["product"], ["next"]),
        ],
        "loop",
        [info("i", TensorProto.INT64, []), info("cond", TensorProto.BOOL, []), info("state", FLOAT, nothing)],
        [info("again", TensorProto.BOOL, []), info("next", FLOAT, nothing)],
    )
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"], name="fc1"),
        helper.make_node("Relu", ["g"], ["r"], name="relu"),
        helper.make_node("ReduceSum", ["r"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Greater", ["sum", "two"], ["test"], name="greater"),
        helper.make_node("If", ["test"], ["z"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Loop", ["count", "", "z"], ["l"], name="loop", body=loop),
        helper.make_node("MatMul", ["l", "w3"], ["y"], name="fc2"),
    ]
    constants = {
        "w1": _values(5, 4),
        "b1": _values(4),
        "w2": _values(4, 4),
        "two": np.float32(2),
        "count": np.array(times, np.int64),
        "w3": _values(4, 3),
    }
    return _model(nodes, {"x": ["n", 5]}, ["y"], constants)


def functional() -> onnx.ModelProto:
    """A local function called twice, one in another, with an attribute."""
    inner = helper.make_function(
        "local",
        "Dense",
        ["a", "w"],
        ["z"],
        [
            helper.make_node("MatMul", ["a", "w"], ["m"], name="product"),
            helper.make_node("LeakyRelu", ["m"], ["z"], name="activation"),
        ],
        [helper.make_opsetid("", 17)],
    )
    outer = helper.make_function(
        "local",
        "Block",
        ["a", "v", "w"],
        ["z"],
        [
            helper.make_node("Dense", ["a", "v"], ["d"], domain="local"),
            helper.make_node("Dense", ["d", "w"], ["e"], domain="local"),
            helper.make_node("Add", ["e", "a"], ["z"]),
        ],
        [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )
    nodes = [
        helper.make_node("Block", ["x", "v", "w"], ["h"], name="block", domain="local"),
        helper.make_node("Constant", [], ["c"], name="constant", value=numpy_helper.from_array(_values(4, 2), "c")),
        helper.make_node("Einsum", ["h", "c"], ["y"], name="einsum", equation="bi,io->bo"),
    ]
    constants = {"v": _values(4, 6), "w": _values(6, 4)}
    return _model(nodes, {"x": ["n", 4]}, ["y"], constants, functions=[inner, outer], domains=["local"])


def attention() -> onnx.ModelProto:
    """One attention head: projections, products of two activations, a reshape by the input's own shape."""
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], name="value"),
        helper.make_node("Transpose", ["k"], ["kt"], name="transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], name="softmax"),
        helper.make_node("MatMul", ["p", "v"], ["z"], name="mix"),
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Reshape", ["z", "shape"], ["o"], name="reshape"),
        helper.make_node("LayerNormalization", ["o", "g"], ["n"], name="norm"),
        helper.make_node("Gemm", ["flat", "w"], ["y"], name="fc"),
    ]
    nodes.insert(10, helper.make_node("Reshape", ["n", "rows"], ["flat"], name="rows"))
    constants = {f"w{name}": _values(4, 4, seed=i) for i, name in enumerate("qkv")}
    constants |= {"g": _values(4), "rows": np.array([-1, 4], np.int64), "w": _values(4, 3)}
    return _model(nodes, {"x": ["batch", "sequence", 4]}, ["y"], constants)


def transposed() -> onnx.ModelProto:
    """An old opset: ConvTranspose, a one-dimensional convolution, Upsample by a fixed shape, Gemm with scales."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="conv", dilations=[2], pads=[2, 2]),
        helper.make_node("ConvTranspose", ["c", "w2", "b2"], ["t"], name="up", strides=[2], output_padding=[1]),
        helper.make_node("Reshape", ["t", "shape"], ["f"], name="reshape"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="fc", alpha=0.5, beta=2.0, transB=1),
    ]
    constants = {
        "w1": _values(3, 2, 3),
        "w2": _values(3, 2, 3),
        "b2": _values(2),
        "shape": np.array([-1, 20], np.int64),
        "w3": _values(3, 20),
        "b3": _values(1, 3),
    }
    return _model(nodes, {"x": [1, 2, 4]}, ["y"], constants, opset=9)


def external() -> Files:
    """The convolutional model with its weights in a file beside it."""
    model = convolutional()
    data = b""
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        for key, value in (("location", "weights.bin"), ("offset", len(data)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        data += raw
    return {MODEL: model.SerializeToString(), "weights.bin": data}


BUILT: dict[str, Callable[[], onnx.ModelProto]] = {
    "attention": attention,
    "control_flow": control_flow,
    "convolutional": convolutional,
    "functional": functional,
    "quantized": quantized,
    "recurrent": recurrent,
    "transposed": transposed,
}
NAMES = (*SHIPPED, *BUILT, "external")


@cache
def sound(name: str) -> tuple[tuple[str, bytes], ...]:
    """The files of one sound model, as (name, content)."""
    if name in SHIPPED:
        return ((MODEL, (MODELS / f"{name}.onnx").read_bytes()),)
    if name == "external":
        return tuple(external().items())
    return ((MODEL, BUILT[name]().SerializeToString()),)
