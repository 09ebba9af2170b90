"""Turning MVM-like nodes into matrix layers, and recording why the others stay digital."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, helper

from xbcompile.errors import ModelError, elided, written
from xbcompile.frontend.lowerings import Matrix, bias_vector
from xbcompile.frontend.operands import StaysDigital
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.recurrence import LoweredLoop, body_graph, is_recurrence, loop_of
from xbcompile.frontend.selection import is_marked, matches, reason_to_stay
from xbcompile.ir import Contraction, LoweringRecord, MatrixLayer
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin, unused
from xbcompile.onnx_graph.nodes import all_nodes, bodies, reads

Step = NodeProto | MatrixLayer | LoweredLoop


@dataclass(frozen=True)
class Lowered:
    """The graph after lowering: its nodes, some of them matrix layers now, and a record of each MVM-like node."""

    graph: Graph
    steps: tuple[Step, ...]
    records: tuple[LoweringRecord, ...]


class _Matrices:
    """The matrices made so far: layers that use the same one, made of one constant, name it alike."""

    def __init__(self) -> None:
        self._weights: dict[str, np.ndarray] = {}
        self._names: dict[str, list[str]] = {}  # by constant

    def shared(self, constant: str, weights: np.ndarray) -> tuple[str, np.ndarray]:
        """Name and weights of the matrix: an earlier one where it was made of this constant and is the same.

        The name is the constant's; further matrices of one constant (such as its transpose) are numbered.
        """
        names = self._names.setdefault(constant, [])
        for name in names:
            if np.array_equal(self._weights[name], weights):
                return name, self._weights[name]
        names.append(unused(constant, self._weights))
        self._weights[names[-1]] = np.ascontiguousarray(weights)
        return names[-1], self._weights[names[-1]]


@dataclass
class _Build:
    """What grows while the nodes are gone through."""

    constants: dict[str, TensorProto]
    types: dict[str, TypeProto]
    matrices: _Matrices
    steps: list[Step] = field(default_factory=list)
    records: list[LoweringRecord] = field(default_factory=list)
    fused: set[int] = field(default_factory=set)


def with_node_names(graph: Graph) -> Graph:
    """Give every node a unique name, in bodies too: its own, or operator and output name where it has none."""
    used: set[str] = set()
    numbers: dict[str, int] = {}

    def free(name: str) -> str:
        found = unused(name, used, numbers)
        used.add(found)
        return found

    def named(nodes: Iterable[NodeProto], inside: bool) -> list[NodeProto]:
        """The nodes, or those in their bodies, under unique names; copied where a name changes."""
        found = []
        for node in nodes:
            meant = list(_nodes_inside(node)) if inside else [node]
            names = [free(_name(each)) for each in meant]
            if names != [each.name for each in meant]:
                node = builder.copied(node)
                for each, name in zip(_nodes_inside(node) if inside else [node], names, strict=True):
                    each.name = name
            found.append(node)
        return found

    return replace(graph, nodes=tuple(named(named(graph.nodes, inside=False), inside=True)))


def _nodes_inside(node: NodeProto) -> Iterator[NodeProto]:
    """The nodes in the bodies of a node, in order, bodies in bodies included."""
    for body in bodies(node):
        yield from all_nodes(body.node)


def lower_nodes(graph: Graph, digital: Collection[str]) -> Lowered:
    """Lower every node that can be, except those marked in the model or matched by a pattern of `digital`.

    Raises:
        ModelError: weights are not finite.
    """
    build = _lower_graph(graph, digital, _Matrices())
    lowered = replace(graph, constants=build.constants, types=build.types)
    return Lowered(lowered, tuple(build.steps), one_per_node(build.records))


def _lower_graph(graph: Graph, digital: Collection[str], matrices: _Matrices) -> _Build:
    """`lower_nodes` for the model's graph or the body of a recurrence; weights of all graphs are in `matrices`."""
    readers = _readers(graph)
    build = _Build(dict(graph.constants), dict(graph.types), matrices)
    for node in graph.nodes:
        if id(node) in build.fused:
            continue
        if is_recurrence(node, graph):
            _add_recurrence(node, graph, digital, readers, build)
            continue
        build.records.extend(_records_inside(node, graph))
        if not _is_recorded(node, graph, digital):
            build.steps.append(node)
            continue
        try:
            matrix = _lower(node, graph, digital)
        except StaysDigital as reason:
            build.steps.append(node)
            build.records.append(_record(node, graph, False, str(reason)))
            continue
        _add_layer(node, matrix, graph, readers, build)
        build.records.append(_record(node, graph, True))
    return build


