"""Equal results computed from the same constants become one, so that layers behind them share one matrix.

Exporters repeat what stands between a weight and its product: a Transpose per use, a Slice per gate. Folding would give
every repetition a constant of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from onnx import NodeProto, TensorProto

from xbcompile.frontend.operators import operator_of
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.graph import Graph, without_dead_nodes
from xbcompile.onnx_graph.tensors import elements

# Axes, shapes and single numbers are told apart by content, all else by name: equal weights of two names are two matrices.
_INDEX_TYPES = (TensorProto.INT32, TensorProto.INT64)
_INDEX_ELEMENTS = 64


def merge_equal_results(graph: Graph) -> Graph:
    """The graph in which nodes that compute the same from the same named constants have one result.

    Results of axes, shapes and single numbers alone stay apart. Names that control-flow bodies or graph outputs read stay
    as they are.
    """
    by_name = {name for name, tensor in graph.constants.items() if not _is_parameter(tensor)}
    numbers: dict[Hashable, int] = {}  # of values: equal ones have the same
    known = {
        name: numbers.setdefault(name if name in by_name else _content(tensor), len(numbers))
        for name, tensor in graph.constants.items()
    }
    first: dict[Hashable, NodeProto] = {}
    stands_for: dict[str, str] = {}  # a repeated result, and the one before it
    nodes = []
    for node in graph.nodes:
        node = builder.reading(node, stands_for)
        nodes.append(node)
        inputs = [name for name in node.input if name]
        if not _is_merged(node) or not all(name in known for name in inputs) or by_name.isdisjoint(inputs):
            continue
        key = _key(node, known)
        same = first.setdefault(key, node)
        if same is not node:
            stands_for.update(zip(node.output, same.output, strict=True))
        for i, name in enumerate(node.output):
            known[name] = numbers.setdefault((key, i), len(numbers))
            by_name.add(name)
    if not stands_for:
        return graph
    return without_dead_nodes(replace(graph, nodes=tuple(nodes)))


def _is_parameter(tensor: TensorProto) -> bool:
    """Whether the constant says how something is done, rather than to what."""
    return elements(tensor) <= (_INDEX_ELEMENTS if tensor.data_type in _INDEX_TYPES else 1)


def _is_merged(node: NodeProto) -> bool:
    return operator_of(node).is_preparation and all(node.output)


def _key(node: NodeProto, known: dict[str, int]) -> Hashable:
    attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
    inputs = tuple(known[name] if name else None for name in node.input)
    return node.op_type, attributes, inputs, len(node.output)


def _content(tensor: TensorProto) -> Hashable:
    bare = builder.copied(tensor)
    bare.name = bare.doc_string = ""
    return bare.SerializeToString(deterministic=True)
