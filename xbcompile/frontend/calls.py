"""Local functions of a model: how much their calls come to, written out, before anything writes them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from onnx import FunctionProto, ModelProto, NodeProto

from xbcompile.errors import ModelError, elided
from xbcompile.frontend.soundness import MOST_LEVELS
from xbcompile.onnx_graph.builder import size_of
from xbcompile.onnx_graph.domains import operator_name
from xbcompile.onnx_graph.nodes import bodies

MOST_WRITTEN_OUT = 100_000  # assumed: nodes that calls of functions come to; exporters that use functions make 50,000
MOST_WRITTEN_BYTES = 2**28  # assumed: bytes of those nodes, with the tensors in them

_LEVELS_OF_BODY = 3  # a node, its attribute, the body: messages in messages

Name = tuple[str, str, str]  # domain, operator, overload


@dataclass(frozen=True)
class _Extent:
    """What nodes come to where all calls in them are written out: nodes, bytes, and levels of messages in messages."""

    nodes: int
    size_bytes: int
    levels: int


def check_calls(model: ModelProto, where: str) -> None:
    """Refuse functions whose calls, written out, are without end or of a size that no model needs.

    Raises:
        ModelError: a function calls itself, directly or by way of others; or the model's calls come to more than
            `MOST_WRITTEN_OUT` nodes, `MOST_WRITTEN_BYTES`, or `MOST_LEVELS` of bodies in bodies.
    """
    if not model.functions:
        return
    functions = {(*_domain_and_name(each.domain, each.name), each.overload): each for each in model.functions}
    extents: dict[Name, _Extent] = {}
    for name in _callees_first(functions, where):
        function = functions[name]
        extents[name] = _extent(function.node, size_of(function), extents)
    total = _extent(model.graph.node, 0, extents)
    if (
        total.nodes > MOST_WRITTEN_OUT + sum(1 for _ in _with_levels(model.graph.node))
        or total.size_bytes > MOST_WRITTEN_BYTES + sum(map(size_of, model.functions))
        or total.levels > MOST_LEVELS
    ):
        raise ModelError(
            f"{where}: the calls of its local functions come to {total.nodes:,} nodes of {total.size_bytes:,} bytes in bodies "
            f"{total.levels // _LEVELS_OF_BODY} deep (allowed: {MOST_WRITTEN_OUT:,} nodes more than it has, "
            f"{MOST_WRITTEN_BYTES:,} bytes more, {MOST_LEVELS // _LEVELS_OF_BODY} deep); export it without functions, or with "
            f"fewer calls"
        )


def _callees_first(functions: dict[Name, FunctionProto], where: str) -> list[Name]:
    """The functions, each behind those that it calls."""
    calls = {
        name: {called for node, _ in _with_levels(function.node) if (called := _called(node)) in functions}
        for name, function in functions.items()
    }
    try:
        return list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        circle = [f"{name} of {domain}" for domain, name, _ in error.args[1]]
        raise ModelError(
            f"{where}: not a valid ONNX model: local functions call each other in a circle: {elided(circle)}; export it "
            f"without functions"
        ) from None


def _extent(nodes: Iterable[NodeProto], size_bytes: int, extents: dict[Name, _Extent]) -> _Extent:
    """What nodes of so many bytes come to.

    Args:
        nodes: of a function or a graph.
        size_bytes: of them and the tensors in them, as they stand.
        extents: of the functions that they call.
    """
    count, deepest = 0, 0
    for node, level in _with_levels(nodes):
        called = extents.get(_called(node), _Extent(1, 0, 0))
        count += called.nodes
        size_bytes += called.size_bytes
        deepest = max(deepest, level + called.levels)
    return _Extent(count, size_bytes, deepest)


def _with_levels(nodes: Iterable[NodeProto], level: int = 0) -> Iterator[tuple[NodeProto, int]]:
    """The nodes and those in their bodies, with how many levels of messages are around them."""
    for node in nodes:
        yield node, level
        for body in bodies(node):
            yield from _with_levels(body.node, level + _LEVELS_OF_BODY)


def _called(node: NodeProto) -> Name:
    return *operator_name(node), node.overload


def _domain_and_name(domain: str, name: str) -> tuple[str, str]:
    return operator_name(NodeProto(domain=domain, op_type=name))
