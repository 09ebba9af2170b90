"""ONNX models in a program file, from anywhere: their skeletons, checked, with the tensors that the archive holds.

A model in a program reads nothing but the archive: the initializers of its main graph that are apart name a tensor of the
archive, and no other tensor, wherever it may be (attributes, bodies, functions, sparse tensors), is external data.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf brings no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # likewise
from onnx import TensorProto, helper

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.split_model import SplitModel, is_apart
from xbcompile.onnx_graph.tensors import check_sizes
from xbcompile.program.archive import TENSORS, Archive, TensorPool
from xbcompile.program.manifest import Malformed

# Nodes of a model with the bodies of functions in the place of their calls: a few that call each other stand for any number.
MOST_NODES = 1_000_000
# Elements of a tensor whose shape alone is stored, as ConstantOfShape gives one; assumed to fit into any memory.
LARGEST_FILLED = 2**28

_CONTENT_FIELDS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_DEEPEST_CALLS = 50  # assumed: of functions in functions
_ATTRIBUTE_SHAPE = ("RandomNormal", "RandomUniform")
_INPUT_SHAPE = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_MAKERS = frozenset({*_ATTRIBUTE_SHAPE, *_INPUT_SHAPE})
_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())
_MOST_AXES = 64


def stored_skeleton(model: SplitModel, pool: TensorPool, left_out: Collection[str]) -> bytes:
    """The skeleton as it is stored: its initializers name their tensors, but for those that are not stored."""
    skeleton = copied(model.skeleton)
    for initializer in skeleton.graph.initializer:
        if is_apart(initializer) and initializer.name not in left_out:
            initializer.external_data.add(key="location", value=pool.add(model.tensors[initializer.name]))
    data: bytes = skeleton.SerializeToString(deterministic=True)
    return data


def read_skeleton(archive: Archive, member: str, is_host: bool = False) -> SplitModel:
    """Inverse of `stored_skeleton`, without the tensors that are not stored.

    Args:
        archive: the program file.
        member: its name there.
        is_host: it is the host graph: tensors may be left out that follow from the layers.

    Raises:
        ProgramError: it is not there, or a tensor is not.
        Malformed: it is no such model.
    """
    try:
        skeleton = onnx.ModelProto.FromString(archive.read(member))
    except DecodeError:
        raise Malformed(f"{member} is no ONNX model") from None
    skeleton.DiscardUnknownFields()  # which onnxruntime might know
    _check(skeleton, member, is_host)
    tensors = {}
    for initializer in skeleton.graph.initializer:
        if is_apart(initializer) and initializer.external_data:
            dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
            location = initializer.external_data[0].value
            tensors[initializer.name] = archive.tensor(location, dtype, tuple(initializer.dims))
            initializer.ClearField("external_data")
    return SplitModel(skeleton, tensors)


def _check(model: onnx.ModelProto, member: str, is_host: bool) -> None:
    if not model.HasField("graph"):
        raise Malformed(f"{member} has no graph")
    names: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.name in names:
            raise Malformed(f"{member}: two initializers have the name {tensor.name!r}")
        names.add(tensor.name)
    parts = messages_in(model, member)
    apart = {id(tensor) for tensor in model.graph.initializer if is_apart(tensor)}
    for tensor in parts[onnx.TensorProto]:
        if id(tensor) in apart:
            _check_apart(tensor, member, is_host)
        elif is_apart(tensor) or tensor.external_data:
            raise Malformed(
                f"{member}: tensor {tensor.name!r} is external data; none may be but initializers of the main graph, which name "
                f"tensors of the archive"
            )
    for kind in (*parts[onnx.TypeProto.Tensor], *parts[onnx.TypeProto.SparseTensor]):
        if kind.elem_type not in _ELEMENT_TYPES:
            raise Malformed(f"{member}: a value has element type {kind.elem_type}, which ONNX does not have")
    if is_host:
        _check_sizes(model, member)
    _check_calls(model, member)
    _check_filled(parts, member)


def _check_sizes(model: onnx.ModelProto, member: str) -> None:
    """Every initializer in the message, which verification reads, has the content that its shape and element type need."""
    rest = onnx.ModelProto()
    rest.graph.initializer.extend(tensor for tensor in model.graph.initializer if not is_apart(tensor))
    rest.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    try:
        check_sizes(rest, member)
    except ModelError as error:
        raise Malformed(str(error)) from None


def messages_in(model: onnx.ModelProto, member: str) -> dict[type, list[Any]]:
    """All messages in a model, itself included, by their class, whatever field of whatever message holds them.

    Args:
        model: the model.
        member: what it is called in messages.

    Raises:
        Malformed: a text in it is not UTF-8.
    """
    found: dict[type, list[Any]] = defaultdict(list)
    try:
        _collect(model, found)
    except UnicodeDecodeError:
        raise Malformed(f"{member}: a name or another text in it is not UTF-8") from None
    return found


def _collect(message: Message, found: dict[type, list[Any]]) -> None:
    found[type(message)].append(message)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in [value] if isinstance(value, Message) else value:
                _collect(each, found)
        elif field.type == FieldDescriptor.TYPE_STRING:  # which protobuf gives as bytes where it is no text
            for each in value if not isinstance(value, (str, bytes)) else [value]:
                if isinstance(each, bytes):
                    each.decode()


def _check_apart(tensor: TensorProto, member: str, may_leave_out: bool) -> None:
    """An initializer whose content is in the archive says where, and nothing else."""
    what = f"{member}: initializer {tensor.name!r}"
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    left_out = may_leave_out and not entries
    if not left_out and (len(entries) != 1 or entries[0][0] != "location" or not entries[0][1].startswith(TENSORS)):
        raise Malformed(
            f"{what} is external data at {dict(entries) or 'no place'}; allowed: {TENSORS}... of the archive"
        )
    if any(len(getattr(tensor, name)) for name in _CONTENT_FIELDS) or tensor.HasField("segment"):
        raise Malformed(f"{what} holds content beside the archive's tensor")
    kinds = TensorProto.DataType.values()
    if tensor.data_type not in kinds or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise Malformed(f"{what} has element type {tensor.data_type}, of which the archive holds no tensors")
    if min(tensor.dims, default=0) < 0:
        raise Malformed(f"{what} has shape {list(tensor.dims)}; sizes must not be negative")


def _nodes_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the bodies in them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes_in(body.node)


_Function = tuple[str, str]


def _check_calls(model: onnx.ModelProto, member: str) -> None:
    """Functions call each other in an order, and stand for so many nodes at most."""
    functions: dict[_Function, onnx.FunctionProto] = {}
    for function in model.functions:
        key = _domain(function.domain), function.name
        if key in functions:
            raise Malformed(f"{member}: function {function.name!r} of domain {function.domain!r} is there twice")
        functions[key] = function
    sizes: dict[_Function, int] = {}
    open_: set[_Function] = set()

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in _nodes_in(nodes):
            key = _domain(node.domain), node.op_type
            total += 1 + (size_of(key) if key in functions else 0)
            if total > MOST_NODES:
                raise Malformed(
                    f"{member}: with functions in the place of their calls it has over {MOST_NODES:,} nodes"
                )
        return total

    def size_of(key: _Function) -> int:
        if key not in sizes:
            if key in open_ or len(open_) > _DEEPEST_CALLS:
                raise Malformed(f"{member}: function {key[1]!r} calls itself, or calls go deeper than {_DEEPEST_CALLS}")
            open_.add(key)
            sizes[key] = size(functions[key].node)
            open_.remove(key)
        return sizes[key]

    for key in functions:
        size_of(key)
    size(model.graph.node)


def _domain(name: str) -> str:
    return "" if name in ONNX_DOMAINS else name


def _check_filled(parts: dict[type, list[Any]], member: str) -> None:
    """No few numbers stand for a tensor that no memory holds."""
    makers = [node for node in parts[onnx.NodeProto] if node.op_type in _MAKERS]
    if not makers:
        return
    constants = {tensor.name: tensor for tensor in parts[onnx.TensorProto] if tensor.name}
    for node in parts[onnx.NodeProto]:
        if (
            node.op_type == "Constant"
            and len(node.output) == len(node.attribute) == 1
            and node.attribute[0].HasField("t")
        ):
            constants[node.output[0]] = node.attribute[0].t
    for node in makers:
        shape = _shape_of(node, constants)
        if shape is not None and math.prod(shape) > LARGEST_FILLED:
            raise Malformed(
                f"{member}: node {node.name or node.op_type!r} ({node.op_type}) makes {math.prod(shape):,} elements of a "
                f"shape alone; allowed: {LARGEST_FILLED:,}"
            )


def _shape_of(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> list[int] | None:
    """The sizes, or factors, by which a node makes elements, where they are constant."""
    if node.domain not in ONNX_DOMAINS:
        return None
    if node.op_type in _ATTRIBUTE_SHAPE:
        return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "shape"), None)
    place = _INPUT_SHAPE.get(node.op_type)
    if place is None or len(node.input) <= place or node.input[place] not in constants:
        return None
    sizes = constants[node.input[place]]
    if sizes.data_type != TensorProto.INT64 or is_apart(sizes) or len(sizes.dims) > 1 or sizes.dims[:1] > [_MOST_AXES]:
        return None
    values = (
        np.frombuffer(sizes.raw_data, "<i8") if len(sizes.raw_data) % 8 == 0 and sizes.raw_data else sizes.int64_data
    )
    return [max(0, int(size)) for size in values]
