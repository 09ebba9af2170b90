"""Inputs for a model of which nothing is known but its file.

Open dimensions, numbers and untold values are guessed, and `attempts` lists the guesses: onnxruntime tells which one fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

SIZES = (8, 16, 32, 64, 224, 28, 128, 512, 1, 256)  # of open dimensions that count no samples, the likeliest first
NUMBERS = (1, 0, 2, 16_000, 8_000)  # of scalar integers: flags, counts, steps, sampling rates
MOST_ELEMENTS = 2**24  # of one input
IMAGE_CHANNELS = (1, 3, 4)

# What a token may pass through on its way to the table that it is looked up in, by the inputs that carry it.
CARRYING = (
    *("Cast", "Clip", "Concat", "Expand", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
    *("Transpose", "Unsqueeze", "Where"),
)
# By operator, the inputs that are looked up, each with the input that is their table.
LOOKED_UP = {
    "Gather": ((1, 0),),
    "GatherElements": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4), (7, 3)),
    "Equal": ((0, 1), (1, 0)),  # with 0, 1, 2, ...: the one-hot code that some exporters write
}


@dataclass(frozen=True)
class Attempt:
    """A guess.

    Args:
        batch: size of open dimensions that seem to count samples: those on axis 0 of an input, and of states and sequences,
            that alone is open on axis 1 of three.
        size: size of the other open dimensions.
        step: how much each further one of them is larger; 0: all are equal.
        number: value of integers of one element.
        rank: of inputs whose rank is not known.
    """

    batch: int
    size: int
    step: int = 0
    number: int = 1
    rank: int = 2


def attempts(inputs: list[ValueInfoProto]) -> Iterator[Attempt]:
    """The guesses that make a difference to these inputs, the likeliest first."""
    tensors = [tensor for value in inputs for tensor in [_tensor(value.type)] if tensor is not None]
    is_open = any(not _is_fixed(dim) for tensor in tensors for dim in tensor.shape.dim)
    ranks = (2, 1, 0, 3, 4) if any(not tensor.HasField("shape") for tensor in tensors) else (2,)
    numbers = NUMBERS if any(np.dtype(_dtype(tensor)).kind in "iu" for tensor in tensors) else NUMBERS[:1]
    for size in SIZES if is_open or len(ranks) > 1 else SIZES[:1]:
        for number in numbers:
            for rank in ranks:
                yield Attempt(2, size, 3, number, rank)
                if is_open:
                    yield Attempt(2, size, 0, number, rank)
                    yield Attempt(1, size, 3, number, rank)
                    yield Attempt(1, size, 0, number, rank)


class Inputs:
    """What a model is fed.

    Args:
        model: the model; initializers may be left in their files.

    Attributes:
        values: its inputs without those that have a value of their own.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        fixed = {tensor.name for tensor in chain(graph.initializer, (s.values for s in graph.sparse_initializer))}
        self.values = [value for value in graph.input if value.name not in fixed]
        self._bounds = vocabularies(graph)
        self._texts = texts(graph)

    def feeds(self, attempt: Attempt, seed: int = 0) -> dict[str, Any]:
        """Random inputs by name, of the sizes that the attempt says; the same for the same seed.

        Raises:
            MemoryError: an input would be too large.
        """
        random = np.random.default_rng(seed)
        sizes = self._sizes(attempt)
        return {value.name: self._value(value, value.type, sizes, attempt, random) for value in self.values}

    def _sizes(self, attempt: Attempt) -> dict[str, int]:
        """Sizes of the open dimensions by name."""
        names = dict.fromkeys(name for value in self.values for name in _open_names(value))
        first = {name for value in self.values for name in _open_names(value)[:1] if _may_count_samples(value)}
        sizes = {name: attempt.batch for name in names if name in first}
        others = [name for name in names if name not in first]
        return sizes | {name: attempt.size + attempt.step * index for index, name in enumerate(others)}

    def _value(
        self, value: ValueInfoProto, kind: TypeProto, sizes: Mapping[str, int], attempt: Attempt, random: Any
    ) -> Any:
        """A tensor, two of them for a sequence, the value itself for an optional, a map of one entry or of all keys."""
        if kind.HasField("sequence_type"):
            return [self._value(value, kind.sequence_type.elem_type, sizes, attempt, random) for _ in range(2)]
        if kind.HasField("optional_type"):
            return self._value(value, kind.optional_type.elem_type, sizes, attempt, random)
        if kind.HasField("map_type"):
            keys = self._texts if kind.map_type.key_type == TensorProto.STRING else [0]
            return {key: self._value(value, kind.map_type.value_type, sizes, attempt, random).item(0) for key in keys}
        shape = _shape(value, kind.tensor_type, sizes, attempt)
        if np.prod([float(size) for size in shape]) > MOST_ELEMENTS:
            raise MemoryError(f"input {value.name!r} of shape {shape}")
        return self._tensor(value.name, np.dtype(_dtype(kind.tensor_type)), shape, attempt, random)

    def _tensor(self, name: str, dtype: np.dtype, shape: list[int], attempt: Attempt, random: Any) -> np.ndarray:
        if dtype.kind == "O":
            return random.choice(np.array(self._texts, object), shape)
        if dtype.kind == "b":
            return np.asarray(random.random(shape) < 0.5)
        if name in self._bounds:
            return np.asarray(random.integers(0, self._bounds[name], shape)).astype(dtype)
        if dtype.kind in "iu":
            return self._integers(name, dtype, shape, attempt, random)
        if len(shape) == 4 and shape[1] in IMAGE_CHANNELS:
            return np.asarray(random.random(shape)).astype(dtype)
        return np.asarray(random.normal(size=shape)).astype(dtype)

    def _integers(self, name: str, dtype: np.dtype, shape: list[int], attempt: Attempt, random: Any) -> np.ndarray:
        if dtype.itemsize == 1 and np.prod(shape) > 1:  # quantized values, pixels
            info = np.iinfo(dtype)
            return np.asarray(random.integers(info.min, info.max + 1, shape)).astype(dtype)
        if np.prod(shape) <= 1 or "mask" in name.lower() or attempt.number > 1:
            return np.full(shape, attempt.number, dtype)
        return np.asarray(random.integers(0, 2, shape)).astype(dtype)


