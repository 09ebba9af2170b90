"""The ideal model run on random inputs, and what the results say of where samples lie."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from xbcompile.errors import ModelError
from xbcompile.ir import Network
from xbcompile.onnx_graph import builder, engine
from xbcompile.onnx_graph.dimensions import dimension_name, is_fixed
from xbcompile.onnx_graph.nodes import operator_types
from xbcompile.onnx_graph.random_inputs import random_value
from xbcompile.onnx_graph.split_model import SplitModel, is_apart
from xbcompile.reference.host_graph import host_graph, parameter_name
from xbcompile.reference.host_recurrence import expose

# What open dimensions other than that of samples are taken to be, until the model accepts one.
OPEN_SIZES = (8, 32, 96, 224, 1, 1024, 16_000)
LARGE_WEIGHTS = 2**16  # values of a matrix above which others stand for them
LARGEST_INPUT = 2**26  # assumed: elements of inputs that fit into any memory
# Kernels for other numbers of samples add up in another order, and a sum next to a rounding threshold may then take the next
# integer: compared by root mean square. A call of the same size adds up alike: compared value by value.
ROUNDING, EXACT = 1e-2, 1e-5
RANGES = 1e-1  # of models that take ranges over whole calls: what that may change
RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_NO_SESSION: tuple[type[Exception], ...] = (ModelError, *engine.ERRORS)
Values = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where samples lie in a tensor.

    Args:
        axis: the axis; None: no one axis holds them.
        rank: axes of the tensor.
        inner: samples take turns along the axis, instead of each having a run of it.
        shared: the tensor is the same for all samples.
    """

    axis: int | None = None
    rank: int = 0
    inner: bool = False
    shared: bool = False


