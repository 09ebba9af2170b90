"""Counting per inference: input vectors of layers, and multiply-accumulates of nodes that are not on arrays."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, shape_inference

from xbcompile.errors import ModelError
from xbcompile.frontend.mac_rules import Shape, Shapes, UnknownSize
from xbcompile.frontend.operands import attribute
from xbcompile.frontend.operators import operator_of
from xbcompile.frontend.recurrence import is_recurrence
from xbcompile.ir import Contraction, MatrixLayer, Network
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.dimensions import dimension_name, is_fixed, open_axes, open_dimensions, open_samples
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.nodes import bodies
from xbcompile.onnx_graph.tensors import to_array
from xbcompile.onnx_graph.types import infer_types, inferred_model


@dataclass(frozen=True)
class Count:
    """MACs that could be counted, and how many MVM-like nodes could not, for want of a size."""

    macs: int = 0
    uncounted: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.macs + other.macs, self.uncounted + other.uncounted)

    def times(self, factor: int | None) -> Count:
        """So many repetitions; with an unknown number nothing is counted."""
        if factor is None:
            return Count(0, self.uncounted + (self.macs > 0))
        return Count(self.macs * factor, self.uncounted)


class Counter:
    """Counts per inference, which is one sample: an open number of them counts as 1, a fixed one is divided by.

    Args:
        graph: the graph that was lowered.
        network: what it became; its layers are not counted.
    """

    def __init__(self, graph: Graph, network: Network) -> None:
        names, self._batch = open_samples(graph.inputs, network.samples), network.samples.per_call
        self._lowered = {layer.name for layer in network.layers}
        self._loops = {layer.name: each for each in network.recurrences for layer in each.layers}
        self._constants = graph.constants
        self._is_sized = names.issuperset(open_dimensions(graph.inputs))  # nothing but the batch is open
        if names:
            with suppress(ModelError):  # a model may refuse one sample
                graph = infer_types(replace(graph, inputs=tuple(_single(value, names) for value in graph.inputs)))
        self._types = graph.types
        self._bodies = _inferred_bodies(graph)
        self._outputs = {node.name: node.output[0] for node in graph.nodes if node.output}
        self._inside = dict(self._outputs_inside(graph))

    def vectors(self, layer: MatrixLayer) -> int | None:
        """Input vectors of a layer: those of its output for one sample; None where an open dimension decides.

        Of all steps where it is in a recurrence. As the layer has them where nothing but the number of samples is open, or where
        the shapes in a recurrence do not tell.
        """
        known = layer.name in self._outputs
        shape, steps = _shape(self._types, self._outputs[layer.name]) if known else None, 1
        if layer.name in self._inside:
            shape, steps = self._inside[layer.name]
        if shape is None and layer.name in self._loops:
            return self._vectors_inside(layer)
        if shape is None:
            return None if known and not self._is_sized else layer.vectors_per_inference
        squeezed = isinstance(layer.geometry, Contraction) and layer.geometry.squeeze
        return steps * self._per_sample(math.prod(shape) // (1 if squeezed else layer.groups * layer.outputs))

    def _outputs_inside(self, graph: Graph) -> Iterator[tuple[str, tuple[Shape | None, int]]]:
        """What each node in a recurrence writes at one step, and the number of steps; by the node's name."""
        for node in graph.nodes:
            steps = self._repetitions(node, self._types) if is_recurrence(node, graph) else None
            for body in bodies(self._bodies.get(node.name, node)) if steps else ():
                types = {**self._types, **_body_types(body)}
                yield from ((inner.name, (_shape(types, inner.output[0]), steps or 1)) for inner in body.node)

    def _vectors_inside(self, layer: MatrixLayer) -> int | None:
        """Those of a layer in a recurrence, all steps: rows of what is cut into entries are samples, or several of one."""
        if layer.sample_axis:
            return None
        shape = _shape(self._types, self._loops[layer.name].sequences[0].outer)
        rows = 1 if shape is None or len(shape) < 2 else self._per_sample(shape[1])
        return None if layer.vectors_per_inference is None else layer.vectors_per_inference * rows

    def node(self, node: NodeProto) -> Count:
        """What one node computes digitally per inference, bodies included."""
        return self._per_inference(self._node(self._bodies.get(node.name, node), self._types))

    def inner(self, node: NodeProto) -> list[tuple[NodeProto, Count]]:
        """The nodes in a control-flow node's bodies, in order, bodies in bodies included, each as if it ran once."""
        found: list[tuple[NodeProto, Count]] = []
        self._inner(self._bodies.get(node.name, node), self._types, found)
        return [(each, self._per_inference(count)) for each, count in found]

    def _per_inference(self, count: Count) -> Count:
        return Count(self._per_sample(count.macs), count.uncounted)

    def _per_sample(self, number: int) -> int:
        """A number per batch as one per sample; what a batch does not divide has nothing to do with it."""
        return number if number % self._batch else number // self._batch

    def _inner(self, node: NodeProto, types: Mapping[str, TypeProto], found: list[tuple[NodeProto, Count]]) -> None:
        for body in bodies(node):
            inside = {**types, **_body_types(body)}
            for each in body.node:
                found.append((each, self._node(each, inside)))
                self._inner(each, inside, found)

    def _node(self, node: NodeProto, types: Mapping[str, TypeProto]) -> Count:
        inside = [self._nodes(body.node, {**types, **_body_types(body)}) for body in bodies(node)]
        if inside:
            if node.op_type == "If":
                return max(inside, key=lambda count: (count.macs, count.uncounted))
            return inside[0].times(self._repetitions(node, types))
        if node.name in self._lowered or not operator_of(node).has_matrix:
            return Count()
        macs = macs_of(node, lambda name: _shape(types, name))
        return Count(uncounted=1) if macs is None else Count(macs)

    def _nodes(self, nodes: Iterable[NodeProto], types: Mapping[str, TypeProto]) -> Count:
        return sum((self._node(node, types) for node in nodes), Count())

    def _repetitions(self, node: NodeProto, types: Mapping[str, TypeProto]) -> int | None:
        """How often a loop's body runs; None where the model does not tell."""
        if node.op_type == "Scan":
            states = len(node.input) - attribute(node, "num_scan_inputs", len(node.input))
            shape = _shape(types, node.input[states]) if states < len(node.input) else None
            axes = attribute(node, "scan_input_axes", [0])
            return shape[axes[0]] if shape and -len(shape) <= axes[0] < len(shape) else None
        if node.op_type == "Loop" and len(node.input) > 1 and not node.input[1] and node.input[0] in self._constants:
            return int(to_array(self._constants[node.input[0]]).reshape(-1)[0])
        return None


