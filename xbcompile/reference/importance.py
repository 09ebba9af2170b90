"""What an error of each output of a layer costs at the network's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from xbcompile.deferred import library
from xbcompile.ir import MatrixLayer, Network, Patches
from xbcompile.ir.vectors import collect
from xbcompile.onnx_graph.builder import value
from xbcompile.reference.evaluate import evaluate
from xbcompile.reference.host_graph import host_graph

if TYPE_CHECKING:
    from xbcompile.onnx_graph import engine
else:
    engine = library("xbcompile.onnx_graph.engine")  # it loads onnxruntime

Floats = npt.NDArray[np.float64]


def output_importance(network: Network, feeds: dict[str, np.ndarray], step: float) -> list[Floats]:
    """Squared change of the network's outputs, per inference, per squared change of each output of each matrix layer.

    By finite differences: each layer output in turn is moved by `step` of its standard deviation, for all vectors at once,
    through all later layers and what lies between, on the network's ideal meaning. An output that does not vary counts 0.
    Layers in recurrences and of other element types than float32, and all layers of a network without a floating-point
    output, count 1 for each output.

    Args:
        network: coded matrix layers and digital segments.
        feeds: graph inputs by name.
        step: share of the standard deviation by which outputs are moved.

    Returns:
        float64 [groups * outputs] for each layer.
    """
    result = [np.ones(layer.groups * layer.outputs) for layer in network.layers]
    inside = {layer.name for each in network.recurrences for layer in each.layers}
    moved = [
        i
        for i, layer in enumerate(network.layers)
        if layer.name not in inside and layer.element_type == TensorProto.FLOAT
    ]
    goals = [
        v.name for v in network.outputs if v.type.tensor_type.elem_type in (TensorProto.UNDEFINED, TensorProto.FLOAT)
    ]
    if not moved or not goals:
        return result
    model = host_graph(network).copy()
    for i in moved:
        _with_shift(model.skeleton.graph, network.layers[i].output, _shift_name(i))
    session = engine.open_session(model, threads=1)
    still = {_shift_name(i): np.zeros(1, np.float32) for i in moved}
    axes, samples = network.samples, network.samples.samples(feeds)
    calls = [part for _, part in axes.parts(feeds, samples)]

    def outputs(shifts: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [value for call in calls for value in session.run(goals, call | still | shifts)]

    base = [value.astype(np.float64) for value in outputs({})]
    values = evaluate(network, feeds, [network.layers[i].output for i in moved])
    for i, chunks in zip(moved, values, strict=True):
        layer = network.layers[i]
        distance = step * np.concatenate([collect(layer, chunk) for chunk in chunks]).std(axis=0, dtype=np.float64)
        result[i][distance == 0] = 0.0
        for m in np.flatnonzero(distance):
            shift = np.zeros(len(distance), np.float32)
            shift[m] = distance[m]
            found = outputs({_shift_name(i): _laid_out(layer, shift)})
            result[i][m] = (
                sum(np.square(a - b).sum() for a, b in zip(found, base, strict=True)) / distance[m] ** 2 / samples
            )
    return result


def _shift_name(index: int) -> str:
    return f"xbcompile::shift/{index}"


def _with_shift(graph: onnx.GraphProto, tensor: str, shift: str) -> None:
    """Let the graph add its new input `shift` to a tensor where that is written."""
    place, writer = next((i, node) for i, node in enumerate(graph.node) if tensor in node.output)
    before = f"{tensor}/unshifted"
    writer.output[list(writer.output).index(tensor)] = before
    graph.node.insert(place + 1, helper.make_node("Add", [before, shift], [tensor]))
    graph.input.append(value(shift, TensorProto.FLOAT))


def _laid_out(layer: MatrixLayer, shift: np.ndarray) -> np.ndarray:
    """One value per output, [groups * outputs], in a shape that is added along the output axis of the layer's tensor."""
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        return shift.reshape(-1, *[1] * len(geometry.kernel))
    return shift if geometry.squeeze else shift.reshape(-1, *[1] * (-geometry.output_axis - 1))
