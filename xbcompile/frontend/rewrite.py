"""Rewriting operators as standard nodes among which the matrices are MatMul, Gemm and Conv with constant weights.

A rewriting is a function of one node: it appends the nodes that take the node's place, or raises StaysDigital with the
reason why it cannot. What it appends is in the model's own opset and may be rewritten in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper

from xbcompile.frontend.operators import StaysDigital
from xbcompile.frontend.selection import reason_to_stay
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin, unused, without_dead_nodes
from xbcompile.onnx_graph.types import infer_types


class Replacement:
    """The nodes and constants that take one node's place.

    Args:
        node: the node to be replaced; the replacement must write every output of it that has a name.
        graph: the graph that the node is in, with types.
        used: names of tensors and nodes that are taken; new ones are added.
    """

    def __init__(self, node: NodeProto, graph: Graph, used: set[str]) -> None:
        self.node = node
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._used = used

    @property
    def opset(self) -> int:
        """The model's version of the ONNX operators."""
        return next((v for domain, v in self.graph.opset_imports if domain in ONNX_DOMAINS), defs.onnx_opset_version())

    def name(self, label: str) -> str:
        """A new name for a tensor or node, derived from the node's."""
        name = unused(f"{self.node.name}/{label}", self._used)
        self._used.add(name)
        return name

    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        """A new constant; sequences of whole numbers are int64."""
        array = value if isinstance(value, (np.ndarray, np.generic)) else np.array(value, np.int64)
        name = self.name(label)
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def emit(
        self,
        operator: str,
        *inputs: str,
        output: str = "",
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node with one output and give that output's name: `output`, or a new one."""
        return self.emit_many(operator, *inputs, outputs=[output], name=name, domain=domain, **attributes)[0]

    def emit_many(
        self,
        operator: str,
        *inputs: str,
        outputs: Sequence[str],
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """`emit` for nodes of several outputs; an empty name in `outputs` asks for a new one."""
        written = [output or self.name(operator.lower()) for output in outputs]
        node = helper.make_node(
            operator, list(inputs), written, name or self.name(operator), domain=domain, **attributes
        )
        self.nodes.append(node)
        return written

    def inside(self) -> Replacement:
        """For the body of a control-flow node: nodes of its own, names and constants together with the graph around it."""
        inner = Replacement(self.node, self.graph, self._used)
        inner.constants = self.constants
        return inner

    def matrix_name(self, label: str = "") -> str:
        """Name for a node that is to become a matrix layer: the replaced node's own, with a label where it has several."""
        return self.name(label) if label else self.node.name

    def squeeze(self, x: str, axes: Sequence[int], output: str = "") -> str:
        """Squeeze, whose axes are an input from opset 13 on."""
        if self.opset >= 13:
            return self.emit("Squeeze", x, self.constant(axes, "axes"), output=output)
        return self.emit("Squeeze", x, output=output, axes=list(axes))

    def unsqueeze(self, x: str, axes: Sequence[int], output: str = "") -> str:
        """Unsqueeze, whose axes are an input from opset 13 on."""
        if self.opset >= 13:
            return self.emit("Unsqueeze", x, self.constant(axes, "axes"), output=output)
        return self.emit("Unsqueeze", x, output=output, axes=list(axes))

    def reduce_sum(self, x: str, axes: Sequence[int], keepdims: bool, output: str = "") -> str:
        """ReduceSum, whose axes are an input from opset 13 on."""
        if self.opset >= 13:
            return self.emit("ReduceSum", x, self.constant(axes, "axes"), output=output, keepdims=int(keepdims))
        return self.emit("ReduceSum", x, output=output, axes=list(axes), keepdims=int(keepdims))

    def slice(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], output: str = "") -> str:
        """Slice with steps of 1, whose bounds are inputs from opset 10 on."""
        if self.opset >= 10:
            bounds = [
                self.constant(values, label) for values, label in ((starts, "starts"), (ends, "ends"), (axes, "axes"))
            ]
            return self.emit("Slice", x, *bounds, output=output)
        return self.emit("Slice", x, output=output, starts=list(starts), ends=list(ends), axes=list(axes))


Rewriting = Callable[[Replacement], bool]


@dataclass(frozen=True)
class Rewritings:
    """Rewritings by domain ("" for ONNX's own) and operator.

    A rewriting gives False, with nothing appended, for a node that is to be lowered as it stands.
    """

    table: dict[tuple[str, str], Rewriting]

    def of(self, node: NodeProto) -> Rewriting | None:
        """The rewriting of a node's operator."""
        return self.table.get(("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type))


def rewrite(graph: Graph, rewritings: Rewritings, digital: Collection[str]) -> Graph:
    """The graph with every node rewritten that can be, until nothing changes; the user's digital nodes stay.

    New matrix nodes remember which node of the model they come from (`Graph.origins`), and a node that stays has its
    reason in `Graph.reasons`.
    """
    while True:
        used = {*graph.types, *graph.constants, *(node.name for node in graph.nodes)}
        nodes: list[NodeProto] = []
        constants, origins, reasons = dict(graph.constants), dict(graph.origins), dict(graph.reasons)
        changed = False
        for node in graph.nodes:
            rewriting = rewritings.of(node)
            if rewriting is None or node.name in reasons or reason_to_stay(node, digital):
                nodes.append(node)
                continue
            replacement = Replacement(node, graph, used)
            try:
                done = rewriting(replacement)
            except StaysDigital as reason:
                reasons[node.name] = str(reason)
                done = False
            if not done:
                nodes.append(node)
                continue
            changed = True
            origin = origins.get(node.name, Origin(node.name, node.op_type))
            origins.update({new.name: origin for new in replacement.nodes})
            nodes.extend(replacement.nodes)
            constants.update(replacement.constants)
        graph = replace(graph, nodes=tuple(nodes), constants=constants, origins=origins, reasons=reasons)
        if not changed:
            return graph
        graph = infer_types(without_dead_nodes(graph))
