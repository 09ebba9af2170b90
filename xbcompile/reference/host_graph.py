"""The host graph: the ideal meaning of a compiled program as one ONNX model, which plain onnxruntime runs on the host computer.

Each matrix layer is a node of domain `xbcompile` whose function body states, in standard operators, the layer's ideal
arithmetic: code the input, rebuild the weights from levels, scale, offset and row weights, multiply, add the bias. What is
digital stands as the model has it. Programs are verified against it, and it is how passes see activations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from xbcompile.errors import ModelError
from xbcompile.ir.geometry import Contraction, Patches
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.layer import DigitalSegment, MatrixLayer
from xbcompile.ir.network import Executed, Network
from xbcompile.ir.recurrence import Recurrence
from xbcompile.onnx_graph.builder import NodeBuilder, make_model, tensor
from xbcompile.onnx_graph.domains import ONNX_DOMAINS, XBCOMPILE
from xbcompile.onnx_graph.split_model import LARGE_BYTES, SplitModel, apart, split
from xbcompile.reference.host_recurrence import scan_of

OLDEST_OPSET = 7  # the oldest that onnxruntime guarantees


def to_onnx(network: Network) -> onnx.ModelProto:
    """`host_graph` as one self-contained message, which cannot be serialised above 2 GiB.

    Raises:
        ModelError: the model's opset is older than the operators that the function bodies need.
    """
    return host_graph(network).joined()


def host_graph(network: Network) -> SplitModel:
    """Write `network` as an ONNX model with a function per matrix layer; large parameters are the layers' own arrays.

    Raises:
        ModelError: the model's opset is older than the operators that the function bodies need.
    """
    imports = [entry for entry in network.opset_imports if entry[0] != XBCOMPILE]
    opset = max((version for domain, version in imports if domain in ONNX_DOMAINS), default=None)
    if opset is None:  # a model of other domains' operators alone
        opset = onnx.defs.onnx_opset_version()
        imports.append(("", opset))
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"model {network.name!r}: opset {opset} is too old to write the host graph; allowed: {OLDEST_OPSET} or newer; "
            "convert the model with onnx.version_converter"
        )
    graph = onnx.GraphProto(name=network.name or "network")
    graph.input.extend(network.inputs)
    graph.output.extend(network.outputs)
    tensors: dict[str, np.ndarray] = {}
    known: set[str] = set()
    functions: list[onnx.FunctionProto] = []
    taken: set[str] = set()
    own = {f.SerializeToString(): f for segment in network.segments for f in segment.model.functions}

    def nodes_of(node: Executed) -> list[onnx.NodeProto]:
        """The node's own nodes; its constants go to the main graph, where bodies read them."""
        if isinstance(node, DigitalSegment):
            return _segment_nodes(graph, tensors, known, node)
        body = _LayerBody(node, opset, taken)
        functions.append(body.function())
        taken.add(body.type_name)
        _append_parameters(graph, tensors, body.parameters)
        inputs = [node.input, *body.parameters]
        return [helper.make_node(body.type_name, inputs, [node.output], node.name, domain=XBCOMPILE)]

    for node in network.nodes:
        if isinstance(node, Recurrence):
            graph.node.append(scan_of(node, [each for inner in node.nodes for each in nodes_of(inner)]))
        else:
            graph.node.extend(nodes_of(node))
    _append_border_types(graph, network)
    ir_version = max(network.ir_version, 8)  # functions in models came with IR version 8
    skeleton = make_model(graph, [*imports, (XBCOMPILE, 1)], ir_version, [*own.values(), *functions])
    return SplitModel(skeleton, tensors)


def layer_parameters(network: Network) -> dict[str, np.ndarray]:
    """What `host_graph` hands to the functions of all layers, by parameter name."""
    bodies = [_LayerBody(layer, OLDEST_OPSET, set()) for layer in network.layers]
    for body in bodies:
        body.function()
    return {name: value for body in bodies for name, value in body.parameters.items()}


def parameter_name(layer: str, name: str) -> str:
    """Name of a layer's parameter among the host graph's initializers, apart from any name of the user's model."""
    return f"{XBCOMPILE}::{layer}/{name}"


