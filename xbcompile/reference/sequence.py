"""A model that is called over and over, some of its outputs going into the next call: streaming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from xbcompile.errors import DataError
from xbcompile.ir.network import Network
from xbcompile.ir.sample_axes import SampleAxes
from xbcompile.onnx_graph.dimensions import dimension_name, is_fixed


def calls_in_sequence(
    samples: SampleAxes,
    feeds: Mapping[str, Any],
    states: Mapping[str, str],
    call: Callable[[dict[str, Any], int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Outputs by name of each call of a model that is called over and over, a sample or a fixed batch at a time.

    Args:
        samples: which axes of its inputs and outputs count samples.
        feeds: graph inputs by name; those that are states for the first call.
        states: inputs by the output whose value of one call they take in the next.
        call: inputs of a call, and the number of its first sample, to outputs.
    """
    held = {name: feeds[name] for name in states.values()}
    rest = {name: value for name, value in feeds.items() if name not in held}
    parts = []
    for first, part in samples.parts(rest, 1):
        parts.append(call(part | held, first))
        held = {name: parts[-1][output] for output, name in states.items()}
    return parts


def with_initial_states(
    network: Network, feeds: Mapping[str, np.ndarray], states: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The inputs, with zeros for states that are not among them.

    Args:
        network: of the model.
        feeds: graph inputs by name.
        states: inputs by the output that gives their next value.

    Raises:
        DataError: there is no such output or input, it is given once per call, or its size is open.
    """
    inputs, outputs = {value.name: value for value in network.inputs}, [value.name for value in network.outputs]
    found = dict(feeds)
    for output, name in states.items():
        if output not in outputs or name not in inputs:
            raise DataError(
                f"state {output}={name}: give OUTPUT=INPUT, an output ({', '.join(outputs)}) and the input that takes it in the "
                f"next call ({', '.join(inputs)})"
            )
        if name not in found:
            found[name] = _zeros(inputs[name], network.samples)
    given = set(states.values()).intersection(network.samples.given_per_call(found))
    if given:
        raise DataError(f"state {min(given)!r} follows from call to call: give it once, for the first call")
    return found


def _zeros(value: onnx.ValueInfoProto, samples: SampleAxes) -> np.ndarray:
    """Zeros for one call."""
    dims, axis = value.type.tensor_type.shape.dim, samples.inputs.get(value.name)
    sizes = [dim.dim_value if is_fixed(dim) else samples.per_call if i == axis else 0 for i, dim in enumerate(dims)]
    if 0 in sizes or not value.type.tensor_type.HasField("shape"):
        raise DataError(
            f"the model leaves the size of state {value.name!r} open: give its first value among the inputs, or fix it when "
            f"compiling, with --dim {dimension_name(value, sizes.index(0)) if 0 in sizes else value.name}=SIZE"
        )
    return np.zeros(sizes, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
