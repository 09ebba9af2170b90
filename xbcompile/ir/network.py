"""A network: matrix layers and digital segments joined by tensor names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import networkx as nx
import onnx

from xbcompile.ir.content import ContentEqual
from xbcompile.ir.layer import DigitalSegment, LoweringRecord, MatrixLayer


@dataclass(frozen=True, eq=False)
class Network(ContentEqual):
    """The whole model, in an order in which it can be executed.

    Args:
        name: the ONNX graph's name.
        inputs: the model's graph inputs (without initializers), with type and shape.
        outputs: the model's graph outputs, in the model's order. An output may be a graph input or an initializer that
            passes straight through: then a digital segment holds the Identity.
        nodes: matrix layers and digital segments in topological order.
        records: what became of each MVM-like node.
        opset_imports: operator sets of the model (domain, version).
        ir_version: IR version of the model.
    """

    name: str
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[onnx.ValueInfoProto, ...]
    nodes: tuple[MatrixLayer | DigitalSegment, ...]
    records: tuple[LoweringRecord, ...]
    opset_imports: tuple[tuple[str, int], ...]
    ir_version: int

    @property
    def layers(self) -> tuple[MatrixLayer, ...]:
        """The matrix layers in execution order; a layer's position here is its index in every table."""
        return tuple(node for node in self.nodes if isinstance(node, MatrixLayer))

    @property
    def segments(self) -> tuple[DigitalSegment, ...]:
        """The digital segments in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, DigitalSegment))

    def graph(self) -> nx.DiGraph:
        """Node names joined by the tensors between them (edge attribute `tensor`)."""
        graph = nx.DiGraph()
        writers = {tensor: node.name for node in self.nodes for tensor in node.output_names}
        for node in self.nodes:
            graph.add_node(node.name)
            for tensor in node.input_names:
                if tensor in writers:
                    graph.add_edge(writers[tensor], node.name, tensor=tensor)
        return graph

    def layer_dependencies(self) -> list[list[int]]:
        """For each matrix layer, the indices of the matrix layers that it waits for directly (through segments)."""
        graph = self.graph()
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        result = []
        for layer in self.layers:
            found: set[int] = set()
            pending, seen = list(graph.predecessors(layer.name)), set()
            while pending:
                name = pending.pop()
                if name in seen:
                    continue
                seen.add(name)
                if name in index:
                    found.add(index[name])
                else:
                    pending.extend(graph.predecessors(name))
            result.append(sorted(found))
        return result

    def with_layers(self, layers: Iterable[MatrixLayer]) -> Network:
        """The same network with matrix layers replaced by those of the same name."""
        by_name = {layer.name: layer for layer in layers}
        return replace(
            self, nodes=tuple(by_name.get(n.name, n) if isinstance(n, MatrixLayer) else n for n in self.nodes)
        )

    def check(self) -> None:
        """Raise ValueError (our own fault, never the user's) when names clash or the order cannot be executed."""
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"node names repeat: {sorted({n for n in names if names.count(n) > 1})}")
        known = {value.name for value in self.inputs}
        for node in self.nodes:
            missing = set(node.input_names) - known
            if missing:
                raise ValueError(f"{node.name} reads {sorted(missing)} before anything writes it")
            twice = set(node.output_names) & known
            if twice:
                raise ValueError(f"{node.name} writes {sorted(twice)} a second time")
            known.update(node.output_names)
        missing = {value.name for value in self.outputs} - known
        if missing:
            raise ValueError(f"outputs {sorted(missing)} are never written")
