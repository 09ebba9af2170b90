"""Building ONNX nodes, tensors, graphs and models: what every part that writes ONNX builds with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import EncodeError, Message  # type: ignore[import-untyped]  # protobuf brings no types
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

_ROUNDER = np.float32(1.5 * 2**23)  # x + this is whole, rounded half to even, for float32 |x| < 2**22 (IEEE 754)

LARGEST_MESSAGE = 2**31 - 1  # bytes; protobuf's limit

AnyMessage = TypeVar("AnyMessage", bound=Message)


def copied(message: AnyMessage) -> AnyMessage:
    """A copy of a message, to be changed."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def size_of(message: Message) -> int:
    """Bytes of a message as it is serialised; `LARGEST_MESSAGE` of one that cannot be."""
    try:
        return min(int(message.ByteSize()), LARGEST_MESSAGE)
    except (EncodeError, ValueError):
        return LARGEST_MESSAGE


def tensor(name: str, value: np.ndarray | np.generic | Sequence[int]) -> TensorProto:
    """A constant; sequences of whole numbers are int64."""
    array = value if isinstance(value, (np.ndarray, np.generic)) else np.array(value, np.int64)
    return numpy_helper.from_array(np.asarray(array), name)


def value(
    name: str, element_type: int = TensorProto.UNDEFINED, shape: Sequence[int | str | None] | None = None
) -> ValueInfoProto:
    """A graph input or output, without a type where none is given, without a shape where that is None."""
    if element_type == TensorProto.UNDEFINED:
        return ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, element_type, shape)


def reading(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """The node with other names for what it reads, bodies apart; itself where nothing changes."""
    if names.keys().isdisjoint(node.input):
        return node
    changed = copied(node)
    changed.input[:] = [names.get(name, name) for name in node.input]
    return changed


def make_graph(
    name: str,
    nodes: Iterable[NodeProto],
    inputs: Iterable[ValueInfoProto],
    outputs: Iterable[ValueInfoProto],
    constants: Iterable[TensorProto] = (),
) -> GraphProto:
    """A graph; constants of any size are copied into it."""
    graph = GraphProto(name=name)
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    for each in constants:  # protobuf's own extend goes through a message, of at most 2 GiB
        graph.initializer.add().CopyFrom(each)
    return graph


def make_model(
    graph: GraphProto,
    opset_imports: Iterable[tuple[str, int]],
    ir_version: int,
    functions: Sequence[FunctionProto] = (),
) -> ModelProto:
    """A model of one graph; `opset_imports` are (domain, version)."""
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opset_imports],
        functions=functions,
        ir_version=ir_version,
        producer_name="xbcompile",
    )


class NodeBuilder(ABC):
    """Appends nodes one after the other, in the form that the model's opset has them.

    Args:
        opset: the model's version of the ONNX operators.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []

    @abstractmethod
    def name(self, label: str) -> str:
        """A new name for a tensor."""

    def node_name(self, operator: str) -> str:
        """A new name for a node."""
        return self.name(operator)

    @abstractmethod
    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        """A new constant; sequences of whole numbers are int64."""

    def emit(
        self, operator: str, *inputs: str, output: str = "", name: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Append a node with one output and give that output's name: `output`, or a new one."""
        return self.emit_many(operator, *inputs, outputs=[output], name=name, domain=domain, **attributes)[0]

    def emit_many(
        self,
        operator: str,
        *inputs: str,
        outputs: Sequence[str],
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """`emit` for nodes of several outputs; an empty name in `outputs` asks for a new one."""
        written = [output or self.name(operator.lower()) for output in outputs]
        own_name = name or self.node_name(operator)
        self.nodes.append(helper.make_node(operator, list(inputs), written, own_name, domain=domain, **attributes))
        return written

    def squeeze(self, x: str, axes: Sequence[int], output: str = "") -> str:
        """Squeeze, whose axes are an input from opset 13 on."""
        return self._along("Squeeze", x, axes, 13, output)

    def unsqueeze(self, x: str, axes: Sequence[int], output: str = "") -> str:
        """Unsqueeze, whose axes are an input from opset 13 on."""
        return self._along("Unsqueeze", x, axes, 13, output)

    def reduce(self, operator: str, x: str, axes: Sequence[int], keepdims: bool, output: str = "") -> str:
        """ReduceSum, whose axes are an input from opset 13 on, or ReduceMin and the like, from 18 on."""
        since = 13 if operator == "ReduceSum" else 18
        return self._along(operator, x, axes, since, output, keepdims=int(keepdims))

    def _along(self, operator: str, x: str, axes: Sequence[int], since: int, output: str, **attributes: Any) -> str:
        if self.opset >= since:
            return self.emit(operator, x, self.constant(axes, "axes"), output=output, **attributes)
        return self.emit(operator, x, output=output, axes=list(axes), **attributes)

    def slice(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], output: str = "") -> str:
        """Slice with steps of 1, whose bounds are inputs from opset 10 on."""
        bounds: dict[str, Sequence[int]] = {"starts": starts, "ends": ends, "axes": axes}
        if self.opset >= 10:
            inputs = [self.constant(values, label) for label, values in bounds.items()]
            return self.emit("Slice", x, *inputs, output=output)
        attributes: dict[str, Any] = {label: list(values) for label, values in bounds.items()}
        return self.emit("Slice", x, output=output, **attributes)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Split, whose sizes are an input from opset 13 on."""
        outputs = [""] * len(sizes)
        if self.opset >= 13:
            return self.emit_many("Split", x, self.constant(sizes, "sizes"), outputs=outputs, axis=axis)
        return self.emit_many("Split", x, outputs=outputs, axis=axis, split=list(sizes))

    def clip(self, x: str, low: float, high: float, output: str = "") -> str:
        """Clip of float32, whose bounds are inputs from opset 11 on."""
        bounds = np.float32(low), np.float32(high)
        if self.opset >= 11:
            inputs = [self.constant(bound, label) for bound, label in zip(bounds, ("low", "high"), strict=True)]
            return self.emit("Clip", x, *inputs, output=output)
        return self.emit("Clip", x, output=output, min=float(bounds[0]), max=float(bounds[1]))

    def round(self, x: str) -> str:
        """float32 rounded half to even; Round came with opset 11. Before, sizes from 2**22 on stay as large, no more."""
        if self.opset >= 11:
            return self.emit("Round", x)
        rounder = self.constant(_ROUNDER, "rounder")
        return self.emit("Sub", self.emit("Add", x, rounder), rounder)
