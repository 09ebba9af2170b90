"""Dimensions of a model's inputs that the model leaves open, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from xbcompile.ir.sample_axes import SampleAxes

OpenDimension = tuple[str, int]  # a graph input and an axis of it


def dimension_name(value: onnx.ValueInfoProto, axis: int) -> str:
    """The name of an open dimension: its symbol, or INPUT:AXIS where it has none."""
    return value.type.tensor_type.shape.dim[axis].dim_param or f"{value.name}:{axis}"


def is_fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether a size is given; onnxruntime takes a negative one as open."""
    return dim.HasField("dim_value") and dim.dim_value >= 0


def open_axes(value: onnx.ValueInfoProto) -> Iterator[int]:
    """The axes of a graph input whose size the model leaves open; none where not even their number is known."""
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not is_fixed(dim):
            yield axis


def open_dimensions(inputs: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[OpenDimension, ...]]:
    """Where each open dimension occurs, by the name that `--dim NAME=SIZE` takes.

    Axes of one symbol are one dimension, as they have the same size in every run; an axis without a symbol is its own.
    """
    found: dict[str, list[OpenDimension]] = {}
    for value in inputs:
        for axis in open_axes(value):
            found.setdefault(dimension_name(value, axis), []).append((value.name, axis))
    return {name: tuple(places) for name, places in found.items()}


def open_samples(inputs: Iterable[onnx.ValueInfoProto], samples: SampleAxes) -> frozenset[str]:
    """Names of the open dimensions that count samples and nothing else."""
    found = open_dimensions(inputs).items()
    return frozenset(name for name, places in found if all(samples.inputs.get(each) == axis for each, axis in places))


def advice(inputs: Sequence[onnx.ValueInfoProto], samples: SampleAxes) -> str:
    """What to try where an open size is in the way, naming the dimensions; empty where there is none.

    Args:
        inputs: the model's graph inputs.
        samples: which axes count samples; they are in nobody's way.
    """
    counted = open_samples(inputs, samples)
    names = [name for name in open_dimensions(inputs) if name not in counted]
    if not names:
        return ""
    options = " ".join(f"--dim {name}=SIZE" for name in names)
    return f"the model leaves {', '.join(names)} open; fix it when compiling, with {options}"
