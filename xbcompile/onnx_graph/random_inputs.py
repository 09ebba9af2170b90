"""Random values for a model's inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, helper


def random_value(
    kind: TypeProto, shape: Callable[[TypeProto.Tensor], list[int]], generator: np.random.Generator, spread: float = 0.0
) -> Any:
    """A tensor, two of them for a sequence, the value itself for an optional, a map of one entry.

    Args:
        kind: the type.
        shape: sizes of a tensor of such a type.
        generator: what is drawn from.
        spread: 0: real numbers are uniform from 0 to 1; else normal with this standard deviation. Whole numbers are 0 or 1.
    """
    if kind.HasField("sequence_type"):
        return [random_value(kind.sequence_type.elem_type, shape, generator, spread) for _ in range(2)]
    if kind.HasField("optional_type"):
        return random_value(kind.optional_type.elem_type, shape, generator, spread)
    if kind.HasField("map_type"):
        key = "text" if kind.map_type.key_type == TensorProto.STRING else 0
        return {key: random_value(kind.map_type.value_type, shape, generator, spread).item(0)}
    dtype = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type or TensorProto.FLOAT)
    size = shape(kind.tensor_type)
    if dtype.kind == "O":
        return np.full(size, "text", object)
    if dtype.kind == "f":
        return (generator.normal(0, spread, size) if spread else generator.random(size)).astype(dtype)
    return generator.integers(0, 2, size).astype(dtype)
