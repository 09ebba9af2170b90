"""The host graph: the network written back as one ONNX model that plain onnxruntime runs.

Each matrix layer is a node of domain `xbcompile` whose function body states, in standard operators, the layer's ideal
arithmetic: code the input, rebuild the weights from levels, scale, offset and row weights, multiply, add the bias. It
    is the meaning against which programs are verified, and it is how passes see activations.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbcompile.errors import ModelError
from xbcompile.ir.geometry import Contraction, Patches
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.layer import DigitalSegment, MatrixLayer
from xbcompile.ir.network import Network

DOMAIN = "xbcompile"
# Round exists from opset 11, axes of Squeeze and friends as inputs from 13.
OLDEST_OPSET = 11


def to_onnx(network: Network) -> onnx.ModelProto:
    """Write `network` as one self-contained ONNX model with a function per matrix layer.

    Raises:
        ModelError: the model's opset is older than the operators that the function bodies need.
    """
    opset = dict(network.opset_imports).get("", onnx.defs.onnx_opset_version())
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"model {network.name!r}: opset {opset} is too old to write the host graph; allowed: {OLDEST_OPSET} or newer; "
            "convert the model with onnx.version_converter"
        )
    graph = onnx.GraphProto(name=network.name or "network")
    graph.input.extend(network.inputs)
    graph.output.extend(network.outputs)
    functions: list[onnx.FunctionProto] = []
    own = {f.SerializeToString(): f for segment in network.segments for f in segment.model.functions}
    for node in network.nodes:
        if isinstance(node, DigitalSegment):
            _append_segment(graph, node)
        else:
            body = _LayerBody(node, opset, taken={function.name for function in functions})
            functions.append(body.function())
            graph.initializer.extend(body.initializers)
            graph.node.append(
                helper.make_node(
                    body.type_name, [node.input, *body.parameter_names], [node.output], node.name, domain=DOMAIN
                )
            )
    _append_border_types(graph, network)
    imports = [helper.make_opsetid(domain, version) for domain, version in network.opset_imports if domain != DOMAIN]
    imports.append(helper.make_opsetid(DOMAIN, 1))
    return helper.make_model(
        graph,
        opset_imports=imports,
        functions=[*own.values(), *functions],
        ir_version=max(network.ir_version, 8),  # functions in models came with IR version 8
        producer_name="xbcompile",
    )


def parameter_name(layer: str, name: str) -> str:
    """Name of a layer's parameter among the host graph's initializers, apart from any name of the user's model."""
    return f"{DOMAIN}::{layer}/{name}"


def _append_segment(graph: onnx.GraphProto, segment: DigitalSegment) -> None:
    known = {initializer.name for initializer in graph.initializer}
    graph.node.extend(segment.model.graph.node)
    graph.initializer.extend(i for i in segment.model.graph.initializer if i.name not in known)
    graph.sparse_initializer.extend(segment.model.graph.sparse_initializer)


def _append_border_types(graph: onnx.GraphProto, network: Network) -> None:
    """Types of the tensors between nodes, from which a program's segments are rebuilt."""
    known = {value.name for value in [*graph.input, *graph.output]}
    for segment in network.segments:
        for value in [*segment.model.graph.input, *segment.model.graph.output]:
            if value.name not in known:
                known.add(value.name)
                graph.value_info.append(value)