class ModelProbe:
    """Runs the ideal meaning of a network on random inputs.

    Args:
        network: a network as it is imported.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.outputs = [value.name for value in network.outputs]
        self.layer_inputs = {layer.name: layer.input for layer in network.layers}
        self.inside = {layer.name for each in network.recurrences for layer in each.layers}
        self._tensors: dict[str, str] = {}  # by the session's outputs
        self._sizes = list(OPEN_SIZES)
        self._is_slow = False  # a call was ended before its end: no other is waited for

    @cached_property
    def operators(self) -> frozenset[str]:
        """Types of all digital operators."""
        return frozenset(name for segment in self.network.segments for name in operator_types(segment.model))

    @cached_property
    def _session(self) -> Any:
        """The session; None where onnxruntime does not load the model."""
        try:
            whole = host_graph(self.network)
            model = _with_thin_weights(whole.copy(), self.network)
            graph = model.skeleton.graph
            constant = {each.name for each in graph.initializer}
            fed = {value.name for value in graph.input}
            wanted = [n for n in dict.fromkeys([*self.outputs, *self.layer_inputs.values()]) if n not in fed | constant]
            stacked = expose(graph, wanted)
            self._tensors = {stacked.get(name, name): name for name in wanted}
            del graph.output[:]
            graph.output.extend(map(builder.value, self._tensors))
            return engine.open_session(model, once=True, memory_bytes=engine.probe_bytes(whole))
        except _NO_SESSION:
            return None

    def call(self, feeds: Values) -> Values | None:
        """Graph outputs and inputs of layers, in recurrences stacked over steps; None where the model refuses the inputs."""
        if self._session is None or self._is_slow:
            return None
        start = time.monotonic()
        try:
            found = engine.run_limited(self._session, list(self._tensors), feeds)
        except engine.NotRun:
            self._is_slow = time.monotonic() - start >= engine.PROBE_SECONDS
            return None
        return feeds | dict(zip(self._tensors.values(), found, strict=True))

    def place_in(self, layer: str, places: Mapping[str, Place]) -> Place:
        """Where samples lie in a layer's input, in a recurrence at any of its steps.

        Args:
            layer: its name.
            places: by tensor, see `call`.
        """
        place = places.get(self.layer_inputs[layer], Place())
        if layer not in self.inside or place.axis is None:
            return place
        return replace(place, axis=place.axis - 1, rank=place.rank - 1) if place.axis else Place()

    def first_call(self, axes: Mapping[str, int], samples: int, spread: float = 0.0) -> tuple[Values, Values] | None:
        """Random inputs that the model accepts, and what it makes of them; None where it refuses all.

        Args:
            axes: of inputs that hold samples.
            samples: how many, where the model leaves that open.
            spread: see `random_value`.
        """
        if self._session is None:
            return None
        for size in list(self._sizes):
            feeds = self._inputs(axes, samples, size, spread)
            if feeds is None:
                continue
            values = self.call(feeds)
            if values is not None:
                self._sizes = [size]
                return feeds, values
            if not self._has_sizes(axes):
                break
        return None

    def _has_sizes(self, axes: Mapping[str, int]) -> bool:
        """Whether any dimension is open beside that of samples."""
        return any(
            not is_fixed(dim) and axes.get(value.name) != axis
            for value in self.network.inputs
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        )

    def _inputs(self, axes: Mapping[str, int], samples: int, size: int, spread: float) -> Values | None:
        """Random inputs; None where they would be too large."""
        generator = np.random.default_rng(0)
        inputs = self.network.inputs
        counting = {dimension_name(value, axes[value.name]) for value in inputs if _has_axis(value, axes)}

        def sizes(value: onnx.ValueInfoProto, kind: onnx.TypeProto.Tensor) -> list[int]:
            names = [dimension_name(value, axis) for axis in range(len(value.type.tensor_type.shape.dim))]
            open_sizes = [samples if name in counting else size for name in names] or [size] * len(kind.shape.dim)
            pairs = zip(kind.shape.dim, open_sizes, strict=True)
            return [int(dim.dim_value) if is_fixed(dim) else free for dim, free in pairs]

        if any(math.prod(filter(None, sizes(value, value.type.tensor_type))) > LARGEST_INPUT for value in inputs):
            return None
        return {value.name: random_value(value.type, partial(sizes, value), generator, spread) for value in inputs}

    def random_outputs(self, feeds: Values, values: Values) -> frozenset[str]:
        """Tensors that a second call on the same inputs gives other values."""
        again = self.call(feeds) if self.operators & RANDOM else None
        return frozenset() if again is None else frozenset(n for n in values if not alike(values[n], again[n], EXACT))


def _with_thin_weights(model: SplitModel, network: Network) -> SplitModel:
    """The model with large weights of layers as products of a column and a row, made when it runs.

    Which axes a matrix mixes does not depend on its values, and onnxruntime would hold a copy of all of them.
    """
    graph, names, first = model.skeleton.graph, {parameter_name(each.name, "weights") for each in network.layers}, []
    tensors = dict(model.tensors)
    for tensor in [each for each in graph.initializer if each.name in names and is_apart(each)]:
        array = tensors[tensor.name]
        if array.dtype != np.float32 or array.size < LARGE_WEIGHTS:
            continue
        generator, rows = np.random.default_rng(0), math.prod(array.shape[:-1])
        size = np.linalg.norm(array.ravel()) / np.sqrt(
            array.size
        )  # values further on are as large as with the model's own
        column = generator.standard_normal((rows, 1), np.float32) * np.float32(size)
        row = generator.standard_normal((1, array.shape[-1]), np.float32)
        parts = {f"{tensor.name}/{part}": value for part, value in (("column", column), ("row", row))}
        shape = {f"{tensor.name}/shape": np.array(array.shape, np.int64)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in (parts | shape).items())
        first.append(helper.make_node("MatMul", [*parts], [f"{tensor.name}/product"]))
        first.append(helper.make_node("Reshape", [f"{tensor.name}/product", *shape], [tensor.name]))
        del tensors[tensor.name]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])
    return replace(model, tensors=tensors)


def _has_axis(value: onnx.ValueInfoProto, axes: Mapping[str, int]) -> bool:
    return value.name in axes and axes[value.name] < len(value.type.tensor_type.shape.dim)


def samples_of(value: Any, axis: int, start: int, stop: int) -> Any:
    """Some samples of a tensor, or of a list of them."""
    return value[start:stop] if isinstance(value, list) else value[(slice(None),) * axis + (slice(start, stop),)]


def changed(feeds: Values, axes: Mapping[str, int], sample: int, sizes: int) -> Values:
    """The same inputs with other values of one sample.

    Args:
        feeds: graph inputs by name.
        axes: of inputs that hold samples.
        sample: which one.
        sizes: how many there are.
    """
    generator, new = np.random.default_rng(1), dict(feeds)
    for name, axis in axes.items():
        value = new[name] = feeds[name].copy()
        each = value.shape[axis] // sizes
        part = samples_of(value, axis, sample * each, (sample + 1) * each)
        if value.dtype.kind in "fc":
            part[...] = (generator.permuted(part, axis=None) + generator.random(part.shape)).astype(value.dtype)
        elif value.dtype.kind in "iub":
            part[...] = 1 - part.astype(np.int8)
    return new


def place_of_parts(
    together: Any, alone: Sequence[Any], by_shape: bool = False, tolerance: float = ROUNDING
) -> Place | None:
    """Where the samples lie of a call on several, given what each gives alone; None where they lie nowhere.

    Args:
        together: a tensor, or a list with one entry for each sample.
        alone: the same of each sample.
        by_shape: only shapes are compared.
        tolerance: of the comparison.
    """
    if isinstance(together, list):
        parts = [each for part in alone if isinstance(part, list) for each in part]
        return Place(0, 1) if len(alone) == len(together) and alike(together, parts, tolerance) else None
    if not all(isinstance(each, np.ndarray) for each in (together, *alone)):
        return None
    if all(together.shape == each.shape for each in alone):
        equal = by_shape or all(alike(together, each, tolerance) for each in alone)
        return Place(None, together.ndim, shared=True) if equal else None
    if any(each.shape != alone[0].shape for each in alone):
        return None
    for axis in range(together.ndim):
        if together.shape != (*alone[0].shape[:axis], _summed(alone, axis), *alone[0].shape[axis + 1 :]):
            continue
        if by_shape or alike(together, np.concatenate(alone, axis), tolerance):
            return Place(axis, together.ndim)
        if alike(together, np.stack(alone, axis + 1).reshape(together.shape), tolerance):
            return Place(axis, together.ndim, inner=True)
    return None


def _summed(alone: Sequence[np.ndarray], axis: int) -> int:
    return sum(each.shape[axis] if axis < each.ndim else 0 for each in alone)


def same_elsewhere(before: Any, after: Any, place: Place, sample: int, samples: int, tolerance: float = EXACT) -> bool:
    """Whether another value of one sample left those of the others, or what all share, as they were.

    Args:
        before: what a call gave.
        after: what it gave with another value of one sample.
        place: where samples lie.
        sample: the one.
        samples: how many there are.
        tolerance: of the comparison.
    """
    if place.axis is None:
        return alike(before, after, tolerance)
    each = (len(before) if isinstance(before, list) else before.shape[place.axis]) // samples
    kept = ((0, sample * each), ((sample + 1) * each, samples * each))
    parts = [[samples_of(value, place.axis, *ends) for value in (before, after)] for ends in kept]
    return all(alike(first, second, tolerance) for first, second in parts)


def place_of_changes(before: np.ndarray, after: Mapping[int, np.ndarray], samples: int, likely: int) -> Place | None:
    """Where samples lie whose values were changed one at a time; None where what changed is that of no one sample.

    Args:
        before: what a call of a fixed number of samples gave.
        after: what it gave with another value of the sample.
        samples: how many a call takes.
        likely: the axis that is looked at first.
    """
    moved = {sample: _differ(before, value) for sample, value in after.items()}
    axes = sorted(range(before.ndim), key=lambda axis: axis != likely)
    fitting = [axis for axis in axes if before.shape[axis] and before.shape[axis] % samples == 0]
    if not any(each.any() for each in moved.values()):
        own = next((axis for axis in fitting if before.shape[axis] == samples and axis == likely), None)
        return Place(own, before.ndim, shared=own is None)
    for axis in fitting:
        each = before.shape[axis] // samples
        index = np.arange(before.shape[axis])
        for inner, owner in ((False, index // each), (True, index % samples)):
            if all(not np.compress(owner != sample, where, axis).any() for sample, where in moved.items()):
                return Place(axis, before.ndim, inner and each > 1)
    return None


def _differ(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where values differ by more than float rounding of the same sums."""
    if before.shape != after.shape:
        return np.ones(before.shape, bool)
    if before.dtype.kind in "OSU":
        return np.asarray(before != after)
    first, second = (np.nan_to_num(value.astype(np.float64), nan=0.5) for value in (before, after))
    return np.asarray(np.abs(first - second) > EXACT * np.abs(first).max(initial=0))


def alike(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether values agree: in root mean square, or one by one where `tolerance` is `EXACT`.

    Args:
        found: an array, a list, a dict, or None.
        wanted: what it should be.
        tolerance: relative.
    """
    if isinstance(found, list) or isinstance(wanted, list):
        both = isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted)
        return both and all(alike(*pair, tolerance) for pair in zip(found, wanted, strict=True))
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key], tolerance) for key in found)
    first, second = np.asarray(found), np.asarray(wanted)
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.kind in "OSU":
        return bool(np.all(first == second))
    return _close(first.astype(np.float64), second.astype(np.float64), tolerance)


def _close(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        difference, size = found - wanted, wanted
        if not np.isfinite(np.abs(difference).max(initial=0)):  # NaN, too, would be the largest
            same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
            difference, size = np.where(same, 0, difference), np.where(np.isfinite(wanted), wanted, 0)
        if tolerance == EXACT:
            return bool(np.all(np.abs(difference) <= tolerance * np.abs(size).max(initial=0)))
        return bool(np.square(difference).sum() <= tolerance**2 * np.square(size).sum())
