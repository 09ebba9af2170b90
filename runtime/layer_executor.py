"""One matrix layer on a device with the batched path: drive the tiles, read them, recombine on the digital side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from xbcompile.ir import Patches
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.ir.vectors import lay_out, of_type
from xbcompile.runtime.digital_side import DigitalSide
from xbcompile.runtime.kept_tiles import KEPT_CELLS
from xbcompile.runtime.layer_input import LayerInput
from xbcompile.runtime.one_by_one import EffortCounter, OneByOne
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.reading import AnyReading, PatchReading, Reading, Take
from xbcompile.runtime.tile_block import TileBlock
from xbcompile.runtime.tiles import BLOCK_CELLS, LayerTiles, check_driven
from xbcompile.runtime.timeline import VectorRange
from xbcompile.runtime.workers import ALONE, Workers
from xbcompile.targets import BatchedDevice, ReadBlock, WrittenImages
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.targets.loaded_images import BLOCK_VALUES, LoadedTiles
from xbcompile.targets.patch_values import MOST_COLUMNS

# Bytes of vectors and sums that go through the tiles together, and vectors that do at least: fewer leave the kernels idle.
PART_BYTES = 1 << 22
PART_VECTORS = 128
# Bytes that wait for further tiles, where a layer has more than are prepared together.
WAITING_BYTES = 1 << 26
# Readings of a layer that are compared with exact ones at most, and batches with writes of their own: see `observe`.
OBSERVED_READINGS = 1 << 16
OBSERVED_RUNS = 8
# Uses of one matrix count their vectors this far apart, so that each has its own noise; see also `timeline`.
USE_VECTORS = 1 << 50


class ReadingObserver(Protocol):
    """Something that wants to see readings beside the exact sums that they stand for."""

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See used columns only: arrays [tiles], physical columns [tiles, width], both others [tiles, vectors, slices, width]."""


@dataclass
class _Run:
    """Vectors that are read from the same writes of the same copies.

    Args:
        start: the first one's place in the input.
        stop: end.
        copies: which copy of an image they are read from, one for each number of copies that the layer's images have.
        batch: their batch, where writes of batches differ; else 0.
    """

    start: int
    stop: int
    copies: tuple[int, ...]
    batch: int


