"""The way from a loaded model to a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx
from onnx import NodeProto

from xbcompile.frontend.control_flow import resolve_control_flow
from xbcompile.frontend.fold import fold_constants
from xbcompile.frontend.growth import Budget, constant_bytes
from xbcompile.frontend.integer_layers import with_grids
from xbcompile.frontend.lower import check_patterns, lower_nodes, with_node_names
from xbcompile.frontend.macs import Counter, time_major_inputs
from xbcompile.frontend.merge import merge_equal_results
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.partition import partition
from xbcompile.frontend.qdq import join_quantized
from xbcompile.frontend.rewriter import rewrite
from xbcompile.frontend.runs import check_steps
from xbcompile.frontend.samples import with_samples
from xbcompile.frontend.scans import rewrite_scans, too_long_inside
from xbcompile.frontend.standard import in_standard_operators
from xbcompile.ir import Network
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.graph import Graph, from_model, inline, skeleton, without_dead_nodes
from xbcompile.onnx_graph.nodes import bodies, reads
from xbcompile.onnx_graph.splicing import without_constants
from xbcompile.onnx_graph.types import infer_types, value_info


@dataclass(frozen=True)
class History:
    """How a model became a network.

    Args:
        model: the model as it came, its functions inlined and its Constant nodes made constants; every node has a name.
        needed: names of the nodes that some graph output depends on.
        constant: names of those among them that depend on constants alone.
        graph: the graph that was lowered, with types: constants folded, operators rewritten.
        counter: of what its nodes compute.
        network: the result.
    """

    model: Graph
    needed: frozenset[str]
    constant: frozenset[str]
    graph: Graph
    counter: Counter
    network: Network


def import_network(
    model: onnx.ModelProto, digital: Collection[str] = (), batch_axis: Mapping[str, int | None] | None = None
) -> Network:
    """The network of a model from `load_model`: its matrices with constant weights as layers, the rest as segments.

    Args:
        model: a checked, self-contained model; it is not changed.
        digital: names of nodes, or patterns as the shell has them, to be kept digital.
        batch_axis: what users say of which axes count samples, see `with_samples`.

    Raises:
        ModelError: no matrix can be lowered, weights are not finite, onnxruntime cannot load a part of the model, a pattern of
            `digital` matches nothing, or `batch_axis` names no axis of an input.
    """
    return import_with_history(model, digital, batch_axis).network


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as onnxruntime can run it: itself, or with QONNX's operators in standard ones.

    Raises:
        ModelError: an operator cannot be expressed in them.
    """
    if all(operator_of(node).standard is None for node in model.graph.node):
        return model
    graph = in_standard_operators(with_node_names(inline(from_model(model))), lambda node: operator_of(node).standard)
    return skeleton(graph, outputs=True, limit=None)


def import_with_history(
    model: onnx.ModelProto, digital: Collection[str] = (), batch_axis: Mapping[str, int | None] | None = None
) -> History:
    """`import_network` with what it did on the way."""
    named = with_node_names(inline(from_model(model)))
    budget = Budget()
    graph = needed = without_dead_nodes(resolve_control_flow(named, digital, budget=budget))
    graph = infer_types(merge_equal_results(in_standard_operators(graph, lambda node: operator_of(node).standard)))
    derived: dict[str, int] = {}  # from how many elements folded constants were made
    graph = fold_constants(join_quantized(graph, digital), derived, budget)
    check_patterns(graph, named, digital)
    graph = rewrite_scans(graph, digital, lambda body, scan: _prepared_body(body, scan, digital, budget))
    budget.elsewhere_bytes = 0  # what the bodies' constants have grown by is the graph's now
    graph = _rewritten(graph, digital, derived, budget)
    lowered = with_grids(lower_nodes(graph, digital), graph)
    network = Network(
        name=graph.name,
        inputs=tuple(copied(value) for value in graph.inputs),
        outputs=tuple(
            copied(value) if value.type.WhichOneof("value") else value_info(graph, value.name)
            for value in graph.outputs
        ),
        nodes=partition(replace(lowered.graph, nodes=()), lowered.steps),
        records=lowered.records,
        opset_imports=graph.opset_imports,
        ir_version=graph.ir_version,
    )
    network.check()
    check_steps(network)  # before it is run
    network = with_samples(network, time_major_inputs(needed), batch_axis)
    counter = Counter(graph, network)
    network = network.with_layers(
        replace(layer, vectors_per_inference=counter.vectors(layer)) for layer in network.layers
    )
    return History(
        model=named,
        needed=frozenset(_names(needed.nodes)),
        constant=frozenset(_constant(needed.nodes, needed.constants)),
        graph=graph,
        counter=counter,
        network=network,
    )


def _names(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names of nodes, and of those in the bodies of Scans."""
    for node in nodes:
        yield node.name
        for body in bodies(node) if node.op_type == "Scan" else ():
            yield from _names(body.node)


def _constant(nodes: Iterable[NodeProto], constants: Iterable[str]) -> Iterator[str]:
    """Names of the nodes that depend on constants alone, those in the bodies of Scans too."""
    known = set(constants)
    for node in nodes:
        if known.issuperset(reads(node)):
            known.update(node.output)
            yield node.name
        for body in bodies(node) if node.op_type == "Scan" else ():
            inside, own = without_constants(body)
            yield from _constant(inside, known | own.keys())


def _rewritten(graph: Graph, digital: Collection[str], derived: dict[str, int], budget: Budget) -> Graph:
    graph = rewrite(graph, lambda node: operator_of(node).rewrite, digital)
    return fold_constants(merge_equal_results(graph), derived, budget)


def _prepared_body(graph: Graph, scan: str, digital: Collection[str], budget: Budget) -> Graph:
    """The body of a Scan with all done to it that is done to a model before lowering; recurrences in it are unrolled."""
    derived: dict[str, int] = {}
    before = constant_bytes(graph)
    graph = resolve_control_flow(graph, digital, scans=True, budget=budget)
    graph = fold_constants(join_quantized(graph, digital), derived, budget)
    graph = replace(graph, reasons={**graph.reasons, **too_long_inside(graph, scan)})
    graph = resolve_control_flow(_rewritten(graph, digital, derived, budget), digital, scans=True, budget=budget)
    graph = fold_constants(merge_equal_results(graph), derived, budget)
    budget.elsewhere_bytes += max(0, constant_bytes(graph) - before)
    return graph
