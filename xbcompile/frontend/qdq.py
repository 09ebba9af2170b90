"""Operators between DequantizeLinear and QuantizeLinear become the integer operators that onnxruntime makes of them.

onnxruntime's own optimizer turns such a group into QLinearConv, QLinearMatMul, QGemm, MatMulIntegerToFloat or QLinearAdd,
whose results differ from the float ones by their rounding. What it leaves as it is (16-bit activations, int8 ones with
several readers, ...) stays float here as well: the layer then drives values on a grid, with weights on a grid.
Source: onnxruntime/core/optimizer/qdq_transformer (selectors_actions/qdq_selectors.cc, relu_quantizelinear.cc,
clip_quantizelinear.cc, weight_bias_quantization.cc).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from xbcompile.frontend.operands import attribute, is_constant
from xbcompile.frontend.selection import reason_to_stay
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.domains import MICROSOFT, ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin, unused, without_dead_nodes
from xbcompile.onnx_graph.nodes import reads
from xbcompile.onnx_graph.tensors import elements, to_array
from xbcompile.onnx_graph.types import infer_types

_EIGHT_BITS = (TensorProto.UINT8, TensorProto.INT8)


def join_quantized(graph: Graph, digital: Collection[str]) -> Graph:
    """The graph with quantized groups as integer operators under the names of their middle nodes.

    Args:
        graph: with types, its DequantizeLinear nodes not folded.
        digital: names and patterns of nodes that the user keeps digital: they stay as they are.
    """
    graph = _with_unsigned_pairs(graph)
    joiner = _Joiner(graph, digital)
    for node in graph.nodes:
        joiner.join(node)
    return joiner.result()


@dataclass(frozen=True)
class _Quantized:
    """A float tensor that is `(integers - zero point) * scale`: names of the three, and values of the last two."""

    integers: str
    scale_name: str
    zero_point_name: str
    scale: np.ndarray
    element_type: int
    axis: int

    @property
    def is_per_tensor(self) -> bool:
        return self.scale.size == 1

    @property
    def names(self) -> tuple[str, str, str]:
        """The three in the order in which integer operators take them."""
        return self.integers, self.scale_name, self.zero_point_name


class _Joiner:
    """Goes through the nodes and collects what stands for what."""

    def __init__(self, graph: Graph, digital: Collection[str]) -> None:
        self.graph = graph
        self.digital = digital
        self.constants = dict(graph.constants)
        self.origins = dict(graph.origins)
        self.used = {*graph.types, *graph.constants, *(node.name for node in graph.nodes)}
        self.writers = {name: node for node in graph.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.nodes:
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)
        self.replaced: dict[int, NodeProto] = {}
        self.dropped: set[int] = set()

    def result(self) -> Graph:
        """The graph with all replacements."""
        if not self.replaced:
            return self.graph
        nodes = tuple(self.replaced.get(id(n), n) for n in self.graph.nodes if id(n) not in self.dropped)
        imports = self.graph.opset_imports
        if MICROSOFT not in dict(imports) and any(node.domain == MICROSOFT for node in nodes):
            imports = (*imports, (MICROSOFT, 1))
        graph = replace(self.graph, nodes=nodes, constants=self.constants, origins=self.origins, opset_imports=imports)
        return infer_types(without_dead_nodes(graph))

    def join(self, node: NodeProto) -> None:
        """Replace a node and what stands around it, where onnxruntime would."""
        if node.domain not in ONNX_DOMAINS or reason_to_stay(node, self.digital):
            return
        if node.op_type == "Conv":
            self.join_conv(node)
        elif node.op_type == "MatMul":
            self.join_matmul(node)
        elif node.op_type == "Gemm":
            self.join_gemm(node)
        elif node.op_type in ("Add", "Mul"):
            self.join_pair(node)
        elif node.op_type == "Concat":
            self.join_concat(node)

    def join_conv(self, node: NodeProto) -> None:
        """Conv -> QLinearConv."""
        x, w = self.activation(node.input[0]), self.weights(node.input[1], 0)
        after = self.requantized(node.output[0])
        if x is None or w is None or after is None:
            return
        quantize, y = after
        if y.element_type != x.element_type:
            return
        inputs = [*x.names, *w.names, y.scale_name, y.zero_point_name]
        if len(node.input) > 2 and node.input[2]:
            bias = self.bias(node.input[2], x, w)
            if bias is None:
                return
            inputs.append(bias)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.put(node, "QLinearConv", inputs, quantize.output[0], dropped=quantize, **attributes)

    def join_matmul(self, node: NodeProto) -> None:
        """MatMul -> QLinearMatMul, or MatMulIntegerToFloat where its result is not quantized."""
        x, w = self.activation(node.input[0]), self.weights(node.input[1], -1)
        if x is None or w is None:
            return
        after = self.requantized(node.output[0])
        if after is not None and after[1].element_type == x.element_type:
            quantize, y = after
            inputs = [*x.names, *w.names, y.scale_name, y.zero_point_name]
            self.put(node, "QLinearMatMul", inputs, quantize.output[0], dropped=quantize)
        elif after is None and self.is_followed_by_no_quantizer(node.output[0]):
            scales_last = [x.integers, w.integers, x.scale_name, w.scale_name, x.zero_point_name, w.zero_point_name]
            self.put(node, "MatMulIntegerToFloat", scales_last, node.output[0], domain=MICROSOFT)

    def join_gemm(self, node: NodeProto) -> None:
        """Gemm -> QGemm, with an output scale where its result is quantized."""
        trans_b = attribute(node, "transB", 0)
        x, w = self.activation(node.input[0]), self.weights(node.input[1], 0 if trans_b else 1)
        if x is None or w is None:
            return
        after = self.requantized(node.output[0])
        inputs = [*x.names, *w.names, ""]
        if len(node.input) > 2 and node.input[2]:
            bias = self.bias(node.input[2], x, w, by=float(attribute(node, "alpha", 1.0)))
            is_float = self.dequantized(node.input[2]) is None  # rounded only where the result is, too
            if bias is None or attribute(node, "beta", 1.0) != 1.0 or (is_float and after is None):
                return
            inputs[-1] = bias
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "beta"}
        if after is not None and after[1].element_type == x.element_type:
            quantize, y = after
            inputs += [y.scale_name, y.zero_point_name]
            self.put(node, "QGemm", inputs, quantize.output[0], dropped=quantize, domain=MICROSOFT, **attributes)
        elif after is None and self.is_followed_by_no_quantizer(node.output[0]):
            self.put(node, "QGemm", inputs, node.output[0], domain=MICROSOFT, **attributes)

    def join_pair(self, node: NodeProto) -> None:
        """Add and Mul of two quantized activations: one node, so that no segment's border parts the group."""
        left, right = self.activation(node.input[0]), self.activation(node.input[1])
        after = self.requantized(node.output[0], through_activations=False)
        if left is None or right is None or after is None:
            return
        quantize, y = after
        if not left.element_type == right.element_type == y.element_type:
            return
        inputs = [*left.names, *right.names, y.scale_name, y.zero_point_name]
        operator = f"QLinear{node.op_type}"
        self.put(node, operator, inputs, quantize.output[0], dropped=quantize, domain=MICROSOFT)

    def join_concat(self, node: NodeProto) -> None:
        """Concat of quantized activations, for the same reason as pairs."""
        parts = [self.activation(name) for name in node.input]
        after = self.requantized(node.output[0], through_activations=False)
        if after is None or any(part is None or part.element_type != after[1].element_type for part in parts):
            return
        quantize, y = after
        inputs = [y.scale_name, y.zero_point_name, *(name for part in parts if part is not None for name in part.names)]
        axis = attribute(node, "axis", 1)
        self.put(node, "QLinearConcat", inputs, quantize.output[0], dropped=quantize, domain=MICROSOFT, axis=axis)

    def put(
        self,
        node: NodeProto,
        operator: str,
        inputs: list[str],
        output: str,
        dropped: NodeProto | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        """Replace the node; what it wrote before must not be read any more."""
        self.replaced[id(node)] = helper.make_node(operator, inputs, [output], node.name, domain=domain, **attributes)
        self.origins[node.name] = Origin(node.name, node.op_type)
        step: NodeProto | None = dropped
        while step is not None and step is not node:  # the quantizer, and activations before it
            self.dropped.add(id(step))
            step = self.writers[step.input[0]]

    def activation(self, name: str) -> _Quantized | None:
        """What a DequantizeLinear reads, one scale for all, uint8, not constant."""
        found = self.dequantized(name)
        if found is None or not found.is_per_tensor or found.element_type != TensorProto.UINT8:
            return None
        return None if is_constant(self.graph, found.integers) else found

    def weights(self, name: str, axis: int) -> _Quantized | None:
        """The same of constant weights, with one scale for all or one per index of `axis`."""
        found = self.dequantized(name)
        if found is None or found.element_type not in _EIGHT_BITS:
            return None
        integers = self.constant_integers(found)
        if integers is None:
            return None
        rank = len(self.constants[integers].dims)
        if not found.is_per_tensor and found.axis % rank != axis % rank:
            return None
        return replace(found, integers=integers)

    def constant_integers(self, of: _Quantized) -> str | None:
        """The name of constant integers: constants as they are, or quantized from constants."""
        if of.integers in self.constants:
            return of.integers
        writer = self.writers.get(of.integers)
        if writer is None or writer.op_type != "QuantizeLinear" or not is_constant(self.graph, writer.input[0]):
            return None
        quantizer = self.parameters(writer, writer.input[1:], attribute(writer, "axis", 1), of.element_type)
        if quantizer is None or quantizer.scale_name != of.scale_name:
            return None
        real = to_array(self.graph.constants[writer.input[0]])
        if real.dtype != np.float32 or real.size == 0:
            return None
        zero_point = to_array(self.constants[quantizer.zero_point_name]).astype(np.int32)
        shape: tuple[int, ...] = ()
        if not quantizer.is_per_tensor:
            shape = tuple(-1 if i == quantizer.axis % real.ndim else 1 for i in range(real.ndim))
        dtype = helper.tensor_dtype_to_np_dtype(of.element_type)
        limits = np.iinfo(dtype)
        whole = np.rint(real / quantizer.scale.reshape(shape)) + zero_point.reshape(shape)
        return self.add_constant(np.clip(whole, limits.min, limits.max).astype(dtype), of.integers)

    def dequantized(self, name: str) -> _Quantized | None:
        """What the DequantizeLinear that writes a tensor reads."""
        node = self.writers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.domain not in ONNX_DOMAINS:
            return None
        element_type = self.graph.types[node.input[0]].tensor_type.elem_type
        found = self.parameters(node, node.input[1:], attribute(node, "axis", 1), element_type)
        return None if found is None else replace(found, integers=node.input[0])

    def parameters(
        self, node: NodeProto, inputs: Collection[str], axis: int, element_type: int | None
    ) -> _Quantized | None:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear, where they are constant and not per block."""
        scale_name, zero_point = [*inputs, ""][:2]
        if not is_constant(self.graph, scale_name) or attribute(node, "block_size", 0):
            return None
        scale = to_array(self.graph.constants[scale_name])
        if scale.dtype != np.float32 or scale.ndim > 1:
            return None
        if zero_point and not is_constant(self.graph, zero_point):
            return None
        if zero_point:
            own_type = self.graph.constants[zero_point].data_type
        else:
            own_type = element_type or attribute(node, "output_dtype", 0) or TensorProto.UINT8
            dtype = helper.tensor_dtype_to_np_dtype(own_type)
            zero_point = self.add_constant(np.zeros(scale.shape, dtype), f"{scale_name}_zero_point")
        return _Quantized("", scale_name, zero_point, scale, own_type, axis)

    def requantized(self, name: str, through_activations: bool = True) -> tuple[NodeProto, _Quantized] | None:
        """The QuantizeLinear that alone reads a tensor, one scale for all, behind activations that change nothing."""
        reader = self.only_reader(name)
        if reader is None or reader.domain not in ONNX_DOMAINS:
            return None
        if reader.op_type in ("Relu", "Clip") and through_activations:
            after = self.requantized(reader.output[0], through_activations=False)
            return after if after is not None and self.changes_nothing(reader, after[1]) else None
        if reader.op_type != "QuantizeLinear" or reader.input[0] != name:
            return None
        found = self.parameters(reader, reader.input[1:], 1, None)
        return (reader, found) if found is not None and found.is_per_tensor else None

    def changes_nothing(self, activation: NodeProto, y: _Quantized) -> bool:
        """Whether a quantizer's saturation does what the Relu or Clip before it does."""
        if y.element_type not in _EIGHT_BITS:
            return False
        zero_point = int(to_array(self.constants[y.zero_point_name]).reshape(()))
        limits = np.iinfo(helper.tensor_dtype_to_np_dtype(y.element_type))
        if activation.op_type == "Relu":
            return zero_point == limits.min
        bounds: list[float] = [attribute(activation, "min", -np.inf), attribute(activation, "max", np.inf)]
        for i, name in enumerate(activation.input[1:3]):
            if name and not is_constant(self.graph, name):
                return False
            if name:
                bounds[i] = float(to_array(self.graph.constants[name]).reshape(()))
        scale, epsilon = float(y.scale.reshape(())), float(np.finfo(np.float32).eps)
        low, high = scale * (limits.min - zero_point), scale * (limits.max - zero_point)
        return bounds[0] - low <= epsilon and high - bounds[1] <= epsilon

    def only_reader(self, name: str) -> NodeProto | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.graph.output_names else None

    def is_followed_by_no_quantizer(self, name: str) -> bool:
        return all(reader.op_type != "QuantizeLinear" for reader in self.readers.get(name, []))

    def bias(self, name: str, x: _Quantized, w: _Quantized, by: float = 1.0) -> str | None:
        """Name of an int32 bias in units of both scales: constant integers, or a float constant rounded to such."""
        unit = x.scale.reshape(()) * w.scale.reshape(() if w.is_per_tensor else -1) * np.float32(by)
        found = self.dequantized(name)
        if found is not None:
            if found.element_type != TensorProto.INT32 or not is_constant(self.graph, found.integers):
                return None
            same = found.scale.size in (1, unit.size) or unit.size == 1
            if not same or not np.allclose(found.scale, unit, rtol=1e-4, atol=0):
                return None
            if to_array(self.constants[found.zero_point_name]).any():
                return None
            return found.integers
        if not is_constant(self.graph, name):
            return None
        real = to_array(self.graph.constants[name])
        if real.dtype != np.float32 or real.ndim != 1 or not np.isfinite(real).all():
            return None
        whole = np.rint(real / unit)
        if np.abs(whole).max(initial=0) >= 2**31:
            return None
        return self.add_constant(whole.astype(np.int32), f"{name}_quantized")

    def add_constant(self, array: np.ndarray, label: str) -> str:
        name = unused(label, self.used)
        self.used.add(name)
        self.constants[name] = builder.tensor(name, array)
        return name


def _with_unsigned_pairs(graph: Graph) -> Graph:
    """The graph with int8 between a QuantizeLinear and its only DequantizeLinear as uint8, 128 more.

    onnxruntime does so on x86, where it joins no groups of int8 activations (qdq_transformer/qdq_s8_to_u8.cc); some of its
    uint8 kernels, as that of QLinearAveragePool, round ties otherwise than the int8 ones.
    """
    readers = Counter(name for node in graph.nodes for name in reads(node))
    readers.update(graph.output_names)
    quantizers = {node.output[0]: node for node in graph.nodes if _reads_int8_zero_point(node, "QuantizeLinear", graph)}
    constants, types = dict(graph.constants), dict(graph.types)
    changed: dict[int, NodeProto] = {}
    for node in graph.nodes:
        if not _reads_int8_zero_point(node, "DequantizeLinear", graph) or node.input[0] not in quantizers:
            continue
        before = quantizers[node.input[0]]
        if readers[node.input[0]] != 1 or readers[node.output[0]] != 1:
            continue
        for each in (before, node):
            name = unused(f"{each.input[2]}_unsigned", {*constants, *types})
            zero_point = to_array(constants[each.input[2]]).astype(np.int32) + 128
            constants[name] = builder.tensor(name, zero_point.astype(np.uint8))
            changed[id(each)] = builder.copied(each)
            changed[id(each)].input[2] = name
        types[node.input[0]] = builder.copied(types[node.input[0]])
        types[node.input[0]].tensor_type.elem_type = TensorProto.UINT8
    if not changed:
        return graph
    nodes = tuple(changed.get(id(node), node) for node in graph.nodes)
    return replace(graph, nodes=nodes, constants=constants, types=types)


def _reads_int8_zero_point(node: NodeProto, operator: str, graph: Graph) -> bool:
    if node.op_type != operator or node.domain not in ONNX_DOMAINS or len(node.input) < 3 or not node.input[2]:
        return False
    if not is_constant(graph, node.input[2]) or attribute(node, "output_dtype", 0):
        return False
    zero_point = graph.constants[node.input[2]]
    return zero_point.data_type == TensorProto.INT8 and elements(zero_point) == 1
