"""Inferring the type and shape of every value: by onnx where it can, by onnxruntime where it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, shape_inference

from xbcompile.errors import ModelError
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.graph import Graph, dimensions_of, skeleton
from xbcompile.onnx_graph.nodes import all_nodes, bodies
from xbcompile.onnx_graph.tensors import elements, to_array

MOST_ENTRIES = 2**20  # assumed: of all lists of sizes that onnx is let follow through a model, entry by entry


def infer_types(graph: Graph) -> Graph:
    """The graph with the types of its values; shapes that the model's own annotations give are not trusted.

    What the graph declares of its outputs is merged with what is inferred, as onnxruntime does it.

    Raises:
        ModelError: onnx does not know an operator's result and onnxruntime cannot load the model.
    """
    types = known_types(graph)
    names = [name for node in graph.nodes for name in node.output if name]
    unknown = [name for name in names if name not in types or _is_incomplete(types[name])]
    if unknown:
        types.update(_types_from_onnxruntime(graph, unknown))
    dimensions = _dimension_names((*graph.inputs, *graph.outputs))
    outputs = tuple(_merged(value, types.get(value.name), dimensions) for value in graph.outputs)
    return replace(graph, types=types, outputs=outputs)


def known_types(graph: Graph) -> dict[str, TypeProto]:
    """The types that onnx infers, and those of inputs and constants."""
    types = {value.name: value.type for value in graph.inputs}
    types.update({name: helper.make_tensor_type_proto(t.data_type, t.dims) for name, t in graph.constants.items()})
    try:
        inferred = inferred_model(graph)
    except shape_inference.InferenceError:
        return types  # onnxruntime may know more, or give the error
    types.update({value.name: value.type for value in inferred.graph.value_info})
    return types


def inferred_model(graph: Graph) -> ModelProto:
    """The graph's skeleton with the types that onnx infers.

    Raises:
        shape_inference.InferenceError: types contradict each other.
    """
    inferred: ModelProto = shape_inference.infer_shapes(skeleton(graph), data_prop=_has_short_lists(graph))
    return inferred


def _has_short_lists(graph: Graph) -> bool:
    """Whether lists of numbers that onnx follows through a graph, one by one, stay of a length that it has memory for.

    A Concat of a list with itself doubles it, and a Range is as long as it says; in a function, it may be of any length.
    """
    in_functions = [node for each in graph.functions for node in all_nodes(each.node)]
    nodes = [*all_nodes(graph.nodes), *in_functions]
    constants = dict(graph.constants)
    for node in nodes:
        constants.update((tensor.name, tensor) for body in bodies(node) for tensor in body.initializer)
        if node.op_type == "Constant" and node.attribute:
            constants[node.output[0]] = node.attribute[0].t
    lengths = {name: elements(tensor) for name, tensor in constants.items() if len(tensor.dims) == 1}
    total = 0
    for node in nodes:
        found = [lengths.get(name, 1) for name in node.input]
        if node.op_type in ("Concat", "Range"):
            length = sum(found) if node.op_type == "Concat" else _range_length(node, constants)
            lengths[node.output[0]] = length
            total += length
        elif any(length > 1 for length in found):
            lengths.update(dict.fromkeys(node.output, max(found)))
    return total <= MOST_ENTRIES and all(node.op_type != "Range" for node in in_functions)


def _range_length(node: NodeProto, constants: Mapping[str, TensorProto]) -> int:
    """How many numbers a Range of constant bounds makes, rounded up; 1 where they are not constant.

    onnx takes the difference of whole numbers in their own type, in which it may come out with the other sign: the longer counts.
    """
    bounds = [constants[name] for name in node.input if name in constants and elements(constants[name]) == 1]
    if len(bounds) < 3:
        return 1
    values = [to_array(each).reshape(()) for each in bounds]
    start, limit, delta = (float(value) for value in values)
    differences = [limit - start]
    if values[0].dtype.kind in "iu":
        bits = 8 * values[0].dtype.itemsize
        exact = int(values[1]) - int(values[0])
        differences.append(float((exact + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)))
    length = max(difference / delta if delta else 0.0 for difference in differences)
    return math.ceil(min(max(length, 0.0), 2.0**62)) if math.isfinite(length) else 0


def _is_incomplete(type_proto: TypeProto) -> bool:
    kind = type_proto.WhichOneof("value")
    if kind == "tensor_type":
        return not type_proto.tensor_type.elem_type or not type_proto.tensor_type.HasField("shape")
    return kind is None


def _merged(declared: onnx.ValueInfoProto, inferred: TypeProto | None, names: set[str]) -> onnx.ValueInfoProto:
    """A graph output as onnxruntime describes it: sizes before names, declared names before inferred ones.

    Where a rank or a size contradicts the inferred one, only what both say alike is left. Names of dimensions other than
    `names` are made up by onnx.
    """
    merged = copied(declared)
    if inferred is None:
        return merged
    known = copied(inferred)
    for dim in known.tensor_type.shape.dim if known.tensor_type.HasField("shape") else ():
        if dim.dim_param not in names:
            dim.ClearField("dim_param")
    if not declared.type.WhichOneof("value"):
        merged.type.CopyFrom(known)
    elif known.tensor_type.HasField("shape") and declared.type.HasField("tensor_type"):
        _merge_shapes(merged.type.tensor_type, known.tensor_type.shape)
    return merged


def _merge_shapes(declared: TypeProto.Tensor, found: onnx.TensorShapeProto) -> None:
    """Put what is found into what is declared."""
    if not declared.HasField("shape"):
        declared.shape.CopyFrom(found)
        return
    if len(declared.shape.dim) != len(found.dim):
        declared.ClearField("shape")
        return
    pairs = list(zip(declared.shape.dim, found.dim, strict=True))
    for mine, other in pairs:
        if mine.HasField("dim_value") and other.HasField("dim_value") and mine.dim_value != other.dim_value:
            break
        if other.HasField("dim_value") or not (mine.HasField("dim_value") or mine.dim_param):
            mine.CopyFrom(other)
    else:
        return
    for mine, other in pairs:
        if mine != other:
            mine.Clear()


def _dimension_names(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    return {dim.dim_param for value in values for dim in dimensions_of(value.type)}


def _types_from_onnxruntime(graph: Graph, names: list[str]) -> dict[str, TypeProto]:
    try:
        return engine.value_types(skeleton(graph), names)
    except engine.ERRORS:
        pass  # some operators demand that an input be constant: try once more with all constants in place
    try:
        return engine.value_types(skeleton(graph, limit=None), names)
    except engine.ERRORS as error:
        raise ModelError(f"onnxruntime cannot load the model: {engine.one_line(error)}") from error


def value_info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    """A graph input or output of this name with the inferred type."""
    return onnx.ValueInfoProto(name=name, type=graph.types.get(name))


def numpy_type(value: onnx.ValueInfoProto) -> np.dtype[Any] | None:
    """The numpy element type of a graph input or output; `object` for texts, None where the model does not say it."""
    element_type = value.type.tensor_type.elem_type
    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type)) if element_type else None
