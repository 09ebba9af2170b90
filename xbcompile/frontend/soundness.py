"""What protobuf and onnx's checker let pass and nothing later should meet: bad text, unknown types, stray references, parts
without number, bodies without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.nodes import all_nodes, bodies

MOST_PARTS = (
    4_000_000  # assumed: messages in a model (nodes, attributes, values, ...); networks that are used have 1,000,000
)
MOST_LEVELS = 100  # of messages in messages: protobuf reads no more
LONGEST_NAME = 10_000  # characters; assumed

_TYPED = frozenset({"onnx.TypeProto.Tensor", "onnx.TypeProto.SparseTensor"})
_FREE_TEXT = frozenset({"doc_string", "value"})  # no names


def check_soundness(model: ModelProto, where: str) -> None:
    """Refuse what no reader of models takes, or takes as far as it has memory.

    Raises:
        ModelError: text that is not UTF-8, a name or parts beyond what is read, an element type that ONNX does not have, or a
            reference to nothing.
    """
    try:
        _check_messages(model, where)
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


def _check_messages(model: ModelProto, where: str) -> None:
    """Look at every part of the model, those inside of others after them."""
    parts = 1
    open_parts: list[Iterator[Any]] = [_looked_at(model, where)]  # one for each level
    while open_parts:
        inner = next(open_parts[-1], None)
        if inner is None:
            open_parts.pop()
            continue
        parts += 1
        open_parts.append(_looked_at(inner, where))
        if parts > MOST_PARTS or len(open_parts) > MOST_LEVELS + 1:
            raise too_many_parts(where)


def too_many_parts(where: str) -> ModelError:
    """The error of a model of more parts than are read."""
    return ModelError(
        f"{where}: it has more than {MOST_PARTS:,} parts (nodes, attributes, values, ...), or parts in parts more than "
        f"{MOST_LEVELS} levels deep, which no network needs; export it again, with less repetition"
    )


def _looked_at(message: Any, where: str) -> Iterator[Any]:
    """The messages in a message, whose texts and type are looked at: protobuf decodes a text only then, or gives its bytes
    where it cannot.
    """
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
                yield each
                continue
            text = each.decode() if isinstance(each, bytes) else each
            if len(text) > LONGEST_NAME and name not in _FREE_TEXT:
                raise ModelError(
                    f"{where}: a name in it has {len(text):,} characters (allowed: {LONGEST_NAME:,}), and begins with "
                    f'"{text[:40]}"; export the model with shorter names'
                )


def _check_references(graph: GraphProto, where: str) -> None:
    """Attributes that refer to those of a function make sense inside of functions only."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ModelError(
                    f"{where}: not a valid ONNX model: attribute {attribute.name} of node {_name(node)!r} refers to attribute "
                    f"{attribute.ref_attr_name!r} of a function, but is in none; export the model again"
                )
        for body in bodies(node):
            _check_references(body, where)


def _name(node: NodeProto) -> str:
    return node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"


def check_bodies(nodes: Iterable[NodeProto], where: str) -> None:
    """Refuse If, Loop and Scan whose bodies take or give another number of values than the nodes do, at any depth.

    Args:
        nodes: of a graph or a function.
        where: the model, for a message.

    Raises:
        ModelError: a number does not fit.
    """
    for node in all_nodes(nodes):
        fits = _BODIES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        for body in bodies(node):
            if fits is not None and not fits(node, body):
                raise ModelError(
                    f"{where}: not a valid ONNX model: node {_name(node)!r} ({node.op_type}) has {len(node.input)} inputs and "
                    f"{len(node.output)} outputs, and its body {body.name!r} {len(body.input)} and {len(body.output)}: they do "
                    f"not fit; export the model again"
                )


def _branch_fits(node: NodeProto, body: GraphProto) -> bool:
    return not body.input and len(body.output) >= len(node.output)


def _loop_fits(node: NodeProto, body: GraphProto) -> bool:
    """The number of runs and the condition may be left out; the body gives its condition before its states."""
    states = max(len(node.input), 2) - 2
    return len(body.input) == states + 2 and len(body.output) > max(states, len(node.output))


def _scan_fits(node: NodeProto, body: GraphProto) -> bool:
    """Its first version takes the lengths of sequences besides."""
    numbers = {each.name: each.i for each in node.attribute}
    lists = {each.name: len(each.ints) for each in node.attribute if each.ints}
    cut = numbers.get("num_scan_inputs", 0)
    states = len(body.input) - cut
    stacked = len(body.output) - states
    return (
        len(node.input) - len(body.input) in (0, 1)
        and cut > 0 <= states
        and stacked >= 0
        and len(body.output) >= len(node.output)
        and {lists.get(f"scan_input_{what}", cut) for what in ("axes", "directions")} == {cut}
        and {lists.get(f"scan_output_{what}", stacked) for what in ("axes", "directions")} == {stacked}
    )


_BODIES = {"If": _branch_fits, "Loop": _loop_fits, "Scan": _scan_fits}
