"""Rewriting operators as standard nodes among which the matrices are MatMul, Gemm and Conv with constant weights.

A rewriting is a function of one node: it appends the nodes that take the node's place, or raises StaysDigital with the
reason why it cannot. What it appends is in the model's own opset and may be rewritten in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto

from xbcompile.frontend.operands import StaysDigital
from xbcompile.frontend.selection import reason_to_stay
from xbcompile.onnx_graph.builder import NodeBuilder, tensor
from xbcompile.onnx_graph.graph import Graph, Origin, unused, without_dead_nodes
from xbcompile.onnx_graph.types import infer_types


class Replacement(NodeBuilder):
    """The nodes and constants that take one node's place.

    Args:
        node: the node to be replaced; the replacement must write every output of it that has a name.
        graph: the graph that the node is in, with types.
        used: names of tensors and nodes that are taken; new ones are added.
    """

    def __init__(self, node: NodeProto, graph: Graph, used: set[str]) -> None:
        super().__init__(graph.opset)
        self.node = node
        self.graph = graph
        self.constants: dict[str, TensorProto] = {}
        self._inside: list[Replacement] = []
        self._used = used

    def name(self, label: str) -> str:
        """A new name for a tensor or node, derived from the node's."""
        name = unused(f"{self.node.name}/{label}", self._used)
        self._used.add(name)
        return name

    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        """A new constant of the graph; sequences of whole numbers are int64."""
        name = self.name(label)
        self.constants[name] = tensor(name, value)
        return name

    def input(self, index: int) -> str:
        """Name of an input of the replaced node, empty where it does not have it."""
        return self.node.input[index] if len(self.node.input) > index else ""

    def inside(self) -> Replacement:
        """For the body of a control-flow node: nodes of its own, names and constants together with the graph around it."""
        inner = Replacement(self.node, self.graph, self._used)
        inner.constants = self.constants
        self._inside.append(inner)
        return inner

    @property
    def all_nodes(self) -> list[NodeProto]:
        """The nodes, those in bodies too."""
        return [*self.nodes, *(node for inner in self._inside for node in inner.all_nodes)]

    def matrix_name(self, label: str = "") -> str:
        """Name for a node that is to become a matrix layer: the replaced node's own, with a label where it has several."""
        return self.name(label) if label else self.node.name


Rewriting = Callable[[Replacement], bool]  # False, with nothing appended, for a node to be lowered as it stands


def rewrite(graph: Graph, rewriting_of: Callable[[NodeProto], Rewriting | None], digital: Collection[str]) -> Graph:
    """The graph with every node rewritten that can be, until nothing changes; the user's digital nodes stay.

    New matrix nodes remember which node of the model they come from (`Graph.origins`), and a node that stays has its
    reason in `Graph.reasons`.

    Args:
        graph: with types.
        rewriting_of: the rewriting of a node's operator, None where there is none.
        digital: names and patterns of the nodes that the user keeps digital.
    """
    while True:
        used = {*graph.types, *graph.constants, *(node.name for node in graph.nodes)}
        nodes: list[NodeProto] = []
        constants, origins, reasons = dict(graph.constants), dict(graph.origins), dict(graph.reasons)
        recurrences, changed = set(graph.recurrences), False
        for node in graph.nodes:
            rewriting = rewriting_of(node)
            if rewriting is None or node.name in reasons or reason_to_stay(node, digital):
                nodes.append(node)
                continue
            replacement = Replacement(node, graph, used)
            if not _done(rewriting, replacement, reasons):
                nodes.append(node)
                continue
            changed = True
            origin = origins.get(node.name, Origin(node.name, node.op_type))
            origins.update({new.name: origin for new in replacement.all_nodes})
            recurrences.update(new.name for new in replacement.nodes if new.op_type == "Scan")
            nodes.extend(replacement.nodes)
            constants.update(replacement.constants)
        graph = replace(
            graph,
            nodes=tuple(nodes),
            constants=constants,
            origins=origins,
            reasons=reasons,
            recurrences=frozenset(recurrences),
        )
        if not changed:
            return graph
        graph = infer_types(without_dead_nodes(graph))


def _done(rewriting: Rewriting, replacement: Replacement, reasons: dict[str, str]) -> bool:
    """Whether the node was rewritten; its reason is added where it cannot be."""
    try:
        return rewriting(replacement)
    except StaysDigital as reason:
        reasons[replacement.node.name] = str(reason)
        return False
