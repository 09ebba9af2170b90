"""Control flow that is decided when compiling: its nodes are taken out of the bodies, so that their matrices go on arrays.

An If whose condition is constant becomes its branch, a Loop of a few constant iterations becomes copies of its body, which
share its matrices. The nodes keep their names; copies are numbered, and remember the node that they copy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import GraphProto, NodeProto, ValueInfoProto

from xbcompile.frontend.fold import fold_constants
from xbcompile.frontend.growth import Budget
from xbcompile.frontend.operands import attribute
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.recurrence import form_of
from xbcompile.frontend.selection import kept_by, reason_to_stay
from xbcompile.frontend.standard import in_standard_operators
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin, without_dead_nodes
from xbcompile.onnx_graph.splicing import Splicer, without_constants
from xbcompile.onnx_graph.tensors import to_array
from xbcompile.onnx_graph.types import infer_types

LARGEST_UNROLLED = 16  # assumed: copies of a body beyond which a model is slow to compile and to read
OLDEST_SCAN = 9  # before, a Scan has a batch axis of its own

_DECIDED_BY = {"If": 1, "Loop": 2}  # so many first inputs


def resolve_control_flow(
    graph: Graph, digital: Collection[str], scans: bool = False, budget: Budget | None = None
) -> Graph:
    """The graph with control flow taken out that constants decide, and what was decided in `Graph.decided`.

    Args:
        graph: every node has a name of its own, in bodies too.
        digital: names and patterns of nodes that the user keeps digital.
        scans: also make copies of the bodies of Scans of a few steps; the graph has types, and so has the result.
        budget: of the model that the graph is a part of; None: the graph is all of it. Bodies stay that it has no room for.

    Raises:
        ModelError: onnxruntime cannot evaluate what decides.
    """
    kinds, budget = {*_DECIDED_BY, *(["Scan"] if scans else [])}, budget or Budget()
    while True:
        asked = [node for node in graph.nodes if _is_control_flow(node, kinds) and not reason_to_stay(node, digital)]
        if not asked:
            return graph
        values = _known_values(
            graph, (name for node in asked for name in node.input[: _DECIDED_BY.get(node.op_type, 0)])
        )
        splicer, decided, names = Splicer(graph), dict[str, str](), {node.name for node in asked}
        for node in graph.nodes:
            decision = _taken_out(node, graph, values, splicer, budget) if node.name in names else ""
            if decision:
                decided[node.name] = decision
            else:
                splicer.nodes.append(node)
        if not decided:
            return graph
        graph = _with_spliced(graph, splicer, digital)
        graph = replace(graph, decided={**graph.decided, **decided})
        if scans:
            graph = infer_types(without_dead_nodes(graph))


def _is_control_flow(node: NodeProto, kinds: Collection[str]) -> bool:
    return node.op_type in kinds and node.domain in ONNX_DOMAINS


def _known_values(graph: Graph, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The values of those among the tensors that depend on constants alone, or on sizes that the model tells."""
    wanted = dict.fromkeys(filter(None, names))
    if not wanted:
        return {}
    behind = without_dead_nodes(replace(graph, outputs=tuple(ValueInfoProto(name=name) for name in wanted)))
    behind = in_standard_operators(behind, lambda node: operator_of(node).standard)
    constants = fold_constants(infer_types(behind)).constants
    return {name: to_array(constants[name]) for name in wanted if name in constants}


def _with_spliced(graph: Graph, splicer: Splicer, digital: Collection[str]) -> Graph:
    """The graph of the splicer's nodes, with origins of copies, and reasons where the user keeps digital what they copy."""
    origins = {name: graph.origins.get(each.node, each) for name, each in splicer.origins.items()}
    reasons = {
        name: graph.reasons.get(each.node) or kept_by(each.node, digital) for name, each in splicer.origins.items()
    }
    return replace(
        graph,
        nodes=tuple(splicer.nodes),
        constants={**graph.constants, **splicer.constants},
        origins={**graph.origins, **origins},
        reasons={**graph.reasons, **{name: reason for name, reason in reasons.items() if reason}},
    )


def _taken_out(
    node: NodeProto, graph: Graph, values: Mapping[str, np.ndarray], splicer: Splicer, budget: Budget
) -> str:
    """Put in what the node does where that is decided, and say what it is; nothing, and no text, where it is not."""
    splicer.owner = graph.origins.get(node.name, Origin(node.name, node.op_type))
    if node.op_type == "If":
        return _branch(node, values, splicer)
    if node.op_type == "Loop":
        return _loop(node, graph, values, splicer, budget)
    return _scan(node, graph, splicer, budget)


def _branch(node: NodeProto, values: Mapping[str, np.ndarray], splicer: Splicer) -> str:
    condition = _number(values, node.input[0])
    if condition is None:
        return ""
    branch = "then_branch" if condition else "else_branch"
    body: GraphProto = attribute(node, branch, None)
    nodes, names = splicer.hoist(body)
    _put_in(splicer, nodes, names, [value.name for value in body.output], node.output)
    return f"its condition is constant: the {branch} stands in its place"


