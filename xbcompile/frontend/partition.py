"""Gathering the digital nodes between the matrix layers into as few segments as possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from onnx import NodeProto, helper

from xbcompile.frontend.graph import Graph, make_model, named, reads, unused
from xbcompile.frontend.lower import Step
from xbcompile.frontend.types import value_info
from xbcompile.ir import DigitalSegment, MatrixLayer


def partition(graph: Graph, steps: Sequence[Step]) -> tuple[MatrixLayer | DigitalSegment, ...]:
    """Layers and segments in an order in which they can be executed.

    A node's level is the number of matrix layers on the longest way to it. All digital nodes of one level form one
    segment; it runs before the layers of its level, which read what it writes.
    """
    graph, steps = _with_identities(graph, steps)
    levels: dict[str, int] = {}
    digital: dict[int, list[NodeProto]] = defaultdict(list)
    layers: dict[int, list[MatrixLayer]] = defaultdict(list)
    borders = set(graph.output_names)  # values that leave the segment which writes them
    for step in steps:
        level = max((levels.get(name, 0) for name in _reads(step)), default=0)
        if isinstance(step, MatrixLayer):
            borders.add(step.input)
            layers[level].append(step)
            levels[step.output] = level + 1
        else:
            borders.update(name for name in reads(step) if levels.get(name, 0) < level)
            digital[level].append(step)
            levels.update(dict.fromkeys(step.output, level))
    names = {step.name for step in steps}
    nodes: list[MatrixLayer | DigitalSegment] = []
    for level in sorted(digital.keys() | layers.keys()):
        if level in digital:
            name = unused(f"digital{level}", names)
            nodes.append(_segment(name, digital[level], graph, borders))
        nodes.extend(layers[level])
    return tuple(nodes)


def _reads(step: Step) -> tuple[str, ...]:
    return step.input_names if isinstance(step, MatrixLayer) else tuple(reads(step))


def _with_identities(graph: Graph, steps: Sequence[Step]) -> tuple[Graph, list[Step]]:
    """Write each constant that is a graph output or a layer's input by an Identity node; its readers read that."""
    constants = dict(graph.constants)
    identities: list[Step] = []
    inputs = (step.input for step in steps if isinstance(step, MatrixLayer))
    for name in dict.fromkeys([*graph.output_names, *inputs]):
        if name in constants:
            source = unused(f"{name}_constant", {*constants, *graph.types})
            constants[source] = constants.pop(name)
            identities.append(helper.make_node("Identity", [source], [name]))
    return replace(graph, constants=constants), [*identities, *steps]


def _segment(name: str, nodes: Sequence[NodeProto], graph: Graph, borders: set[str]) -> DigitalSegment:
    written = {output: None for node in nodes for output in node.output if output}
    read = {source: None for node in nodes for source in reads(node) if source not in written}
    proto = helper.make_graph(
        nodes,
        name,
        [value_info(graph, source) for source in read if source not in graph.constants],
        [value_info(graph, output) for output in written if output in borders],
        [named(graph.constants[source], source) for source in read if source in graph.constants],
    )
    return DigitalSegment(name, make_model(graph, proto))
