"""pca: a matrix layer's inputs -> their principal components, fewer rows on the array.

    y = x @ W + b     ->     z = (x - mean) @ V  (digital)     y = z @ (V^T W) + (mean @ W + b)

Exact when all components are kept; else the projection drops the directions of least variance. Fitted on calibration
inputs only: where half of them give components that keep far less of the other half's variance, there are too few.
Source: MultiSpin.AI deliverable D4.2 (2026), section 3.2.3 (87 components keep 90 % of MNIST's variance).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
from onnx import helper

from xbcompile.errors import PassError
from xbcompile.ir import Contraction, DigitalSegment, MatrixLayer, Network
from xbcompile.onnx_graph import builder
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.passes.edit import rewiring

MOST_LOSS = 0.1  # of the variance, from the vectors fitted on to others; assumed


@dataclass(frozen=True)
class PrincipalComponents(NetworkPass):
    """Reduce the inputs of one matrix layer.

    Args:
        variance: keep as many components as explain this part of the variance (0 < variance <= 1).
        components: keep exactly this many; give one of the two.
        layer: name of the layer; empty: the first one.
    """

    name: ClassVar[str] = "pca"
    needs: ClassVar[str] = "a layer whose inputs are not reduced yet"
    needs_calibration: ClassVar[bool] = True
    variance: float | None = None
    components: int | None = None
    layer: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.variance is None) == (self.components is None):
            raise PassError("give one of variance= and components=")
        if self.variance is not None and not 0 < self.variance <= 1:
            raise PassError(f"variance={self.variance:g} is out of range; allowed: above 0, up to 1")
        if self.components is not None:
            self._check_count("components", 1)

    def chosen(self, network: Network) -> MatrixLayer:
        """The layer whose inputs are reduced."""
        by_name = {layer.name: layer for layer in network.layers}
        if not self.layer:
            return network.layers[0]
        if self.layer not in by_name:
            raise PassError(f"there is no matrix layer {self.layer!r}; allowed: {', '.join(by_name)}")
        return by_name[self.layer]

    def is_reduced(self, network: Network, layer: MatrixLayer) -> bool:
        """Whether an earlier run reduced the layer to another number of components."""
        return layer.inputs != self.components and rewiring.has_node(network, f"{layer.name}/pca")

    def requires(self, network: Network, context: PassContext) -> None:
        """A dense layer on the last axis, still real-valued, with enough calibration inputs."""
        layer = self.chosen(network)
        if self.is_reduced(network, layer):
            raise PassError(
                f"the inputs of layer {layer.name!r} are already reduced to {layer.inputs} components; give pca once"
            )
        if layer.geometry != Contraction():
            raise PassError(f"layer {layer.name!r} is no dense layer over the last axis; choose another with layer=")
        if layer.weight_code is not None or layer.input_code is not None:
            raise PassError(f"layer {layer.name!r} is already coded; put pca before quantize and input coding")
        if layer.element_type != onnx.TensorProto.FLOAT:
            raise PassError(f"layer {layer.name!r} is not float32")
        if self.components is not None and self.components > layer.inputs:
            raise PassError(f"components={self.components} exceeds the {layer.inputs} inputs of layer {layer.name!r}")
        context.require_calibration(self.name)

    def run(self, network: Network, context: PassContext) -> Network:
        """Insert the projection and rewrite weights and bias."""
        layer = self.chosen(network)
        if rewiring.has_node(network, f"{layer.name}/pca"):
            return network
        chunks = context.layer_inputs(network, self.name)[layer.name]
        values = np.concatenate([chunk.reshape(-1, layer.inputs) for chunk in chunks]).astype(np.float64)
        if not np.isfinite(values).all():
            raise PassError(f"inputs of layer {layer.name!r} are not finite on the calibration inputs")
        if len(values) < 2:
            raise PassError(
                f"one calibration vector shows no variance of the inputs of layer {layer.name!r}; give more"
            )
        mean = values.mean(axis=0)
        centred = values - mean
        variances, vectors = np.linalg.eigh(centred.T @ centred / len(values))
        variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
        count = self.components or _count_for(variances, self.variance or 1.0)
        self.check_holds(layer, values, count)
        if count > len(values) - 1 and count < layer.inputs:
            raise PassError(f"{count} components cannot be estimated from {len(values)} calibration vectors; give more")
        basis = vectors[:, :count] * _signs(vectors[:, :count])
        segment = _projection(network, layer, mean, basis)
        weights = layer.weights[0].astype(np.float64)
        bias = mean @ weights + layer.bias
        if np.abs(bias).max(initial=0.0) > np.finfo(np.float32).max:
            raise PassError(
                f"inputs of layer {layer.name!r} are too large on the calibration inputs: its bias overflows"
            )
        reduced = replace(
            layer,
            input=segment.output_names[0],
            weights=(basis.T @ weights).astype(np.float32)[None],
            matrix="",
            bias=bias.astype(np.float32),
        )
        return rewiring.with_nodes(network, layer, [segment, reduced])

    def check_holds(self, layer: MatrixLayer, values: np.ndarray, count: int) -> None:
        """Raise PassError where the part of the variance that was asked for does not hold on other inputs."""
        if self.variance is None or count == layer.inputs:
            return
        held = _held_out(values, count)
        if held < self.variance - MOST_LOSS:
            raise PassError(
                f"{count} components keep {self.variance:.0%} of the variance of the {len(values)} calibration vectors of layer "
                f"{layer.name!r}, but those of half of them keep {held:.0%} of the other half's; give more calibration inputs"
            )

    def note(self, before: Network, after: Network) -> str | None:
        """Where no row is saved."""
        inputs = self.chosen(before).inputs
        if after is not before and self.chosen(after).inputs == inputs:
            return f"{self} saves no row: all {inputs} components of layer {self.chosen(before).name!r} are kept"
        return super().note(before, after)

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """The layer has no more inputs than it had."""
        if self.chosen(after).inputs > self.chosen(before).inputs:
            raise ValueError("the number of inputs grew")


def _held_out(values: np.ndarray, count: int) -> float:
    """Part of one half's variance that components of the other half keep, both ways; 0 where a half is one vector."""
    halves = values[::2], values[1::2]
    kept = whole = 0.0
    for fitted, other in (halves, halves[::-1]):
        if len(fitted) < 2:
            return 0.0
        mean = fitted.mean(axis=0)
        vectors = np.linalg.eigh((fitted - mean).T @ (fitted - mean))[1][:, ::-1][:, : min(count, len(fitted) - 1)]
        whole += float(np.square(other - mean).sum())
        kept += float(np.square((other - mean) @ vectors).sum())
    return kept / whole if whole else 1.0