def _segment_nodes(
    graph: onnx.GraphProto, tensors: dict[str, np.ndarray], known: set[str], segment: DigitalSegment
) -> list[onnx.NodeProto]:
    """A segment's nodes; its initializers are appended to the graph; several segments may have the same ones (`known`)."""
    part = split(segment.model)
    own = [initializer for initializer in part.skeleton.graph.initializer if initializer.name not in known]
    graph.initializer.extend(own)
    tensors.update({i.name: part.tensors[i.name] for i in own if i.name in part.tensors})
    known.update(initializer.name for initializer in own)
    graph.sparse_initializer.extend(part.skeleton.graph.sparse_initializer)
    return list(part.skeleton.graph.node)


def _append_parameters(
    graph: onnx.GraphProto, tensors: dict[str, np.ndarray], parameters: dict[str, np.ndarray]
) -> None:
    for name, value in parameters.items():
        if value.nbytes > LARGE_BYTES:
            graph.initializer.append(apart(name, value))
            tensors[name] = value
        else:
            graph.initializer.append(tensor(name, value))


def _append_border_types(graph: onnx.GraphProto, network: Network) -> None:
    """Types of the tensors between nodes, from which a program's segments are rebuilt."""
    known = {value.name for value in graph.input}
    for node in network.nodes:
        if not isinstance(node, DigitalSegment):
            continue
        for value in [*node.model.graph.input, *node.model.graph.output]:
            if value.name not in known:  # outputs among them: what the model declares of them need not be right
                known.add(value.name)
                graph.value_info.append(value)


