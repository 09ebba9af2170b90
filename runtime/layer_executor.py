"""One matrix layer on a device: drive the tiles, read them, recombine on the digital side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from xbcompile.ir import Patches
from xbcompile.ir.gather import gather
from xbcompile.program.program import Program
from xbcompile.runtime.drive import CodedInput, code_vectors, slices_of
from xbcompile.runtime.gather import lay_out, of_type, vectors_per_sample
from xbcompile.runtime.one_by_one import OneByOne
from xbcompile.targets import BatchedDevice, LoadedImages
from xbcompile.targets.families.ideal import IdealArray

# Values in one block of drives: small enough for the cache to help, large enough for numpy to run at full speed.
BLOCK_VALUES = 1 << 20
# Gathered input values in one piece of a layer's input: bounds the memory of a convolution's patches.
PIECE_VALUES = 1 << 26
# Cells of a layer up to which its images stay prepared between calls: at most 9 bytes each.
KEPT_CELLS = 1 << 24
# Uses of one matrix count their vectors this far apart, so that each has its own noise; commissioning counts from 2**48.
USE_VECTORS = 1 << 50
# Steps of a recurrence count their vectors this far apart, so that each has its own noise: 2**20 steps below 2**48.
STEP_VECTORS = 1 << 28
# Vectors below which all tiles of a block are driven in one call.
FEW_VECTORS = 32
# Tiles evaluated together at most; a constant, so that sums never depend on the number of vectors.
BLOCK_TILES = 256


class ReadingObserver(Protocol):
    """Something that wants to see readings beside the exact sums that they stand for."""

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See used columns only: arrays [tiles], physical columns [tiles, width], both others [tiles, vectors, slices, width]."""


@dataclass(frozen=True, eq=False)
class _Block:
    """Tiles that add into the same output columns of one group, as tables.

    Args:
        group: index of the matrix.
        m0: first output column.
        first: position of the first tile among the layer's.
        tiles: int [n] indices into the schedule's tile table.
        arrays: int [n] physical arrays.
        source: int [n, rows], index of the input that drives each row; 0 where idle.
        idle: bool [n, rows].
        columns: int [n, width], physical columns.
        cells: [n, rows, columns] level indices.
        idle_sum: float64 [n, width], what idle rows add to one ideal read.
        row_sign: float32 [n, rows], sign of each physical row's drive; None: all are +1.
        column_sign: float64 [n, width], sign of each reading; None: all are +1.
    """

    group: int
    m0: int
    first: int
    tiles: np.ndarray
    arrays: np.ndarray
    source: np.ndarray
    idle: np.ndarray
    columns: np.ndarray
    cells: np.ndarray
    idle_sum: np.ndarray
    row_sign: np.ndarray | None = None
    column_sign: np.ndarray | None = None


