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
from xbcompile.frontend.recurrence import body_graph, is_recurrence
from xbcompile.frontend.selection import reason_to_stay
from xbcompile.onnx_graph.builder import copied, make_graph
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin, bodies
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
    count, axes = attribute(node, "num_scan_inputs", 0), attribute(node, "scan_input_axes", [])
    if graph.opset < OLDEST_SCAN:
        raise StaysDigital(
            f"a Scan of opset {graph.opset} has a batch axis of its own; export with {OLDEST_SCAN} or newer"
        )
    if any(graph.shape(name) is None for name, axis in zip(node.input[-count:], axes, strict=False) if axis):
        raise StaysDigital("the rank of a sequence is unknown that is cut along another axis than 0")
    inside = prepare(body_graph(node, graph), node.name)
    if any(is_recurrence(each, inside) for each in inside.nodes):
        raise StaysDigital("it has a recurrence in its body whose number of steps is not known")
    reasons = [(each, why_not_lowered(each, inside, digital)) for each in inside.nodes if operator_of(each).has_matrix]
    if all(reason for _, reason in reasons):
        raise StaysDigital("; ".join(f"{each.name} ({each.op_type}): {reason}" for each, reason in reasons))
    return inside


def _rewritten(node: NodeProto, graph: Graph, inside: Graph, splicer: Splicer) -> dict[str, Origin]:
    """Put in the Scan with this body, and what is around it; origins of the body's nodes."""
    body: GraphProto = attribute(node, "body", None)
    count = attribute(node, "num_scan_inputs", 0)
    states = len(body.input) - count
    backwards = attribute(node, "scan_input_directions", [0] * count)
    axes = attribute(node, "scan_input_axes", [0] * count)
    reverse = int(backwards[0])
    ways = list(zip(axes, (back != reverse for back in backwards), strict=True))
    sequences = [
        _turned(splicer, _steps_first(splicer, name, axis, len(graph.shape(name) or ())), flip)
        for name, (axis, flip) in zip(node.input[states:], ways, strict=True)
    ]
    new, origins = _body(body, graph, inside, splicer)
    stacked = len(body.output) - states
    axes = attribute(node, "scan_output_axes", [0] * stacked)
    flips = [back != reverse for back in attribute(node, "scan_output_directions", [0] * stacked)]
    outputs = [*node.output, *[""] * (len(body.output) - len(node.output))]
    direct = [i < states or not (axes[i - states] or flips[i - states]) for i in range(len(outputs))]
    written = [
        name if name and plain else splicer.name(f"{node.name}/output")
        for name, plain in zip(outputs, direct, strict=True)
    ]
    splicer.nodes.append(
        helper.make_node(
            "Scan",
            [*node.input[:states], *sequences],
            written,
            node.name,
            body=new,
            num_scan_inputs=count,
            scan_input_directions=[reverse] * count,
            scan_output_directions=[reverse] * stacked,
        )
    )
    for i, (name, source) in enumerate(zip(outputs[states:], written[states:], strict=True)):
        if name and name != source:
            rank = len(graph.shape(name) or ())
            turned = _turned(splicer, source, flips[i], "" if axes[i] else name)
            if axes[i]:
                axis = axes[i] % rank
                order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
                splicer.emit("Transpose", turned, perm=order, output=name)
    return origins


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
