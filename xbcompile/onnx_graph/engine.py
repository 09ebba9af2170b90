"""What the installed onnxruntime reads and says: versions, sessions, types of values that onnx cannot infer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import onnx
import onnxruntime
from onnx import TypeProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from xbcompile.onnx_graph import split_model
from xbcompile.onnx_graph.split_model import SplitModel

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

OLDEST_OPSET = 7  # what onnxruntime guarantees
OLDEST_IR_VERSION = 4  # the first in which an initializer need not be a graph input

# onnxruntime spells element types as onnx does, in lower case.
_ELEMENT_TYPES = {name.lower(): number for name, number in onnx.TensorProto.DataType.items()}


def one_line(error: BaseException) -> str:
    """The text of an error of onnx or onnxruntime on one line."""
    return " ".join(str(error).split())


def open_session(model: onnx.ModelProto | SplitModel) -> onnxruntime.InferenceSession:
    """A session that runs the model as it stands, on the CPU, without printing warnings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return split_model.open_session(model, options)


def can_load(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime finds a kernel for every node of the model."""
    try:
        open_session(model)
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
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    opsets = [helper.make_opsetid("", opset)]
    try:
        open_session(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))
    except ERRORS:
        return False
    return True


def value_types(model: onnx.ModelProto | SplitModel, names: Iterable[str]) -> dict[str, TypeProto]:
    """The types that onnxruntime gives to values inside the model, which is changed: they become its outputs."""
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    outputs = open_session(model).get_outputs()
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