def _add_recurrence(
    node: NodeProto, graph: Graph, digital: Collection[str], readers: dict[str, list[NodeProto | None]], build: _Build
) -> None:
    """Lower the body of a recurrence, whose layers are read once per step; outputs that nothing reads are left out."""
    loop, graph = loop_of(node, graph), body_graph(node, graph)
    loop = replace(loop, outputs=tuple(output for output in loop.outputs if readers.get(output.outer)))
    inside = _lower_graph(graph, digital, build.matrices)
    body: list[NodeProto | MatrixLayer] = []
    for step in inside.steps:
        assert not isinstance(step, LoweredLoop)  # a rewriting puts no recurrence inside another
        if isinstance(step, MatrixLayer):
            vectors, steps = step.vectors_per_inference, loop.steps
            step = replace(step, vectors_per_inference=vectors * steps if vectors and steps else None)
        body.append(step)
    graph = replace(graph, constants=inside.constants, types=inside.types)
    build.steps.append(LoweredLoop(loop, graph, tuple(body)))
    build.records.extend(inside.records)


def _is_recorded(node: NodeProto, graph: Graph, digital: Collection[str]) -> bool:
    """Not where a rewriting left its own node behind the matrix that it made of it."""
    operator = operator_of(node)
    if operator.has_matrix or operator.is_product:
        return True
    if node.name in graph.reasons:
        return not any(True for _ in bodies(node))  # what is in the bodies is recorded
    return operator.rewrite is not None and reason_to_stay(node, digital) is not None


def _record(node: NodeProto, graph: Graph, lowered: bool, reason: str = "") -> LoweringRecord:
    """What became of a node, under the name of the node of the user's model that it stands for."""
    origin = graph.origins.get(node.name, Origin(node.name, node.op_type))
    return LoweringRecord(origin.node, origin.operator, lowered, reason, (node.name,) if lowered else ())


def one_per_node(records: list[LoweringRecord]) -> tuple[LoweringRecord, ...]:
    """The records of one node of the model, which may have become several matrices, joined to one."""
    joined: dict[str, LoweringRecord] = {}
    for record in records:
        before = joined.get(record.node, replace(record, reason="", layers=()))
        reasons = [reason for reason in (before.reason, record.reason) if reason]
        joined[record.node] = replace(
            before,
            lowered=before.lowered or record.lowered,
            reason="; ".join(dict.fromkeys(reasons)),
            layers=before.layers + record.layers,
        )
    return tuple(joined.values())


def why_not_lowered(node: NodeProto, graph: Graph, digital: Collection[str]) -> str:
    """Why a node stays digital; empty where it becomes a layer."""
    try:
        _lower(node, graph, digital)
    except StaysDigital as reason:
        return str(reason)
    return ""


def _lower(node: NodeProto, graph: Graph, digital: Collection[str]) -> Matrix:
    reason = reason_to_stay(node, digital) or graph.reasons.get(node.name)
    if reason:
        raise StaysDigital(reason)
    operator = operator_of(node)
    if operator.lower is None:
        raise StaysDigital(operator.reason or f"{node.op_type} is not lowered yet")
    return operator.lower(node, graph)


def _add_layer(
    node: NodeProto, matrix: Matrix, graph: Graph, readers: dict[str, list[NodeProto | None]], build: _Build
) -> None:
    output, bias = node.output[0], matrix.bias
    addition = _bias_addition(node, matrix, graph, readers)
    if addition is not None:
        add, bias = addition
        build.fused.add(id(add))
        output = add.output[0]
    product = output
    if matrix.addend is not None:
        product = unused(f"{output}_product", build.types)
        build.types[product] = graph.types[output]
    groups, _, outputs = matrix.weights.shape
    name, weights = build.matrices.shared(matrix.constant, matrix.weights)
    build.steps.append(
        MatrixLayer(
            name=node.name,
            input=matrix.input,
            output=product,
            weights=weights,
            bias=np.zeros(groups * outputs, np.float32) if bias is None else np.ascontiguousarray(bias),
            geometry=matrix.geometry,
            element_type=graph.constants[matrix.constant].data_type,
            vectors_per_inference=_vectors(matrix, graph, node.output[0]),
            matrix=name,
        )
    )
    if matrix.addend is not None:
        build.steps.extend(_additions(matrix, product, output, build))


def _bias_addition(
    node: NodeProto, matrix: Matrix, graph: Graph, readers: dict[str, list[NodeProto | None]]
) -> tuple[NodeProto, np.ndarray] | None:
    """The Add that gives a MatMul's only reader its bias, and the bias."""
    product = node.output[0]
    if node.op_type != "MatMul" or len(readers[product]) != 1:
        return None
    add = readers[product][0]
    if add is None or add.op_type != "Add" or add.domain not in ONNX_DOMAINS or is_marked(add):
        return None
    other = add.input[0] if add.input[1] == product else add.input[1]
    shape = graph.shape(product)
    try:
        bias = bias_vector(add, graph, other, matrix, None if shape is None else len(shape))
    except StaysDigital:
        return None
    return None if bias is None else (add, bias)