def _count_for(variances: np.ndarray, share: float) -> int:
    explained = np.cumsum(variances) / max(variances.sum(), np.finfo(float).tiny)
    return min(int(np.searchsorted(explained, share - 1e-12)) + 1, len(variances))


def _signs(basis: np.ndarray) -> np.ndarray:
    """Make each component's largest entry positive: eigenvectors have no sign of their own."""
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


def _projection(network: Network, layer: MatrixLayer, mean: np.ndarray, basis: np.ndarray) -> DigitalSegment:
    prefix = f"{layer.name}/pca"
    nodes = [
        helper.make_node("Sub", [layer.input, f"{prefix}/mean"], [f"{prefix}/centred"], f"{prefix}/centre"),
        helper.make_node(
            "MatMul", [f"{prefix}/centred", f"{prefix}/basis"], [f"{prefix}/components"], f"{prefix}/project"
        ),
    ]
    graph = builder.make_graph(
        prefix,
        nodes,
        [builder.value(layer.input, onnx.TensorProto.FLOAT)],
        [builder.value(f"{prefix}/components", onnx.TensorProto.FLOAT)],
        [
            builder.tensor(f"{prefix}/mean", mean.astype(np.float32)),
            builder.tensor(f"{prefix}/basis", basis.astype(np.float32)),
        ],
    )
    return DigitalSegment(prefix, builder.make_model(graph, network.opset_imports, network.ir_version))
