"""What nodes read, and the nodes in the bodies of control flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import GraphProto, ModelProto, NodeProto


def reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads from its graph; those that the bodies of control flow capture are included."""
    yield from filter(None, node.input)
    for body in bodies(node):
        yield from _captured(body)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The sub-graphs of a control-flow node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those in the bodies of control flow, each before those in its own."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from all_nodes(body.node)


def operator_types(model: ModelProto) -> set[str]:
    """The types of all operators of a model, in bodies and functions too."""

    graphs = (model.graph.node, *(function.node for function in model.functions))
    return {node.op_type for nodes in graphs for node in all_nodes(nodes)}


def _captured(body: GraphProto) -> Iterator[str]:
    own = {value.name for value in (*body.input, *body.initializer)}
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    own.update(name for node in body.node for name in node.output)
    for node in body.node:
        yield from (name for name in reads(node) if name not in own)
    yield from (value.name for value in body.output if value.name not in own)