def _additions(matrix: Matrix, product: str, output: str, build: _Build) -> Iterator[NodeProto]:
    """The digital nodes that add an addend to the layer's product, scaled and reshaped as it must be."""
    addend = matrix.addend
    assert addend is not None
    if matrix.addend_shape is not None:
        shape = _add_constant(f"{output}_addend_shape", np.array(matrix.addend_shape, np.int64), build)
        reshaped = unused(f"{output}_addend", build.types)
        build.types[reshaped] = _untyped_like(build.types[output])
        yield helper.make_node("Reshape", [addend, shape], [reshaped])
        addend = reshaped
    if matrix.addend_scale != 1.0:
        dtype = helper.tensor_dtype_to_np_dtype(build.types[output].tensor_type.elem_type)
        scale = _add_constant(f"{output}_beta", np.array(matrix.addend_scale, dtype), build)
        scaled = unused(f"{output}_scaled", build.types)
        build.types[scaled] = build.types[addend]
        yield helper.make_node("Mul", [addend, scale], [scaled])
        addend = scaled
    if not matrix.addend_may_grow:
        yield helper.make_node("Add", [product, addend], [output])
        return
    total, shape = (unused(f"{output}_{label}", build.types) for label in ("total", "shape"))
    build.types[total] = _untyped_like(build.types[output])
    build.types[shape] = helper.make_tensor_type_proto(TensorProto.INT64, [2])
    yield helper.make_node("Add", [product, addend], [total])
    yield helper.make_node("Shape", [product], [shape])
    yield helper.make_node("Reshape", [total, shape], [output])  # refuses a sum that has grown


def _add_constant(name: str, array: np.ndarray, build: _Build) -> str:
    name = unused(name, build.types)
    build.constants[name] = builder.tensor(name, array)
    build.types[name] = helper.make_tensor_type_proto(build.constants[name].data_type, array.shape)
    return name


def _untyped_like(type_proto: TypeProto) -> TypeProto:
    """The element type without the shape."""
    return helper.make_tensor_type_proto(type_proto.tensor_type.elem_type, None)


def _vectors(matrix: Matrix, graph: Graph, output: str) -> int | None:
    """Input vectors per inference; axis 0 counts as the batch unless it is contracted or the only one."""
    if isinstance(matrix.geometry, Contraction):
        shape = graph.shape(matrix.input)
        axis = 0 if shape is None else len(shape) + matrix.geometry.input_axis
    else:
        shape = graph.shape(output)
        axis = 1
    if shape is None:
        return None
    kept = [size for i, size in enumerate(shape) if i not in (0, axis)]
    return None if None in kept else math.prod(size for size in kept if size is not None)


def _readers(graph: Graph) -> dict[str, list[NodeProto | None]]:
    """Nodes that read each value, once per reading; None stands for the graph's outputs."""
    readers: dict[str, list[NodeProto | None]] = {name: [] for node in graph.nodes for name in node.output}
    for node in graph.nodes:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    for name in graph.output_names:
        readers.setdefault(name, []).append(None)
    return readers


def _records_inside(node: NodeProto, graph: Graph) -> Iterator[LoweringRecord]:
    """Records of the nodes in a control-flow node's bodies, or in a function that could not be inlined."""
    called = [f for f in graph.functions if (f.domain, f.name) == (node.domain, node.op_type)]
    inside = [("body of", body.node) for body in bodies(node)]
    inside += [("function of another opset called by", function.node) for function in called]
    why = f", which stays digital: {graph.reasons[node.name]}" if graph.reasons.get(node.name) else ""
    for kind, nodes in inside:
        for inner in nodes:
            if operator_of(inner).has_matrix:
                reason = f'inside the {kind} {node.op_type} "{_name(node)}"{why}'
                yield LoweringRecord(_name(inner), inner.op_type, False, reason)
            yield from _records_inside(inner, graph)


def _name(node: NodeProto) -> str:
    return node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"


def check_patterns(graph: Graph, model: Graph, digital: Collection[str]) -> None:
    """Raise ModelError for a pattern that matches no MVM-like node, control flow and functions included.

    Args:
        graph: the graph that is rewritten next.
        model: the one that it was made of, whose control flow is as the user knows it.
        digital: the patterns.
    """
    names = [node.name for node in graph.nodes if operator_of(node).is_recorded and node.name not in graph.origins]
    for node in model.nodes:
        inside = [record.node for record in _records_inside(node, model)]
        names += [node.name, *inside] if inside else []
    for pattern in digital:
        if not any(matches(name, pattern) for name in names):
            raise ModelError(
                f'digital "{written(pattern)}" matches no node with a matrix; such nodes are: {elided(names)}'
            )


def nothing_lowered(records: Sequence[LoweringRecord]) -> str:
    """Why no matrix of a model is on arrays, in one short sentence, from the records of all its MVM-like nodes."""
    if not records:
        return "the model has no Conv, Gemm, MatMul or the like"
    first = f"{records[0].operator} {records[0].node}: {records[0].reason}"
    if len(records) == 1:
        return first
    return f"{first} (and {len(records) - 1:,} more; xbcompile explain lists them)"
