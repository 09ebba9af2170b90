"""What a device pass may know of a chip: measuring through its readout, see `xbcompile.passes.contract.ChipView`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xbcompile.errors import TargetError
from xbcompile.ir import MatrixLayer
from xbcompile.ir.corrections import Corrections, LayerCorrection
from xbcompile.ir.vectors import collect, count_vectors, lay_out, of_type, vectors_per_sample
from xbcompile.passes.contract import DevicePass, Feeds, Floats, LayerMeasurement
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import CHUNK_SAMPLES, evaluate
from xbcompile.runtime.dataflow import Digital, Pending, count_steps, walk
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.one_by_one import EffortCounter
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.runtime.references import reference_outputs, step_values
from xbcompile.runtime.tile_errors import ErrorRecorder
from xbcompile.runtime.timeline import COMMISSION_BATCH, COMMISSION_VECTOR, MAP_VECTOR, SPREAD_VECTOR, VectorRange
from xbcompile.runtime.unroll import open_recurrences
from xbcompile.targets import BatchedDevice, ReadBlock, WrittenImages
from xbcompile.targets.contract import HasDefectMap
from xbcompile.targets.families.ideal import IdealArray

# Vectors of a layer from which gains per tile are fitted, in whole chunks: more say little and cost memory.
TILE_VECTORS = 20_000
# Parts of the calibration inputs whose column errors are told apart: what holds from part to part is corrected.
COLUMN_PARTS = 5

# Makes the executor of a layer: (program as the chip runs it, index, device, counter).
MakeExecutor = Callable[[PlacedProgram, int, BatchedDevice, EffortCounter], LayerExecutor]
BeforeLayer = Callable[[LayerExecutor, Sequence[Mapping[str, Any]]], None]


class ColumnErrors:
    """Sum of errors and number of readings per physical column; see `ReadingObserver`."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.total = np.zeros(shape)
        self.count = np.zeros(shape)

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See ReadingObserver."""
        index = (arrays[:, None], columns)
        np.add.at(self.total, index, (readings - exact).sum(axis=(1, 2), dtype=np.float64))
        np.add.at(self.count, index, float(readings.shape[1] * readings.shape[2]))


class ProgramOnChip:
    """A program on a chip that is commissioned.

    Args:
        prepared: the program.
        device: the chip, with the batched path; writes of `device_of(corrections)` use its defect map where that is known.
        later: the device passes that come after the one that looks.
        digital: the network's digital segments.
        make_executor: of layers.
        counter: counts what is asked of the chip.
        before_layer: called with an executor and the tensors at hand before it sees its inputs.
    """

    def __init__(
        self,
        prepared: PreparedProgram,
        device_of: Callable[[Corrections], BatchedDevice],
        defect_map: object,
        later: tuple[DevicePass, ...],
        digital: Digital,
        make_executor: MakeExecutor,
        counter: EffortCounter,
        before_layer: BeforeLayer | None = None,
    ) -> None:
        self._before_layer = before_layer
        self.prepared, self.later, self.digital, self.counter = prepared, later, digital, counter
        program = self.program = prepared.program
        self.network, self.schedule, self.spec = program.network, program.schedule, program.spec
        self._device_of, self._make_executor = device_of, make_executor
        self._defect_map = defect_map if isinstance(defect_map, HasDefectMap) else None

    @cached_property
    def lsb(self) -> float | None:
        """See ChipView."""
        return self._device_of(no_corrections(self.program)).lsb

    @cached_property
    def reading_limits(self) -> tuple[float, float] | None:
        """See ChipView."""
        return self._device_of(no_corrections(self.program)).reading_limits

    def cell_limits(self, array: int) -> np.ndarray | None:
        """See ChipView."""
        limits = None if self._defect_map is None else self._defect_map.cell_limits(array)
        wanted = (2, self.spec.rows, self.spec.columns)
        if limits is not None and np.shape(limits) != wanted:
            raise TargetError(f"device gave cell limits of shape {np.shape(limits)} for array {array}; wanted {wanted}")
        return limits

    def knows_defects(self) -> bool:
        """See ChipView."""
        return self._defect_map is not None

    def cells(self, images: np.ndarray, corrections: Corrections) -> np.ndarray:
        """See ChipView."""
        return PlacedProgram(self.program, corrections).cells.of(images)

    def executors(self, feeds: Feeds, corrections: Corrections) -> list[LayerExecutor]:
        """All layers with these corrections, for as many steps of open recurrences as these inputs make."""
        placed = PlacedProgram(self.program, corrections, whole_writes=True, blocks=self.prepared.blocks)
        if open_recurrences(self.network):
            first = next(chunk for _, chunk in self.network.samples.parts(feeds, 1))
            placed.take_steps(count_steps(self.digital, first))
        on = self._device_of(corrections)
        return [self._make_executor(placed, i, on, self.counter) for i in range(len(self.network.layers))]

    def column_errors(self, feeds: Feeds, corrections: Corrections) -> tuple[Floats, Floats]:
        """See ChipView."""
        names, samples = [layer.input for layer in self.network.layers], self.network.samples.samples(feeds)
        inputs = self.prepared.once(
            "inputs by part", feeds, lambda: [evaluate(self.network, part, names) for part in self._parts(feeds)]
        )
        errors = [ColumnErrors((self.schedule.arrays, self.spec.columns)) for _ in inputs]
        for index, executor in enumerate(self.executors(feeds, corrections)):
            chunks = [part[index] for part in inputs]
            counted = _Counted(executor, samples, list(chain(*chunks)))
            for part, each in zip(chunks, errors, strict=True):
                for x in part:
                    executor.vectors(x, counted.next(x), each)
        return np.stack([each.total for each in errors]), np.stack([each.count for each in errors])

    def _parts(self, feeds: Feeds) -> list[Feeds]:
        """Calibration inputs in up to `COLUMN_PARTS` parts of whole calls."""
        axes = self.network.samples
        calls = axes.samples(feeds) // axes.per_call
        bounds = [calls * i // COLUMN_PARTS * axes.per_call for i in range(COLUMN_PARTS + 1)]
        return [axes.first(axes.rest(feeds, a), b - a) for a, b in pairwise(bounds) if a < b]

    def tile_errors(self, feeds: Feeds, vectors: int, corrections: Corrections) -> tuple[Floats, Floats]:
        """See ChipView."""
        device = self._device_of(corrections)
        recorder = ErrorRecorder(device, self.program, self.counter)
        inputs = self.prepared.once(
            f"first {vectors} vectors", feeds, lambda: _first_vectors(self.program, feeds, vectors)
        )
        placed = PlacedProgram(self.program, corrections, whole_writes=True, blocks=self.prepared.blocks)
        for index, x in enumerate(inputs):
            executor = LayerExecutor(placed, index, recorder)
            recorder.shares = executor.tiles.coefficients / executor.tiles.coefficients.sum()
            executor.vectors(x, VectorRange(counted_from=MAP_VECTOR, first_batch=COMMISSION_BATCH))
        number = np.maximum(recorder.count[:, None], 1)
        return recorder.total / number, recorder.square / number

    def random_errors(self, array: int, cells: np.ndarray, drives: np.ndarray) -> np.ndarray:
        """See ChipView."""
        written = WrittenImages.once(np.full(len(cells), array), cells)
        reads, each = ReadBlock(np.arange(len(cells)), SPREAD_VECTOR), drives[:, :, None]
        readings = self._device_of(no_corrections(self.program)).load(written).read(each, reads)
        exact = IdealArray(self.spec).load(written).read(each, reads)
        self.counter.note(written, drives.shape[1])
        return (readings - exact)[:, :, 0].astype(np.float64)

    def fit_layers(
        self, feeds: Feeds, corrections: Corrections, fit: Callable[[LayerMeasurement], LayerMeasurement]
    ) -> Corrections:
        """See ChipView."""
        executors, network = self.executors(feeds, corrections), self.network
        references = self.prepared.once("outputs", feeds, lambda: reference_outputs(self.program, feeds))
        inside = self.prepared.once("steps", feeds, lambda: step_values(self.program, feeds))
        samples = network.samples.samples(feeds)
        found = list(corrections.layers)

        def fitted(index: int, tensors: Sequence[np.ndarray], goal: Sequence[np.ndarray]) -> MeasuredLayer:
            measured = fit(MeasuredLayer(executors[index], tensors, goal, samples, stacked=index in inside))
            assert isinstance(measured, MeasuredLayer)
            found[index] = executors[index].correction = measured.correction
            executors[index].tiles.tile_gain = measured.correction.tile_gain
            return measured

        counted: dict[int, _Counted] = {}

        def execute(at: Pending, values: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
            layer, executor = network.layers[at.layer], executors[at.layer]
            tensors = [each[layer.input] for each in values]
            if self._before_layer is not None:
                self._before_layer(executor, values)
            if at.layer not in inside:
                return fitted(at.layer, tensors, references[at.layer]).tensors()
            if at.layer not in counted:
                counted[at.layer] = _Counted(executor, samples, tensors)
            return [executor.run(x, counted[at.layer].next(x, at)) for x in tensors]

        for index, (tensors, goal) in inside.items():
            fitted(index, tensors, goal)
        walk(self.digital, [chunk for _, chunk in network.samples.parts(feeds, CHUNK_SAMPLES)], execute)
        return replace(corrections, layers=tuple(found))


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """See LayerMeasurement.

    Args:
        executor: the layer.
        inputs: its input tensors, one per chunk.
        goals: the right output tensors.
        samples: samples of all chunks.
        y: float64 [vectors, outputs], measured outputs; None: not measured yet.
        shapes: what `lay_out` needs, per chunk.
        new: the correction so far.
        fixed_tiles: gains of tiles are not to be fitted.
        stacked: axis 0 of the tensors counts steps of a recurrence.
    """

    executor: LayerExecutor
    inputs: Sequence[np.ndarray]
    goals: Sequence[np.ndarray]
    samples: int
    y: Floats | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    new: LayerCorrection | None = None
    fixed_tiles: bool = False
    stacked: bool = False

    @property
    def correction(self) -> LayerCorrection:
        """The layer's correction."""
        return self.new or self.executor.correction

    @cached_property
    def reference(self) -> Floats:
        """See LayerMeasurement."""
        layer = self.executor.layer
        return np.concatenate([collect(layer, chunk) for chunk in self.goals]).astype(np.float64)

    @cached_property
    def measured(self) -> MeasuredLayer:
        """The same with outputs that are measured."""
        if self.y is not None:
            return self
        results, shapes = _outputs(self.executor, self.inputs, self.samples, self.inputs)
        y = np.concatenate(results) * self.correction.gain + self.correction.shift
        return replace(self, y=y, shapes=tuple(shapes))

    @property
    def outputs(self) -> Floats:
        """See LayerMeasurement."""
        y = self.measured.y
        assert y is not None
        return y

    @cached_property
    def sample(self) -> npt.NDArray[np.intp]:
        """See LayerMeasurement."""
        counts = [count_vectors(self.executor.layer, x.shape) for x in self.inputs]
        if not self.stacked:
            return (
                np.arange(sum(counts)) * self.samples // max(sum(counts), 1)
            )  # neighbours, and as many of each sample
        numbers, first = [], 0
        for x, count in zip(self.inputs, counts, strict=True):
            steps, samples = x.shape[:2]
            numbers.append(first + np.arange(count) // (count // (steps * samples)) % samples)
            first += samples
        return np.concatenate(numbers)

    def with_outputs(self, gain: Floats, shift: Floats) -> MeasuredLayer:
        """See LayerMeasurement."""
        now, old = self.measured, self.correction
        new = LayerCorrection(gain * old.gain, gain * old.shift + shift, old.tile_gain)
        return replace(now, y=gain * self.outputs + shift, new=new)

    def tensors(self) -> list[np.ndarray]:
        """Output tensors, one per chunk."""
        now, results, first = self.measured, [], 0
        for x, shape in zip(self.inputs, now.shapes, strict=True):
            count = count_vectors(self.executor.layer, x.shape)
            y = self.outputs[first : first + count]
            results.append(lay_out(self.executor.layer, of_type(y, x.dtype), shape))
            first += count
        return results

    def tile_parts(self) -> tuple[Floats, Floats] | None:
        """See LayerMeasurement: each tile is read alone, with the others' gains at 0."""
        place = self._places()
        tiles = int(place.max(initial=0)) + 1
        if tiles == 1 or self.fixed_tiles:
            return None
        layer = self.executor.layer
        counts = np.cumsum([count_vectors(layer, x.shape) for x in self.inputs])
        used = max(1, int(np.searchsorted(counts, TILE_VECTORS, side="right")))
        reference = np.concatenate([collect(layer, chunk) for chunk in self.goals[:used]]).astype(np.float64)
        rest = self._with_gains(np.zeros(len(place)), used)
        parts = [self._with_gains((place == t).astype(np.float64), used) - rest for t in range(tiles)]
        return np.stack(parts, axis=1), reference - rest

    def with_tile_gain(self, gain: Floats) -> MeasuredLayer:
        """See LayerMeasurement."""
        executor, table = self.executor, self._table()
        tile_gain = np.ones((len(table), executor.program.spec.columns))
        for i, (tile, t) in enumerate(zip(table, self._places(), strict=True)):
            first = tile["group"] * executor.layer.outputs
            tile_gain[i, : tile["m1"] - tile["m0"]] = gain[t, first + tile["m0"] : first + tile["m1"]]
        executor.correction = replace(self.correction, tile_gain=tile_gain)
        executor.tiles.tile_gain = tile_gain
        return MeasuredLayer(executor, self.inputs, self.goals, self.samples, stacked=self.stacked)

    def _table(self) -> np.ndarray:
        table: np.ndarray = self.executor.program.schedule.tiles[self.executor.tiles.index]
        return table

    def _places(self) -> np.ndarray:
        """Of each tile its place among the tiles of its columns."""
        keys = np.stack([self._table()["group"], self._table()["m0"]], axis=1)
        block = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        return np.array([int((block[:i] == b).sum()) for i, b in enumerate(block)])

    def _with_gains(self, gain: Floats, chunks: int) -> Floats:
        """Outputs of the first chunks with a gain for each tile."""
        tiles = self.executor.tiles
        kept, tiles.tile_gain = tiles.tile_gain, np.repeat(gain[:, None], self.executor.program.spec.columns, axis=1)
        try:
            y = np.concatenate(_outputs(self.executor, self.inputs[:chunks], self.samples, self.inputs)[0])
            return y * self.correction.gain + self.correction.shift
        finally:
            tiles.tile_gain = kept


def _outputs(
    executor: LayerExecutor, inputs: Sequence[np.ndarray], samples: int, every: Sequence[np.ndarray]
) -> tuple[list[Floats], list[tuple[int, ...]]]:
    """Output vectors before gains, and shapes, of input tensors, which are the first of those of all samples."""
    counted = _Counted(executor, samples, every)
    results = [executor.vectors_before_gain(x, counted.next(x)) for x in inputs]
    return [y for y, _ in results], [shape for _, shape in results]


class _Counted:
    """Numbers the vectors of a layer's input tensors, chunk after chunk, in batches as a run would have them."""

    def __init__(self, executor: LayerExecutor, samples: int, tensors: Sequence[np.ndarray]) -> None:
        self.executor = executor
        vectors = sum(count_vectors(executor.layer, x.shape) for x in tensors)
        self.per_batch = vectors // max(samples, 1) * executor.program.schedule.batch
        self.done = 0

    def next(self, x: np.ndarray, at: Pending | None = None) -> VectorRange:
        """The vectors of the next tensor."""
        first, step = self.done, 0 if at is None else at.step
        self.done += count_vectors(self.executor.layer, x.shape)
        # All steps of a recurrence are counted on; their entries draw nothing of their own here.
        return VectorRange(first, self.per_batch, step, 0, COMMISSION_VECTOR, COMMISSION_BATCH)


def _first_vectors(program: Program, feeds: Feeds, vectors: int) -> list[np.ndarray]:
    """Ideal input tensor of each layer, cut along its axis of samples to about so many vectors."""
    layers = program.network.layers
    values = evaluate(program.network, feeds, [layer.input for layer in layers])
    return [_cut(layer, chunks, vectors) for layer, chunks in zip(layers, values, strict=True)]


def _cut(layer: MatrixLayer, chunks: Sequence[np.ndarray], vectors: int) -> np.ndarray:
    axis = layer.sample_axis
    x = np.concatenate(chunks, axis) if len(chunks) > 1 else chunks[0]
    entries = max(1, vectors // max(1, vectors_per_sample(layer, x.shape)))
    return x[(slice(None),) * axis + (slice(entries),)] if x.ndim > 1 else x
