"""What protobuf and onnx's checker let pass and nothing later should meet: bad text, unknown types, stray references."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from xbcompile.errors import ModelError

_TYPED = frozenset({"onnx.TypeProto.Tensor", "onnx.TypeProto.SparseTensor"})


def check_soundness(model: ModelProto, where: str) -> None:
    """Raise ModelError for text that is not UTF-8, an element type that ONNX does not have, or a reference to nothing."""
    try:
        _check_message(model, where)
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{where}: a name or another text in it is not UTF-8; the file is damaged: export or download it again"
        ) from error
    _check_references(model.graph, where)


_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())


@cache
def _fields(descriptor: Descriptor) -> tuple[tuple[str, bool, bool], ...]:
    """Name, whether repeated, whether a message, of the fields that hold text or messages."""
    kinds = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING)
    return tuple(
        (field.name, _is_repeated(field), field.type == kinds[0]) for field in descriptor.fields if field.type in kinds
    )


def _is_repeated(field: FieldDescriptor) -> bool:
    """Asked by a property from protobuf 6.31 on, which warns of the label that was asked before."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if known is None else known)


def _check_message(message: Any, where: str) -> None:
    """Look at every text and type: protobuf decodes a text only then, or gives its bytes where it cannot."""
    if message.DESCRIPTOR.full_name in _TYPED and message.elem_type not in _ELEMENT_TYPES:
        raise ModelError(
            f"{where}: not a valid ONNX model: an input, output or value has element type {message.elem_type}, which ONNX "
            f"does not have; the file is damaged, or needs a newer onnx"
        )
    for name, is_repeated, is_message in _fields(message.DESCRIPTOR):
        if not is_repeated and not message.HasField(name):
            continue
        value = getattr(message, name)
        for each in value if is_repeated else (value,):
            if is_message:
                _check_message(each, where)
            elif isinstance(each, bytes):
                each.decode()


def _check_references(graph: GraphProto, where: str) -> None:
    """Attributes that refer to those of a function make sense inside of functions only."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ModelError(
                    f"{where}: not a valid ONNX model: attribute {attribute.name} of node {_name(node)!r} refers to attribute "
                    f"{attribute.ref_attr_name!r} of a function, but is in none; export the model again"
                )
            for body in (attribute.g, *attribute.graphs):
                _check_references(body, where)


def _name(node: NodeProto) -> str:
    return node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"
