"""The player: a schedule's steps become events on a device, one by one, in order of time.

Each batch is a flow of tensors through the network. A read step drives the vectors that its copy serves, as soon as the layer's
input is there, which the schedule's order sees to; the last read of a use of a matrix completes the layer's output, and digital
segments run as soon as what they need is there. Batches that overlap are played side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xbcompile.ir.schedule import READ, WRITE, tile_columns
from xbcompile.ir.vectors import lay_out, of_type
from xbcompile.runtime.cost import Counters
from xbcompile.runtime.dataflow import Digital, Flow, Pending
from xbcompile.runtime.layer_executor import LayerExecutor, Reading, ReadingObserver, VectorRange
from xbcompile.runtime.one_by_one import read_once
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.targets import Device, Read, Write


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

    def play(
        self, batches: Sequence[Mapping[str, Any]], first: int, observers: Sequence[ReadingObserver] = (), watched: int = 0
    ) -> list[dict[str, Any]]:
        """Play batches that follow each other.

        Args:
            batches: graph inputs by name, of each; the clock knows the run.
            first: number of the first one.
            observers: one per layer.
            watched: they see the readings of so many batches.

        Returns:
            graph outputs by name, of each.
        """
        steps, clock = self.placed.timeline.schedule.steps, self.placed.clock
        outputs: list[dict[str, Any]] = [{} for _ in batches]
        playing: dict[int, _Batch] = {}
        moments: list[tuple[float, int, int]] = []

        def due(batch: int, step: int) -> None:
            start_s = float(clock.start_s(first + batch)) + (float(steps["start_s"][step]) if len(steps) else 0.0)
            heapq.heappush(moments, (start_s, batch, step))

        if batches:
            due(0, 0)
        while moments:
            at_s, batch, step = heapq.heappop(moments)
            if step == 0:
                watching = observers if batch < watched else None
                playing[batch] = _Batch(self, batches[batch], first + batch, watching)
                if batch + 1 < len(batches):
                    due(batch + 1, 0)
            if len(steps):
                playing[batch].play(step, at_s)
            if step + 1 < len(steps):
                due(batch, step + 1)
            else:
                outputs[batch] = playing.pop(batch).outputs()
        return outputs

    def _write(self, event: Write) -> None:
        self.device.write(event, self.placed.cells.of(np.array([event.image]))[0])
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
        self, player: Player, feeds: Mapping[str, Any], number: int, observers: Sequence[ReadingObserver] | None
    ) -> None:
        self.player, self.number, self.observers = player, number, observers
        self.flow = Flow(player.digital, feeds)
        self.samples = samples_of(feeds)
        self.layers: dict[Pending, _LayerReads] = {}
        of_layer = player.placed.uses.of_layer
        self.which = {use: (layer, step) for layer, uses in enumerate(of_layer) for step, use in enumerate(uses)}

    def play(self, step: int, at_s: float) -> None:
        """Play one step of the schedule."""
        row = self.player.placed.timeline.schedule.steps[step]
        if row["operation"] == WRITE:
            self.player.write(step, self.number, at_s)
            return
        layer, count = self.which[int(row["use"])]
        pending = next((each for each in self.flow.pending if each.layer == layer and each.step == count), None)
        if pending is None:
            raise RuntimeError(f"step {step} reads layer {layer} at step {count} before its input is there")
        if pending not in self.layers:
            x = self.flow.values(pending)[self.player.digital.network.layers[layer].input]
            self.layers[pending] = _LayerReads(self, pending, x, int(row["use"]))
        reads = self.layers[pending]
        if reads.read(step, at_s):
            self.flow.give(pending, reads.output())
            del self.layers[pending]

    def outputs(self) -> dict[str, Any]:
        """Graph outputs by name, after the last step."""
        if not self.flow.done:
            raise RuntimeError("the schedule ends before all layers are read")
        return self.flow.outputs()


class _LayerReads:
    """All reads of one use of a matrix in one batch."""

    def __init__(self, batch: _Batch, pending: Pending, x: np.ndarray, use: int) -> None:
        player = batch.player
        self.player, self.batch, self.use = player, batch, use
        self.executor = player.executors[pending.layer]
        self.observer = None if batch.observers is None else batch.observers[pending.layer]
        self.dtype = x.dtype
        self.reading: Reading = self.executor.begin(x)
        vectors = self.reading.sums.shape[1]
        self.range = vector_range(player.placed, pending, batch.number * player.placed.program.schedule.batch, vectors, batch.samples)
        self.vectors = vectors
        blocks = self.executor.tiles.blocks
        self.totals = [np.zeros((len(block.tiles), vectors, block.columns.shape[1])) for block in blocks]
        steps = player.placed.timeline.schedule.steps
        self.left = int(np.count_nonzero((steps["operation"] == READ) & (steps["use"] == use)))

    def read(self, step: int, at_s: float) -> bool:
        """Play one read step; whether it was the last of this use."""
        placed = self.player.placed
        row = placed.timeline.schedule.steps[step]
        tile, array = int(row["tile"]), int(row["array"])
        start, end = placed.share(tile, array, self.range.per_batch or self.vectors)
        end = min(end, self.vectors)
        if start < end:
            self._drive(step, tile, array, start, end, at_s)
        self.left -= 1
        return self.left == 0

    def _drive(self, step: int, tile: int, array: int, start: int, end: int, at_s: float) -> None:
        placed, tiles, spec = self.player.placed, self.executor.tiles, self.player.placed.program.spec
        number = int(np.flatnonzero(tiles.index == tile)[0])
        which = next(i for i, block in enumerate(tiles.blocks) if number < block.first + len(block.tiles))
        block = tiles.blocks[which]
        place = number - block.first
        value = self.reading.coded.value[block.group, start:end]
        coded = tiles.coded_drives(block, value).of(slice(place, place + 1))
        drives = coded.drives()
        write = placed.timeline.number(array, int(placed.timeline.place[step]), self.batch.number)
        counter = self.range.drawn_from + self.executor.counted_from + start
        readings = np.empty((1, end - start, coded.slices, spec.columns))
        for v in range(end - start):
            for t in range(coded.slices):
                when_s = at_s + (v * coded.slices + t) * spec.t_read_s
                event = Read(array, write, tile, self.use, counter + v, t, when_s)
                readings[0, v, t] = read_once(self.player.device, event, drives[0, v, t], spec.columns)
        self._count(tile, (end - start) * coded.slices)
        arrays = np.array([array])
        if self.observer is not None:
            self.executor.show(self.observer, block, slice(place, place + 1), arrays, drives, readings)
        totals = coded.added_up(readings)
        tiles.correct(block, arrays, totals, place)
        self.totals[which][place, start:end] = totals[0]

    def _count(self, tile: int, reads: int) -> None:
        counters, table = self.player.counters, self.player.placed.program.schedule.tiles
        counters.reads += reads
        counters.dot_products += int(tile_columns(table[tile])) * reads

    def output(self) -> np.ndarray:
        """The layer's output tensor."""
        executor = self.executor
        for block, totals in zip(executor.tiles.blocks, self.totals, strict=True):
            executor.tiles.add(block, totals, self.reading.sums)
        y = executor.recombined(self.reading) * executor.correction.gain + executor.correction.shift
        return lay_out(executor.layer, of_type(y, self.dtype), self.reading.shape)


def samples_of(feeds: Mapping[str, Any]) -> int:
    """Samples that feeds hold: the longest axis 0 of any."""
    return max((len(x) for x in feeds.values() if isinstance(x, np.ndarray) and x.ndim), default=1)


def vector_range(placed: PlacedProgram, pending: Pending, first_sample: int, vectors: int, samples: int) -> VectorRange:
    """Which vectors of a layer an input tensor holds that `samples` samples lead to, the first of which has this number.

    Axis 0 of a layer's input may count something else than samples, behind a Reshape.
    """
    batch, each = placed.program.schedule.batch, vectors // max(1, samples)
    if not each:  # what does not depend on samples belongs to the batch of the first
        return VectorRange(0, 0, pending.step, pending.entry, 0, first_sample // batch)
    return VectorRange(first_sample * each, batch * each, pending.step, pending.entry)

