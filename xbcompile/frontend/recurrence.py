"""A Scan that is to become a recurrence, taken apart: its body as a graph of its own, and how tensors go in and out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx import GraphProto, NodeProto, TypeProto, ValueInfoProto

from xbcompile.frontend.operands import attribute
from xbcompile.ir import MatrixLayer, SequenceInput, StackedOutput, State
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.nodes import reads
from xbcompile.onnx_graph.splicing import without_constants
from xbcompile.onnx_graph.types import infer_types


@dataclass(frozen=True)
class ScanForm:
    """A Scan's attributes, defaults in place (ONNX operator Scan, from opset 9 on).

    Args:
        body: the body: states and then entries go in, states and then what is stacked come out.
        states: number of states.
        input_axes: along which axis each sequence is cut.
        input_backwards: whether it is from the last entry on.
        output_axes: along which axis each further output is stacked.
        output_backwards: whether the last one comes first.
    """

    body: GraphProto
    states: int
    input_axes: tuple[int, ...]
    input_backwards: tuple[bool, ...]
    output_axes: tuple[int, ...]
    output_backwards: tuple[bool, ...]


def form_of(node: NodeProto) -> ScanForm:
    """The form of a Scan."""
    body, count = attribute(node, "body", None), attribute(node, "num_scan_inputs", 0)
    states = len(body.input) - count
    stacked = len(body.output) - states
    return ScanForm(
        body=body,
        states=states,
        input_axes=tuple(attribute(node, "scan_input_axes", [0] * count)),
        input_backwards=tuple(map(bool, attribute(node, "scan_input_directions", [0] * count))),
        output_axes=tuple(attribute(node, "scan_output_axes", [0] * stacked)),
        output_backwards=tuple(map(bool, attribute(node, "scan_output_directions", [0] * stacked))),
    )


@dataclass(frozen=True)
class Loop:
    """What a recurrence has besides its body; the fields are those of `xbcompile.ir.Recurrence`."""

    name: str
    sequences: tuple[SequenceInput, ...]
    states: tuple[State, ...]
    outputs: tuple[StackedOutput, ...]
    reverse: bool
    steps: int | None


@dataclass(frozen=True)
class LoweredLoop:
    """A recurrence whose body is lowered.

    Args:
        loop: all but the body.
        graph: the body's graph after lowering.
        body: its nodes, some of them matrix layers now.
    """

    loop: Loop
    graph: Graph
    body: tuple[NodeProto | MatrixLayer, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensors outside that it needs."""
        cut, initial = (s.outer for s in self.loop.sequences), (s.initial for s in self.loop.states)
        inner = {*(s.inner for s in self.loop.sequences), *(s.start for s in self.loop.states)}
        as_they_are = (value.name for value in self.graph.inputs if value.name not in inner)
        return (*cut, *initial, *as_they_are)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Tensors outside that it writes."""
        return (*(s.final for s in self.loop.states), *(s.outer for s in self.loop.outputs))


def is_recurrence(node: NodeProto, graph: Graph) -> bool:
    """Whether the node is a Scan in the form that rewritings give it."""
    return node.op_type == "Scan" and node.domain in ONNX_DOMAINS and node.name in graph.recurrences


def loop_of(node: NodeProto, graph: Graph) -> Loop:
    """How tensors go in and out of such a Scan."""
    form = form_of(node)
    inner, states = [value.name for value in form.body.input], form.states
    ends = [value.name for value in form.body.output]
    shape = graph.shape(node.input[states])
    return Loop(
        name=node.name,
        sequences=tuple(SequenceInput(*pair) for pair in zip(node.input[states:], inner[states:], strict=True)),
        states=tuple(
            State(*names)
            for names in zip(node.input[:states], inner[:states], ends[:states], node.output[:states], strict=True)
        ),
        outputs=tuple(StackedOutput(*pair) for pair in zip(ends[states:], node.output[states:], strict=True)),
        reverse=form.input_backwards[0],
        steps=None if shape is None else shape[0],
    )


def body_graph(node: NodeProto, graph: Graph) -> Graph:
    """The body of any Scan as a graph with types: what it reads from outside is among its inputs and constants."""
    form = form_of(node)
    body, states = form.body, form.states
    inner = [value.name for value in body.input]
    types = {name: graph.types[initial] for name, initial in zip(inner[:states], node.input[:states], strict=True)}
    for name, sequence, axis in zip(inner[states:], node.input[states:], form.input_axes, strict=True):
        types[name] = _entry(graph.types[sequence], axis)
    nodes, own = without_constants(body)
    known = {*types, *own, *(name for each in nodes for name in each.output)}
    read = (*(name for each in nodes for name in reads(each)), *(value.name for value in body.output))
    outer = dict.fromkeys(name for name in read if name not in known)
    constants = own | {name: graph.constants[name] for name in outer if name in graph.constants}
    types |= {name: graph.types[name] for name in outer if name not in constants}
    inside = replace(
        graph,
        name=node.name,
        inputs=tuple(ValueInfoProto(name=name, type=each) for name, each in types.items()),
        outputs=tuple(body.output),
        nodes=tuple(nodes),
        constants=constants,
        types={},
        recurrences=frozenset(),
    )
    return infer_types(inside)


def _entry(type_proto: TypeProto, axis: int) -> TypeProto:
    """The type of one entry along an axis."""
    entry = builder.copied(type_proto)
    if entry.tensor_type.HasField("shape"):
        del entry.tensor_type.shape.dim[axis]
    return entry
