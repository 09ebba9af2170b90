"""No samples are a call too: each kind of layer gives outputs of no samples, of the shapes and types that onnxruntime gives.

onnxruntime 1.32 ends the process on an LSTM or GRU of no samples: there the shapes are those of one sample, with 0 in its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError
from xbcompile.ir import Patches
from xbcompile.ir.vectors import gather, lay_out
from xbcompile.runtime import Session
from xbcompile.targets import load_target

node = helper.make_node
RNG = np.random.default_rng(0)
INFO = helper.make_tensor_value_info


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*shape: int) -> np.ndarray:
    return RNG.integers(-9, 10, shape).astype(np.int8)


def _bytes(model: ModelProto) -> ModelProto:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


def dense(shape: list[Any], nodes: list[Any], **constants: Any) -> ModelProto:
    return model_of(nodes, {"x": shape}, [nodes[-1].output[0]], constants)


def convolution(rank: int, operator: str, **attributes: Any) -> ModelProto:
    groups = attributes.get("group", 1)
    kernel = real(4, 6 // groups, *[3] * rank) if operator == "ConvTranspose" else real(8, 4 // groups, *[3] * rank)
    return dense(["n", 4, *[6] * rank], [node(operator, ["x", "w"], ["y"], **attributes)], w=kernel)


def recurrent(operator: str, direction: str = "forward") -> ModelProto:
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator], 2 if direction == "bidirectional" else 1
    nodes = [node(operator, ["x", "w", "r"], ["y", "h"], hidden_size=2, direction=direction)]
    constants = {"w": real(count, 2 * gates, 4), "r": real(count, 2 * gates, 2)}
    return model_of(nodes, {"x": [5, "n", 4]}, ["y", "h"], constants)


def pooled() -> ModelProto:
    nodes = [
        node("Conv", ["x", "w"], ["h"], pads=[1] * 4),
        node("Relu", ["h"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v", "b"], ["y"]),
    ]
    return dense(["n", 1, 6, 6], nodes, w=real(2, 1, 3, 3), v=real(18, 3), b=real(3))


def attention() -> ModelProto:
    nodes = [node("MatMul", ["x", name], [f"p{name}"]) for name in "qkv"]
    nodes += [
        node("Transpose", ["pk"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["pq", "t"], ["s"]),
        node("Softmax", ["s"], ["a"]),
        node("MatMul", ["a", "pv"], ["y"]),
    ]
    return dense(["n", 5, 4], nodes, q=real(4, 4), k=real(4, 4), v=real(4, 4))


def scan() -> ModelProto:
    body = helper.make_graph(
        [node("MatMul", ["e", "w"], ["p"]), node("Add", ["p", "s"], ["t"]), node("Identity", ["t"], ["o"])],
        "body",
        [INFO("s", TensorProto.FLOAT, None), INFO("e", TensorProto.FLOAT, None)],
        [INFO("t", TensorProto.FLOAT, None), INFO("o", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("ReduceSum", ["x", "one"], ["z"], keepdims=0),
        node("Scan", ["z", "steps"], ["f", "y"], body=body, num_scan_inputs=1),
    ]
    return dense(["n", 20, 4], nodes, w=real(4, 4), one=np.array([1]))


def loop(trips: int) -> ModelProto:
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("MatMul", ["s", "w"], ["t"])],
        "body",
        [INFO("i", TensorProto.INT64, []), INFO("c", TensorProto.BOOL, []), INFO("s", TensorProto.FLOAT, None)],
        [INFO("d", TensorProto.BOOL, []), INFO("t", TensorProto.FLOAT, None)],
    )
    return dense(["n", 4], [node("Loop", ["k", "", "x"], ["y"], body=body)], k=np.array(trips), w=real(4, 4))


def quantized() -> ModelProto:
    inputs = ["x", "s", "z", "w", "s", "zw", "s", "z"]
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "w": whole(3, 4, 3, 3), "zw": np.int8(0)}
    return _bytes(dense(["n", 4, 6, 6], [node("QLinearConv", inputs, ["y"])], **constants))


def two_inputs() -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["u", "w"], ["k"]), node("Add", ["h", "k"], ["y"])]
    return model_of(nodes, {"x": ["n", 4], "u": ["n", 4]}, ["y"], {"w": real(4, 3)})


MODELS = {
    "Gemm": dense(["n", 4], [node("Gemm", ["x", "w", "b"], ["y"])], w=real(4, 3), b=real(3)),
    "Gemm of columns": dense([4, "n"], [node("Gemm", ["x", "w"], ["y"], transA=1)], w=real(4, 3)),
    "MatMul": dense(["n", 5, 4], [node("MatMul", ["x", "w"], ["y"])], w=real(4, 3)),
    "MatMul from the left": dense(["n", 4, 5], [node("MatMul", ["w", "x"], ["y"])], w=real(3, 4)),
    "MatMul of a vector": dense(["n", 4], [node("MatMul", ["x", "w"], ["y"])], w=real(4)),
    "samples on axis 1": dense([5, "n", 4], [node("MatMul", ["x", "w"], ["y"])], w=real(4, 3)),
    **{f"Conv {rank}d": convolution(rank, "Conv", pads=[1] * 2 * rank) for rank in (1, 2, 3)},
    **{f"depthwise {rank}d": convolution(rank, "Conv", group=4) for rank in (1, 2, 3)},
    **{f"grouped {rank}d": convolution(rank, "Conv", group=2, strides=[2] * rank) for rank in (1, 2, 3)},
    **{f"ConvTranspose {rank}d": convolution(rank, "ConvTranspose", strides=[2] * rank) for rank in (1, 2, 3)},
    "pooled and flattened": pooled(),
    "attention": attention(),
    "RNN": recurrent("RNN"),
    "LSTM": recurrent("LSTM"),
    "GRU, both ways": recurrent("GRU", "bidirectional"),
    "Scan": scan(),
    "Loop taken apart": loop(3),
    "Loop": loop(20),
    "QLinearConv": quantized(),
    "ConvInteger": _bytes(dense(["n", 4, 6, 6], [node("ConvInteger", ["x", "w"], ["y"])], w=whole(3, 4, 3, 3))),
    "MatMulInteger": _bytes(dense(["n", 4], [node("MatMulInteger", ["x", "w"], ["y"])], w=whole(4, 3))),
    "two inputs": two_inputs(),
}


def feeds_of(model: ModelProto, samples: int) -> dict[str, np.ndarray]:
    found = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else samples for dim in tensor.shape.dim]
        found[value.name] = RNG.integers(0, 9, shape).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return found


class OneByOne:
    """A device that takes one event at a time, and no others."""

    lsb = None

    def __init__(self) -> None:
        self.held: dict[int, np.ndarray] = {}
        self.reads = 0

    def write(self, event: Any, cells: np.ndarray) -> None:
        self.held[event.array] = np.array(cells)

    def read(self, event: Any, drive: np.ndarray) -> np.ndarray:
        self.reads += 1
        return drive.astype(float) @ self.held[event.array]


def empty_outputs(name: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    model = MODELS[name]
    if name.startswith(("LSTM", "GRU")):
        return {
            output: (tuple(0 if i == value.ndim - 2 else size for i, size in enumerate(value.shape)), value.dtype)
            for output, value in run_onnxruntime(model, feeds_of(model, 1)).items()
        }
    return {output: (v.shape, v.dtype) for output, v in run_onnxruntime(model, feeds_of(model, 0)).items()}


@pytest.mark.parametrize("name", MODELS)
def test_no_samples_give_outputs_of_no_samples(name):
    """On small tiles, one array that is rewritten, a coding with ranges found when it runs, and one event at a time."""
    model, wanted = MODELS[name], empty_outputs(name)
    assert all(0 in shape for shape, _ in wanted.values())
    tiles = load_target("ideal").with_quantities("tiles", rows=4, columns=4)
    for target, options in ((tiles, {}), (tiles, {"arrays": 1, "batch": 2}), ("mram64", {})):
        program = xbcompile.compile(model, target, effort=0, **options)
        for device in (None, OneByOne()) if target is tiles and not options else (None,):
            session = Session(program, device, threads=1)
            for _ in range(2):  # behind a run of samples, too
                found = session.run(feeds_of(model, 0))
                assert {output: (value.shape, value.dtype) for output, value in found.items()} == wanted
                session.run(feeds_of(model, 1))


@pytest.mark.parametrize("name", ["Gemm", "Conv 2d", "LSTM"])
def test_no_samples_make_no_reads(name):
    device = OneByOne()
    tiles = load_target("ideal").with_quantities("tiles", rows=4, columns=4)
    session = Session(xbcompile.compile(MODELS[name], tiles, effort=0), device, threads=1)
    session.run(feeds_of(MODELS[name], 0))
    assert device.reads == session.counters.reads == 0
    session.run(feeds_of(MODELS[name], 1))
    assert device.reads == session.counters.reads > 0


def test_inference_sessions_take_no_samples():
    model = MODELS["Conv 2d"]
    (found,) = xbcompile.InferenceSession(model).run(None, feeds_of(model, 0))
    assert found.shape == (0, 8, 6, 6)


def test_a_shape_that_onnxruntime_cannot_give_is_one_clear_error():
    """0 in a Reshape stands for the input's own size, so that -1 cannot be found out."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Reshape", ["h", "s"], ["y"])]
    model = dense(["n", 4], nodes, w=real(4, 4), s=np.array([0, -1]))
    with pytest.raises(DataError, match=r"onnxruntime cannot run the model on these inputs: .*Reshape"):
        Session(xbcompile.compile(model, "ideal", effort=0)).run(feeds_of(model, 0))


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_what_ends_onnxruntimes_process_is_one_clear_error(operator):
    model = recurrent(operator)
    model.graph.node[0].name = "cell"
    session = Session(xbcompile.compile(model, "ideal", effort=0, digital=("cell",), embed_model=False))
    with pytest.raises(
        DataError, match=f'tensor "x" is empty, and {operator} takes no empty batch or sequence; give one'
    ):
        session.run(feeds_of(model, 0))
    session.run(feeds_of(model, 1))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_patches_of_no_samples(rank):
    layer = xbcompile.compile(MODELS[f"grouped {rank}d"], "ideal", effort=0).network.layers[0]
    assert isinstance(layer.geometry, Patches)
    vectors, shape = gather(layer, np.zeros((0, 4, *[6] * rank), np.float32))
    assert vectors.shape == (2, 0, 2 * 3**rank)
    assert lay_out(layer, np.zeros((0, 8), np.float32), shape).shape == (0, 8, *[2] * rank)
