"""The player: a schedule's steps become events on a device, one by one, in order of time.

Each batch is a flow of tensors through the network. A read step drives the vectors that its copy serves, one after another; that
the layer's input is there by then, the schedule's order sees to. The last read of a use of a matrix completes the layer's output,
and digital segments run as soon as what they need is there. Batches that overlap are played side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from xbcompile.errors import DataError
from xbcompile.ir.schedule import READ, WRITE, tile_columns
from xbcompile.ir.vectors import lay_out, of_type
from xbcompile.runtime.cost import Counters
from xbcompile.runtime.dataflow import Digital, Flow, Pending
from xbcompile.runtime.drive import join_coded
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.one_by_one import read_once, write_once
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.reading import Reading
from xbcompile.runtime.statistics import StatisticsCollector
from xbcompile.runtime.timeline import COMMISSION_VECTOR, SIZE_VECTORS, STEP_VECTORS, VectorRange
from xbcompile.targets import Device, Read, Write
from xbcompile.targets.tile_routing import TileRouting


class BatchInput(NamedTuple):
    """What one batch is run on.

    Attributes:
        calls: graph inputs by name, of each call of the model: one, or several where the model's own batch is smaller.
        samples: samples of all calls.
    """

    calls: Sequence[Mapping[str, Any]]
    samples: int


class Player:
    """Plays batches of a program on a device.

    Args:
        placed: the program as the chip runs it.
        executors: of its layers.
        device: anything with write and read.
        digital: the network's digital segments.
        counters: what happens is added here.
    """

    def __init__(
        self,
        placed: PlacedProgram,
        executors: Sequence[LayerExecutor],
        device: Device,
        digital: Digital,
        counters: Counters,
    ) -> None:
        self.placed, self.executors, self.device = placed, executors, device
        self.digital, self.counters = digital, counters

    def set_up(self) -> None:
        """The writes before the first batch."""
        schedule, initial_s = self.placed.program.schedule, self.placed.timeline.initial_s
        held = np.flatnonzero(schedule.initial >= 0)
        every = np.arange(self.placed.program.spec.rows)
        for array in held[np.argsort(initial_s[held], kind="stable")].tolist():
            self._write(Write(array, int(schedule.initial[array]), every, 0, float(initial_s[array])))
        self.counters.array_s += schedule.setup_s

    def carry_over(self, steps: np.ndarray, first: int) -> None:
        """Write what arrays hold at the start of a batch, by the write steps of the one before; of batch 0, as set-up had it."""
        timeline, now_s = self.placed.timeline, self.placed.clock.now_s
        if first:
            for step in steps.tolist():
                self.write(step, first - 1, now_s + float(timeline.schedule.steps["start_s"][step]))
            return
        every, initial = np.arange(self.placed.program.spec.rows), timeline.schedule.initial
        for array in np.unique(timeline.schedule.steps["array"][steps]).tolist():
            self._write(Write(array, int(initial[array]), every, 0, now_s))

    def play(
        self,
        batches: Sequence[BatchInput],
        first: int,
        observers: Sequence[StatisticsCollector] = (),
        watched: int = 0,
    ) -> list[dict[str, Any]]:
        """Play batches that follow each other.

        Args:
            batches: what each runs on; the clock knows the run.
            first: number of the first one.
            observers: one per layer; they see the layer's inputs.
            watched: of so many batches they see the readings, too.

        Returns:
            graph outputs by name, of each call.
        """
        steps, clock = self.placed.timeline.schedule.steps, self.placed.clock
        outputs: list[list[dict[str, Any]]] = [[] for _ in batches]
        playing: dict[int, _Batch] = {}
        moments: list[tuple[float, int, int, int]] = []  # time, batch, step, and which of the step's events

        def due(batch: int, step: int) -> None:
            start_s = float(clock.start_s(first + batch)) + (float(steps["start_s"][step]) if len(steps) else 0.0)
            heapq.heappush(moments, (start_s, batch, step, 0))

        if batches:
            due(0, 0)
        while moments:
            at_s, batch, step, event = heapq.heappop(moments)
            if step == event == 0:
                playing[batch] = _Batch(self, batches[batch], first + batch, observers, batch < watched)
                if batch + 1 < len(batches):
                    due(batch + 1, 0)
            if event == 0 and step + 1 < len(steps):
                due(batch, step + 1)
            if len(steps):
                until_s = moments[0][0] if moments else np.inf
                following = playing[batch].play(step, event, at_s, until_s)
                if following is not None:
                    heapq.heappush(moments, (following[1], batch, step, following[0]))
            if playing[batch].ended:
                outputs[batch] = playing.pop(batch).outputs()
        return [call for each in outputs for call in each]

    def _write(self, event: Write) -> None:
        write_once(self.device, event, self.placed.cells.of(np.array([event.image]))[0])
        self.counters.weight_updates += 1
        self.counters.rows_written += len(event.rows)

    def write(self, step: int, batch: int, at_s: float) -> None:
        """Play a write step."""
        timeline = self.placed.timeline
        row = timeline.schedule.steps[step]
        array = int(row["array"])
        number = timeline.number(array, int(timeline.place[step]), batch)
        self._write(Write(array, int(row["image"]), timeline.rows(step), number, at_s))


class _Batch:
    """One batch on its way."""

    def __init__(
        self, player: Player, given: BatchInput, number: int, observers: Sequence[StatisticsCollector], watched: bool
    ) -> None:
        self.player, self.number, self.observers, self.watched = player, number, observers, watched
        self.flows = [Flow(player.digital, feeds) for feeds in given.calls]  # all stand at the same layers
        self.samples = given.samples
        self.layers: dict[Pending, _LayerReads] = {}
        self.reading: dict[int, _StepReads] = {}
        self.left = len(player.placed.timeline.schedule.steps)
        of_layer = player.placed.uses.of_layer
        self.which = {use: (layer, step) for layer, uses in enumerate(of_layer) for step, use in enumerate(uses)}

    @property
    def ended(self) -> bool:
        """Whether all steps have been played."""
        return self.left == 0

    def play(self, step: int, event: int, at_s: float, until_s: float) -> tuple[int, float] | None:
        """Play events of a step of the schedule up to a time: the step's next event and when it is due; None after its last."""
        row = self.player.placed.timeline.schedule.steps[step]
        if row["operation"] == WRITE:
            self.player.write(step, self.number, at_s)
            self.left -= 1
            return None
        if event == 0:
            self.reading[step] = self._reads_of(step).begin(step, at_s)
        reads = self.reading[step]
        following = reads.play(event, until_s)
        if following is not None:
            return following, reads.at_s(following)
        del self.reading[step]
        self.left -= 1
        layer = reads.layer
        if layer.end(reads):
            for flow, output in zip(self.flows, layer.outputs(), strict=True):
                flow.give(layer.pending, output)
            del self.layers[layer.pending]
        return None

    def _reads_of(self, step: int) -> _LayerReads:
        """The layer that a read step belongs to."""
        use = int(self.player.placed.timeline.schedule.steps["use"][step])
        layer, count = self.which[use]
        pending = next((each for each in self.flows[0].pending if each.layer == layer and each.step == count), None)
        if pending is None:
            raise RuntimeError(f"step {step} reads layer {layer} at step {count} before its input is there")
        if pending not in self.layers:
            name = self.player.digital.network.layers[layer].input
            inputs = [flow.values(pending)[name] for flow in self.flows]
            self.layers[pending] = _LayerReads(self, pending, inputs, use)
        return self.layers[pending]

    def outputs(self) -> list[dict[str, Any]]:
        """Graph outputs by name of each call, after the last step."""
        if not all(flow.done for flow in self.flows):
            raise RuntimeError("the schedule ends before all layers are read")
        return [flow.outputs() for flow in self.flows]


