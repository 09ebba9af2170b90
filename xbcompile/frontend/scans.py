"""A Scan of the model whose body has matrices, in the form that becomes a recurrence.

Sequences are cut along axis 0, all in one direction, and outputs are stacked so too: Transpose and Slice around the Scan see to
it. The body goes the way of the model itself: its control flow is decided, its constants are folded, its operators are
rewritten. Its tensors get names that are free in the whole model, its constants become the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from onnx import GraphProto, NodeProto, ValueInfoProto, helper

from xbcompile.frontend.control_flow import LARGEST_UNROLLED, OLDEST_SCAN
from xbcompile.frontend.lower import why_not_lowered
from xbcompile.frontend.operands import StaysDigital, attribute
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.recurrence import body_graph, form_of, is_recurrence
from xbcompile.frontend.runs import LARGEST_STEPS
from xbcompile.frontend.selection import reason_to_stay
from xbcompile.onnx_graph.builder import copied, make_graph
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin
from xbcompile.onnx_graph.nodes import bodies
from xbcompile.onnx_graph.splicing import Splicer
from xbcompile.onnx_graph.types import infer_types

_OLDEST_STEP = 10  # of the opsets in which Slice goes backwards
_BEFORE_FIRST = -(2**63) + 1

Prepare = Callable[[Graph, str], Graph]


def rewrite_scans(graph: Graph, digital: Collection[str], prepare: Prepare) -> Graph:
    """The graph with every Scan that has a matrix with constant weights in its body in the form that lowering takes.

    Args:
        graph: with types; every node has a name of its own, in bodies too.
        digital: names and patterns of the nodes that the user keeps digital.
        prepare: takes the graph of a body, and the name of its Scan, the way to lowering.
    """
    if not any(map(_has_matrices, graph.nodes)):
        return graph
    splicer, scans, reasons = Splicer(graph), list[str](), dict[str, str]()
    origins = dict(graph.origins)
    for node in graph.nodes:
        if not _has_matrices(node) or reason_to_stay(node, digital):
            splicer.nodes.append(node)
            continue
        try:
            inside = _prepared_body(node, graph, digital, prepare)
            splicer.owner = Origin(node.name, "Scan")
            origins.update(_rewritten(node, graph, inside, splicer))
        except StaysDigital as reason:
            reasons[node.name] = str(reason)
            splicer.nodes.append(node)
            continue
        scans.append(node.name)
        reasons.update(inside.reasons)
    if not scans:
        return replace(graph, reasons={**graph.reasons, **reasons})
    graph = replace(
        graph,
        nodes=tuple(splicer.nodes),
        constants={**graph.constants, **splicer.constants},
        origins=origins | {name: each for name, each in splicer.origins.items() if name not in origins},
        reasons={**graph.reasons, **reasons},
        recurrences=graph.recurrences | set(scans),
        decided={**graph.decided, **dict.fromkeys(scans, "a recurrence: what its body has runs once per step")},
    )
    return infer_types(graph)


def too_long_inside(graph: Graph, scan: str) -> dict[str, str]:
    """Why recurrent operators in the body of a Scan stay digital, by node name: those of too many steps, or an open number."""
    reasons = {}
    for node in graph.nodes:
        if node.op_type not in ("GRU", "LSTM", "RNN") or node.domain not in ONNX_DOMAINS:
            continue
        shape = graph.shape(node.input[0])
        steps = None if shape is None or len(shape) < 2 else shape[1 if attribute(node, "layout", 0) else 0]
        if not steps or steps > LARGEST_UNROLLED:
            reasons[node.name] = (
                f'it makes {steps or "an open number of"} steps in each step of Scan "{scan}"; up to {LARGEST_UNROLLED} are '
                f"taken apart there"
            )
    return reasons


def _has_matrices(node: NodeProto) -> bool:
    """Whether the node is a Scan, with a node somewhere in its body that an array could hold."""
    return node.op_type == "Scan" and node.domain in ONNX_DOMAINS and any(map(_has_matrix, bodies(node)))


def _has_matrix(body: GraphProto) -> bool:
    return any(operator_of(node).has_matrix or any(map(_has_matrix, bodies(node))) for node in body.node)


def _prepared_body(node: NodeProto, graph: Graph, digital: Collection[str], prepare: Prepare) -> Graph:
    """The body as lowering takes it.

    Raises:
        StaysDigital: it has no matrix that can be lowered, or the Scan has another form.
    """
    if graph.opset < OLDEST_SCAN:
        raise StaysDigital(
            f"a Scan of opset {graph.opset} has a batch axis of its own; export with {OLDEST_SCAN} or newer"
        )
    form = form_of(node)
    turned = zip(
        (*node.input[form.states :], *node.output[form.states :]), (*form.input_axes, *form.output_axes), strict=False
    )
    if any(graph.shape(name) is None for name, axis in turned if axis and name):
        raise StaysDigital("the rank of a sequence is unknown whose steps are along another axis than 0")
    sequence = graph.shape(node.input[form.states])
    steps = sequence[form.input_axes[0]] if sequence else None
    if steps and steps > LARGEST_STEPS:
        raise StaysDigital(f"it has {steps:,} steps, and a schedule lists at most {LARGEST_STEPS:,}")
    inside = prepare(body_graph(node, graph), node.name)
    if any(is_recurrence(each, inside) for each in inside.nodes):
        raise StaysDigital("it has a recurrence in its body whose number of steps is not known")
    reasons = [(each, why_not_lowered(each, inside, digital)) for each in inside.nodes if operator_of(each).has_matrix]
    if all(reason for _, reason in reasons):
        raise StaysDigital("; ".join(f"{each.name} ({each.op_type}): {reason}" for each, reason in reasons))
    return inside


def _rewritten(node: NodeProto, graph: Graph, inside: Graph, splicer: Splicer) -> dict[str, Origin]:
    """Put in the Scan with this body, and what is around it; origins of the body's nodes."""
    form = form_of(node)
    reverse, states = form.input_backwards[0], form.states
    ways = zip(node.input[states:], form.input_axes, form.input_backwards, strict=True)
    sequences = [
        _turned(splicer, _steps_first(splicer, name, axis, len(graph.shape(name) or ())), back != reverse)
        for name, axis, back in ways
    ]
    body, origins = _body(form.body, graph, inside, splicer)
    stacked = list(zip(form.output_axes, form.output_backwards, strict=True))
    outputs = [*node.output, *[""] * (len(body.output) - len(node.output))]
    plain = [True] * states + [axis == 0 and back == reverse for axis, back in stacked]
    written = [
        name if name and is_plain else splicer.name(f"{node.name}/output")
        for name, is_plain in zip(outputs, plain, strict=True)
    ]
    splicer.nodes.append(
        helper.make_node(
            "Scan",
            [*node.input[:states], *sequences],
            written,
            node.name,
            body=body,
            num_scan_inputs=len(sequences),
            scan_input_directions=[int(reverse)] * len(sequences),
            scan_output_directions=[int(reverse)] * len(stacked),
        )
    )
    for name, source, (axis, back) in zip(outputs[states:], written[states:], stacked, strict=True):
        if name and name != source:
            _lay_out(splicer, source, axis, back != reverse, name, len(graph.shape(name) or ()))
    return origins