class LayerExecutor:
    """Executes one layer of a program.

    Args:
        program: the program.
        index: which matrix layer.
        device: a device with the batched path.
        threads: worker threads; the result does not depend on it.
    """

    def __init__(self, program: Program, index: int, device: BatchedDevice, threads: int = 1) -> None:
        self.threads = threads
        self.program = program
        self.layer = program.network.layers[index]
        self.device = device
        self.bipolar = program.spec.drives_both_signs
        self.ideal = IdealArray(program.spec)
        assert self.layer.weight_code is not None
        self.code = self.layer.weight_code
        self.level_sum = self.code.weighted_cells().sum(axis=1, dtype=np.float64)  # [groups, outputs]
        matrices = program.network.matrices
        self.tiles = program.schedule.tiles_of(matrices[index])
        # Noise counter of the layer's first vector: how many earlier layers read the same tiles.
        self.counted_from = USE_VECTORS * matrices[:index].count(matrices[index])
        outputs = self.layer.groups * self.layer.outputs
        # Digital corrections fitted on the device: y -> gain * y + shift per output; one offset per physical column.
        self.gain = np.ones(outputs)
        self.shift = np.zeros(outputs)
        self.column_offset: np.ndarray | None = None  # float64 [arrays, columns]
        self.tile_gain: np.ndarray | None = None  # float64 [tiles of the layer, columns], by a tile's own columns
        inside = {layer.name for each in program.network.recurrences for layer in each.layers}
        self.steps_apart = self.layer.name in inside
        first, end = (
            np.searchsorted(program.schedule.copies["image"], program.schedule.tiles["image"][self.tiles], side=side)
            for side in ("left", "right")
        )
        self.first_copy = first  # of each tile's image
        self.copy_counts, self.copy_count = np.unique(
            end - first, return_inverse=True
        )  # numbers of copies; of each tile
        self._kept: dict[tuple[int, ...], list[tuple[_Block, LoadedImages]]] = {}

    @property
    def slices(self) -> int:
        """Reads per vector and tile."""
        return self.layer.slices

    def run(self, x: np.ndarray, first_vector: int = 0, observer: ReadingObserver | None = None) -> np.ndarray:
        """Evaluate the layer, corrections included.

        Args:
            x: input tensor.
            first_vector: index of its first vector, the noise counter.
            observer: sees every reading and its exact sum.

        Returns:
            the output tensor, of x's type.
        """
        y, shape = self.vectors(x, first_vector, observer)
        return lay_out(self.layer, of_type(y, x.dtype), shape)

    def vectors(
        self, x: np.ndarray, first_vector: int = 0, observer: ReadingObserver | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Output vectors, float64 [V, groups * outputs], and the shape that `lay_out` needs; see `run`."""
        y, shape = self.vectors_before_gain(x, first_vector, observer)
        return y * self.gain + self.shift, shape

    def vectors_before_gain(
        self, x: np.ndarray, first_vector: int = 0, observer: ReadingObserver | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """`vectors` without the gain and shift of each output."""
        layer = self.layer
        single = x.astype(np.float32, copy=False)
        pieces = self._pieces(single)
        in_batch = self.program.schedule.batch * vectors_per_sample(layer, single.shape)
        results = []
        for piece in pieces:
            vectors, shape = gather(layer, piece)
            coded = code_vectors(layer, piece, vectors, self.bipolar)
            sums = np.zeros((layer.groups, vectors.shape[1], layer.outputs))
            for start, stop, copies in self._runs(first_vector, vectors.shape[1], in_batch):
                for block, loaded in self._loaded_blocks(copies):
                    value = coded.value[block.group, start:stop]
                    self._add_block(block, loaded, value, first_vector + start, sums[:, start:stop], observer)
            results.append(self._recombine(sums, coded))
            first_vector += vectors.shape[1]
        if len(pieces) > 1:
            shape = (len(single), *shape[1:])
        return (np.concatenate(results) if len(results) > 1 else results[0]), shape

    def _pieces(self, x: np.ndarray) -> list[np.ndarray]:
        """The input split along axis 0, so that gathered vectors stay within PIECE_VALUES."""
        geometry = self.layer.geometry
        separable = isinstance(geometry, Patches) or x.ndim > -geometry.input_axis
        values = vectors_per_sample(self.layer, x.shape) * self.layer.groups * self.layer.inputs
        size = max(1, PIECE_VALUES // max(values, 1))
        if not separable or len(x) <= size:
            return [x]
        return [x[first : first + size] for first in range(0, len(x), size)]

    def _runs(self, first_vector: int, vectors: int, in_batch: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Runs of vectors that the same copies serve: first, end, and the copies, by the numbers of copies that tiles have."""
        counts = self.copy_counts.tolist()
        if counts in ([], [1]):
            yield 0, vectors, tuple(0 for _ in counts)
            return
        at = first_vector % STEP_VECTORS if self.steps_apart else first_vector
        place = (at + np.arange(vectors)) % in_batch
        serving = np.stack([place * count // in_batch for count in counts], axis=1)
        changes = 1 + np.flatnonzero(np.any(serving[1:] != serving[:-1], axis=1))
        for start, stop in pairwise([0, *changes.tolist(), vectors]):
            yield start, stop, tuple(serving[start].tolist())

    def _loaded_blocks(self, copies: tuple[int, ...]) -> Iterable[tuple[_Block, LoadedImages]]:
        """Blocks with their images on the device; kept from call to call where they are small.

        Args:
            copies: which copy of an image to read, one for each number of copies that the layer's images have, ascending.
        """
        if copies in self._kept:
            return self._kept[copies]
        which = self.first_copy + np.array(copies, dtype=np.intp)[self.copy_count]
        blocks = self._blocks(self.program.schedule.copies["array"][which])
        loaded = ((block, self.device.load(block.arrays, block.tiles, block.cells)) for block in blocks)
        spec = self.program.spec
        if len(self.tiles) * spec.rows * spec.columns * (len(self._kept) + 1) > KEPT_CELLS:
            return loaded
        self._kept[copies] = list(loaded)
        return self._kept[copies]

    def _blocks(self, arrays: np.ndarray) -> Iterator[_Block]:
        """Tables of the layer's blocks; `arrays` holds the array of each of its tiles."""
        table = self.program.schedule.tiles[self.tiles]
        keys = np.stack([table["group"], table["m0"], table["m1"]], axis=1)
        changes = 1 + np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1))
        for start, end in pairwise([0, *changes.tolist(), len(keys)]):
            for first in range(start, end, BLOCK_TILES):
                yield self._block(first, arrays[first : min(first + BLOCK_TILES, end)])

    def _block(self, first: int, arrays: np.ndarray) -> _Block:
        program, spec, tiles = self.program, self.program.spec, self.tiles[first : first + len(arrays)]
        table = program.schedule.tiles[tiles]
        row, row_sign = np.arange(spec.rows), None
        if program.routes is not None:
            routes = [program.routes[image] for image in table["image"]]
            row = np.stack([np.argsort(route.row) for route in routes])  # logical row of each physical one
            row_sign = np.stack([route.row_sign[rows] for route, rows in zip(routes, row, strict=True)])
        source = table["k0"][:, None] + row - table["row"][:, None]
        idle = (source < table["k0"][:, None]) | (source >= table["k1"][:, None])
        width = int(table["m1"][0] - table["m0"][0])
        permutation = program.schedule.column_permutation[table["image"]]
        logical = table["column"][:, None] + np.arange(width)
        columns = np.take_along_axis(permutation, logical, axis=1).astype(np.intp)
        column_sign = None
        if program.routes is not None:
            signs = np.stack([route.column_sign for route in routes]).astype(np.float64)
            column_sign = np.take_along_axis(signs, logical, axis=1)
        cells = program.cells(table["image"])
        idle_sum = np.zeros((len(tiles), width))
        idle_drive = np.where(idle, spec.row_weight * spec.idle_drive, 0.0)
        if np.any(idle_drive):
            values = cells if spec.levels is None else spec.levels[cells]
            every = np.einsum("ir,irc->ic", idle_drive, values.astype(np.float64))
            idle_sum = np.take_along_axis(every, columns, axis=1)
        return _Block(
            group=int(table["group"][0]),
            m0=int(table["m0"][0]),
            first=first,
            tiles=tiles,
            arrays=arrays,
            source=np.where(idle, 0, source),
            idle=idle,
            columns=columns,
            cells=cells,
            idle_sum=idle_sum,
            row_sign=row_sign,
            column_sign=column_sign,
        )

    def _add_block(
        self,
        block: _Block,
        loaded: LoadedImages,
        value: np.ndarray,
        first_vector: int,
        sums: np.ndarray,
        observer: ReadingObserver | None,
    ) -> None:
        """Read the block's tiles for all vectors and add them up in `sums` [groups, V, outputs]."""
        exact = self.ideal.load(block.arrays, block.tiles, block.cells) if observer else None
        first_vector += self.counted_from
        tiles, rows = block.source.shape
        size = max(1, BLOCK_VALUES // (tiles * rows * self.slices))
        coefficients = self.layer.input_code.coefficients if self.layer.input_code else np.ones(1)
        constant = block.idle_sum * coefficients.sum()
        if self.column_offset is not None:
            offset = np.take_along_axis(self.column_offset[block.arrays], block.columns, axis=1)
            constant = constant - offset * coefficients.sum()
        width = block.columns.shape[1]

        def add_run(start: int) -> None:
            drives = self._drives(block, value[start : start + size])
            readings = loaded.read(drives, first_vector + start)
            if exact is not None and observer is not None:
                sampled = exact.read(drives, first_vector + start)
                index = block.columns[:, None, None, :]
                observer.observe(
                    block.arrays,
                    block.columns,
                    np.take_along_axis(readings, index, axis=3),
                    np.take_along_axis(sampled, index, axis=3),
                )
            if np.all(coefficients == 1.0):
                total = readings.sum(axis=2, dtype=np.float64)
            else:
                total = np.einsum("t,ivtc->ivc", coefficients, readings.astype(np.float64))
            chosen = np.take_along_axis(total, block.columns[:, None, :], axis=2)
            chosen -= constant[:, None, :]
            if block.column_sign is not None:
                chosen *= block.column_sign[:, None, :]
            if self.tile_gain is not None:
                chosen *= self.tile_gain[block.first : block.first + tiles, None, :width]
            sums[block.group, start : start + size, block.m0 : block.m0 + width] += chosen.sum(axis=0)

        starts = range(0, len(value), size)
        if min(self.threads, len(starts)) == 1 or observer is not None or isinstance(self.device, OneByOne):
            for start in starts:
                add_run(start)
            return
        # Runs of vectors write disjoint rows of the sums; numpy and the kernels release the interpreter.
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(add_run, starts))

    def _drives(self, block: _Block, value: np.ndarray) -> np.ndarray:
        """Drives [tiles, V, slices, rows] of coded values [V, K]."""
        tiles, rows = block.source.shape
        drives = np.empty((tiles, len(value), self.slices, rows), np.float32)
        # A tile at a time stays in the cache; few vectors are done at once, as calls would cost more than work.
        for i in range(0, tiles, tiles if len(value) < FEW_VECTORS else 1):
            some = slice(i, tiles if len(value) < FEW_VECTORS else i + 1)
            out = drives[some].transpose(2, 1, 0, 3)
            slices_of(self.layer.input_code, value[:, block.source[some]], self.bipolar, out)
        if block.row_sign is not None:
            drives *= block.row_sign[:, None, None, :]
        if block.idle.any():
            idle_drive = self.program.spec.idle_drive
            np.copyto(drives, idle_drive, where=block.idle[:, None, None, :])
        return drives

    def _recombine(self, sums: np.ndarray, coded: CodedInput) -> np.ndarray:
        """Undo both codes: sums [groups, V, outputs] -> float64 [V, groups * outputs]."""
        code, layer = self.code, self.layer
        gain, shift = coded.gain[:, None], coded.shift[:, None]
        y = code.scale[:, None, :] * (gain * sums + shift * self.level_sum[:, None, :])
        if np.any(code.offset):
            drive_sum = coded.value.sum(axis=2, dtype=np.float64)[..., None]
            if self.bipolar and layer.input_code is not None:
                drive_sum = 2 * drive_sum - layer.inputs * layer.input_code.coefficients.sum()
            y += code.offset[:, None, :] * (gain * drive_sum + shift * layer.inputs)
        return y.transpose(1, 0, 2).reshape(sums.shape[1], layer.groups * layer.outputs) + layer.bias