class _LayerReads:
    """All reads of one use of a matrix in one batch."""

    def __init__(self, batch: _Batch, pending: Pending, inputs: Sequence[np.ndarray], use: int) -> None:
        player = batch.player
        self.player, self.batch, self.pending, self.use = player, batch, pending, use
        self.executor = player.executors[pending.layer]
        observer = batch.observers[pending.layer] if batch.observers else None
        if observer is not None:
            for x in inputs:
                observer.note_inputs(x)
        self.observer = observer if batch.watched else None
        self.dtype = inputs[0].dtype
        self.calls = [self.executor.begin(x) for x in inputs]
        self.reading = joined(self.calls)
        vectors = self.reading.sums.shape[1]
        first_sample = batch.number * player.placed.program.schedule.batch
        self.range = vector_range(player.placed, pending, first_sample, vectors, batch.samples)
        self.vectors = vectors
        blocks = self.executor.tiles.blocks
        self.totals = [np.zeros((len(b.tiles), vectors, b.routing.columns.shape[1])) for b in blocks]
        steps = player.placed.timeline.schedule.steps
        self.left = int(np.count_nonzero((steps["operation"] == READ) & (steps["use"] == use)))

    def begin(self, step: int, at_s: float) -> _StepReads:
        """The reads of one step, which starts now."""
        return _StepReads(self, step, at_s)

    def end(self, reads: _StepReads) -> bool:
        """Take in the readings of a step; whether it was the last one of this use."""
        block, start, end = reads.block, reads.start, reads.end
        if start < end:
            arrays = np.array([reads.array])
            tile = slice(reads.place, reads.place + 1)
            if self.observer is not None:
                self.executor.show(self.observer, block, tile, arrays, reads.drives, reads.readings)
            self.totals[reads.block_number][reads.place, start:end] = reads.routing.totals(reads.readings)[0]
            self._count(reads.tile, (end - start) * reads.routing.slices)
        self.left -= 1
        return self.left == 0

    def _count(self, tile: int, reads: int) -> None:
        counters, table = self.player.counters, self.player.placed.program.schedule.tiles
        counters.reads += reads
        counters.dot_products += int(tile_columns(table[tile])) * reads

    def outputs(self) -> list[np.ndarray]:
        """The layer's output tensor of each call."""
        executor = self.executor
        for block, totals in zip(executor.tiles.blocks, self.totals, strict=True):
            block.routing.add(totals, self.reading.sums)
        y = executor.recombined(self.reading) * executor.correction.gain + executor.correction.shift
        y = of_type(y, self.dtype)
        ends = np.cumsum([0, *(call.sums.shape[1] for call in self.calls)]).tolist()
        parts = zip(self.calls, pairwise(ends), strict=True)
        return [lay_out(executor.layer, y[start:end], call.shape) for call, (start, end) in parts]