def _loop(node: NodeProto, graph: Graph, values: Mapping[str, np.ndarray], splicer: Splicer, budget: Budget) -> str:
    body: GraphProto = attribute(node, "body", None)
    initial = node.input[2:]
    final, stacked = _parted(node.output, len(initial))
    trips, goes = _number(values, node.input[0]), 1 if not node.input[1] else _number(values, node.input[1])
    if goes == 0:
        trips = 0
    if trips is None or goes is None or trips > LARGEST_UNROLLED or (trips > 1 and not _goes_on(body, graph)):
        return ""
    if trips > 0 and not budget.takes_copies(body, trips):
        return ""
    if trips <= 0:
        if any(stacked):  # of no entry: their shapes are a matter of the body
            return ""
        for outer, value in zip(final, initial, strict=True):
            if outer:
                splicer.emit("Identity", value, output=outer)
        return "its body never runs"
    number, goes_on, *starts = body.input
    true = _like(splicer, goes_on, np.bool_(True))
    feeds = [{number.name: _like(splicer, number, np.int64(i)), goes_on.name: true} for i in range(int(trips))]
    rows = _copies(splicer, body, feeds, (starts, initial, final), 1)
    for outer, row in zip(stacked, rows, strict=True):
        if outer:
            _stack(splicer, row, 0, outer)
    return f"its body runs {len(feeds)} times: so many copies stand in its place"


def _scan(node: NodeProto, graph: Graph, splicer: Splicer, budget: Budget) -> str:
    form = form_of(node)
    body, states = form.body, form.states
    final, stacked = _parted(node.output, states)
    shape = graph.shape(node.input[states])
    steps = None if shape is None else shape[form.input_axes[0]]
    if graph.opset < OLDEST_SCAN or not steps or steps > LARGEST_UNROLLED or not budget.takes_copies(body, steps):
        return ""
    numbers = [splicer.constant(np.int64(i), "entry") for i in range(steps)]
    feeds = []
    for i in range(steps):
        entries = zip(body.input[states:], node.input[states:], form.input_axes, form.input_backwards, strict=True)
        feeds.append(
            {
                inner.name: splicer.emit("Gather", outer, numbers[-1 - i if back else i], axis=axis)
                for inner, outer, axis, back in entries
            }
        )
    rows = _copies(splicer, body, feeds, (body.input[:states], node.input[:states], final), 0)
    for outer, row, axis, back in zip(stacked, rows, form.output_axes, form.output_backwards, strict=True):
        if outer:
            _stack(splicer, row[::-1] if back else row, axis, outer)
    return f"its body runs {steps} times: so many copies stand in its place"


def _copies(
    splicer: Splicer,
    body: GraphProto,
    feeds: Sequence[Mapping[str, str]],
    states: tuple[Sequence[ValueInfoProto], Sequence[str], Sequence[str]],
    skipped: int,
) -> list[list[str]]:
    """Put in one copy of the body for each entry of `feeds`.

    Args:
        splicer: takes the nodes.
        body: the body.
        feeds: what the body's inputs are called in each copy, states apart.
        states: their names in the body, before the first copy and after the last; empty where nothing reads them.
        skipped: number of outputs of the body before its states.

    Returns:
        each further output of the body, in all copies.
    """
    starts, carried, final = states
    ends = [value.name for value in body.output[skipped:]]
    nodes, constants = splicer.hoist(body)
    rows: list[list[str]] = [[] for _ in ends[len(starts) :]]
    for i, feed in enumerate(feeds):
        names = {**constants, **feed, **{each.name: value for each, value in zip(starts, carried, strict=True)}}
        outer = final if i == len(feeds) - 1 else [""] * len(final)
        found = _put_in(splicer, nodes, names, ends, outer)
        carried = found[: len(starts)]
        for row, value in zip(rows, found[len(starts) :], strict=True):
            row.append(value)
    return rows


def _put_in(
    splicer: Splicer, nodes: Sequence[NodeProto], names: dict[str, str], ends: Sequence[str], outer: Sequence[str]
) -> list[str]:
    """Put in the nodes of a body; what its `ends` are called then: as `outer` says where it has a name for them."""
    written = {name for node in nodes for name in node.output}
    for inner, name in zip(ends, outer, strict=False):
        if name and inner in written and inner not in names:
            names[inner] = name
    splicer.splice(nodes, names)
    found = [names.get(inner, inner) for inner in ends]
    for value, name in zip(found, outer, strict=False):
        if name and value != name:
            splicer.emit("Identity", value, output=name)
    return found


def _stack(splicer: Splicer, values: Sequence[str], axis: int, output: str) -> None:
    if len(values) == 1:
        splicer.unsqueeze(values[0], [axis], output=output)
        return
    splicer.emit("Concat", *(splicer.unsqueeze(value, [axis]) for value in values), axis=axis, output=output)


def _parted(outputs: Sequence[str], states: int) -> tuple[list[str], list[str]]:
    """Names of final states, empty where the node leaves them out, and of stacked outputs."""
    return [*outputs[:states], *[""] * (states - len(outputs))], list(outputs[states:])


def _number(values: Mapping[str, np.ndarray], name: str) -> int | None:
    """A known value of one element as a whole number."""
    return int(values[name].reshape(-1)[0]) if name in values and values[name].size == 1 else None


def _like(splicer: Splicer, value: ValueInfoProto, number: np.generic) -> str:
    """The number as a constant of the rank that a body declares: a scalar, or one element."""
    return splicer.constant(np.full([1] * len(value.type.tensor_type.shape.dim), number), value.name)


def _goes_on(body: GraphProto, graph: Graph) -> bool:
    """Whether a body's condition is true after every iteration that begins with a true one."""
    nodes, constants = without_constants(body)
    writers = {name: node for node in nodes for name in node.output}
    name = body.output[0].name
    while name in writers and writers[name].op_type == "Identity":
        name = writers[name].input[0]
    if name == body.input[1].name:
        return True
    known = {**graph.constants, **constants}
    return name not in writers and name in known and bool(to_array(known[name]).all())
