"""Digital segments that passes put before and behind a matrix layer, in operators of every opset that can be compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from xbcompile.errors import PassError
from xbcompile.ir import Contraction, DigitalSegment, MatrixLayer, Network
from xbcompile.onnx_graph import builder

_SPLIT_BY_COUNT = 18  # opset from which Split must be told how many parts it gives


def is_dense(layer: MatrixLayer) -> bool:
    """Whether the layer contracts the last axis of a float32 tensor, so that a segment can re-route its inputs."""
    return layer.geometry == Contraction() and layer.element_type == onnx.TensorProto.FLOAT


def output_axis(layer: MatrixLayer) -> int | None:
    """Axis of the layer's output tensor that holds its outputs, side by side; None where no pass can multiply them."""
    if layer.element_type != onnx.TensorProto.FLOAT or layer.groups != 1:
        return None
    if isinstance(layer.geometry, Contraction):
        return None if layer.geometry.squeeze else layer.geometry.output_axis
    return 1


def layer_named(network: Network, name: str) -> MatrixLayer:
    """The matrix layer of that name; the first one where the name is empty.

    Raises:
        PassError: there is none.
    """
    by_name = {layer.name: layer for layer in network.layers}
    if not by_name:
        raise PassError("the network has no matrix layer")
    if not name:
        return network.layers[0]
    if name not in by_name:
        raise PassError(f"there is no matrix layer {name!r}; allowed: {', '.join(by_name)}")
    return by_name[name]


def has_node(network: Network, name: str) -> bool:
    """Whether a node of that name is in the network: a pass has been here before."""
    return any(node.name == name for node in network.executed)


def with_nodes(network: Network, layer: MatrixLayer, nodes: Sequence[MatrixLayer | DigitalSegment]) -> Network:
    """The network with one layer replaced by a run of nodes; those of a layer in a recurrence run once per step too."""
    return network.with_each(lambda node: nodes if node is layer else [node])


def segment(
    network: Network,
    name: str,
    nodes: Sequence[onnx.NodeProto],
    source: str,
    target: str,
    constants: dict[str, np.ndarray],
    element_type: int = onnx.TensorProto.FLOAT,
) -> DigitalSegment:
    """A segment with one input tensor and one output tensor of one element type, in the network's opsets."""
    known = {value.name: value for value in [*network.inputs, *network.outputs]}
    graph = builder.make_graph(
        name,
        nodes,
        [known.get(source) or builder.value(source, element_type)],
        [known.get(target) or builder.value(target, element_type)],
        itertools.starmap(builder.tensor, constants.items()),
    )
    return DigitalSegment(name, builder.make_model(graph, network.opset_imports, network.ir_version))


def routed(network: Network, layer: MatrixLayer, source: np.ndarray, name: str) -> DigitalSegment:
    """A segment that re-routes a dense layer's inputs: `output[..., r] = input[..., source[r]]`, 0 where it is negative.

    Args:
        network: whose opsets are used.
        layer: the layer, see `is_dense`.
        source: int [rows].
        name: of the segment; its output tensor is `NAME/inputs`.
    """
    idle = source < 0
    gathered, target = f"{name}/gathered", f"{name}/inputs"
    constants: dict[str, np.ndarray] = {f"{name}/source": np.where(idle, 0, source).astype(np.int64)}
    nodes = [
        helper.make_node(
            "Gather", [layer.input, f"{name}/source"], [gathered if idle.any() else target], f"{name}/gather", axis=-1
        )
    ]
    if idle.any():  # not a product with a mask: an infinite input must not reach a row that it has nothing to do with
        constants |= {f"{name}/used": ~idle, f"{name}/zero": np.zeros((), np.float32)}
        nodes.append(helper.make_node("Where", [f"{name}/used", gathered, f"{name}/zero"], [target], f"{name}/fill"))
    return segment(network, name, nodes, layer.input, target, constants)


def joined(network: Network, layer: MatrixLayer, parts: int, operator: str, name: str) -> DigitalSegment:
    """A segment that joins runs of a layer's outputs, `parts` side by side, by "Sum" or "Mean" into its output tensor.

    Its input tensor is `NAME/outputs`, which the layer must write instead. The runs of each group of a layer are side by side;
    those of a layer without an axis of outputs lie on the axis of its inputs.
    """
    geometry, source = layer.geometry, f"{name}/outputs"
    runs = [f"{name}/run{i}" for i in range(parts)]
    opset = dict(network.opset_imports).get("", 0)
    constants: dict[str, np.ndarray] = {}
    if layer.groups == 1 and not (isinstance(geometry, Contraction) and geometry.squeeze):
        axis = geometry.output_axis if isinstance(geometry, Contraction) else 1
        count: dict[str, Any] = {"num_outputs": parts} if opset >= _SPLIT_BY_COUNT else {}
        nodes = [helper.make_node("Split", [source], runs, f"{name}/split", axis=axis, **count)]
    else:
        axis = geometry.input_axis if isinstance(geometry, Contraction) else 1
        constants = {f"{run}/at": at for run, at in zip(runs, _places(layer, parts), strict=True)}
        nodes = [helper.make_node("Gather", [source, f"{run}/at"], [run], f"{run}/take", axis=axis) for run in runs]
    if operator == "Sum" and layer.element_type != onnx.TensorProto.FLOAT:  # of which Sum takes no other in onnxruntime
        sums = [*(f"{run}/sum" for run in runs[1:-1]), layer.output]
        nodes += [
            helper.make_node("Add", [left, run], [total], f"{run}/add")
            for left, run, total in zip([runs[0], *sums], runs[1:], sums, strict=False)
        ]
    else:
        nodes.append(helper.make_node(operator, runs, [layer.output], f"{name}/join"))
    return segment(network, name, nodes, source, layer.output, constants, layer.element_type)


def _places(layer: MatrixLayer, parts: int) -> Iterator[np.ndarray]:
    """Where the outputs of each run are among those of all groups; a number alone where the layer has no axis of outputs."""
    for part in range(parts):
        if isinstance(layer.geometry, Contraction):
            yield np.array(part, np.int64)
        else:
            first = (np.arange(layer.groups) * parts + part) * layer.outputs
            yield (first[:, None] + np.arange(layer.outputs)).ravel()