class _StepReads:
    """The reads of one step: a tile, driven with the vectors that its copy serves, slice by slice."""

    def __init__(self, layer: _LayerReads, step: int, at_s: float) -> None:
        self.layer, self.step, self.started_s = layer, step, at_s
        placed, tiles = layer.player.placed, layer.executor.tiles
        row = placed.timeline.schedule.steps[step]
        self.tile, self.array = int(row["tile"]), int(row["array"])
        self.start, end = placed.share(self.tile, self.array, layer.range.per_batch or layer.vectors)
        self.spacing_s = placed.spacing_s(step, (end - self.start) * layer.executor.slices)
        self.end = min(end, layer.vectors)
        number = int(np.flatnonzero(tiles.index == self.tile)[0])
        self.block_number = next(i for i, b in enumerate(tiles.blocks) if number < b.first + len(b.tiles))
        self.block = tiles.blocks[self.block_number]
        self.place = number - self.block.first
        value = layer.reading.coded.value[:, self.start : self.end]
        self.routing = self._routing()
        self.drives = self.routing.drives(value)
        self.drives.flags.writeable = False  # the device is handed views
        self.write = placed.timeline.number(self.array, int(placed.timeline.place[step]), layer.batch.number)
        self.readings = np.empty((1, value.shape[1], self.routing.slices, placed.program.spec.columns))

    def _routing(self) -> TileRouting:
        tiles, block, place = self.layer.executor.tiles, self.block, self.place
        arrays = np.full(len(block.tiles), self.array)
        return tiles.routing(block, arrays).of(slice(place, place + 1))

    def at_s(self, event: int) -> float:
        """When a read starts."""
        return self.started_s + event * self.spacing_s

    def play(self, event: int, until_s: float) -> int | None:
        """Read, at least once, up to a time: the next event, None after the last."""
        slices, columns = self.routing.slices, self.readings.shape[3]
        count = self.readings.shape[1] * slices
        layer = self.layer
        first, device = layer.range.drawn_from + layer.executor.counted_from + self.start, layer.player.device
        array, write, tile, use, drives, readings = (
            self.array, self.write, self.tile, layer.use, self.drives[0], self.readings[0]
        )  # fmt: skip
        while event < count:
            v, t = divmod(event, slices)
            which = Read(array, write, tile, use, first + v, t, self.started_s + event * self.spacing_s)
            readings[v, t] = read_once(device, which, drives[v, t], columns)
            event += 1
            if self.started_s + event * self.spacing_s >= until_s and event < count:
                return event
        return None


def joined(calls: Sequence[Reading]) -> Reading:
    """Vectors of several calls as if they were of one."""
    if len(calls) == 1:
        return calls[0]
    vectors = [call.sums.shape[1] for call in calls]
    coded = join_coded([call.coded for call in calls], vectors)
    return Reading(coded, np.concatenate([call.sums for call in calls], axis=1))


def vector_range(placed: PlacedProgram, pending: Pending, first_sample: int, vectors: int, samples: int) -> VectorRange:
    """Which vectors of a layer an input tensor holds that `samples` samples lead to, the first of which has this number.

    Axis 0 of a layer's input may count something else than samples, behind a Reshape.
    """
    batch, uses = placed.program.schedule.batch, placed.uses
    each = -(-vectors // max(1, samples))
    _check_numbers(placed, pending, first_sample * each + vectors)
    scheduled = uses.uses[uses.of_layer[pending.layer][0]].vectors
    apart = 0 if each == scheduled else each * SIZE_VECTORS
    if vectors == each * samples:
        return VectorRange(first_sample * each, batch * each, pending.step, pending.entry, apart)
    # What does not depend on samples belongs to the batch of the first, and draws by the numbers of all.
    return VectorRange(0, vectors, pending.step, pending.entry, apart + first_sample * each, first_sample // batch)


def _check_numbers(placed: PlacedProgram, pending: Pending, end: int) -> None:
    """Raise DataError where the vectors up to `end` would draw what others do."""
    network = placed.program.network
    name = network.layers[pending.layer].name
    inside = any(layer.name == name for each in network.recurrences for layer in each.layers)
    limit = STEP_VECTORS if inside else COMMISSION_VECTOR
    if end > limit or pending.entry * STEP_VECTORS >= COMMISSION_VECTOR:
        raise DataError(
            f"layer {name!r} is at input vector {end} of the session's life, at step {pending.entry}; noise is numbered for "
            f"{limit} vectors{f' and {COMMISSION_VECTOR // STEP_VECTORS} steps' if inside else ''}; go on with another seed"
        )
