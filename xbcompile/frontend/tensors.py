"""Reading TensorProto: sizes, arrays, sparse tensors, and every tensor that a model holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from xbcompile.errors import ModelError

_PACKED_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    getattr(TensorProto, "INT2", -1): 2,  # absent before onnx 1.20
    getattr(TensorProto, "UINT2", -1): 2,
}


def elements(tensor: TensorProto) -> int:
    """Number of elements by the tensor's shape."""
    return math.prod(tensor.dims)


def item_bytes(element_type: int) -> int:
    """Bytes of one element in memory; 1 for those that are packed, 8 for text."""
    if element_type == TensorProto.STRING:
        return 8
    return helper.tensor_dtype_to_np_dtype(element_type).itemsize


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that the tensor's raw data must have."""
    if tensor.data_type in _PACKED_BITS:
        return -(-elements(tensor) * _PACKED_BITS[tensor.data_type] // 8)
    return elements(tensor) * item_bytes(tensor.data_type)


def to_array(tensor: TensorProto) -> np.ndarray:
    """The tensor's content; large tensors are read once and not copied again."""
    return numpy_helper.to_array(tensor)


def dense(sparse: onnx.SparseTensorProto) -> TensorProto:
    """The dense tensor of a sparse initializer (indices in either of ONNX's two forms)."""
    values, indices = to_array(sparse.values), to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        array[tuple(indices.T)] = values
    else:
        array.reshape(-1)[indices] = values
    return numpy_helper.from_array(array, sparse.values.name)


def check_sizes(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for a tensor whose data is shorter or longer than its shape asks for."""
    for tensor in model_tensors(model):
        if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING) or not tensor.HasField("raw_data"):
            continue
        found, needed = len(tensor.raw_data), stored_bytes(tensor)
        if found != needed:
            raise ModelError(
                f'{where}: tensor "{tensor.name}" holds {found} bytes, but its shape {list(tensor.dims)} and '
                f"element type {TensorProto.DataType.Name(tensor.data_type)} need {needed}; export the model again"
            )


def model_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model: initializers and attributes, those of bodies and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: object) -> Iterator[TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]  # a protobuf container
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []:
        yield sparse.values
        yield sparse.indices
    for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
        yield from _graph_tensors(graph)