class _LayerBody(NodeBuilder):
    """Builds one layer's function: collects nodes, and parameters (initializers of the main graph)."""

    def __init__(self, layer: MatrixLayer, opset: int, taken: set[str]) -> None:
        super().__init__(opset)
        self.layer = layer
        self.type_name = re.sub(r"\W", "_", layer.name) or "layer"
        while self.type_name in taken:
            self.type_name += "_"
        self.formal_names: list[str] = []
        self.parameters: dict[str, np.ndarray] = {}

    def function(self) -> onnx.FunctionProto:
        layer, geometry = self.layer, self.layer.geometry
        x = self.emit("Cast", "x", to=TensorProto.FLOAT) if layer.element_type != TensorProto.FLOAT else "x"
        x, zero = self.code_input(x)
        weights = self.weights()
        whole = layer.element_type == TensorProto.INT32
        if isinstance(geometry, Contraction):
            if layer.element_type != TensorProto.FLOAT:
                x = self.emit("Sum", x)  # x itself: onnxruntime 1.32 crashes when it fuses Transpose, Cast and MatMul
            if whole and not np.any(layer.bias):  # sums beyond 2**24 are exact in double
                x, weights = (self.emit("Cast", value, to=TensorProto.DOUBLE) for value in (x, weights))
            y = self.contract(x, weights, geometry)
        else:
            y = self.convolve(x, zero, weights, geometry)
        if whole:  # by way of int64: sums that leave int32 wrap around
            y = self.emit("Cast", self.whole(y), to=TensorProto.INT64)
        if layer.element_type != TensorProto.FLOAT:
            y = self.emit("Cast", y, to=layer.element_type)
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        return helper.make_function(
            XBCOMPILE,
            self.type_name,
            ["x", *self.formal_names],
            ["y"],
            self.nodes,
            [helper.make_opsetid("", self.opset)],
        )

    def name(self, label: str) -> str:
        return f"t{len(self.nodes)}"

    def node_name(self, operator: str) -> str:
        return ""

    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        """A small constant inside the body."""
        array = value if isinstance(value, (np.ndarray, np.generic)) else np.array(value, np.int64)
        if self.opset < 9 and array.dtype.kind == "i":  # Constant nodes hold floating-point numbers only
            return self.parameter(f"constant{len(self.parameters)}", np.asarray(array))
        return self.emit("Constant", value=tensor("", array))

    def parameter(self, name: str, value: np.ndarray) -> str:
        """A tensor of the main graph, handed to the function as an input."""
        self.formal_names.append(name)
        self.parameters[parameter_name(self.layer.name, name)] = value
        return name

    def code_input(self, x: str) -> tuple[str, str | None]:
        """Return the coded input and the coded value of a padded zero (None where that is exactly 0)."""
        code = self.layer.input_code
        if code is None:
            return x, None
        low, high = self.input_range(x, code)
        if code.steps == 0:
            if code.is_dynamic:  # the range is the input's own, and a padded zero is in it
                return x, None
            assert code.low is not None
            assert code.high is not None
            zero = None if self.zero_is_exact(code) else self.between(self.scalar(0.0), code.low, code.high)
            return self.between(x, code.low, code.high), zero
        span = self.emit("Div", self.emit("Sub", high, low), self.scalar(code.steps))
        if code.is_dynamic:  # a constant vector has no span: any step will do
            span = self.positive_or_one(span)

        def coded(value: str) -> str:
            level = self.round(self.emit("Div", self.emit("Sub", value, low), span))
            level = self.between(level, 0.0, code.steps)
            return self.emit("Add", self.emit("Mul", level, span), low)

        return coded(x), None if self.zero_is_exact(code) else coded(self.scalar(0.0))

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def between(self, x: str, low: float, high: float) -> str:
        """x limited to low..high."""
        if self.opset < 8:  # Min and Max do not broadcast yet
            return self.clip(x, low, high)
        return self.emit("Min", self.emit("Max", x, self.scalar(low)), self.scalar(high))

    def whole(self, x: str) -> str:
        """The nearest whole number, float64: Round came with opset 11, and `round` is for small numbers."""
        x = self.emit("Cast", x, to=TensorProto.DOUBLE)
        if self.opset >= 11:
            return self.emit("Round", x)
        return self.emit("Floor", self.emit("Add", x, self.constant(np.float64(0.5))))

    def positive_or_one(self, x: str) -> str:
        """x where it is above 0, and 1 where it is 0; x is not negative. Where came with opset 9."""
        positive = self.emit("Greater", x, self.scalar(0.0))
        if self.opset >= 9:
            return self.emit("Where", positive, x, self.scalar(1.0))
        return self.emit(
            "Add", x, self.emit("Sub", self.scalar(1.0), self.emit("Cast", positive, to=TensorProto.FLOAT))
        )

    def input_range(self, x: str, code: InputCode) -> tuple[str, str]:
        if not code.is_dynamic:
            assert code.low is not None
            assert code.high is not None
            return self.scalar(code.low), self.scalar(code.high)
        geometry = self.layer.geometry
        axes = [geometry.input_axis] if isinstance(geometry, Contraction) else [*range(1, len(geometry.kernel) + 2)]
        low, high = self.reduce("ReduceMin", x, axes, keepdims=True), self.reduce("ReduceMax", x, axes, keepdims=True)
        if isinstance(geometry, Contraction) and code.span is None:
            return low, high
        # Padding must be representable: min(low, 0) and max(high, 0), without Min and Max, which broadcast from opset 8 on.
        low, high = self.emit("Neg", self.emit("Relu", self.emit("Neg", low))), self.emit("Relu", high)
        return (low, high) if code.span is None else self.stretched(low, high, np.float32(code.span), code.steps)

    def stretched(self, low: str, high: str, span: np.float32, steps: int) -> tuple[str, str]:
        """A range that 0 is in, stretched about it to a span, from a whole number of steps on."""
        step = self.constant(span / np.float32(steps))
        factor = self.emit("Div", self.constant(span), self.positive_or_one(self.emit("Sub", high, low)))
        low = self.emit("Mul", self.round(self.emit("Div", self.emit("Mul", low, factor), step)), step)
        return low, self.emit("Add", low, self.constant(span))

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
        row_factor = code.row_factor()
        if row_factor is not None:
            weights = self.emit("Mul", weights, self.parameter("row_weight", row_factor))
        if np.any(code.scale != 1.0):
            weights = self.emit("Mul", weights, self.parameter("scale", code.scale[:, None, :]))
        if np.any(code.offset != 0.0):
            weights = self.emit("Add", weights, self.parameter("offset", code.offset[:, None, :]))
        return weights

    def contract(self, x: str, weights: str, geometry: Contraction) -> str:
        layer, bias = self.layer, self.layer.bias
        if geometry.squeeze:
            vector = self.emit("Reshape", weights, self.constant([layer.inputs]))
            y = self.emit("MatMul", vector, x) if geometry.input_axis == -2 else self.emit("MatMul", x, vector)
            return self.emit("Add", y, self.parameter("bias", bias.reshape(()))) if np.any(bias) else y
        matrix = self.emit("Reshape", weights, self.constant([layer.inputs, layer.outputs]))
        output_axis = geometry.output_axis
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
        return y

    def convolve(self, x: str, zero: str | None, weights: str, geometry: Patches) -> str:
        """Convolution of the coded input; its padding holds the coded zero: conv(x - zero) + zero * sum(weights)."""
        layer = self.layer
        channels = layer.inputs // int(np.prod(geometry.kernel))
        shape = [layer.groups * layer.outputs, channels, *geometry.kernel]
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
