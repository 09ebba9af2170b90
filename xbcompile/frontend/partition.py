"""Gathering the digital nodes between the matrix layers into as few segments as possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from onnx import NodeProto, helper

from xbcompile.frontend.lower import Step
from xbcompile.frontend.recurrence import LoweredLoop
from xbcompile.ir import DigitalSegment, MatrixLayer, NetworkNode, Recurrence
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.graph import Graph, model_around, named, unused
from xbcompile.onnx_graph.nodes import reads
from xbcompile.onnx_graph.types import value_info


def partition(graph: Graph, steps: Sequence[Step]) -> tuple[NetworkNode, ...]:
    """Layers, recurrences and segments in an order in which they can be executed.

    A node's level is the number of matrix layers and recurrences on the longest way to it. All digital nodes of one
    level form one segment; it runs before the layers of its level, which read what it writes.
    """
    names = {step.name for step in steps if isinstance(step, (NodeProto, MatrixLayer))}
    for step in steps:
        if isinstance(step, LoweredLoop):
            names.update([step.loop.name, *(inner.name for inner in step.body)])
    return _partition(graph, steps, "", names)


def _partition(graph: Graph, steps: Sequence[Step], prefix: str, names: set[str]) -> tuple[NetworkNode, ...]:
    """`partition`; names of segments start with `prefix` and are added to those that are taken."""
    graph, steps = _with_identities(graph, _needed(graph, steps))
    levels: dict[str, int] = {}
    digital: dict[int, list[NodeProto]] = defaultdict(list)
    layers: dict[int, list[MatrixLayer | LoweredLoop]] = defaultdict(list)
    borders = set(graph.output_names)  # values that leave the segment which writes them
    for step in steps:
        level = max((levels.get(name, 0) for name in _reads(step)), default=0)
        if isinstance(step, NodeProto):
            borders.update(name for name in reads(step) if levels.get(name, 0) < level)
            digital[level].append(step)
            levels.update(dict.fromkeys(step.output, level))
        else:
            borders.update(_reads(step))
            layers[level].append(step)
            levels.update(dict.fromkeys(step.output_names, level + 1))
    nodes: list[NetworkNode] = []
    for level in sorted(digital.keys() | layers.keys()):
        if level in digital:
            name = unused(f"{prefix}digital{level}", names)
            names.add(name)
            nodes.append(_segment(name, digital[level], graph, borders))
        nodes.extend(layer if isinstance(layer, MatrixLayer) else _recurrence(layer, names) for layer in layers[level])
    return tuple(nodes)


def _recurrence(lowered: LoweredLoop, names: set[str]) -> Recurrence:
    loop = lowered.loop
    body = _partition(replace(lowered.graph, nodes=()), lowered.body, f"{loop.name}/", names)
    return Recurrence(
        name=loop.name,
        nodes=tuple(node for node in body if not isinstance(node, Recurrence)),
        sequences=loop.sequences,
        states=loop.states,
        outputs=loop.outputs,
        reverse=loop.reverse,
        steps=loop.steps,
    )


def _reads(step: Step) -> tuple[str, ...]:
    return tuple(reads(step)) if isinstance(step, NodeProto) else step.input_names


def _needed(graph: Graph, steps: Sequence[Step]) -> list[Step]:
    """The steps without digital nodes that nothing reads after lowering, such as what writes the C of a Gemm of beta 0."""
    needed, kept = set(graph.output_names), []
    for step in reversed(steps):
        if not isinstance(step, NodeProto) or needed.intersection(step.output):
            kept.append(step)
            needed.update(_reads(step))
    return kept[::-1]


def _with_identities(graph: Graph, steps: Sequence[Step]) -> tuple[Graph, list[Step]]:
    """Write each constant that is a graph output or that a layer or recurrence reads by an Identity node, which they read.

    Digital nodes go on reading the constant: some know their result's shape from its value.
    """
    constants = dict(graph.constants)
    sources: dict[str, str] = {}
    identities: list[Step] = []
    inputs = (name for step in steps if not isinstance(step, NodeProto) for name in _reads(step))
    for name in dict.fromkeys([*graph.output_names, *inputs]):
        if name in constants:
            source = unused(f"{name}_constant", {*constants, *graph.types})
            constants[source] = constants.pop(name)
            sources[name] = source
            identities.append(helper.make_node("Identity", [source], [name]))
    reading = [builder.reading(step, sources) if isinstance(step, NodeProto) else step for step in steps]
    return replace(graph, constants=constants), [*identities, *reading]


def _segment(name: str, nodes: Sequence[NodeProto], graph: Graph, borders: set[str]) -> DigitalSegment:
    written = {output: None for node in nodes for output in node.output if output}
    read = {source: None for node in nodes for source in reads(node) if source not in written}
    proto = builder.make_graph(
        name,
        nodes,
        [value_info(graph, source) for source in read if source not in graph.constants],
        [value_info(graph, output) for output in written if output in borders],
        (named(graph.constants[source], source) for source in read if source in graph.constants),
    )
    return DigitalSegment(name, model_around(graph, proto))
