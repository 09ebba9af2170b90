"""The frontend's working form of a model: nodes apart from constants, so that big weights are never copied about."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    inliner,
)

from xbcompile.onnx_graph import builder, engine
from xbcompile.onnx_graph.builder import copied
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.nodes import reads
from xbcompile.onnx_graph.split_model import LARGE_BYTES
from xbcompile.onnx_graph.tensors import dense, size_bytes

SKELETON_BYTES = LARGE_BYTES  # constants up to this size stay in a skeleton


@dataclass(frozen=True)
class Origin:
    """The node of the user's model that a rewritten node comes from: its name and operator."""

    node: str
    operator: str


@dataclass(frozen=True)
class Graph:
    """A model's main graph, its nodes in an order in which they can be executed.

    Args:
        name: the graph's name.
        inputs: graph inputs without initializers.
        outputs: graph outputs.
        nodes: the nodes.
        constants: initializers by name.
        types: inferred type (with shape where known) of each value.
        opset_imports: (domain, version).
        functions: model-local functions.
        ir_version: clamped to what keeps its meaning and onnxruntime reads.
        origins: for each node that a rewriting put in, the model's node in whose place it stands, by node name.
        reasons: why a node could not be rewritten, by node name.
        recurrences: names of the Scans that are to become recurrences.
        decided: what became of control flow that was taken apart, by node name.
    """

    name: str
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[ValueInfoProto, ...]
    nodes: tuple[NodeProto, ...]
    constants: dict[str, TensorProto]
    types: dict[str, TypeProto]
    opset_imports: tuple[tuple[str, int], ...]
    functions: tuple[FunctionProto, ...]
    ir_version: int
    origins: dict[str, Origin] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    recurrences: frozenset[str] = frozenset()
    decided: dict[str, str] = field(default_factory=dict)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return tuple(value.name for value in self.outputs)

    @property
    def opset(self) -> int:
        """The model's version of the ONNX operators; the newest where it imports none."""
        return next((v for domain, v in self.opset_imports if domain in ONNX_DOMAINS), defs.onnx_opset_version())

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Inferred shape of a tensor, None for a dynamic size, or None altogether when its rank is unknown."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        tensor = self.types[name].tensor_type if name in self.types else TypeProto.Tensor()
        if not tensor.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def from_model(model: ModelProto) -> Graph:
    """The working form of a model, nothing changed but the order of the nodes where they were not sorted."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants.update({sparse.values.name: dense(sparse) for sparse in model.graph.sparse_initializer})
    return Graph(
        name=model.graph.name or "main",
        inputs=tuple(_opened(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_opened(value) for value in model.graph.output),
        nodes=tuple(_sorted(model.graph.node)),
        constants=constants,
        types={},
        opset_imports=tuple((entry.domain, entry.version) for entry in model.opset_import),
        functions=tuple(model.functions),
        ir_version=min(max(model.ir_version, engine.OLDEST_IR_VERSION), engine.newest_ir_version()),
    )


def _opened(value: ValueInfoProto) -> ValueInfoProto:
    """The graph input or output with negative sizes left open, as onnxruntime takes them."""
    if all(dim.dim_value >= 0 for dim in dimensions_of(value.type)):
        return value
    opened = copied(value)
    for dim in dimensions_of(opened.type):
        if dim.dim_value < 0:
            dim.Clear()
    return opened


def dimensions_of(type_proto: TypeProto) -> Iterator[TensorShapeProto.Dimension]:
    """The dimensions of a tensor, or of the tensors in a sequence, an optional or a map."""
    kind = type_proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        yield from dimensions_of(getattr(type_proto, kind).elem_type)
    elif kind == "map_type":
        yield from dimensions_of(type_proto.map_type.value_type)
    elif kind in ("tensor_type", "sparse_tensor_type"):
        yield from getattr(type_proto, kind).shape.dim


def skeleton(graph: Graph, outputs: bool = False, limit: int | None = SKELETON_BYTES) -> ModelProto:
    """A model of the graph in which constants above `limit` bytes are graph inputs: small whatever the weights."""
    large = {
        name: constant
        for name, constant in graph.constants.items()
        if limit is not None and size_bytes(constant) > limit
    }
    inputs = [builder.value(name, tensor.data_type, tensor.dims) for name, tensor in large.items()]
    constants = (named(constant, name) for name, constant in graph.constants.items() if name not in large)
    outer = graph.outputs if outputs else ()
    return model_around(graph, builder.make_graph(graph.name, graph.nodes, [*graph.inputs, *inputs], outer, constants))


def named(tensor: TensorProto, name: str) -> TensorProto:
    """The tensor under this name; the tensor itself where it has that name (a lifted Constant may have another)."""
    if tensor.name == name:
        return tensor
    copy = copied(tensor)
    copy.name = name
    return copy


def model_around(graph: Graph, proto: GraphProto) -> ModelProto:
    """A model with the versions and functions of the graph and another main graph."""
    return builder.make_model(proto, graph.opset_imports, graph.ir_version, graph.functions)


def inline(graph: Graph) -> Graph:
    """Replace calls of model-local functions by their bodies, and Constant nodes by constants.

    A function of another opset than the model's stays a call, which onnxruntime runs.
    """
    graph = _lift_constants(graph)
    if not graph.functions:
        return graph
    graph = replace(graph, functions=_same_versions(graph))
    model = inliner.inline_local_functions(skeleton(graph))
    opsets = {entry.domain: entry.version for function in graph.functions for entry in function.opset_import}
    opsets.update(graph.opset_imports)
    inlined = replace(
        graph,
        nodes=tuple(_sorted(model.graph.node)),
        functions=tuple(model.functions),
        opset_imports=tuple(opsets.items()),
    )
    return _lift_constants(inlined)


def _same_versions(graph: Graph) -> tuple[FunctionProto, ...]:
    """The functions, those of one domain imported in one version everywhere: it says nothing of what the model defines."""
    versions, own = dict(graph.opset_imports), {function.domain for function in graph.functions}
    functions = []
    for function in graph.functions:
        wrong = [
            i for i, entry in enumerate(function.opset_import) if _is_other(entry.domain, entry.version, versions, own)
        ]
        if wrong:
            changed = copied(function)
            for i in wrong:
                changed.opset_import[i].version = versions[function.opset_import[i].domain]
            function = changed
        functions.append(function)
    return tuple(functions)


def _is_other(domain: str, version: int, versions: dict[str, int], own: set[str]) -> bool:
    return domain in own and domain not in ONNX_DOMAINS and versions.get(domain, version) != version


def _lift_constants(graph: Graph) -> Graph:
    nodes, constants = [], dict(graph.constants)
    for node in graph.nodes:
        tensor = constant_of(node)
        if tensor is None:
            nodes.append(node)
        else:
            constants[node.output[0]] = tensor
    return replace(graph, nodes=tuple(nodes), constants=constants)


def constant_of(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node; None for all other nodes, and for texts."""
    if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return value
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in types:
        return None
    return builder.tensor(node.output[0], np.array(value, types[attribute.name]))