class LayerExecutor:
    """Executes one layer of a program.

    Args:
        placed: the program as the chip runs it.
        index: which matrix layer.
        device: a device with the batched path.
        workers: share its vectors and tiles; the result does not depend on them.
        counter: counts what is asked of the device.

    Raises:
        ProgramError: the layer's inputs are not coded as the rows of the array take them.
    """

    def __init__(
        self,
        placed: PlacedProgram,
        index: int,
        device: BatchedDevice,
        workers: Workers = ALONE,
        counter: EffortCounter | None = None,
    ) -> None:
        self.placed, self.program, self.index = placed, placed.program, index
        self.one_by_one = isinstance(device, OneByOne)
        self.device, self.workers, self.counter = device, ALONE if self.one_by_one else workers, counter
        self.layer = self.program.network.layers[index]
        if not isinstance(device, IdealArray):
            check_driven(self.layer, self.program.spec)
        self.tiles = LayerTiles(placed, index, 1 if self.one_by_one else BLOCK_CELLS)
        self.ideal = IdealArray(self.program.spec)
        matrices = self.program.network.matrices
        # How many earlier layers read the same tiles: each has noise of its own.
        self.counted_from = USE_VECTORS * matrices[:index].count(matrices[index])
        self.correction: LayerCorrection = placed.corrections.layers[index]
        both_signs_of = self.tiles.coefficients if self.tiles.both_signs else None
        self.digital = DigitalSide(self.layer, self.correction, both_signs_of)
        self.code = self.digital.code

    @property
    def rewritten(self) -> bool:
        """Whether every batch reads what writes of its own left."""
        return self.device.writes_differ and self.placed.timeline.rewritten(self.tiles.every_array)

    @property
    def slices(self) -> int:
        """Reads per vector and tile."""
        return self.layer.slices

    def run(self, x: np.ndarray, reads: VectorRange | None = None, alone: bool = False) -> np.ndarray:
        """Evaluate the layer, corrections included.

        Args:
            x: input tensor.
            reads: which vectors it holds; None: the first.
            alone: in the thread that calls, as further ones are at work beside it.

        Returns:
            the output tensor, of x's type.
        """
        source, floats = self.input(x), x.dtype in (np.float32, np.float64)
        if source.in_patches and floats and not self.one_by_one and self.tiles.widest <= MOST_COLUMNS:
            return self._run_patches(source, x.dtype, reads or VectorRange(), alone)
        y = np.empty((source.count, self.layer.groups * self.layer.outputs), x.dtype)

        def take(start: int, reading: Reading) -> None:
            some = y[start : start + reading.sums.shape[1]]
            if floats:
                self.digital.recombine(reading, some, corrected=True)
            else:
                some[:] = of_type(self.recombined(reading) * self.correction.gain + self.correction.shift, x.dtype)

        _Call(self, source, reads or VectorRange(), take, alone=alone).run(0, source.count)
        return lay_out(self.layer, y, source.shape)

    def _run_patches(self, source: LayerInput, dtype: np.dtype[Any], reads: VectorRange, alone: bool) -> np.ndarray:
        """`run` of vectors that are patches, gathered by the kernels that read them."""
        geometry, channels = self.layer.geometry, self.layer.groups * self.layer.outputs
        assert isinstance(geometry, Patches)
        samples, size = np.split(np.array(source.shape, np.intp), [len(source.shape) + geometry.channel_axis + 1])
        y = np.empty((math.prod(samples), channels, math.prod(size)), dtype)

        def take(start: int, reading: AnyReading) -> None:
            assert isinstance(reading, PatchReading)
            self.digital.recombine_patches(reading, y, start)

        _Call(self, source, reads, take, alone=alone, in_patches=True).run(0, source.count)
        return y.reshape(*samples, channels, *size)

    def vectors(
        self, x: np.ndarray, reads: VectorRange | None = None, observer: ReadingObserver | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Output vectors, float64 [V, groups * outputs], and the shape that `lay_out` needs; see `run`.

        Args:
            x: input tensor.
            reads: which vectors it holds; None: the first.
            observer: sees every reading and its exact sum.
        """
        y, shape = self.vectors_before_gain(x, reads, observer)
        return y * self.correction.gain + self.correction.shift, shape

    def vectors_before_gain(
        self, x: np.ndarray, reads: VectorRange | None = None, observer: ReadingObserver | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """`vectors` without the gain and shift of each output."""
        source = self.input(x)
        return self.some(source, 0, source.count, reads, observer), source.shape

    def some(
        self,
        source: LayerInput,
        start: int,
        stop: int,
        reads: VectorRange | None = None,
        observer: ReadingObserver | None = None,
    ) -> np.ndarray:
        """Output vectors of some of an input's vectors, float64 [stop - start, groups * outputs], before gain and shift.

        Args:
            source: of `input`.
            start: the first.
            stop: end.
            reads: which vectors the input holds; None: the first.
            observer: sees every reading and its exact sum.
        """
        y = np.empty((stop - start, self.layer.groups * self.layer.outputs))

        def take(first: int, reading: Reading) -> None:
            self.digital.recombine(reading, y[first - start : first - start + reading.sums.shape[1]])

        _Call(self, source, reads or VectorRange(), take, observer).run(start, stop)
        return y

    def observe(self, x: np.ndarray, reads: VectorRange, observer: ReadingObserver) -> None:
        """Let an observer see what the first vectors of an input tensor read: about OBSERVED_READINGS in all uses of the layer.

        Args:
            x: input tensor.
            reads: which vectors it holds.
            observer: sees readings and their exact sums.
        """
        call = _Call(self, self.input(x), reads, lambda start, reading: None, observer)
        each = max(1, self.slices * sum(int(block.routing.width.sum()) for block in self.tiles.blocks))
        steps = len(self.placed.uses.of_layer[self.index])  # of a recurrence; none stands for all
        seen = -(-OBSERVED_READINGS // (each * steps))
        if self.rewritten:  # each run takes writes of its own
            seen = min(seen, call.runs[:OBSERVED_RUNS][-1].stop)
        call.run(0, min(call.source.count, seen))

    def input(self, x: np.ndarray) -> LayerInput:
        """An input tensor as vectors."""
        return LayerInput(self.layer, x, self.tiles.both_signs)

    def begin(self, x: np.ndarray) -> Reading:
        """Gather and code all vectors of an input tensor."""
        source = self.input(x)
        return self.reading(source, 0, source.count)

    def reading(self, source: LayerInput, start: int, stop: int) -> Reading:
        """Gather and code some vectors of an input tensor."""
        sums = np.zeros((self.layer.groups, stop - start, self.layer.outputs))
        return Reading(source.coded(start, stop), sums, source.shape)

    def patch_reading(self, source: LayerInput, start: int, stop: int) -> PatchReading:
        """Code some vectors of an input tensor that are patches."""
        sums = np.zeros((self.layer.groups, self.layer.outputs, stop - start))
        return PatchReading(*source.patches(start, stop), sums)

    def parts(
        self, start: int, stop: int, threads: int | None = None, value_bytes: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Ranges of vectors that go through the tiles together, on so many threads; None: on all.

        Args:
            start: the first.
            stop: end.
            threads: so many take parts.
            value_bytes: what the values of a vector take; None: those of one that is gathered.
        """
        layer = self.layer
        gathered = 2 * 4 * layer.groups * layer.inputs
        values = 2 * 8 * layer.groups * layer.outputs + (gathered if value_bytes is None else value_bytes)
        share = -(-(stop - start) // (threads or self.workers.threads))
        size = stop - start if self.one_by_one else max(PART_VECTORS, min(share, PART_BYTES // max(values, 1)))
        for first in range(start, stop, max(size, 1)):
            yield first, min(first + size, stop)

    def runs(self, reads: VectorRange, vectors: int) -> Iterator[_Run]:
        """Runs of vectors that are read from the same writes of the same copies."""
        counts, rewritten = self.tiles.copy_counts, self.rewritten
        copied = counts not in ([], [1])
        if not reads.per_batch or not (copied or rewritten):
            yield _Run(0, vectors, tuple(0 for _ in counts), reads.first_batch)
            return
        at = reads.first + np.arange(vectors)
        batch, place = np.divmod(at, reads.per_batch)
        serving = np.stack([place * count // reads.per_batch for count in counts], axis=1)
        keys = np.column_stack([serving, batch]) if rewritten else serving
        changes = 1 + np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1))
        for start, stop in pairwise([0, *changes.tolist(), vectors]):
            yield _Run(start, stop, tuple(serving[start].tolist()), reads.first_batch + int(batch[start]))

    def written(self, block: TileBlock, run: _Run, reads: VectorRange) -> WrittenImages:
        """A block's images as the writes left them that a run of vectors is read from."""
        arrays = self.tiles.arrays(block, run.copies)
        use = self.tiles.use(reads.step) if self.device.writes_differ else None
        return self.placed.written(use, block.tiles, arrays, block.cells, run.batch)

    def show(
        self,
        observer: ReadingObserver,
        block: TileBlock,
        some: slice,
        arrays: np.ndarray,
        drives: np.ndarray,
        readings: np.ndarray,
    ) -> None:
        """Let an observer see readings of some of a block's tiles beside exact ones; both [tiles, vectors, slices, columns]."""
        exact = self.ideal.load(WrittenImages.once(arrays, block.cells[some])).read(drives, ReadBlock(arrays, 0))
        routing = block.routing.of(some)
        for width in np.unique(routing.width).tolist():
            mine = routing.width == width
            columns = routing.columns[mine, :width]
            index = columns[:, None, None, :]
            observer.observe(
                arrays[mine],
                columns,
                np.take_along_axis(readings[mine], index, axis=3),
                np.take_along_axis(exact[mine], index, axis=3),
            )

    def recombined(self, reading: Reading) -> np.ndarray:
        """Undo both codes: float64 [V, groups * outputs]."""
        y = np.empty((reading.sums.shape[1], self.layer.groups * self.layer.outputs))
        self.digital.recombine(reading, y)
        return y


@dataclass
class _Part:
    """Vectors that go through the tiles together; their reading is there from their first tiles to their last."""

    start: int
    stop: int
    reading: AnyReading | None = None


class _Call:
    """One input tensor on its way through a layer's tiles."""

    def __init__(
        self,
        executor: LayerExecutor,
        source: LayerInput,
        reads: VectorRange,
        take: Take,
        observer: ReadingObserver | None = None,
        alone: bool = False,
        in_patches: bool = False,
    ) -> None:
        self.in_patches = in_patches
        self.executor, self.source, self.reads, self.take, self.observer = executor, source, reads, take, observer
        self.tiles, self.workers = executor.tiles, executor.workers if observer is None and not alone else ALONE
        self.runs = list(executor.runs(reads, source.count))

    def run(self, start: int, stop: int) -> None:
        """Take some vectors through all tiles."""
        self._count(stop)
        parts = self._parts(start, stop)
        sets = self._block_sets()
        waiting = len(parts)
        if len(sets) > 1 and not self.executor.one_by_one:
            layer = self.executor.layer
            values = layer.groups * (4 * layer.inputs + 8 * layer.outputs)
            waiting = max(1, WAITING_BYTES // max(1, values * (parts[0].stop - parts[0].start))) if parts else 1
        for first in range(0, len(parts), max(waiting, 1)):
            some = parts[first : first + waiting]
            for blocks in sets:
                self._advance(some, blocks, blocks is sets[-1])

    def _parts(self, start: int, stop: int) -> list[_Part]:
        """Vectors in parts; of whole runs where each has writes of its own, unless one is larger than a part."""
        value_bytes = self.source.patch_bytes if self.in_patches else None
        parts = [_Part(*each) for each in self.executor.parts(start, stop, self.workers.threads, value_bytes)]
        if len(self.runs) == 1 or not self.executor.rewritten or self.executor.one_by_one:
            return parts
        size, ends = parts[0].stop - parts[0].start if parts else 1, [start]
        for run in self.runs:
            if run.stop - ends[-1] > size and run.start > ends[-1]:
                ends.append(run.start)
            ends += range(ends[-1] + size, min(run.stop, stop), size)
        return [_Part(a, b) for a, b in pairwise([*(end for end in ends if end < stop), stop])]

    def _advance(self, parts: Sequence[_Part], blocks: Sequence[int], last: bool) -> None:
        """Take parts through some blocks of tiles: part by part, or where they are few, blocks side by side."""
        prepared = {} if self.executor.rewritten else self._prepared(blocks)
        chains = self._chains(blocks)
        if len(parts) >= self.workers.threads or len(chains) == 1:
            self.workers.run([partial(self._through, part, blocks, prepared, last) for part in parts])
            return
        for part in parts:
            self._begin(part)
        self.workers.run([partial(self._through, part, chain, prepared, False) for chain in chains for part in parts])
        if last:
            for part in parts:
                self._end(part)

    def _begin(self, part: _Part) -> AnyReading:
        if part.reading is None:
            begin = self.executor.patch_reading if self.in_patches else self.executor.reading
            part.reading = begin(self.source, part.start, part.stop)
        return part.reading

    def _end(self, part: _Part) -> None:
        self.take(part.start, self._begin(part))
        part.reading = None

    def _through(
        self, part: _Part, blocks: Sequence[int], prepared: dict[tuple[int, tuple[int, ...]], LoadedTiles], last: bool
    ) -> None:
        """Take a part through blocks of tiles."""
        self._begin(part)
        within = [(run, max(run.start, part.start), min(run.stop, part.stop)) for run in self.runs]
        for number in blocks:
            for run, start, stop in within:
                if start < stop:
                    self._add(part, self.tiles.blocks[number], run, prepared.get((number, run.copies)), start, stop)
        if last:
            self._end(part)

    def _add(
        self, part: _Part, block: TileBlock, run: _Run, tiles: LoadedTiles | None, start: int, stop: int
    ) -> None:  # fmt: skip
        """Read a block's tiles for vectors of a part and a run, and add them up in the part's sums."""
        executor, reads, reading = self.executor, self.reads, self._begin(part)
        arrays, use = self.tiles.arrays(block, run.copies), self.tiles.use(reads.step)
        counter = reads.drawn_from + executor.counted_from + start
        times = partial(
            executor.placed.read_times, use, block.tiles, arrays, reads, start, stop - start, executor.slices
        )  # fmt: skip
        which = ReadBlock(block.tiles, counter, 0, use, times)
        some = slice(start - part.start, stop - part.start)
        if self.observer is None:
            reading.add(tiles or self._load(block, run), which, some)
            return
        assert isinstance(reading, Reading)
        values, sums = reading.coded.value[:, some], reading.sums[:, some]
        images = (
            executor.device.load(executor.written(block, run, reads))
            if tiles is None or tiles.images is None
            else tiles.images
        )
        routing = self.tiles.routing(block, arrays)
        size = max(1, BLOCK_VALUES // max(1, block.routing.source.size * executor.slices))
        for at in range(0, stop - start, size):
            drives = routing.drives(values[:, at : at + size])
            readings = images.read(drives, which.after(at, drives.shape[1]))
            executor.show(self.observer, block, slice(None), arrays, drives, readings)
            routing.add(routing.totals(readings), sums[:, at : at + size])

    def _load(self, block: TileBlock, run: _Run) -> LoadedTiles:
        """A block's tiles, in images as the writes left them that a run of vectors is read from."""
        images = self.executor.device.load(self.executor.written(block, run, self.reads))
        return images.tiles(self.tiles.routing(block, self.tiles.arrays(block, run.copies)))

    def _prepared(self, blocks: Sequence[int]) -> dict[tuple[int, tuple[int, ...]], LoadedTiles]:
        """Tiles of blocks on the device, for each choice of copies; kept from call to call where there is room."""
        prepared: dict[tuple[int, tuple[int, ...]], LoadedTiles] = {}

        def prepare(number: int, run: _Run) -> None:
            block = self.tiles.blocks[number]
            arrays = self.tiles.arrays(block, run.copies)
            prepared[number, run.copies] = self.executor.placed.kept.get(
                (self.executor.index, number, run.copies),
                block.cells.size,
                partial(self._load, block, run),
                lambda tiles: tiles.corrected(self.tiles.routing(block, arrays)),
                self.tiles.tile_gain,
            )

        each = {run.copies: run for run in self.runs}.values()
        self.workers.run([partial(prepare, number, run) for run in each for number in blocks])
        return prepared

    def _block_sets(self) -> list[list[int]]:
        """Blocks of tiles that are prepared together."""
        sets: list[list[int]] = [[]]
        cells = 0
        for number, block in enumerate(self.tiles.blocks):
            if sets[-1] and cells + block.cells.size > KEPT_CELLS:
                sets.append([])
                cells = 0
            sets[-1].append(number)
            cells += block.cells.size
        return sets

    def _chains(self, blocks: Sequence[int]) -> list[list[int]]:
        """Blocks that add into other outputs than each other."""
        chains: list[list[int]] = []
        for number in blocks:
            if chains and self.tiles.blocks[number].follows:
                chains[-1].append(number)
            else:
                chains.append([number])
        return chains

    def _count(self, vectors: int) -> None:
        """Count the events of all tiles: an image on an array that is recycled is written for each batch, on any device."""
        executor, reads, counter = self.executor, self.reads, self.executor.counter
        if counter is None:
            return
        timeline, use = executor.placed.timeline, self.tiles.use(reads.step)
        spanned = (
            (reads.first + np.array([0, max(vectors - 1, 0)])) // reads.per_batch if reads.per_batch else np.zeros(2)
        )
        first, last = (reads.first_batch + spanned.astype(np.int64)).tolist()
        for block in self.tiles.blocks:
            for copies in dict.fromkeys(run.copies for run in self.runs):
                arrays = self.tiles.arrays(block, copies)
                start, end = (
                    executor.placed.written(use, block.tiles, arrays, block.cells, batch) for batch in (first, last)
                )
                recycled = timeline.writes_per_batch[arrays] > 0
                counter.note_batches(start, end, np.where(recycled, last - first + 1, 1))
            counter.reads += len(block.tiles) * vectors * executor.slices
