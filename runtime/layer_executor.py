"""One matrix layer on a device with the batched path: drive the tiles, read them, recombine on the digital side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np

from xbcompile.ir import Patches
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.ir.vectors import count_vectors, gather, lay_out, of_type, vectors_per_sample
from xbcompile.runtime.drive import CodedInput, code_vectors
from xbcompile.runtime.one_by_one import EffortCounter, OneByOne
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.tiles import BLOCK_TILES, LayerTiles, TileBlock
from xbcompile.runtime.timeline import VectorRange
from xbcompile.runtime.workers import ALONE, Workers
from xbcompile.targets import BatchedDevice, ReadBlock, WrittenImages
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.targets.loaded_images import BLOCK_VALUES, LoadedTiles

# Bytes of vectors and sums in one piece of a layer's input, and in the parts of a piece that threads take.
PIECE_BYTES = 1 << 26
PART_BYTES = 1 << 22
# Cells of tiles that are prepared together, and of a layer up to which they stay prepared between calls: at most 8 bytes each.
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
        workers: share its vectors; the result does not depend on them.
        counter: counts what is asked of the device.
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
        one_by_one = isinstance(device, OneByOne)
        self.device, self.workers, self.counter = device, ALONE if one_by_one else workers, counter
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
        self._kept: dict[tuple[int, tuple[int, ...]], LoadedTiles] = {}
        self._one_by_one = one_by_one

    @property
    def rewritten(self) -> bool:
        """Whether every batch reads what writes of its own left."""
        return self.device.writes_differ and self.placed.timeline.rewritten(self.tiles.every_array)

    @property
    def slices(self) -> int:
        """Reads per vector and tile."""
        return self.layer.slices

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
        pieces, results = self._pieces(single, PIECE_BYTES), []
        for piece in pieces:
            results.append(self._read(piece, reads, observer))
            reads = reads.after(len(results[-1]))
        return (np.concatenate(results) if len(results) > 1 else results[0]), self._shape(x)

    def begin(self, x: np.ndarray) -> Reading:
        """Gather and code the vectors of an input tensor."""
        single = x.astype(np.float32, copy=False)
        vectors, shape = gather(self.layer, single)
        coded = code_vectors(self.layer, single, vectors, self.tiles.both_signs)
        return Reading(coded, np.zeros((self.layer.groups, vectors.shape[1], self.layer.outputs)), shape)

    def _pieces(self, x: np.ndarray, piece_bytes: int) -> list[np.ndarray]:
        """The input split along axis 0, so that vectors and sums of a piece take no more than so many bytes, if possible."""
        geometry = self.layer.geometry
        separable = isinstance(geometry, Patches) or x.ndim > -geometry.input_axis
        per_vector = self.layer.groups * (4 * self.layer.inputs + 8 * self.layer.outputs)
        size = max(1, piece_bytes // max(vectors_per_sample(self.layer, x.shape) * per_vector, 1))
        if not separable or len(x) <= size:
            return [x]
        return [x[first : first + size] for first in range(0, len(x), size)]

    def _parts(self, x: np.ndarray, observed: bool) -> list[np.ndarray]:
        """A piece split so that every thread has its share; whole where reads come one by one."""
        if self._one_by_one or observed or not len(x):
            return [x]
        share = -(-len(x) // self.workers.threads)
        values = self.layer.groups * (4 * self.layer.inputs + 8 * self.layer.outputs)
        return self._pieces(x, min(PART_BYTES, share * vectors_per_sample(self.layer, x.shape) * values))

    def _read(self, x: np.ndarray, reads: VectorRange, observer: ReadingObserver | None) -> np.ndarray:
        """Output vectors of a piece of the input, float64 [V, groups * outputs]: all parts through all tiles."""
        parts = self._parts(x, observer is not None)
        starts = list(accumulate((count_vectors(self.layer, part.shape) for part in parts), initial=0))
        y = np.empty((starts[-1], self.layer.groups * self.layer.outputs))
        runs = list(self._runs(reads, starts[-1]))
        on_the_way: list[Reading | None] = [None] * len(parts)
        sets = self._block_sets()
        for number, blocks in enumerate(sets):
            self._count(blocks, runs, reads, starts[-1])
            prepared = {} if self.rewritten or observer is not None else self._prepared(blocks, runs, reads)

            def begin(i: int) -> Reading:
                reading = on_the_way[i] = on_the_way[i] or self.begin(parts[i])
                return reading

            def add(i: int, some: Sequence[int]) -> None:
                reading = begin(i)
                for run in runs:
                    span = max(run.start, starts[i]), min(run.stop, starts[i + 1])
                    if span[0] < span[1]:
                        for block in some:
                            self._add(reading, reads, block, run, prepared.get((block, run.copies)), starts[i], span, observer)

            def end(i: int) -> None:
                y[starts[i] : starts[i + 1]] = self.recombined(begin(i))
                on_the_way[i] = None

            def through(i: int) -> None:
                add(i, blocks)
                if number + 1 == len(sets):
                    end(i)

            every = range(len(parts))
            chains = self._chains(blocks)
            if len(parts) >= self.workers.threads or len(chains) == 1:
                self.workers.run([partial(through, i) for i in every])
                continue
            for i in every:
                begin(i)
            self.workers.run([partial(add, i, chain) for chain in chains for i in every])
            if number + 1 == len(sets):
                self.workers.run([partial(end, i) for i in every])
        return y

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

    def _count(self, blocks: Sequence[int], runs: list[_Run], reads: VectorRange, vectors: int) -> None:
        """Count the events of blocks: an image on an array that is recycled is written for each batch, on any device."""
        if self.counter is None:
            return
        timeline, use = self.placed.timeline, self.tiles.use(reads.step)
        spanned = (
            (reads.first + np.array([0, max(vectors - 1, 0)])) // reads.per_batch if reads.per_batch else np.zeros(2)
        )
        first, last = (reads.first_batch + spanned.astype(np.int64)).tolist()
        for block in (self.tiles.blocks[number] for number in blocks):
            for copies in dict.fromkeys(run.copies for run in runs):
                arrays = self.tiles.arrays(block, copies)
                start, end = (self.placed.written(use, block.tiles, arrays, block.cells, batch) for batch in (first, last))
                recycled = timeline.writes_per_batch[arrays] > 0
                self.counter.note_batches(start, end, np.where(recycled, last - first + 1, 1))
            self.counter.reads += len(block.tiles) * vectors * self.slices

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

    def _prepared(
        self, blocks: Sequence[int], runs: list[_Run], reads: VectorRange
    ) -> dict[tuple[int, tuple[int, ...]], LoadedTiles]:
        """Tiles of blocks on the device, for each choice of copies; kept from call to call where they are small."""
        cells = sum(block.cells.size for block in self.tiles.blocks)
        prepared = {}
        for run in {run.copies: run for run in runs}.values():
            for number in blocks:
                key, block = (number, run.copies), self.tiles.blocks[number]
                if key not in self._kept:
                    prepared[key] = self._tiles(block, run, reads)
                else:  # tile gains may have changed
                    routing = self.tiles.routing(block, self.tiles.arrays(block, run.copies))
                    prepared[key] = self._kept[key].corrected(routing)
                if cells * (1 + len(self._kept) // len(self.tiles.blocks)) <= KEPT_CELLS:
                    self._kept[key] = prepared[key]
        return prepared

    def _tiles(self, block: TileBlock, run: _Run, reads: VectorRange) -> LoadedTiles:
        """A block's tiles, in images as the writes left them that a run of vectors is read from."""
        arrays = self.tiles.arrays(block, run.copies)
        return self.device.load(self._written(block, run, reads)).tiles(self.tiles.routing(block, arrays))

    def _written(self, block: TileBlock, run: _Run, reads: VectorRange) -> WrittenImages:
        """A block's images as the writes left them that a run of vectors is read from."""
        arrays = self.tiles.arrays(block, run.copies)
        use = self.tiles.use(reads.step) if self.device.writes_differ else None
        return self.placed.written(use, block.tiles, arrays, block.cells, run.batch)

    def _add(
        self,
        reading: Reading,
        reads: VectorRange,
        number: int,
        run: _Run,
        tiles: LoadedTiles | None,
        first: int,
        span: tuple[int, int],
        observer: ReadingObserver | None,
    ) -> None:
        """Read a block's tiles for a part of a run's vectors, and add them up in the sums."""
        (start, stop), block = span, self.tiles.blocks[number]
        arrays, use = self.tiles.arrays(block, run.copies), self.tiles.use(reads.step)
        tiles = tiles or self._tiles(block, run, reads)
        counter = reads.drawn_from + self.counted_from + start
        times = partial(self.placed.read_times, use, block.tiles, arrays, reads, start, stop - start, self.slices)
        which = ReadBlock(block.tiles, counter, 0, use, times)
        some = slice(start - first, stop - first)
        values, sums = reading.coded.value[:, some], reading.sums[:, some]
        if observer is None:
            tiles.add(values, which, sums)
            return
        images, size = self.device.load(self._written(block, run, reads)), self._drives_at_once(block)
        for at in range(0, stop - start, size):
            part = slice(at, at + size)
            drives = tiles.routing.drives(values[:, part])
            readings = images.read(drives, which.after(at, drives.shape[1]))
            self.show(observer, block, slice(None), arrays, drives, readings)
            tiles.routing.add(tiles.routing.totals(readings), sums[:, part])

    def _drives_at_once(self, block: TileBlock) -> int:
        return max(1, BLOCK_VALUES // max(1, block.routing.source.size * self.slices))

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

    def _shape(self, x: np.ndarray) -> tuple[int, ...]:
        """What `lay_out` needs for an input tensor."""
        geometry = self.layer.geometry
        if isinstance(geometry, Patches):
            return (len(x), *geometry.output_size(x.shape[2:]))
        kept = list(x.shape)
        del kept[geometry.input_axis]
        return tuple(kept)

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
        return y.transpose(1, 0, 2).reshape(sums.shape[1], layer.groups * layer.outputs) + layer.bias
