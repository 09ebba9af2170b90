"""How onnxruntime describes the inputs and outputs of a model, and the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import ModelProto, TypeProto, ValueInfoProto

_UNKNOWN_VERSION = 2**63 - 1  # which onnxruntime gives of a model without one


@dataclass(frozen=True)
class NodeArg:
    """A model input or output as onnxruntime describes it.

    Args:
        name: its name.
        type: onnxruntime's notation: `tensor(float)`, `seq(tensor(int64))`, `map(int64,tensor(float))`.
        shape: sizes of a tensor: a number, the name of a symbolic dimension, or None; [] for scalars, for unknown ranks
            and for what is no tensor, nor an optional one.
    """

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model says of itself, with the names that onnxruntime has for it.

    Args:
        producer_name: what made the model.
        graph_name: name of its graph.
        domain: of the model.
        description: of the model.
        graph_description: of its graph.
        version: of the model.
        custom_metadata_map: further entries.
    """

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = _UNKNOWN_VERSION
    custom_metadata_map: dict[str, str] = field(default_factory=dict)


def metadata_of(model: ModelProto) -> ModelMetadata:
    """What a model says of itself.

    Args:
        model: the model; its tensors are not looked at.
    """
    return ModelMetadata(
        model.producer_name,
        model.graph.name,
        model.domain,
        model.doc_string,
        model.graph.doc_string,
        model.model_version if model.HasField("model_version") else _UNKNOWN_VERSION,
        {entry.key: entry.value for entry in model.metadata_props},
    )


def node_arg(value: ValueInfoProto) -> NodeArg:
    """An input or output as onnxruntime describes it.

    Args:
        value: of the model's graph.
    """
    inner = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    shape: Any = inner.tensor_type.shape.dim if inner.HasField("tensor_type") else []
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape]
    return NodeArg(value.name, _type_text(value.type), sizes)


def _type_text(type_proto: TypeProto) -> str:
    """A type in onnxruntime's notation, empty where it is not known; `frontend.engine.type_proto` reads it back."""
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return f"seq({_type_text(type_proto.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({_type_text(type_proto.optional_type.elem_type)})"
    if kind == "map_type":
        return f"map({_element_text(type_proto.map_type.key_type)},{_type_text(type_proto.map_type.value_type)})"
    if kind == "sparse_tensor_type":
        return f"sparse_tensor({_element_text(type_proto.sparse_tensor_type.elem_type)})"
    return f"tensor({_element_text(type_proto.tensor_type.elem_type)})" if kind == "tensor_type" else ""


def _element_text(element_type: int) -> str:
    return onnx.TensorProto.DataType.Name(element_type).lower()