def _lay_out(splicer: Splicer, stacked: str, axis: int, flip: bool, output: str, rank: int) -> None:
    """Write `output`: what is stacked along axis 0 along another axis, or the other way round."""
    if axis == 0:
        _turned(splicer, stacked, flip, output)
        return
    axis %= rank
    order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
    splicer.emit("Transpose", _turned(splicer, stacked, flip), perm=order, output=output)


def _steps_first(splicer: Splicer, name: str, axis: int, rank: int) -> str:
    if axis == 0:
        return name
    axis %= rank
    return splicer.emit("Transpose", name, perm=[axis, *(i for i in range(rank) if i != axis)])


def _turned(splicer: Splicer, name: str, flip: bool, output: str = "") -> str:
    """The entries along axis 0 in the other order, where that is asked for."""
    if not flip:
        return name
    if splicer.opset < _OLDEST_STEP:
        raise StaysDigital(f"sequences of both directions need opset {_OLDEST_STEP}; the model has {splicer.opset}")
    bounds = [splicer.constant(each, "bound") for each in ([-1], [_BEFORE_FIRST], [0], [-1])]
    return splicer.emit("Slice", name, *bounds, output=output)


def _body(body: GraphProto, graph: Graph, inside: Graph, splicer: Splicer) -> tuple[GraphProto, dict[str, Origin]]:
    """The prepared body under names that are free, and the origins of its nodes."""
    names = {value.name: splicer.name(value.name) for value in body.input}
    for name, constant in inside.constants.items():
        if graph.constants.get(name) is not constant:
            names[name] = splicer.name(name)
            splicer.constants[names[name]] = constant
    around, splicer.nodes = splicer.nodes, []
    splicer.splice(inside.nodes, names)
    ends = _distinct_ends(splicer, [names.get(value.name, value.name) for value in body.output])
    nodes, splicer.nodes = splicer.nodes, around
    origins = {}
    for node in nodes:
        before = splicer.origins.get(node.name, Origin(node.name, node.op_type))
        origins[node.name] = inside.origins.get(before.node, before)
    types = {value.name: value for value in (*body.input, *body.output)}
    inputs = [_called(value, names[value.name]) for value in body.input]
    outputs = [_called(types[value.name], end) for value, end in zip(body.output, ends, strict=True)]
    return make_graph(splicer.name(body.name or "body"), nodes, inputs, outputs), origins


def _distinct_ends(splicer: Splicer, ends: Sequence[str]) -> list[str]:
    """Each output of the body by a node of its own: not an input of it, a tensor outside, or another output."""
    written = {name for node in splicer.nodes for name in node.output}
    found: list[str] = []
    for end in ends:
        found.append(end if end in written and end not in found else splicer.emit("Identity", end))
    return found


def _called(value: ValueInfoProto, name: str) -> ValueInfoProto:
    called = copied(value)
    called.name = name
    return called
