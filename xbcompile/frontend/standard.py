"""Operators that onnxruntime does not know, QONNX's, in standard operators: before anything else looks at the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx import ModelProto, NodeProto

from xbcompile.errors import ModelError, elided
from xbcompile.frontend.rewriter import Replacement, Rewriting
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.domains import is_of_qonnx
from xbcompile.onnx_graph.graph import Graph, Origin
from xbcompile.onnx_graph.nodes import all_nodes, reads
from xbcompile.onnx_graph.types import known_types

OLDEST_OPSET = 9  # Where, Sign

RewritingOf = Callable[[NodeProto], Rewriting | None]


def with_known_domains(model: ModelProto) -> ModelProto:
    """The model with imports of QONNX's domains that its nodes use: files as published lack them, and executors take 1.

    Source: execute_onnx in qonnx/core/onnx_exec.py of PyPI `qonnx` 1.0.
    """
    used = {node.domain for node in all_nodes(model.graph.node) if is_of_qonnx(node.domain)}
    missing = sorted(used - {entry.domain for entry in model.opset_import})
    if not missing:
        return model
    result = copied(model)
    for domain in missing:
        result.opset_import.add(domain=domain, version=1)
    return result


def in_standard_operators(graph: Graph, rewriting_of: RewritingOf) -> Graph:
    """The graph with QONNX's operators in standard ones.

    Most are written without types. A rewriting that needs a shape gives False until there are types, which is once what stands
    before it is standard.

    Args:
        graph: any graph.
        rewriting_of: what writes a node's operator in standard ones, None where it is one.

    Raises:
        ModelError: an operator of QONNX is not supported or cannot be written so, or the model's opset is too old.
    """
    while any(rewriting_of(node) is not None for node in graph.nodes):
        written = _written(graph, rewriting_of)
        if len(written.origins) == len(graph.origins) and graph.types:
            waiting = next(node for node in graph.nodes if rewriting_of(node) is not None)
            raise ModelError(
                f'node "{waiting.name}" ({waiting.op_type}, domain {waiting.domain}): the shape of its input '
                f'"{waiting.input[0]}" is not known; say it in the model, or by its attribute data_layout'
            )
        graph = replace(written, types=known_types(written))
    _check_supported(graph, rewriting_of)
    return graph


def _written(graph: Graph, rewriting_of: RewritingOf) -> Graph:
    """The graph with all written that can be by now."""
    used = {*graph.constants, *(value.name for value in graph.inputs)}
    for node in graph.nodes:
        used.update((node.name, *node.output, *reads(node)))
    nodes: list[NodeProto] = []
    constants, origins = dict(graph.constants), dict(graph.origins)
    for node in graph.nodes:
        rewriting = rewriting_of(node)
        replacement = Replacement(node, graph, used)
        if rewriting is not None and replacement.opset < OLDEST_OPSET:
            raise ModelError(
                f'node "{node.name}" ({node.op_type}, domain {node.domain}): it needs opset {OLDEST_OPSET} or newer, the '
                f"model has {replacement.opset}"
            )
        if rewriting is None or not rewriting(replacement):
            nodes.append(node)
            continue
        nodes.extend(replacement.nodes)
        constants.update(replacement.constants)
        origins.update({new.name: Origin(node.name, node.op_type) for new in replacement.nodes})
    return replace(graph, nodes=tuple(nodes), constants=constants, origins=origins)


def _check_supported(graph: Graph, rewriting_of: RewritingOf) -> None:
    """Raise ModelError for all operators of QONNX that are left: unknown ones, and those in bodies of control flow."""
    own = {(function.domain, function.name) for function in graph.functions}
    left: dict[str, list[str]] = {}
    for node in all_nodes(graph.nodes):
        if is_of_qonnx(node.domain) and (node.domain, node.op_type) not in own:
            place = " inside control flow" if rewriting_of(node) is not None else ""
            left.setdefault(f"{node.op_type} of {node.domain}{place}", []).append(node.name or node.output[0])
    if left:
        found = "; ".join(f"{operator} ({elided(names)})" for operator, names in left.items())
        raise ModelError(
            f"operators that are not supported: {found}; replace them by standard ONNX operators, as the transformations "
            f"of the package qonnx do"
        )
