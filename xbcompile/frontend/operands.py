"""What is asked of a node's attributes and operands, and the exception that says why it stays digital."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.tensors import to_array

# What exporters put between a weight and its product, by the first input.
_OTHER_FORMS = (
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

LOWERED_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


class StaysDigital(Exception):  # not an error: its text is the reason, and the caller records it
    """A node is not lowered."""


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute.

    Args:
        node: the node.
        name: of the attribute.
        default: what stands for it where it is missing; it says of what kind it must be, unless it is None.

    Raises:
        ModelError: it is of another kind: onnx's checker knows its own operators alone.
    """
    found = next((each for each in node.attribute if each.name == name), None)
    if found is None:
        return default
    value = helper.get_attribute_value(found)
    if default is not None and not _is_like(value, default):
        wanted = next(text for kinds, text in _KINDS.items() if isinstance(default, kinds))
        raise ModelError(
            f'node "{node.name}" ({node.op_type}): attribute {name} must be {wanted}, found {str(value)[:40]!r}; mend the model'
        )
    return value


# What an attribute may be, by its default.
_KINDS: dict[type | tuple[type, ...], str] = {
    bytes: "a text",
    int: "a whole number",
    float: "a number",
    (list, tuple): "a list",
}


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list) and (not default or all(isinstance(each, int | float) for each in value))
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def is_constant(graph: Graph, name: str) -> bool:
    """Whether a tensor is the same in every run."""
    return name in graph.constants


def why_not_constant(graph: Graph, name: str, what: str) -> str:
    """The reason why a node stays digital whose operand `name`, called `what`, is not constant."""
    return f'{what} "{name}" {_input_behind(graph, name) or "is an activation"}'


def no_constant_operand(graph: Graph, names: Sequence[str]) -> str:
    """The reason why a product of these operands stays digital, none of which is constant."""
    inputs = [f'"{name}" {text}' for name in dict.fromkeys(names) if (text := _input_behind(graph, name))]
    reason = f"{'both' if len(names) == 2 else 'all'} operands are activations"
    return f"{reason}: {', '.join(inputs)}" if inputs else reason


def _input_behind(graph: Graph, name: str) -> str:
    """That a tensor is a graph input, or one in another form, as weights are that the model leaves open; empty if not."""
    inputs = {value.name for value in graph.inputs}
    writers = {output: node for node in graph.nodes for output in node.output}
    source = name
    while source not in inputs:
        node = writers.get(source)
        if node is None or node.op_type not in _OTHER_FORMS:
            return ""
        source = node.input[0]
    return "is a graph input" if source == name else f'is graph input "{source}" in another form'


def addend_fits(node: NodeProto, graph: Graph, addend: str, product: Sequence[int | None]) -> bool:
    """Whether C of Gemm is known to broadcast to the product, which alone is allowed: not the product to C.

    Raises:
        ModelError: it is known not to.
    """
    shape = graph.shape(addend)
    if shape is None:
        return False
    pairs = list(zip(reversed(shape), reversed(product), strict=False))
    if len(shape) > 2 or any(size not in (None, 1) and wanted not in (None, size) for size, wanted in pairs):
        raise ModelError(
            f'node "{node.name}" ({node.op_type}): C "{addend}" of shape {_sizes(shape)} does not broadcast to the product, of '
            f"shape {_sizes(product)}; mend the model"
        )
    return all(size == 1 or (size is not None and size == wanted) for size, wanted in pairs)


def _sizes(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def constant_weights(node: NodeProto, graph: Graph, name: str) -> np.ndarray:
    """A constant as float32.

    Raises:
        StaysDigital: its element type is not lowered, or it is empty.
        ModelError: it is not finite as float32.
    """
    tensor = graph.constants[name]
    if tensor.data_type not in LOWERED_TYPES:
        type_name = TensorProto.DataType.Name(tensor.data_type).lower()
        raise StaysDigital(f"element type {type_name} is not lowered")
    if 0 in tensor.dims:
        raise StaysDigital(f'"{name}" is empty, of shape {list(tensor.dims)}')
    with np.errstate(over="ignore"):  # found below
        array = to_array(tensor).astype(np.float32, copy=False)
    if not np.isfinite(array.min()) or not np.isfinite(array.max()):
        raise ModelError(
            f'node "{node.name}" ({node.op_type}): initializer "{name}" holds NaN or infinite values (as float32); '
            f"mend the weights, or keep the node digital"
        )
    return array
