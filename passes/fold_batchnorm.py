"""fold-batchnorm: a BatchNormalization that directly follows a matrix layer goes into its weights and bias.

    y = (x @ W + b);  z = (y - mean) / sqrt(var + epsilon) * gamma + beta
    ->  z = x @ (W * f) + ((b - mean) * f + beta),  f = gamma / sqrt(var + epsilon)

Exact to float rounding. Only where the layer's output is read by nothing else and is no output of the model, and before
weights are quantized. Source: the ONNX operator BatchNormalization (inference).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
from onnx import numpy_helper

from xbcompile.errors import PassError
from xbcompile.ir import Contraction, DigitalSegment, MatrixLayer, Network, NetworkNode
from xbcompile.passes.contract import NetworkPass, PassContext


@dataclass(frozen=True)
class FoldBatchNorm(NetworkPass):
    """Fold every BatchNormalization that follows a matrix layer."""

    name: ClassVar[str] = "fold-batchnorm"
    needs: ClassVar[str] = "a BatchNormalization right behind a matrix layer"

    def requires(self, network: Network, context: PassContext) -> None:
        """Weights must still be real-valued."""
        if any(layer.weight_code is not None for layer in network.layers):
            raise PassError("weights are already quantized; put fold-batchnorm before quantize")

    def run(self, network: Network, context: PassContext) -> Network:
        """Fold until nothing more folds."""
        while (folded := _fold_one(network)) is not None:
            network = folded
        return network


def _fold_one(network: Network) -> Network | None:
    public = {value.name for value in network.outputs}
    for layer in network.layers:
        readers = [node for node in network.nodes if layer.output in node.input_names]
        if len(readers) != 1 or layer.output in public or not _channels_on_axis_one(layer):
            continue
        segment = readers[0]
        if not isinstance(segment, DigitalSegment) or layer.element_type != onnx.TensorProto.FLOAT:
            continue
        node = _only_batchnorm_reader(segment, layer.output)
        folded = None if node is None else _folded_layer(layer, segment, node)
        if node is not None and folded is not None:
            return _replaced(network, layer, folded, segment, node)
    return None


def _channels_on_axis_one(layer: MatrixLayer) -> bool:
    """Whether axis 1 of the output, the one that BatchNormalization normalises, holds the layer's outputs.

    A dense layer's output [batch, M] has them there; with more axes the last one is not axis 1. Its rank shows in the
    bias-free form only at run time, so a dense layer folds only with one vector per inference.
    """
    if isinstance(layer.geometry, Contraction):
        return layer.geometry == Contraction() and layer.vectors_per_inference == 1
    return True


def _only_batchnorm_reader(segment: DigitalSegment, tensor: str) -> onnx.NodeProto | None:
    graph = segment.model.graph
    readers = [node for node in graph.node if tensor in node.input or _captures(node, tensor)]
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization" or readers[0].domain not in ("", "ai.onnx"):
        return None
    node = readers[0]
    constants = {initializer.name for initializer in graph.initializer}
    training = any(a.name == "training_mode" and a.i for a in node.attribute)
    if node.input[0] != tensor or training or any(name not in constants for name in node.input[1:5]):
        return None
    return node if sum(bool(name) for name in node.output) == 1 else None


def _captures(node: onnx.NodeProto, tensor: str) -> bool:
    """Whether a subgraph of the node reads the tensor."""
    graphs = [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    return any(
        tensor in {value.name for value in graph.output}
        or any(tensor in inner.input or _captures(inner, tensor) for inner in graph.node)
        for graph in graphs
    )


def _folded_layer(layer: MatrixLayer, segment: DigitalSegment, node: onnx.NodeProto) -> MatrixLayer | None:
    """The layer with the batch norm in it; None where the channels differ or the result is not finite (such as from a
    variance below 0): then onnxruntime has the say.
    """
    constants = {i.name: i for i in segment.model.graph.initializer if i.name in set(node.input[1:5])}
    gamma, beta, mean, variance = (numpy_helper.to_array(constants[n]).astype(np.float64) for n in node.input[1:5])
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    if gamma.shape != layer.bias.shape:
        return None
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + epsilon)
        weights = (layer.weights * factor.reshape(layer.groups, 1, layer.outputs)).astype(np.float32)
        bias = ((layer.bias - mean) * factor + beta).astype(np.float32)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return None
    return replace(layer, weights=weights, bias=bias, output=node.output[0], matrix="")


def _replaced(
    network: Network, layer: MatrixLayer, folded: MatrixLayer, segment: DigitalSegment, node: onnx.NodeProto
) -> Network:
    rest = _without(segment, node, layer.output)
    nodes: list[NetworkNode] = []
    for each in network.nodes:
        if each is layer:
            nodes.append(folded)
        elif each is not segment:
            nodes.append(each)
        elif rest is not None:
            nodes.append(rest)
    return replace(network, nodes=tuple(nodes))


def _without(segment: DigitalSegment, node: onnx.NodeProto, old_input: str) -> DigitalSegment | None:
    """The segment without its batch-norm node; the node's output is now one of its inputs. None when nothing is left."""
    model = onnx.ModelProto()
    model.CopyFrom(segment.model)
    graph = model.graph
    name = node.output[0]
    graph.node.remove(node)
    still_read = any(name in other.input or _captures(other, name) for other in graph.node)
    output_type = next((v for v in graph.output if v.name == name), None)
    inputs = [value for value in graph.input if value.name != old_input]
    if still_read:
        known = {value.name: value for value in graph.value_info}
        new = onnx.ValueInfoProto(name=name)
        new.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        inputs.append(output_type or known.get(name, new))
    del graph.input[:]
    graph.input.extend(inputs)
    outputs = [value for value in graph.output if value.name != name]
    del graph.output[:]
    graph.output.extend(outputs)
    used = {n for other in graph.node for n in other.input}
    kept = [i for i in graph.initializer if i.name in used or any(_captures(o, i.name) for o in graph.node)]
    del graph.initializer[:]
    for initializer in kept:  # of any size: extend would go through a message, of at most 2 GiB
        graph.initializer.add().CopyFrom(initializer)
    return DigitalSegment(segment.name, model) if graph.output else None
