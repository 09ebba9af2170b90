"""Evaluating what depends on constants alone, so that weights behind Transpose, DequantizeLinear, ... are constants."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import replace

from onnx import NodeProto, TensorProto

from xbcompile.errors import ModelError
from xbcompile.frontend.growth import Budget, known_bytes
from xbcompile.frontend.known_sizes import known_sizes
from xbcompile.frontend.operators import operator_of
from xbcompile.onnx_graph import builder, engine
from xbcompile.onnx_graph.domains import MICROSOFT, ONNX_DOMAINS, ONNX_ML
from xbcompile.onnx_graph.graph import SKELETON_BYTES, Graph, model_around, named, unused, without_dead_nodes
from xbcompile.onnx_graph.nodes import bodies, reads
from xbcompile.onnx_graph.tensors import elements, item_bytes, size_bytes, to_array
from xbcompile.onnx_graph.types import infer_types, value_info

LARGEST_GROWTH_BYTES = 64 * 2**20  # of one value that no matrix needs
FOLDED_BYTES_PER_SECOND = 2**24  # assumed: what evaluating takes longer for has an end that nobody waits for

_DOMAINS = (*ONNX_DOMAINS, ONNX_ML, MICROSOFT)

# What onnxruntime hands over as a numpy array of the same element type.
_NUMPY_TYPES = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.STRING,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)


def fold_constants(graph: Graph, origins: dict[str, int] | None = None, budget: Budget | None = None) -> Graph:
    """The graph with all that depends on constants alone evaluated, by one onnxruntime run.

    Shapes that a first run reveals may allow a second. Random operators stay, and so does what would grow by more than
    `LARGEST_GROWTH_BYTES` and no matrix needs.

    Args:
        graph: the graph.
        origins: from how many elements of the model's own constants earlier calls derived each constant; it is added to.
        budget: of the model that the graph is a part of; None: the graph is all of it.

    Raises:
        ModelError: onnxruntime cannot evaluate a constant part of the model, or not in time, or what depends on constants
            alone takes more than `budget` allows.
    """
    origins, budget = {} if origins is None else origins, budget or Budget()
    while True:
        constants = {name: builder.tensor(name, value) for name, value in known_sizes(graph).items()}
        if not constants:
            foldable = _foldable(graph, origins, budget)
            wanted = _wanted(graph, foldable)
            if not wanted:
                return graph
            constants = _evaluate(graph, foldable, wanted)
        graph = replace(graph, constants={**graph.constants, **constants})
        nodes = (_without_outputs(node, constants.keys()) for node in graph.nodes)
        graph = replace(graph, nodes=tuple(node for node in nodes if node is not None))
        graph = infer_types(without_dead_nodes(_with_scalar_bounds(graph)))


def _with_scalar_bounds(graph: Graph) -> Graph:
    """Constant bounds of Range as scalars: onnxruntime takes one element of any rank as it runs, but no other constant."""
    bounds = {
        name for node in graph.nodes if node.op_type == "Range" and node.domain in ONNX_DOMAINS for name in node.input
    }
    wide = {name for name in bounds & graph.constants.keys() if list(graph.constants[name].dims) == [1]}
    if not wide:
        return graph
    names = {name: unused(f"{name}_scalar", {*graph.types, *graph.constants}) for name in wide}
    scalars = {new: builder.tensor(new, to_array(graph.constants[name]).reshape(())) for name, new in names.items()}
    nodes = (builder.reading(node, names) if node.op_type == "Range" else node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes), constants={**graph.constants, **scalars})


def _without_outputs(node: NodeProto, names: Iterable[str]) -> NodeProto | None:
    """The node without the outputs that are constants now; None when none is left."""
    folded = set(node.output) & set(names)
    if not folded:
        return node
    kept = builder.copied(node)
    kept.output[:] = ["" if name in folded else name for name in node.output]
    return kept if any(kept.output) else None


def _foldable(graph: Graph, origins: dict[str, int], budget: Budget) -> dict[str, NodeProto]:
    """The nodes that can be evaluated, by output name.

    `origins` holds, and is given, the number of elements of the model's own constants that each result derives from: a
    chain of small growths is a large one.
    """
    known = set(graph.constants)
    for name in known:
        origins.setdefault(name, elements(graph.constants[name]))
    candidates = _constant_nodes(graph, known)
    budget.check(graph, candidates)
    weights = _behind_matrices(graph, candidates)
    foldable: dict[str, NodeProto] = {}
    for node in candidates:
        inputs = set(reads(node))
        if not inputs <= known:
            continue
        source = min(sum(origins[name] for name in inputs), budget.own_elements or 0)
        outputs = [name for name in node.output if name]
        limit = LARGEST_GROWTH_BYTES if weights.isdisjoint(outputs) else sys.maxsize
        if any(_growth_bytes(graph, name, source) > limit for name in outputs):
            continue
        for name in outputs:
            foldable[name] = node
            origins[name] = source
        known.update(outputs)
    return foldable


def _constant_nodes(graph: Graph, constants: set[str]) -> list[NodeProto]:
    """The nodes that depend on constants alone, whatever the size of their results."""
    known, found = set(constants), []
    for node in graph.nodes:
        if known.issuperset(reads(node)) and _is_deterministic(node):
            known.update(node.output)
            found.append(node)
    return found


def _behind_matrices(graph: Graph, candidates: list[NodeProto]) -> set[str]:
    """Results of these constant nodes that nodes with matrices read, and the results that those derive from."""
    constant = {id(node) for node in candidates}
    found = {
        name for node in graph.nodes if id(node) not in constant and operator_of(node).has_matrix for name in node.input
    }
    for node in reversed(candidates):
        if not found.isdisjoint(node.output):
            found.update(reads(node))
    return found


def _growth_bytes(graph: Graph, name: str, source_elements: int) -> float:
    """How much larger than its constants a value is, element type apart; infinite where its size is not known."""
    found = known_bytes(graph, name)
    if not found:
        return math.inf if found is None else 0
    return found - source_elements * item_bytes(graph.types[name].tensor_type.elem_type)


def _is_deterministic(node: NodeProto) -> bool:
    if node.domain not in _DOMAINS or operator_of(node).is_random:
        return False
    if node.op_type == "Dropout" and len(node.input) > 2:
        return False
    return all(_is_deterministic(inner) for body in bodies(node) for inner in body.node)


def _wanted(graph: Graph, foldable: dict[str, NodeProto]) -> list[str]:
    """The values to make constants: those at the border between nodes that can be evaluated and nodes that stay.

    A value that no initializer can hold (a sequence, an element type that numpy lacks) keeps its node.
    """
    stays = [node for node in graph.nodes if not foldable.keys() & set(node.output)]
    pending = [*graph.output_names, *(name for node in stays for name in reads(node))]
    wanted: dict[str, None] = {}
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in foldable:
            continue
        seen.add(name)
        if graph.types[name].tensor_type.elem_type in _NUMPY_TYPES:
            wanted[name] = None
        else:
            pending.extend(reads(foldable[name]))
    return [name for node in graph.nodes for name in node.output if name in wanted]


def _evaluate(graph: Graph, foldable: dict[str, NodeProto], wanted: list[str]) -> dict[str, TensorProto]:
    """Run the nodes behind the wanted values; large constants are fed, so that the model to run stays small."""
    needed = {id(foldable[name]) for name in wanted}
    nodes: list[NodeProto] = []
    sources: dict[str, None] = {}
    for node in reversed(graph.nodes):
        if id(node) not in needed:
            continue
        nodes.append(node)
        for name in reads(node):
            if name in foldable:
                needed.add(id(foldable[name]))
            else:
                sources[name] = None
    fed = {name: graph.constants[name] for name in sources if _is_fed(graph.constants[name])}
    proto = builder.make_graph(
        "constants",
        nodes[::-1],
        [value_info(graph, name) for name in fed],
        [value_info(graph, name) for name in wanted],
        [named(graph.constants[name], name) for name in sources if name not in fed],
    )
    try:
        # Sizes are known, but for what is inside of control flow.
        memory_bytes = engine.PROBE_BYTES if any(True for node in nodes for _ in bodies(node)) else 0
        session = engine.open_session(model_around(graph, proto), optimized=False, memory_bytes=memory_bytes)
        seconds = engine.PROBE_SECONDS + sum(known_bytes(graph, name) or 0 for name in wanted) / FOLDED_BYTES_PER_SECOND
        values = engine.run_limited(session, wanted, {name: to_array(tensor) for name, tensor in fed.items()}, seconds)
    except engine.ERRORS as error:
        raise ModelError(f"onnxruntime cannot evaluate the model's constants: {engine.one_line(error)}") from error
    return {name: builder.tensor(name, value) for name, value in zip(wanted, values, strict=True)}


def _is_fed(tensor: TensorProto) -> bool:
    return tensor.data_type in _NUMPY_TYPES and size_bytes(tensor) > SKELETON_BYTES
