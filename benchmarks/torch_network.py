"""An ONNX model in torch, its matrices in layers that another simulator makes analogue: the same network on every side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from benchmarks.float_runtime import float_outputs
from benchmarks.side import relative_error
from benchmarks.work import WORKS, Work, batches, calibration_of

Analogue = Callable[[torch.nn.Module, float, Work], torch.nn.Module]
Values = dict[str, torch.Tensor]

FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "Add": torch.add,
    "Clip": torch.clamp,
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Div": torch.div,
    "Flatten": lambda x: torch.flatten(x, 1),
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "MaxPool": lambda x, kernel_shape, strides, pads=(0, 0): torch.nn.functional.max_pool2d(
        x, kernel_shape, strides, pads[0]
    ),
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Reshape": lambda x, shape: x.reshape([size or x.shape[axis] for axis, size in enumerate(shape.tolist())]),
    "Round": torch.round,
    "BatchNormalization": lambda x, scale, bias, mean, variance, epsilon=1e-5: torch.nn.functional.batch_norm(
        x, mean, variance, scale, bias, eps=epsilon
    ),
}


class SlicedLayer(torch.nn.Module):
    """Inputs from 0 to 1 as so many binary reads, thermometer coded: rows take -1 or 1, the readings are added.

    x = sum_t v_t / slices with v_t = (d_t + 1) / 2, so x W = sum_t d_t W / (2 slices) + sum(W) / 2.
    """

    def __init__(self, layer: torch.nn.Module, slices: int, offset: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.slices, self.offset = layer, slices, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.offset * (2 * self.slices)
        for t in range(self.slices):
            total = total + self.layer((x - (t + 0.5) / self.slices).sign_())
        return total / (2 * self.slices)


class TorchNetwork(torch.nn.Module):
    """Runs the nodes of an ONNX model in their order.

    Args:
        model: of the operators of `FUNCTIONS`, Conv, Gemm and MatMul by constants.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.constants: Values = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}
        self.layers: dict[str, torch.nn.Module] = {}
        self.input, self.output = model.graph.input[0].name, model.graph.output[0].name
        self.nodes: list[tuple[Callable[..., torch.Tensor], Sequence[str], str, dict[str, Any]]] = []
        for node in model.graph.node:
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        output = node.output[0]
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            self.layers[output] = self._layer(node, attributes)
            self.nodes.append((lambda x, output=output: self.layers[output](x), node.input[:1], output, {}))
        elif all(name in self.constants for name in node.input):
            given = [self.constants[name] for name in node.input]
            function = dequantized if node.op_type == "DequantizeLinear" else FUNCTIONS[node.op_type]
            self.constants[output] = function(*given, **attributes)
        else:
            self.nodes.append((FUNCTIONS[node.op_type], node.input, output, attributes))

    def _layer(self, node: onnx.NodeProto, attributes: dict[str, Any]) -> torch.nn.Module:
        weight, *bias = (self.constants[name].float() for name in node.input[1:])
        layer: torch.nn.Module
        if node.op_type == "Conv":
            layer = torch.nn.Conv2d(
                weight.shape[1],
                weight.shape[0],
                tuple(weight.shape[2:]),
                attributes.get("strides", (1, 1)),
                attributes.get("pads", (0, 0))[0],
                bias=bool(bias),
            )
        else:
            weight = weight if attributes.get("transB") else weight.T
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias))
        layer.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
        if bias:
            layer.bias = torch.nn.Parameter(bias[0], requires_grad=False)
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {**self.constants, self.input: x}
        for function, inputs, output, attributes in self.nodes:
            values[output] = function(*(values[name] for name in inputs), **attributes)
        return values[self.output]

    def ranges(self, x: torch.Tensor) -> dict[str, float]:
        """The largest size of what enters each matrix."""
        found: dict[str, float] = {}
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, given, name=name: found.update({name: float(given[0].abs().max())})
            )
            for name, layer in self.layers.items()
        ]
        self(x)
        for hook in hooks:
            hook.remove()
        return found


def dequantized(
    codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None, axis: int = 1
) -> torch.Tensor:
    """DequantizeLinear, per tensor or along an axis."""
    shape = [1] * codes.ndim
    if scale.numel() > 1:
        shape[axis] = -1
    shift = 0 if zero is None else zero.float().reshape(shape)
    return (codes.float() - shift) * scale.reshape(shape)


class TorchSide:
    """A network whose matrices are analogue, batch after batch, without gradients.

    Args:
        name: of the work.
        analogue: makes an analogue layer of a layer of torch, given the largest size of its inputs.
    """

    def __init__(self, name: str, analogue: Analogue) -> None:
        work, model = WORKS[name], WORKS[name].model()
        torch.manual_seed(0)
        torch.set_num_threads(1)
        feeds = work.inputs(model, work.samples)
        fitted = calibration_of(work, model) or {name: x[:16] for name, x in feeds.items()}
        (samples,) = fitted.values()
        self.batches = [torch.from_numpy(x) for part in batches(feeds, work.batch) for x in part.values()]
        with torch.no_grad():
            self.network = analogue_network(model, torch.from_numpy(samples), analogue, work)
            found = self.network(self.batches[0]).numpy()
        first = {name: x[: work.batch] for name, x in feeds.items()}
        self.facts: dict[str, Any] = {
            "samples": work.samples,
            "error": relative_error(found, float_outputs(model, first)),
        }

    def run(self, threads: int) -> None:
        torch.set_num_threads(threads)
        with torch.no_grad():
            for x in self.batches:
                self.network(x)


def analogue_network(model: onnx.ModelProto, samples: torch.Tensor, analogue: Analogue, work: Work) -> TorchNetwork:
    """The model's network with every matrix analogue, for inputs as large as those of the samples."""
    network = TorchNetwork(model)
    for name, largest in network.ranges(samples).items():
        layer = network.layers[name]
        made = analogue(copy.deepcopy(layer), 1.0 if work.slices else largest, work)
        network.layers[name] = SlicedLayer(made, work.slices, layer.weight.sum(1) / 2) if work.slices else made
    return network


def spread(weight: torch.Tensor, deviation: float) -> torch.Tensor:
    """Weights as written once, each with an error in proportion to itself."""
    return weight * (
        1 + deviation * torch.from_numpy(np.random.default_rng(0).standard_normal(weight.shape, np.float32))
    )
