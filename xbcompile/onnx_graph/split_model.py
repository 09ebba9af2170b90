"""Models of any size: the large initializers as arrays beside a small protobuf message.

No protobuf message can be serialised above 2 GiB, and one that holds weights is slow to copy. A split model's skeleton
is small whatever the weights; onnxruntime is handed the arrays as they are (`engine.open_session`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import TensorProto, helper, numpy_helper

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.onnx_graph.builder import copied

LARGE_BYTES = 4096  # initializers above this size are no shapes, axes, scales or the like; assumed

PACKED_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    getattr(TensorProto, "FLOAT6E2M3", -1): 6,  # absent before onnx 1.22
    getattr(TensorProto, "FLOAT6E3M2", -1): 6,
    getattr(TensorProto, "INT2", -1): 2,  # absent before onnx 1.20
    getattr(TensorProto, "UINT2", -1): 2,
}

# Element types of which onnxruntime takes arrays: whole bytes each.
_ARRAY_TYPES = frozenset(
    {
        TensorProto.BFLOAT16,
        TensorProto.BOOL,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)


@dataclass(frozen=True, eq=False)
class SplitModel(ContentEqual):
    """An ONNX model whose large initializers are arrays.

    Args:
        skeleton: the model; its large initializers keep name, element type and dims, are marked as external data and
            hold none.
        tensors: the large initializers by name, with their shapes and element types.
    """

    skeleton: onnx.ModelProto
    tensors: dict[str, np.ndarray]

    def copy(self) -> SplitModel:
        """The same with a skeleton of its own, to be changed."""
        return SplitModel(copied(self.skeleton), self.tensors)

    def joined(self) -> onnx.ModelProto:
        """The model in one message, which cannot be serialised above 2 GiB."""
        model = copied(self.skeleton)
        fill(model.graph, self.tensors)
        return model


def elements(tensor: TensorProto) -> int:
    """Number of elements by the tensor's shape."""
    return math.prod(tensor.dims)


def item_bytes(element_type: int) -> int:
    """Bytes of one element in memory; 1 for those that are packed, 8 for text."""
    if element_type == TensorProto.STRING:
        return 8
    return helper.tensor_dtype_to_np_dtype(element_type).itemsize


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that the tensor's raw data must have, by shape and element type alone; 8 per text."""
    if tensor.data_type in PACKED_BITS:
        return -(-elements(tensor) * PACKED_BITS[tensor.data_type] // 8)
    return elements(tensor) * item_bytes(tensor.data_type)


def is_apart(tensor: TensorProto) -> bool:
    """Whether an initializer of a skeleton is one whose content is among the arrays."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def apart(name: str, array: np.ndarray) -> TensorProto:
    """The initializer of a skeleton in an array's place."""
    element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(name=name, data_type=element_type, dims=array.shape, data_location=TensorProto.EXTERNAL)


def fill(graph: onnx.GraphProto, tensors: dict[str, np.ndarray]) -> None:
    """Put the arrays in the place of a skeleton's empty initializers."""
    for initializer in graph.initializer:
        if is_apart(initializer):
            initializer.raw_data = tensors[initializer.name].tobytes()
            initializer.ClearField("data_location")


def split(model: onnx.ModelProto, limit: int = LARGE_BYTES, known: Iterable[np.ndarray] = ()) -> SplitModel:
    """The model with the initializers above `limit` bytes as arrays; those in bodies of control flow stay.

    Args:
        model: is not changed.
        limit: initializers of more bytes become arrays.
        known: arrays that are there anyway; an initializer of the same content shares the memory of one.
    """
    skeleton, tensors = onnx.ModelProto(), {}
    candidates: dict[tuple[str, int, bytes], np.ndarray] = {}
    for array in known:
        candidates.setdefault(_glimpse(array), array)
    _copy_fields(model, skeleton, "graph")
    skeleton.graph.SetInParent()
    _copy_fields(model.graph, skeleton.graph, "initializer")
    for tensor in model.graph.initializer:
        if _is_array(tensor, limit) and tensor.name not in tensors:
            _copy_fields(tensor, skeleton.graph.initializer.add(), "raw_data")
            skeleton.graph.initializer[-1].data_location = TensorProto.EXTERNAL
            tensors[tensor.name] = _shared(numpy_helper.to_array(tensor), candidates)
        else:
            skeleton.graph.initializer.add().CopyFrom(tensor)
    return SplitModel(skeleton, tensors)


def _glimpse(array: np.ndarray) -> tuple[str, int, bytes]:
    """What tells most arrays apart: element type, size and first elements."""
    return array.dtype.name, array.size, array.ravel()[:64].tobytes()


def _shared(array: np.ndarray, candidates: dict[tuple[str, int, bytes], np.ndarray]) -> np.ndarray:
    """A view of the candidate of the same content, in the array's shape; else the array."""
    candidate = candidates.get(_glimpse(array))
    if candidate is None or not candidate.flags.c_contiguous:
        return array
    bits = candidate.reshape(-1).view(np.uint8), np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return candidate.reshape(array.shape) if np.array_equal(*bits) else array


def _is_array(tensor: TensorProto, limit: int) -> bool:
    return tensor.HasField("raw_data") and tensor.data_type in _ARRAY_TYPES and stored_bytes(tensor) > limit


def _copy_fields(source: Message, target: Message, left_out: str) -> None:
    """Copy every field of a message but one into an empty message."""
    for name in (field.name for field in source.DESCRIPTOR.fields if field.name != left_out):
        value = getattr(source, name)
        if isinstance(value, Message):
            if source.HasField(name):
                getattr(target, name).CopyFrom(value)
        elif isinstance(value, (str, bytes, int, float)):
            if source.HasField(name):
                setattr(target, name, value)
        else:
            getattr(target, name).MergeFrom(value)