def moved(feeds: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The same inputs, each float moved by one unit in its last place, up or down."""
    random = np.random.default_rng([seed, 1])
    return {name: _moved(value, random) for name, value in feeds.items()}


def _moved(value: Any, random: Any) -> Any:
    if isinstance(value, list):
        return [_moved(each, random) for each in value]
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or (value == np.rint(value)).all():
        return value  # whole numbers are exact wherever they come from
    return np.nextafter(value, random.choice(np.array([-np.inf, np.inf], value.dtype), value.shape))


def vocabularies(graph: GraphProto) -> dict[str, int]:
    """By input, the entries of the smallest table that its values are looked up in."""
    writers = {name: node for node in graph.node for name in node.output if name}
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        sizes.setdefault(value.name, [d.dim_value or None for d in value.type.tensor_type.shape.dim])
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            sizes[node.output[0]] = list(node.attribute[0].t.dims)
    bounds: dict[str, int] = {}
    for name, entries in _look_ups(graph, sizes):
        for source in _sources(name, writers):
            bounds[source] = min(bounds.get(source, entries), entries)
    inputs = {value.name for value in graph.input}
    return {name: entries for name, entries in bounds.items() if name in inputs}


def _look_ups(graph: GraphProto, sizes: Mapping[str, list[int | None]]) -> Iterator[tuple[str, int]]:
    """What is looked up, and how many entries the table has (1 where that is not known)."""
    for node in graph.node:
        is_code = node.op_type == "Equal"
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if is_code else 0)
        for index, table in LOOKED_UP.get(node.op_type, ()):
            if max(index, table) < len(node.input) and node.input[index]:
                known = sizes.get(node.input[table], [])
                entries = (known[axis] or 1) if -len(known) <= axis < len(known) else 1
                if entries > 1 or not is_code:
                    yield node.input[index], entries


def _sources(name: str, writers: Mapping[str, NodeProto]) -> set[str]:
    """Where a value comes from, through nodes that carry it."""
    seen, pending = set(), [name]
    while pending:
        each = pending.pop()
        if each and each not in seen:
            seen.add(each)
            node = writers.get(each)
            if node is not None and node.op_type in CARRYING:
                carried = node.input if node.op_type in ("Concat", "Where") else node.input[:1]
                pending.extend(carried)
    return seen


def texts(graph: GraphProto) -> list[str]:
    """Strings that the model knows: those among its attributes."""
    known = dict.fromkeys(
        text.decode(errors="replace")
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == AttributeProto.STRINGS and "class" not in attribute.name
        for text in attribute.strings
    )
    return list(known)[:64] or ["text"]


def _tensor(kind: TypeProto) -> TypeProto.Tensor | None:
    """The tensor type in a type; None for maps."""
    if kind.HasField("sequence_type"):
        return _tensor(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _tensor(kind.optional_type.elem_type)
    return kind.tensor_type if kind.HasField("tensor_type") else None


def _dtype(tensor: TypeProto.Tensor) -> Any:
    return helper.tensor_dtype_to_np_dtype(tensor.elem_type or TensorProto.FLOAT)


def _is_fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value >= 0  # onnxruntime takes a negative size as open


def _open_names(value: ValueInfoProto) -> list[str]:
    """Names of the open dimensions, in order of the axes; those without one are called by their place."""
    tensor = _tensor(value.type)
    dims = list(tensor.shape.dim) if tensor is not None else []
    return [dim.dim_param or f"{value.name}:{axis}" for axis, dim in enumerate(dims) if not _is_fixed(dim)]


def _may_count_samples(value: ValueInfoProto) -> bool:
    """Whether the first open dimension of an input may count samples."""
    tensor = _tensor(value.type)
    is_open = [] if tensor is None else [not _is_fixed(dim) for dim in tensor.shape.dim]
    return is_open[:1] == [True] or is_open == [False, True, False]


def _shape(value: ValueInfoProto, tensor: TypeProto.Tensor, sizes: Mapping[str, int], attempt: Attempt) -> list[int]:
    if not tensor.HasField("shape"):
        return [attempt.batch, *[attempt.size] * 3][: attempt.rank]
    return [
        dim.dim_value if _is_fixed(dim) else sizes.get(dim.dim_param or f"{value.name}:{axis}", attempt.size)
        for axis, dim in enumerate(tensor.shape.dim)
    ]
