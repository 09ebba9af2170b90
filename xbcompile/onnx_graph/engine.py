"""What the installed onnxruntime reads and says: versions, sessions, types of values that onnx cannot infer."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TypeProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.domains import XBCOMPILE
from xbcompile.onnx_graph.split_model import SplitModel, is_apart, split, stored_bytes

ERRORS: tuple[type[Exception], ...] = (
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
)

# What a run raises; RuntimeError where onnxruntime cannot take a value, say a dict for a sequence.
REFUSALS: tuple[type[Exception], ...] = (RuntimeError, *ERRORS)

HEAVY_BYTES = 2**24  # assumed: below, one message is as good as a split model

PROBE_SECONDS = 10.0  # assumed: models that take longer on a few random samples are not waited for

OLDEST_OPSET = 7  # what onnxruntime guarantees
OLDEST_IR_VERSION = 4  # the first in which an initializer need not be a graph input

_DISABLED_OPTIMIZERS = [
    "MatmulTransposeFusion"
]  # crashes onnxruntime 1.32 on Transpose, Cast (any type to float), MatMul

# onnxruntime spells element types as onnx does, in lower case.
_ELEMENT_TYPES = {name.lower(): number for name, number in onnx.TensorProto.DataType.items()}


def one_line(error: BaseException) -> str:
    """The text of an error of onnx or onnxruntime on one line."""
    return " ".join(str(error).split())


def open_session(
    model: onnx.ModelProto | SplitModel,
    *,
    optimized: bool = True,
    threads: int = 0,
    once: bool = False,
    pooled: bool = True,
) -> onnxruntime.InferenceSession:
    """The one way to a session: on the CPU, without printing warnings; large initializers are handed over as arrays.

    Args:
        model: the model.
        optimized: let onnxruntime rewrite the graph; otherwise it runs as it stands.
        threads: worker threads of one node; 0 leaves the number to onnxruntime.
        once: the session is run once or twice: what depends on constants alone is computed in the run, and no copy of
            weights is kept between runs. It takes less memory, and results may differ in rounding.
        pooled: keep the memory of a run for the next, for as many bytes as the largest run took.

    Raises:
        one of ERRORS: onnxruntime does not load the model.
    """
    if isinstance(model, onnx.ModelProto):
        heavy = sum(stored_bytes(tensor) for tensor in model.graph.initializer) > HEAVY_BYTES
        model = split(model) if heavy else SplitModel(model, {})
    # onnxruntime would round a layer's bias to the grids of the quantizers around it.
    quantizers = all(function.domain != XBCOMPILE for function in model.skeleton.functions)
    try:
        return _session(model, _options(optimized, threads, once, pooled, quantizers), once)
    except ort.NotImplemented:  # its rewriting for precision knows no int8 inputs; or it has no such kernel at all
        return _session(model, _options(optimized, threads, once, pooled, quantizers, precise=False), once)
    except ort.InvalidGraph:
        if not quantizers:
            raise
        # Its own rewriting of quantizers uses Round, which opset 10 lacks.
        return _session(model, _options(optimized, threads, once, pooled, quantizers=False), once)


def run_limited(session: onnxruntime.InferenceSession, wanted: list[str], feeds: dict[str, Any]) -> list[Any]:
    """One run, ended with an error of onnxruntime's after a while: with random inputs a loop may go on for ever."""
    options = onnxruntime.RunOptions()
    timer = threading.Timer(PROBE_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        values: list[Any] = session.run(wanted, feeds, options)
        return values
    finally:
        timer.cancel()


def _options(
    optimized: bool, threads: int, once: bool, pooled: bool, quantizers: bool, precise: bool = True
) -> onnxruntime.SessionOptions:  # fmt: skip
    """`quantizers`: whether onnxruntime may put integer kernels in the place of quantizers and what lies between."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Idle workers of onnxruntime would spin on the processors that matrix layers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Processors without VNNI would saturate sums of products of two bytes at 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1" if precise else "0")
    options.add_session_config_entry("session.disable_quant_qdq", "0" if quantizers else "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if once:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = pooled and not once
    return options


def _session(model: SplitModel, options: onnxruntime.SessionOptions, once: bool) -> onnxruntime.InferenceSession:
    apart = [tensor for tensor in model.skeleton.graph.initializer if is_apart(tensor)]
    if apart:
        values = [_value(model.tensors[tensor.name], tensor.data_type) for tensor in apart]
        options.add_external_initializers([tensor.name for tensor in apart], values)
    return onnxruntime.InferenceSession(
        model.skeleton.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[*_DISABLED_OPTIMIZERS, *(["ConstantFolding"] if once else [])],
    )


def _value(array: np.ndarray, element_type: int) -> onnxruntime.OrtValue:
    array = np.ascontiguousarray(array)
    if array.dtype.isbuiltin == 1:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"u{array.itemsize}")  # bfloat16 and the 8-bit floats, which numpy itself does not have
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, element_type)


def can_load(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime finds a kernel for every node of the model."""
    try:
        open_session(model, optimized=False)
    except ERRORS:
        return False
    return True


@cache
def newest_ir_version() -> int:
    """The newest IR version that both onnx and onnxruntime read."""
    versions = range(onnx.IR_VERSION, OLDEST_IR_VERSION, -1)
    return next((v for v in versions if _reads(v, OLDEST_OPSET)), OLDEST_IR_VERSION)


@cache
def newest_opset() -> int:
    """The newest opset of the ONNX domain that both onnx and onnxruntime read."""
    versions = range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1)
    return next((v for v in versions if _reads(OLDEST_IR_VERSION, v)), OLDEST_OPSET)


def _reads(ir_version: int, opset: int) -> bool:
    values = [[builder.value(name, onnx.TensorProto.FLOAT, [1])] for name in ("x", "y")]
    graph = builder.make_graph("probe", [helper.make_node("Identity", ["x"], ["y"])], *values)
    try:
        open_session(builder.make_model(graph, [("", opset)], ir_version), optimized=False)
    except ERRORS:
        return False
    return True


def value_types(model: onnx.ModelProto | SplitModel, names: Iterable[str]) -> dict[str, TypeProto]:
    """The types that onnxruntime gives to values inside the model, which is changed: they become its outputs."""
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    del graph.output[:]
    graph.output.extend(map(builder.value, names))
    outputs = open_session(model, optimized=False).get_outputs()
    # onnxruntime says [] of a scalar and of an unknown shape alike.
    return {value.name: type_proto(value.type, value.shape or None) for value in outputs}


def type_proto(text: str, shape: list[int | str | None] | None) -> TypeProto:
    """The TypeProto of onnxruntime's notation: `tensor(float)`, `seq(tensor(int64))`, `map(int64,tensor(float))`."""
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "seq":
        return helper.make_sequence_type_proto(type_proto(inner, None))
    if kind == "optional":
        return helper.make_optional_type_proto(type_proto(inner, None))
    if kind == "map":
        key, _, value = inner.partition(",")
        return helper.make_map_type_proto(_ELEMENT_TYPES[key], type_proto(value, None))
    if kind == "sparse_tensor":
        return helper.make_sparse_tensor_type_proto(_ELEMENT_TYPES[inner], shape)
    return helper.make_tensor_type_proto(_ELEMENT_TYPES[inner], shape)
