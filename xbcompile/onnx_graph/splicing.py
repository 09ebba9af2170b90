"""Taking nodes out of the bodies of control flow, under names that are free in the graph around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from xbcompile.onnx_graph.builder import NodeBuilder, copied, tensor
from xbcompile.onnx_graph.graph import Graph, Origin, constant_of, unused
from xbcompile.onnx_graph.nodes import bodies
from xbcompile.onnx_graph.tensors import dense


class Splicer(NodeBuilder):
    """Nodes and constants that are put into a graph; all of them have names of their own.

    Args:
        graph: the graph that they are put into.

    Attributes:
        nodes: what was put in.
        constants: new constants of the graph.
        owner: the control flow that is taken apart.
        origins: for each node of a new name, the node that it copies, or the control flow that it belongs to.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.opset)
        self.constants: dict[str, TensorProto] = {}
        self.owner = Origin("", "")
        self.origins: dict[str, Origin] = {}
        self._used = {*graph.types, *graph.constants, *names_in(graph.nodes)}
        self._used.update(value.name for value in (*graph.inputs, *graph.outputs))
        self._standing = {node.name for node in graph.nodes}
        self._numbers, self._node_numbers = dict[str, int](), dict[str, int]()

    def name(self, label: str) -> str:
        """A new name for a tensor."""
        name = unused(label, self._used, self._numbers)
        self._used.add(name)
        return name

    def node_name(self, operator: str) -> str:
        """A new name for a node that is no copy."""
        name = self.name(f"{self.owner.node}/{operator}")
        self._standing.add(name)
        self.origins[name] = self.owner
        return name

    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        """A new constant of the graph; sequences of whole numbers are int64."""
        name = self.name(label)
        self.constants[name] = tensor(name, value)
        return name

    def hoist(self, body: GraphProto) -> tuple[list[NodeProto], dict[str, str]]:
        """Make the constants of a body constants of the graph.

        Returns:
            the nodes that are left, and the new name of each constant.
        """
        nodes, constants = without_constants(body)
        names = {name: self.name(name) for name in constants}
        self.constants.update({names[name]: constant for name, constant in constants.items()})
        return nodes, names

    def splice(self, nodes: Iterable[NodeProto], names: dict[str, str]) -> None:
        """Put in a copy of the nodes of a body.

        Args:
            nodes: the nodes.
            names: what tensors of the body are called in the graph; those that the nodes write and that are not among
                them get new names and are added.
        """
        for node in nodes:
            names.update({output: self.name(output) for output in node.output if output and output not in names})
            copy = renamed(node, names)
            copy.name = unused(node.name, self._standing, self._node_numbers)
            self._standing.add(copy.name)
            if copy.name != node.name:
                self.origins[copy.name] = Origin(node.name, node.op_type)
            self.nodes.append(copy)


def without_constants(body: GraphProto) -> tuple[list[NodeProto], dict[str, TensorProto]]:
    """The nodes of a body but for its Constants, and all its constants by name."""
    constants = {each.name: each for each in body.initializer}
    constants.update({sparse.values.name: dense(sparse) for sparse in body.sparse_initializer})
    nodes = []
    for node in body.node:
        constant = constant_of(node)
        if constant is None:
            nodes.append(node)
        else:
            constants[node.output[0]] = constant
    return nodes, constants


def names_in(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names of all tensors that nodes and their bodies write or define, and of the nodes."""
    for node in nodes:
        yield node.name
        yield from filter(None, node.output)
        for body in bodies(node):
            yield from _defined(body)
            yield from names_in(body.node)


def renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of the node that reads and writes tensors of other names; its bodies capture them."""
    copy = copied(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for body in bodies(copy):
        _rename_captured(body, names)
    return copy


def _rename_captured(body: GraphProto, names: Mapping[str, str]) -> None:
    own = {*_defined(body), *(name for node in body.node for name in node.output)}
    names = {name: new for name, new in names.items() if name not in own}
    for node in body.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for inner in bodies(node):
            _rename_captured(inner, names)
    for value in body.output:
        value.name = names.get(value.name, value.name)


def _defined(body: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*body.input, *body.initializer))
    yield from (sparse.values.name for sparse in body.sparse_initializer)
