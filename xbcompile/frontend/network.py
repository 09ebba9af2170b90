"""The way from a loaded model to a network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import onnx

from xbcompile.frontend.fold import fold_constants
from xbcompile.frontend.integer_layers import with_grids
from xbcompile.frontend.lower import check_patterns, lower_nodes, with_node_names
from xbcompile.frontend.macs import Counter, time_major_inputs
from xbcompile.frontend.merge import merge_equal_results
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.partition import partition
from xbcompile.frontend.qdq import join_quantized
from xbcompile.frontend.rewriter import rewrite
from xbcompile.frontend.standard import in_standard_operators
from xbcompile.ir import Network
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.graph import Graph, from_model, inline, reads, skeleton, without_dead_nodes
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


def import_network(model: onnx.ModelProto, digital: Collection[str] = ()) -> Network:
    """The network of a model from `load_model`: its matrices with constant weights as layers, the rest as segments.

    Args:
        model: a checked, self-contained model; it is not changed.
        digital: names of nodes, or patterns as the shell has them, to be kept digital.

    Raises:
        ModelError: no matrix can be lowered, weights are not finite, onnxruntime cannot load a part of the model, or a
            pattern of `digital` matches nothing.
    """
    return import_with_history(model, digital).network


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as onnxruntime can run it: itself, or with QONNX's operators in standard ones.

    Raises:
        ModelError: an operator cannot be expressed in them.
    """
    if all(operator_of(node).standard is None for node in model.graph.node):
        return model
    graph = in_standard_operators(with_node_names(inline(from_model(model))), lambda node: operator_of(node).standard)
    return skeleton(graph, outputs=True, limit=None)


def import_with_history(model: onnx.ModelProto, digital: Collection[str] = ()) -> History:
    """`import_network` with what it did on the way."""
    inlined = inline(from_model(model))
    graph = needed = with_node_names(without_dead_nodes(inlined))
    graph = infer_types(merge_equal_results(in_standard_operators(graph, lambda node: operator_of(node).standard)))
    derived: dict[str, int] = {}  # from how many elements folded constants were made
    graph = fold_constants(join_quantized(graph, digital), derived)
    check_patterns(graph, digital)
    graph = fold_constants(
        merge_equal_results(rewrite(graph, lambda node: operator_of(node).rewrite, digital)), derived
    )
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
    counter = Counter(graph, [layer.name for layer in network.layers], time_major_inputs(needed))
    network = network.with_layers(
        replace(layer, vectors_per_inference=counter.vectors(layer)) for layer in network.layers
    )
    return History(
        model=_all_named(inlined, needed),
        needed=frozenset(node.name for node in needed.nodes),
        constant=_constant(needed),
        graph=graph,
        counter=counter,
        network=network,
    )


def _constant(graph: Graph) -> frozenset[str]:
    """Names of the nodes that depend on constants alone."""
    known = set(graph.constants)
    found = set()
    for node in graph.nodes:
        if known.issuperset(reads(node)):
            known.update(node.output)
            found.add(node.name)
    return frozenset(found)


def _all_named(inlined: Graph, needed: Graph) -> Graph:
    """The inlined graph with the names that its needed nodes were given, and unique ones for the others."""
    writers = {name: node for node in needed.nodes for name in node.output if name}
    first = [next((writers[name] for name in node.output if name in writers), None) for node in inlined.nodes]
    rest = with_node_names(
        replace(
            inlined,
            nodes=(*needed.nodes, *(node for node, same in zip(inlined.nodes, first, strict=True) if same is None)),
        )
    )
    others = iter(rest.nodes[len(needed.nodes) :])
    return replace(inlined, nodes=tuple(next(others) if same is None else same for same in first))