def macs_of(node: NodeProto, shape: Shapes) -> int | None:
    """Multiply-accumulate operations of one node; None where a size is unknown or the operator is not counted."""
    rule = operator_of(node).macs
    try:
        return None if rule is None else rule(node, shape)
    except UnknownSize:
        return None


def _shape(types: Mapping[str, TypeProto], name: str) -> Shape | None:
    tensor = types[name].tensor_type if name in types else TypeProto.Tensor()
    if not tensor.HasField("shape") or not all(is_fixed(dim) for dim in tensor.shape.dim):
        return None  # a negative size is that of an input too small
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def time_major_inputs(graph: Graph) -> frozenset[str]:
    """Graph inputs that recurrent operators read as sequences or states with the batch on axis 1."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type in ("GRU", "LSTM", "RNN") and node.domain in ONNX_DOMAINS and not attribute(node, "layout", 0):
            found.update(name for i, name in enumerate(node.input) if i in (0, 5, 6))
    return frozenset(found & {value.name for value in graph.inputs})


def _single(value: ValueInfoProto, names: Collection[str]) -> ValueInfoProto:
    """The graph input with these open dimensions of size 1."""
    single = copied(value)
    for axis in list(open_axes(value)):
        if dimension_name(value, axis) in names:
            single.type.tensor_type.shape.dim[axis].dim_value = 1
    return single


def _inferred_bodies(graph: Graph) -> dict[str, NodeProto]:
    """Control-flow nodes by name, with the types of what their bodies compute."""
    if not any(True for node in graph.nodes for _ in bodies(node)):
        return {}
    try:
        inferred = inferred_model(graph)
    except shape_inference.InferenceError:
        return {}
    return {node.name: node for node in inferred.graph.node if any(True for _ in bodies(node))}


def _body_types(body: GraphProto) -> dict[str, TypeProto]:
    types = {value.name: value.type for value in (*body.input, *body.output, *body.value_info)}
    types.update({each.name: _constant_type(each) for each in body.initializer})
    constants = (node for node in body.node if node.op_type == "Constant" and node.attribute)
    for node in constants:
        if node.attribute[0].name == "value":
            types[node.output[0]] = _constant_type(node.attribute[0].t)
    return types


def _constant_type(tensor: TensorProto) -> TypeProto:
    return helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
