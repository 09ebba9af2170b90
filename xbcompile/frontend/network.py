"""The way from a loaded model to a network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import onnx

from xbcompile.frontend.fold import fold_constants
from xbcompile.frontend.graph import from_model, inline, without_dead_nodes
from xbcompile.frontend.lower import check_patterns, lower_nodes, with_node_names
from xbcompile.frontend.partition import partition
from xbcompile.frontend.rewrite import rewrite
from xbcompile.frontend.rewritings import REWRITINGS
from xbcompile.frontend.types import infer_types, value_info
from xbcompile.ir import Network


def import_network(model: onnx.ModelProto, digital: Collection[str] = ()) -> Network:
    """The network of a model from `load_model`: its matrices with constant weights as layers, the rest as segments.

    Args:
        model: a checked, self-contained model; it is not changed.
        digital: names of nodes, or patterns as the shell has them, to be kept digital.

    Raises:
        ModelError: no matrix can be lowered, weights are not finite, onnxruntime cannot load a part of the model, or a
            pattern of `digital` matches nothing.
    """
    graph = with_node_names(without_dead_nodes(inline(from_model(model))))
    graph = fold_constants(infer_types(graph))
    check_patterns(graph, digital)
    graph = fold_constants(rewrite(graph, REWRITINGS, digital))
    lowered = lower_nodes(graph, digital)
    network = Network(
        name=graph.name,
        inputs=tuple(_copy(value) for value in graph.inputs),
        outputs=tuple(
            _copy(value) if value.type.WhichOneof("value") else value_info(graph, value.name) for value in graph.outputs
        ),
        nodes=partition(replace(lowered.graph, nodes=()), lowered.steps),
        records=lowered.records,
        opset_imports=graph.opset_imports,
        ir_version=graph.ir_version,
    )
    network.check()
    return network


def _copy(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy
