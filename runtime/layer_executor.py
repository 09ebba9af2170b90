"""One matrix layer on a device with the batched path: drive the tiles, read them, recombine on the digital side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np

from xbcompile.ir import Patches
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.ir.vectors import gather, lay_out, of_type, vectors_per_sample
from xbcompile.runtime.drive import CodedInput, NotDriven, code_vectors
from xbcompile.runtime.one_by_one import EffortCounter, OneByOne
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.tiles import BLOCK_TILES, LayerTiles, TileBlock
from xbcompile.runtime.timeline import VectorRange
from xbcompile.targets import BatchedDevice, LoadedImages, ReadBlock, WrittenImages
from xbcompile.targets.contract import BLOCK_VALUES
from xbcompile.targets.families.ideal import IdealArray

# Gathered input values in one piece of a layer's input: bounds the memory of a convolution's patches.
PIECE_VALUES = 1 << 26
# Cells of a layer up to which its images stay prepared between calls: at most 9 bytes each.
KEPT_CELLS = 1 << 24
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
        start: the first one's place in the piece.
        stop: end.
        copies: which copy of an image they are read from, one for each number of copies that the layer's images have.
        batch: their batch, where writes of batches differ; else 0.
    """

    start: int
    stop: int
    copies: tuple[int, ...]
    batch: int


@dataclass
class Reading:
    """One layer's vectors on their way: what all tiles read of them is added up here.

    Args:
        coded: the vectors' codes.
        sums: float64 [groups, vectors, outputs].
        shape: what `lay_out` needs.
    """

    coded: CodedInput
    sums: np.ndarray
    shape: tuple[int, ...] = field(default=())


class LayerExecutor:
    """Executes one layer of a program.

    Args:
        placed: the program as the chip runs it.
        index: which matrix layer.
        device: a device with the batched path.
        threads: worker threads; the result does not depend on it.
        counter: counts what is asked of the device.
    """

    def __init__(
        self,
        placed: PlacedProgram,
        index: int,
        device: BatchedDevice,
        threads: int = 1,
        counter: EffortCounter | None = None,
    ) -> None:
        self.placed, self.program, self.index = placed, placed.program, index
        one_by_one = isinstance(device, OneByOne)
        self.device, self.threads, self.counter = device, 1 if one_by_one else threads, counter
        self.layer = self.program.network.layers[index]
        self.tiles = LayerTiles(placed, index, 1 if one_by_one else BLOCK_TILES)
        self.ideal = IdealArray(self.program.spec)
        assert self.layer.weight_code is not None
        self.code = self.layer.weight_code
        self.level_sum = self.code.weighted_cells().sum(axis=1, dtype=np.float64)  # [groups, outputs]
        matrices = self.program.network.matrices
        # How many earlier layers read the same tiles: each has noise of its own.
        self.counted_from = USE_VECTORS * matrices[:index].count(matrices[index])
        self.correction: LayerCorrection = placed.corrections.layers[index]
        self._kept: dict[tuple[int, tuple[int, ...]], LoadedImages] = {}

    @property
    def rewritten(self) -> bool:
        """Whether every batch reads what writes of its own left."""
        return self.device.writes_differ and self.placed.timeline.rewritten(self.tiles.every_array)

    @property
    def slices(self) -> int:
        """Reads per vector and tile."""
        return self.layer.slices

    @property
    def sample_axis(self) -> int:
        """The axis of its input along which samples lie."""
        return self.layer.sample_axis

    def run(self, x: np.ndarray, reads: VectorRange | None = None) -> np.ndarray:
        """Evaluate the layer, corrections included.

        Args:
            x: input tensor.
            reads: which vectors it holds; None: the first.

        Returns:
            the output tensor, of x's type.
        """
        y, shape = self.vectors(x, reads)
        return lay_out(self.layer, of_type(y, x.dtype), shape)

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
        reads = reads or VectorRange()
        single = x.astype(np.float32, copy=False)
        pieces, results = self._pieces(single), []
        for piece in pieces:
            reading = self.begin(piece)
            self._read(reading, reads, observer)
            results.append(self.recombined(reading))
            reads, shape = reads.after(len(results[-1])), reading.shape
        if len(pieces) > 1:
            shape = (x.shape[self.sample_axis], *shape[1:])
        return (np.concatenate(results) if len(results) > 1 else results[0]), shape

    def begin(self, x: np.ndarray) -> Reading:
        """Gather and code the vectors of an input tensor."""
        single = x.astype(np.float32, copy=False)
        vectors, shape = gather(self.layer, single)
        coded = code_vectors(self.layer, single, vectors, self.tiles.both_signs)
        return Reading(coded, np.zeros((self.layer.groups, vectors.shape[1], self.layer.outputs)), shape)

    def _pieces(self, x: np.ndarray) -> list[np.ndarray]:
        """The input split along its axis of samples, so that gathered vectors stay within PIECE_VALUES."""
        geometry, axis = self.layer.geometry, self.sample_axis
        separable = isinstance(geometry, Patches) or x.ndim + geometry.input_axis != axis
        values = vectors_per_sample(self.layer, x.shape) * self.layer.groups * self.layer.inputs
        size = max(1, PIECE_VALUES // max(values, 1))
        if not separable or x.shape[axis] <= size:
            return [x]
        return np.split(x, range(size, x.shape[axis], size), axis)

    def _read(self, reading: Reading, reads: VectorRange, observer: ReadingObserver | None) -> None:
        """Read all tiles for all vectors, block after block."""
        runs = list(self._runs(reads, reading.sums.shape[1]))
        for number, block in enumerate(self.tiles.blocks):
            if self.counter is not None:
                self._count(self.counter, block, runs, reads, reading.sums.shape[1])
            tasks = [
                partial(self._add, reading, reads, block, run, loaded, start, stop, observer)
                for run, loaded in self._loaded(number, block, runs, reads)
                for start, stop in self._parts(block, run)
            ]
            if min(self.threads, len(tasks)) <= 1 or observer is not None:
                for task in tasks:
                    task()
                continue
            # Parts of vectors write disjoint rows of the sums; numpy and the kernels release the interpreter.
            with ThreadPoolExecutor(self.threads) as pool:
                for done in [pool.submit(task) for task in tasks]:
                    done.result()

    def _count(
        self, counter: EffortCounter, block: TileBlock, runs: list[_Run], reads: VectorRange, vectors: int
    ) -> None:
        """Count a block's events: an image on an array that is recycled is written for each batch, on any device."""
        timeline, use = self.placed.timeline, self.tiles.use(reads.step)
        spanned = (
            (reads.first + np.array([0, max(vectors - 1, 0)])) // reads.per_batch if reads.per_batch else np.zeros(2)
        )
        first, last = (reads.first_batch + spanned.astype(np.int64)).tolist()
        for copies in dict.fromkeys(run.copies for run in runs):
            arrays = self.tiles.arrays(block, copies)
            start, end = (self.placed.written(use, block.tiles, arrays, block.cells, batch) for batch in (first, last))
            recycled = timeline.writes_per_batch[arrays] > 0
            counter.note_batches(start, end, np.where(recycled, last - first + 1, 1))
        counter.reads += len(block.tiles) * vectors * self.slices

    def _parts(self, block: TileBlock, run: _Run) -> Iterator[tuple[int, int]]:
        size = max(1, BLOCK_VALUES // (block.source.size * self.slices))
        for start in range(run.start, run.stop, size):
            yield start, min(start + size, run.stop)

    def _runs(self, reads: VectorRange, vectors: int) -> Iterator[_Run]:
        """Runs of vectors that are read from the same writes of the same copies."""
        counts = self.tiles.copy_counts
        copied = counts not in ([], [1])
        if not reads.per_batch or not (copied or self.rewritten):
            yield _Run(0, vectors, tuple(0 for _ in counts), reads.first_batch)
            return
        at = reads.first + np.arange(vectors)
        batch, place = np.divmod(at, reads.per_batch)
        serving = np.stack([place * count // reads.per_batch for count in counts], axis=1)
        keys = np.column_stack([serving, batch]) if self.rewritten else serving
        changes = 1 + np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1))
        for start, stop in pairwise([0, *changes.tolist(), vectors]):
            yield _Run(start, stop, tuple(serving[start].tolist()), reads.first_batch + int(batch[start]))

    def _loaded(
        self, number: int, block: TileBlock, runs: list[_Run], reads: VectorRange
    ) -> Iterator[tuple[_Run, LoadedImages | None]]:
        """Each run with a block's images on the device: None where every batch has its own, see `_add`; others are prepared once,
        and kept from call to call where they are small.
        """
        if self.rewritten:
            yield from ((run, None) for run in runs)
            return
        cells = len(self.tiles.index) * self.program.spec.rows * self.program.spec.columns
        prepared: dict[tuple[int, ...], LoadedImages] = {}
        for run in runs:
            key = number, run.copies
            if key in self._kept:
                prepared[run.copies] = self._kept[key]
            if run.copies not in prepared:
                prepared[run.copies] = self.device.load(self._written(block, run, reads))
                if cells * (1 + len(self._kept) // len(self.tiles.blocks)) <= KEPT_CELLS:
                    self._kept[key] = prepared[run.copies]
            yield run, prepared[run.copies]

    def _written(self, block: TileBlock, run: _Run, reads: VectorRange) -> WrittenImages:
        """A block's images as the writes left them that a run of vectors is read from."""
        arrays = self.tiles.arrays(block, run.copies)
        use = self.tiles.use(reads.step) if self.device.writes_differ else None
        return self.placed.written(use, block.tiles, arrays, block.cells, run.batch)

    def _add(
        self,
        reading: Reading,
        reads: VectorRange,
        block: TileBlock,
        run: _Run,
        loaded: LoadedImages | None,
        start: int,
        stop: int,
        observer: ReadingObserver | None,
    ) -> None:
        """Read the block's tiles for a part of a run's vectors, and add them up in the sums."""
        loaded = loaded or self.device.load(self._written(block, run, reads))
        arrays, use = self.tiles.arrays(block, run.copies), self.tiles.use(reads.step)
        drives = self.tiles.coded_drives(block, reading.coded.value[block.group, start:stop])
        counter = reads.drawn_from + self.counted_from + start
        times = partial(self.placed.read_times, use, block.tiles, arrays, reads, start, stop - start, self.slices)
        which = ReadBlock(block.tiles, counter, 0, use, times)
        if observer is None:
            totals = loaded.column_sums(drives, which)
        else:
            driven = drives.drives()
            readings = loaded.read(driven, which)
            self.show(observer, block, slice(None), arrays, driven, readings)
            totals = drives.added_up(readings)
        self.tiles.correct(block, arrays, totals)
        self.tiles.add(block, totals, reading.sums[:, start:stop])

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
        columns = block.columns[some]
        index = columns[:, None, None, :]
        observer.observe(
            arrays,
            columns,
            np.take_along_axis(readings, index, axis=3),
            np.take_along_axis(exact, index, axis=3),
        )

    def recombined(self, reading: Reading) -> np.ndarray:
        """Undo both codes: float64 [V, groups * outputs]."""
        code, layer, coded, sums = self.code, self.layer, reading.coded, reading.sums
        gain, shift = coded.gain[:, None], coded.shift[:, None]
        y = code.scale[:, None, :] * (gain * sums + shift * self.level_sum[:, None, :])
        if np.any(code.offset):
            drive_sum = coded.value.sum(axis=2, dtype=np.float64)[..., None]
            if self.tiles.both_signs:
                drive_sum = 2 * drive_sum - layer.inputs * self.tiles.coefficients.sum()
            y += code.offset[:, None, :] * (gain * drive_sum + shift * layer.inputs)
        if coded.not_driven is not None:
            self._follow_floats(coded.not_driven, y)
        return y.transpose(1, 0, 2).reshape(sums.shape[1], layer.groups * layer.outputs) + layer.bias

    def _follow_floats(self, lost: NotDriven, y: np.ndarray) -> None:
        """Replace, in y [groups, V, outputs], the products of vectors that the array was not driven with by what floats give."""
        weights = self.code.dequantized().astype(np.float64)
        for group in np.unique(lost.group).tolist():
            mine = lost.group == group
            with np.errstate(invalid="ignore"):  # infinity times 0, or less infinity
                y[group, lost.vector[mine]] = lost.values[mine].astype(np.float64) @ weights[group]
