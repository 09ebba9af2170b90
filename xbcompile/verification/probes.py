"""Random inputs that fit a model."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TypeProto

from xbcompile.errors import DataError
from xbcompile.onnx_graph.dimensions import dimension_name, is_fixed
from xbcompile.onnx_graph.random_inputs import random_value
from xbcompile.program.program import Program

OPEN_SIZE = 8  # assumed: what an open dimension other than the samples is taken to be
LARGEST_PROBE = 2**28  # assumed: elements of an input that fit into any memory


def probe_inputs(program: Program, samples: int = 4, seed: int = 0) -> dict[str, Any]:
    """A few inputs that fit the model: calibration inputs where the program has them, else random ones.

    Open dimensions of one name have one size everywhere: the number of samples where it counts them in an input.

    Raises:
        DataError: the model asks for an input that would not fit into memory.
    """
    inputs = program.network.inputs
    axes = program.network.samples
    count = axes.call or samples
    if program.calibration and axes.samples(program.calibration) >= count:
        return axes.part(program.calibration, 0, axes.chunk(program.calibration, count))
    counting = {
        dimension_name(value, axis)
        for value in inputs
        if (axis := axes.inputs.get(value.name)) is not None and axis < len(value.type.tensor_type.shape.dim)
    }
    generator = np.random.default_rng(seed)

    def shape(value: onnx.ValueInfoProto, tensor: TypeProto.Tensor) -> list[int]:
        found = []
        for axis, dim in enumerate(tensor.shape.dim):
            name = dim.dim_param or f"{value.name}:{axis}"  # of a tensor in a sequence or an optional too
            open_size = count if name in counting else OPEN_SIZE
            found.append(int(dim.dim_value) if is_fixed(dim) else open_size)
        if math.prod(filter(None, found)) > LARGEST_PROBE:  # no axis of an empty array may be longer, either
            raise DataError(
                f"input {value.name!r} of shape {'x'.join(map(str, found))} does not fit into memory; export the model with "
                f"smaller dimensions"
            )
        return found

    return {value.name: random_value(value.type, partial(shape, value), generator) for value in inputs}