class _LayerBody:
    """Builds one layer's function: collects nodes, parameters (initializers of the main graph) and fresh names."""

    def __init__(self, layer: MatrixLayer, opset: int, taken: set[str]) -> None:
        self.layer = layer
        self.opset = opset
        self.type_name = re.sub(r"\W", "_", layer.name) or "layer"
        while self.type_name in taken:
            self.type_name += "_"
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.formal_names: list[str] = []
        self.parameter_names: list[str] = []

    def function(self) -> onnx.FunctionProto:
        layer, geometry = self.layer, self.layer.geometry
        x = self.emit("Cast", "x", to=TensorProto.FLOAT) if layer.element_type != TensorProto.FLOAT else "x"
        x, zero = self.code_input(x)
        weights = self.weights()
        if isinstance(geometry, Contraction):
            y = self.contract(x, weights, geometry)
        else:
            y = self.convolve(x, zero, weights, geometry)
        if layer.element_type != TensorProto.FLOAT:
            y = self.emit("Cast", y, to=layer.element_type)
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        return helper.make_function(
            DOMAIN, self.type_name, ["x", *self.formal_names], ["y"], self.nodes, [helper.make_opsetid("", self.opset)]
        )

    def emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return the name of its single output."""
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: np.ndarray | np.generic) -> str:
        """A small constant inside the body."""
        return self.emit("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def parameter(self, name: str, value: np.ndarray) -> str:
        """A tensor of the main graph, handed to the function as an input."""
        self.formal_names.append(name)
        self.parameter_names.append(parameter_name(self.layer.name, name))
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), self.parameter_names[-1]))
        return name

    def reduce(self, operator: str, x: str, axes: list[int]) -> str:
        """ReduceMin or ReduceMax with kept dims; its axes became an input with opset 18."""
        if self.opset >= 18:
            return self.emit(operator, x, self.constant(np.array(axes, np.int64)), keepdims=1)
        return self.emit(operator, x, axes=axes, keepdims=1)

    def code_input(self, x: str) -> tuple[str, str | None]:
        """Return the coded input and the coded value of a padded zero (None where that is exactly 0)."""
        code = self.layer.input_code
        if code is None:
            return x, None
        low, high = self.input_range(x, code)
        if code.steps == 0:
            return self.clip(x, low, high), None if self.zero_is_exact(code) else self.clip(self.scalar(0.0), low, high)
        span = self.emit("Div", self.emit("Sub", high, low), self.scalar(code.steps))
        if code.is_dynamic:  # a constant vector has no span: any step will do
            span = self.emit("Where", self.emit("Greater", span, self.scalar(0.0)), span, self.scalar(1.0))

        def coded(value: str) -> str:
            level = self.emit("Round", self.emit("Div", self.emit("Sub", value, low), span))
            level = self.clip(level, self.scalar(0.0), self.scalar(code.steps))
            return self.emit("Add", self.emit("Mul", level, span), low)

        return coded(x), None if self.zero_is_exact(code) else coded(self.scalar(0.0))

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def clip(self, x: str, low: str, high: str) -> str:
        return self.emit("Min", self.emit("Max", x, low), high)

    def input_range(self, x: str, code: InputCode) -> tuple[str, str]:
        if not code.is_dynamic:
            assert code.low is not None
            assert code.high is not None
            return self.scalar(code.low), self.scalar(code.high)
        geometry = self.layer.geometry
        if isinstance(geometry, Contraction):
            axes = [geometry.input_axis]
            return self.reduce("ReduceMin", x, axes), self.reduce("ReduceMax", x, axes)
        axes = list(range(1, len(geometry.kernel) + 2))
        zero = self.scalar(0.0)  # padding must be representable
        return (
            self.emit("Min", self.reduce("ReduceMin", x, axes), zero),
            self.emit("Max", self.reduce("ReduceMax", x, axes), zero),
        )

    def zero_is_exact(self, code: InputCode) -> bool:
        """Whether padded zeros, which only convolutions have, are represented exactly."""
        if isinstance(self.layer.geometry, Contraction):
            return True
        if code.is_dynamic:
            return code.steps == 0
        assert code.low is not None
        assert code.high is not None
        return code.low == 0.0 or (code.steps == 0 and code.low <= 0.0 <= code.high)

    def weights(self) -> str:
        """Rebuild the real weights, float32 [groups, inputs, outputs]."""
        code = self.layer.weight_code
        if code is None or code.levels is None:
            weights = self.parameter("weights", self.layer.weights if code is None else code.codes)
        else:
            index = self.emit("Cast", self.parameter("codes", code.codes), to=TensorProto.INT32)
            weights = self.emit("Gather", self.parameter("levels", code.levels), index)
        if code is None:
            return weights
        if code.row_weight is not None:
            weights = self.emit("Mul", weights, self.parameter("row_weight", code.row_weight))
        if np.any(code.scale != 1.0):
            weights = self.emit("Mul", weights, self.parameter("scale", code.scale[:, None, :]))
        if np.any(code.offset != 0.0):
            weights = self.emit("Add", weights, self.parameter("offset", code.offset[:, None, :]))
        return weights

    def contract(self, x: str, weights: str, geometry: Contraction) -> str:
        layer = self.layer
        matrix = self.emit("Reshape", weights, self.constant(np.array([layer.inputs, layer.outputs], np.int64)))
        bias = layer.bias
        output_axis = -2 if geometry.squeeze and geometry.input_axis == -2 else geometry.output_axis
        if geometry.input_axis == output_axis == -2:  # the constant on the left, x of any rank
            y = self.emit("MatMul", self.emit("Transpose", matrix, perm=[1, 0]), x)
            bias = bias[:, None]
        else:
            if geometry.input_axis == -2:
                x = self.emit("Transpose", x, perm=[1, 0])
            y = self.emit("MatMul", x, matrix)
            if output_axis == -2:
                y = self.emit("Transpose", y, perm=[1, 0])
                bias = bias[:, None]
        if np.any(bias):
            y = self.emit("Add", y, self.parameter("bias", bias))
        if geometry.squeeze:
            axes = [output_axis]
            y = (
                self.emit("Squeeze", y, self.constant(np.array(axes, np.int64)))
                if self.opset >= 13
                else self.emit("Squeeze", y, axes=axes)
            )
        return y

    def convolve(self, x: str, zero: str | None, weights: str, geometry: Patches) -> str:
        """Convolution of the coded input; its padding holds the coded zero: conv(x - zero) + zero * sum(weights)."""
        layer = self.layer
        channels = layer.inputs // int(np.prod(geometry.kernel))
        shape = np.array([layer.groups * layer.outputs, channels, *geometry.kernel], np.int64)
        kernel = self.emit("Reshape", self.emit("Transpose", weights, perm=[0, 2, 1]), self.constant(shape))
        attributes: dict[str, Any] = {
            "kernel_shape": list(geometry.kernel),
            "strides": list(geometry.strides),
            "dilations": list(geometry.dilations),
            "group": layer.groups,
        }
        if geometry.auto_pad == "NOTSET":
            attributes["pads"] = list(geometry.pads)
        else:
            attributes["auto_pad"] = geometry.auto_pad
        shifted = x if zero is None else self.emit("Sub", x, zero)
        inputs = [shifted, kernel]
        if np.any(layer.bias):
            inputs.append(self.parameter("bias", layer.bias))
        y = self.emit("Conv", *inputs, **attributes)
        if zero is None:
            return y
        code = layer.weight_code
        total = (layer.weights if code is None else code.dequantized()).sum(axis=1, dtype=np.float64).astype(np.float32)
        per_output = self.parameter("weight_sum", total.reshape((-1,) + (1,) * len(geometry.kernel)))
        return self.emit("Add", y, self.emit("Mul", zero, per_output))