def without_dead_nodes(graph: Graph) -> Graph:
    """Drop nodes that no graph output depends on, and constants that nothing reads."""
    needed = set(graph.output_names)
    nodes = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(reads(node))
    constants = {name: constant for name, constant in graph.constants.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(nodes)), constants=constants)


def _sorted(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Nodes in topological order, as near to the given order as can be; nodes on a cycle come last."""
    nodes = list(nodes)
    writer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waits = [{writer[name] for name in reads(node) if name in writer} for node in nodes]
    if all(max(wait, default=-1) < i for i, wait in enumerate(waits)):
        return nodes
    readers: list[list[int]] = [[] for _ in nodes]
    for i, wait in enumerate(waits):
        for j in wait:
            readers[j].append(i)
    ready = [i for i, wait in enumerate(waits) if not wait]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            waits[reader].discard(i)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    placed = set(order)
    return [nodes[i] for i in (*order, *(i for i in range(len(nodes)) if i not in placed))]


def unused(name: str, used: Container[str], numbers: dict[str, int] | None = None) -> str:
    """The name, with a number appended where it is taken.

    Args:
        name: the name.
        used: what is taken; it only grows.
        numbers: the last number that each name got, where many are asked for: the search goes on from there.
    """
    candidate, number = name, 1 if numbers is None else numbers.get(name, 1)
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    if numbers is not None:
        numbers[name] = number
    return candidate
