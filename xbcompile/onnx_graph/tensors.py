"""Reading TensorProto: arrays, sparse tensors, checks of content, and every tensor that a model holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from xbcompile.errors import ModelError
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.split_model import PACKED_BITS, elements, item_bytes, stored_bytes

__all__ = [
    "check_sizes",
    "dense",
    "elements",
    "item_bytes",
    "model_tensors",
    "size_bytes",
    "stored_bytes",
    "to_array",
]

LARGEST_DENSE_BYTES = 2**31  # onnxruntime makes sparse initializers dense, in one protobuf message
_LARGEST_ARRAY_BYTES = 2**62  # numpy counts the bytes of arrays in int64, axes of size 0 left out

_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def size_bytes(tensor: TensorProto) -> int:
    """Bytes of the content, by shape and element type; text is measured."""
    return int(tensor.ByteSize()) if tensor.data_type == TensorProto.STRING else stored_bytes(tensor)


def to_array(tensor: TensorProto) -> np.ndarray:
    """The tensor's content; large tensors are read once and not copied again."""
    return numpy_helper.to_array(tensor)


def dense(sparse: SparseTensorProto) -> TensorProto:
    """The dense tensor of a sparse initializer (indices in either of ONNX's two forms)."""
    values, indices = to_array(sparse.values), to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        array[tuple(indices.T)] = values
    else:
        array.reshape(-1)[indices] = values
    return builder.tensor(sparse.values.name, array)


def check_sizes(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for a tensor whose content does not fit its shape and element type, and for sparse ones too large."""
    for tensor in model_tensors(model):
        _check_tensor(tensor, f'{where}: tensor "{tensor.name}"')
    dense_bytes = 0
    for sparse in _model_sparse(model):
        what = f'{where}: sparse tensor "{sparse.values.name}"'
        _check_sparse(sparse, what)
        dense_bytes += math.prod(sparse.dims) * item_bytes(sparse.values.data_type)
        if dense_bytes > LARGEST_DENSE_BYTES:
            raise ModelError(
                f"{what} and those before it would take {dense_bytes} bytes when dense (allowed: {LARGEST_DENSE_BYTES}); store "
                f"the values as dense tensors"
            )


def _check_tensor(tensor: TensorProto, what: str) -> None:
    kind, dims = tensor.data_type, list(tensor.dims)
    if kind == TensorProto.UNDEFINED or kind not in TensorProto.DataType.values():
        raise ModelError(f"{what} has element type number {kind}, which ONNX does not define; export the model again")
    if any(size < 0 for size in dims):
        raise ModelError(f"{what} has shape {dims}; sizes must not be negative: export the model again")
    if math.prod(filter(None, dims)) * item_bytes(kind) > _LARGEST_ARRAY_BYTES and 0 in dims:
        raise ModelError(f"{what} has shape {dims}, which no array can have; export the model again")
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which onnxruntime does not read; export the model again")
    name = TensorProto.DataType.Name(kind)
    if tensor.HasField("raw_data") and kind != TensorProto.STRING:
        found, needed, unit = _raw_length(tensor), stored_bytes(tensor), "bytes"
    else:
        found, needed, unit = len(getattr(tensor, helper.tensor_dtype_to_field(kind))), _entries(tensor), "numbers"
    if found != needed:
        raise ModelError(
            f"{what} holds {found} {unit}, but its shape {dims} and element type {name} need {needed}; "
            f"export the model again"
        )


def _raw_length(tensor: TensorProto) -> int:
    return len(tensor.raw_data)


def _entries(tensor: TensorProto) -> int:
    """Numbers in the typed field that a tensor without raw data must have (onnx.proto, TensorProto)."""
    count = elements(tensor)
    if tensor.data_type in _COMPLEX:
        return 2 * count
    if tensor.data_type in PACKED_BITS:
        return -(-count * PACKED_BITS[tensor.data_type] // 8)
    return count


def _check_sparse(sparse: SparseTensorProto, what: str) -> None:
    dims, values, indices = list(sparse.dims), sparse.values, sparse.indices
    if any(size < 0 for size in dims):
        raise ModelError(f"{what} has shape {dims}; sizes must not be negative: export the model again")
    size = math.prod(dims)
    if size * item_bytes(values.data_type) > LARGEST_DENSE_BYTES:
        raise ModelError(
            f"{what} would take {size * item_bytes(values.data_type)} bytes when dense (allowed: {LARGEST_DENSE_BYTES}); "
            f"store the values as a dense tensor, or split it"
        )
    count = elements(values)
    shapes = ([count], [count, len(dims)])
    if indices.data_type != TensorProto.INT64 or list(indices.dims) not in shapes or values.data_type in PACKED_BITS:
        raise ModelError(
            f"{what} has indices of shape {list(indices.dims)} (allowed: int64, {shapes[0]} or {shapes[1]}); "
            f"export the model again"
        )
    array = to_array(indices)
    limits = np.array(dims if array.ndim == 2 else size, np.int64)
    if np.any(array < 0) or np.any(array >= limits):
        raise ModelError(f"{what} has indices outside its shape {dims}; export the model again")


def model_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model: initializers and attributes, those of bodies and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in _attribute_sparse(attribute):
        yield sparse.values
        yield sparse.indices
    for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
        yield from _graph_tensors(graph)


def _model_sparse(model: onnx.ModelProto) -> Iterator[SparseTensorProto]:
    """Every sparse tensor of the model, as `model_tensors`."""
    yield from _graph_sparse(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield from _nested_sparse(attribute)


def _graph_sparse(graph: onnx.GraphProto) -> Iterator[SparseTensorProto]:
    yield from graph.sparse_initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from _nested_sparse(attribute)


def _nested_sparse(attribute: AttributeProto) -> Iterator[SparseTensorProto]:
    yield from _attribute_sparse(attribute)
    for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
        yield from _graph_sparse(graph)


def _attribute_sparse(attribute: AttributeProto) -> Iterator[SparseTensorProto]:
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor
    yield from attribute.sparse_tensors
