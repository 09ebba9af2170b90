"""What is asked of a node's attributes and operands, and the exception that says why it stays digital."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.tensors import to_array

LOWERED_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


class StaysDigital(Exception):  # not an error: its text is the reason, and the caller records it
    """A node is not lowered."""


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def is_constant(graph: Graph, name: str) -> bool:
    """Whether a tensor is the same in every run: a constant that no caller may override."""
    return name in graph.constants and name not in graph.overridable


def why_not_constant(graph: Graph, name: str, what: str) -> str:
    """The reason why a node stays digital whose operand `name`, called `what`, is not constant."""
    if name in graph.overridable:
        return f'{what} "{name}" is a graph input with a default value, which a caller may override'
    return f'{what} "{name}" is an activation'


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
