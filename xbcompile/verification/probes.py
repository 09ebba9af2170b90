"""Random inputs that fit a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper

from xbcompile.errors import DataError
from xbcompile.onnx_graph.dimensions import is_fixed, open_dimensions
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import model_batch

OPEN_SIZE = 8  # assumed: what an open dimension other than the samples is taken to be
LARGEST_PROBE = 2**28  # assumed: elements of an input that fit into any memory


def probe_inputs(program: Program, samples: int = 4, seed: int = 0) -> dict[str, Any]:
    """A few inputs that fit the model: calibration inputs where the program has them, else random ones.

    Open dimensions of one name have one size everywhere: the number of samples where it stands on axis 0 of an input.

    Raises:
        DataError: the model asks for an input that would not fit into memory.
    """
    inputs = program.network.inputs
    count = model_batch(inputs) or samples
    if program.calibration and all(len(value) >= count for value in program.calibration.values()):
        return {name: value[:count] for name, value in program.calibration.items()}
    sizes = {
        name: count if any(axis == 0 for _, axis in places) else OPEN_SIZE
        for name, places in open_dimensions(inputs).items()
    }
    generator = np.random.default_rng(seed)

    def shape(value: onnx.ValueInfoProto, tensor: TypeProto.Tensor) -> list[int]:
        found = []
        for axis, dim in enumerate(tensor.shape.dim):
            name = dim.dim_param or f"{value.name}:{axis}"
            found.append(int(dim.dim_value) if is_fixed(dim) else sizes.get(name, OPEN_SIZE if axis else count))
        if math.prod(found) > LARGEST_PROBE:
            raise DataError(
                f"input {value.name!r} of shape {'x'.join(map(str, found))} does not fit into memory; export the model with "
                f"smaller dimensions"
            )
        return found

    def random(value: onnx.ValueInfoProto, kind: TypeProto) -> Any:
        """A tensor, two of them for a sequence, the value itself for an optional, a map of one entry."""
        if kind.HasField("sequence_type"):
            return [random(value, kind.sequence_type.elem_type) for _ in range(2)]
        if kind.HasField("optional_type"):
            return random(value, kind.optional_type.elem_type)
        if kind.HasField("map_type"):
            key = "text" if kind.map_type.key_type == TensorProto.STRING else 0
            return {key: random(value, kind.map_type.value_type).item(0)}
        dtype = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type or TensorProto.FLOAT)
        size = shape(value, kind.tensor_type)
        if dtype.kind == "O":
            return np.full(size, "text", object)
        if dtype.kind == "f":
            return generator.random(size).astype(dtype)
        return generator.integers(0, 2, size).astype(dtype)

    return {value.name: random(value, value.type) for value in inputs}
