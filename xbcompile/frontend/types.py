"""Inferring the type and shape of every value: by onnx where it can, by onnxruntime where it cannot."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import TypeProto, helper, shape_inference

from xbcompile.errors import ModelError
from xbcompile.frontend import engine
from xbcompile.frontend.graph import Graph, skeleton
from xbcompile.frontend.tensors import stored_bytes

_LARGEST_PROTO = 2**31 - 2**20  # protobuf's limit for one message, less some room for the nodes


def infer_types(graph: Graph) -> Graph:
    """The graph with the types of its values; shapes that the model's own annotations give are not trusted.

    Raises:
        ModelError: onnx does not know an operator's result and onnxruntime cannot load the model.
    """
    types = {value.name: value.type for value in graph.inputs}
    types.update({name: helper.make_tensor_type_proto(t.data_type, t.dims) for name, t in graph.constants.items()})
    try:
        inferred = shape_inference.infer_shapes(skeleton(graph), data_prop=True)
    except shape_inference.InferenceError:
        pass  # then onnxruntime gives all types, or the error
    else:
        types.update({value.name: value.type for value in inferred.graph.value_info})
    names = [name for node in graph.nodes for name in node.output if name]
    unknown = [name for name in names if name not in types or _is_incomplete(types[name])]
    if unknown:
        types.update(_types_from_onnxruntime(graph, unknown))
    return replace(graph, types=types)


def _is_incomplete(type_proto: TypeProto) -> bool:
    kind = type_proto.WhichOneof("value")
    if kind == "tensor_type":
        return not type_proto.tensor_type.elem_type or not type_proto.tensor_type.HasField("shape")
    return kind is None


def _types_from_onnxruntime(graph: Graph, names: list[str]) -> dict[str, TypeProto]:
    try:
        return engine.value_types(skeleton(graph), names)
    except engine.ERRORS as error:
        # Some operators demand that an input be constant: try once more with all constants in place.
        complete = sum(stored_bytes(t) for t in graph.constants.values()) < _LARGEST_PROTO
        if not complete:
            raise _cannot_load(error) from error
    try:
        return engine.value_types(skeleton(graph, limit=None), names)
    except engine.ERRORS as error:
        raise _cannot_load(error) from error


def _cannot_load(error: Exception) -> ModelError:
    return ModelError(f"onnxruntime cannot load the model: {engine.one_line(error)}")


def value_info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    """A graph input or output of this name with the inferred type."""
    return onnx.ValueInfoProto(name=name, type=graph.types.get(name))
