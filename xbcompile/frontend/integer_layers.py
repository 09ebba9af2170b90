"""What lowered layers know of their inputs: the grid of their values, and sums that are whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto

from xbcompile.frontend.grids import INTEGER_RANGES, Grid
from xbcompile.frontend.lower import Lowered, Step
from xbcompile.frontend.operands import attribute
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.recurrence import LoweredLoop
from xbcompile.ir import InputGrid, MatrixLayer
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.nodes import reads

EXACT_FLOAT = 1 << 24  # whole numbers up to this are exact in float32


def with_grids(lowered: Lowered, graph: Graph) -> Lowered:
    """The layers with the grids of their inputs; int32 ones where they stand between Casts from and to int32.

    A product of whole inputs and whole weights gives whole sums, so a Cast to int32 behind it changes no value: the layer
    writes int32 itself, exactly, where float32 would round sums beyond 2**24.

    Args:
        lowered: the lowered graph.
        graph: the graph that was lowered, with types.
    """
    grids = find_grids(graph)
    writers = {name: step for step in lowered.steps if isinstance(step, NodeProto) for name in step.output}
    readers = _reader_counts(lowered.steps, graph)
    dropped: set[int] = set()
    changed: dict[int, MatrixLayer] = {}
    casts = {
        step.input[0]: step
        for step in lowered.steps
        if isinstance(step, NodeProto) and _is_cast(step, TensorProto.INT32)
    }
    for step in lowered.steps:
        if not isinstance(step, MatrixLayer):
            continue
        grid = grids.get(step.input)
        layer = step if grid is None or not grid.is_bounded else replace(step, input_grid=_input_grid(step.input, grid))
        before, after = writers.get(step.input), casts.get(step.output)
        if before is None or after is None or readers.get(step.output) != 1:
            changed[id(step)] = layer
            continue
        if _is_whole(step, before, grid, lowered.graph):
            own = None if layer.input_grid is None else replace(layer.input_grid, tensor=before.input[0])
            layer = replace(layer, input=before.input[0], output=after.output[0], input_grid=own)
            layer = replace(layer, element_type=TensorProto.INT32)
            dropped.add(id(after))
            readers[step.input] -= 1
            if not readers[step.input]:
                dropped.add(id(before))
        changed[id(step)] = layer
    steps: tuple[Step, ...] = tuple(changed.get(id(step), step) for step in lowered.steps if id(step) not in dropped)
    return replace(lowered, steps=steps)


def find_grids(graph: Graph) -> dict[str, Grid]:
    """The grid of each tensor that a node writes or reads and that is known to be on one, by name.

    Args:
        graph: with types.
    """
    grids: dict[str, Grid] = {}
    for name, type_proto in graph.types.items():
        if type_proto.tensor_type.elem_type in INTEGER_RANGES:
            low, high = INTEGER_RANGES[type_proto.tensor_type.elem_type]
            grids[name] = Grid(low, high, 1)
    for node in graph.nodes:
        rule = operator_of(node).grid
        found = None if rule is None else rule(node, graph, grids)
        for name in node.output if node.op_type == "Split" else node.output[:1]:
            known = grids.get(name)
            if found is not None and (known is None or found.high - found.low < known.high - known.low):
                grids[name] = found
    return grids


def _reader_counts(steps: Sequence[Step], graph: Graph) -> dict[str, int]:
    """How often each tensor is read; being a graph output counts."""
    counts: dict[str, int] = {}
    for step in steps:
        for name in _reads(step):
            counts[name] = counts.get(name, 0) + 1
    for name in graph.output_names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _reads(step: Step) -> Iterable[str]:
    if isinstance(step, LoweredLoop):
        return step.input_names
    return step.input_names if isinstance(step, MatrixLayer) else reads(step)


def _is_whole(layer: MatrixLayer, before: NodeProto, grid: Grid | None, graph: Graph) -> bool:
    """Whether the layer reads what was int32 and its sums are whole numbers."""
    if not _is_cast(before, TensorProto.FLOAT) or layer.element_type != TensorProto.FLOAT:
        return False
    source = graph.types.get(before.input[0])
    if source is None or source.tensor_type.elem_type != TensorProto.INT32:
        return False
    if grid is None or not grid.is_whole or max(abs(grid.low), abs(grid.high)) > EXACT_FLOAT:
        return False
    return all(bool(np.array_equal(np.rint(v), v)) for v in (layer.weights, layer.bias))


def _is_cast(node: NodeProto, element_type: int) -> bool:
    return node.op_type == "Cast" and node.domain in ONNX_DOMAINS and attribute(node, "to", 0) == element_type


def _input_grid(tensor: str, grid: Grid) -> InputGrid:
    return InputGrid(tensor, grid.low, grid.step, grid.steps, grid.window)
