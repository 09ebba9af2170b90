"""Images whose sums over rows are matrix products, exact or in single precision, read out by a converter: all linear arrays."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbcompile.targets.column_sums import add_columns, add_patches
from xbcompile.targets.counter_random import Key, quantile_pieces, read_counter
from xbcompile.targets.fixed_point import round_to_exact
from xbcompile.targets.loaded_images import LoadedImages, LoadedTiles
from xbcompile.targets.ordered_product import ordered_product
from xbcompile.targets.patch_values import PatchValues
from xbcompile.targets.read_block import ReadBlock
from xbcompile.targets.read_noise import block_of, blocks_of, half_of, middle_quantiles, wanted_blocks
from xbcompile.targets.tile_routing import TileRouting
from xbcompile.targets.tile_sums import SCHEMES, Readout, Tables, add_tiles, read_out

# For exact sums drives are rounded to steps of 2**-24, which leaves 29 of the bits of float64 for matrices; where drives are
# -1, 0 or 1 alone, matrices of 24 bits are as exact in float32. Sums in single precision need neither.
_STEPS = 2.0**24
_ANALOGUE_BITS, _BINARY_BITS = 29, 24
# Bound of an image's sums where they are smaller: an image of zeros has none.
_LEAST_SUM = 2.0**-100
# Bytes of drives that are on their way together, and their number (vectors x slices).
_ROOM_BYTES = 1 << 21
_BLOCK_DRIVES = 128
# Where tiles use so few columns, and read each so often, going column by column is faster, with so many reads together.
_FEW_COLUMNS, _READS_PER_COLUMN = 4, 64
_BLOCK_READS = 496  # no power of two, as rows of drives so far apart would all compete for the same places of a cache


def exact_matrix(matrix: np.ndarray, largest: float | None = None, binary: bool = False) -> np.ndarray:
    """A matrix rounded so that sums of products with drives of at most 1 are exact, by 2**-29 of the largest sum at most.

    Args:
        matrix: float64 [..., rows, columns].
        largest: bound of all sums; None: that of this matrix.
        binary: drives are -1, 0 or 1 alone: rounded by 2**-24, so that sums are exact in float32.
    """
    if largest is None:
        largest = float(np.abs(matrix).sum(axis=tuple(range(matrix.ndim - 1))).max(initial=0.0))
    return round_to_exact(matrix, max(largest, _LEAST_SUM), _BINARY_BITS if binary else _ANALOGUE_BITS)


@dataclass(frozen=True, eq=False)
class LinearImages(LoadedImages):
    """Written images as matrices.

    A drive u adds u M0 + u|u| M1 + u^3 M2 to its columns; a linear array has the first term alone.

    Args:
        matrices: float64 [images, terms, rows, columns], from `exact_matrix`; float32 and of one term where `single`.
        constants: float64 [images, columns], what is added to the sums, a multiple of the same step.
        readout: how sums become readings.
        arrays: int [images], where each sits.
        key: gives the key of the random errors of an array that is read for a tile; None: there are none.
        binary: drives are -1, 0 or 1 alone, which the matrices are rounded for.
        single: matrices are any float32 numbers, and sums are rounded row by row (`ordered_product`): of n rows they are off by
            n 2**-24 of the sum of sizes at most, for arrays whose own errors are far larger.
    """

    matrices: np.ndarray
    constants: np.ndarray
    readout: Readout
    arrays: np.ndarray
    key: Callable[[int, int], Key] | None = None
    binary: bool = False
    single: bool = False

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages; float64 [images, vectors, slices, columns], float32 where `single`."""
        images, vectors, slices, rows = drives.shape
        sums = self._sums(drives.reshape(images, vectors * slices, rows))
        sums += self.constants[:, None, :].astype(sums.dtype)
        sums = sums.reshape(images, vectors, slices, -1)
        if self.readout.converts:
            halves = half_of(np.arange(sums.shape[3]), sums.shape[3])
            for i, key in enumerate(self.keys(reads.tiles)):
                counter = read_counter(key, reads.first_vector, reads.first_slice, sums[i].shape)
                read_out(sums[i], self.readout, halves, middle_quantiles(), quantile_pieces(), counter)
        return sums

    def _sums(self, drives: np.ndarray) -> np.ndarray:
        """Sums over rows, [images, reads, columns], of drives [images, reads, rows]."""
        images, terms, _, columns = self.matrices.shape
        if not self.single:
            return np.asarray(_powers(drives, terms) @ (self.matrices / _STEPS).reshape(images, -1, columns))
        sums = np.empty((*drives.shape[:2], columns), np.float32)
        for i in range(images):
            ordered_product(np.asarray(drives[i], np.float32), self.matrices[i, 0], sums[i])
        return sums

    def keys(self, tiles: np.ndarray) -> list[Key]:
        """Keys of the random errors of tiles.

        Args:
            tiles: int [images], the tile that each image is read for.
        """
        if self.key is None:
            return [(np.uint32(0), np.uint32(0))] * len(tiles)
        return [self.key(*each) for each in zip(self.arrays.tolist(), tiles.tolist(), strict=True)]

    def tiles(self, routing: TileRouting) -> LoadedTiles:
        """See LoadedImages."""
        if self.binary and routing.scheme == "analogue":
            raise ValueError(f"images for binary drives are driven with {routing.scheme} ones")
        if self.single and np.any(routing.idle_drive[routing.idle.any(axis=0)]):
            return LoadedTiles(self, routing)  # in single precision idle rows have their place in the order
        return LinearTiles(self, routing)


def _powers(drives: np.ndarray, terms: int) -> np.ndarray:
    """u, u|u| and u^3 side by side, in steps of 2**-24: float64 [..., terms * rows]."""
    steps = np.rint(np.multiply(drives, _STEPS, dtype=np.float64))
    found, size = [steps], np.abs(steps) / _STEPS
    for _ in range(1, terms):
        found.append(np.rint(found[-1] * size))
    return found[0] if terms == 1 else np.concatenate(found, axis=-1)


class LinearTiles(LoadedTiles):
    """Tiles whose used rows and columns alone are computed."""

    def __init__(self, images: LinearImages, routing: TileRouting) -> None:
        super().__init__(images, routing)
        self.readout, self.columns = images.readout, images.matrices.shape[3]
        # Powers of -1, 0 and 1 are all alike.
        self.terms = images.matrices.shape[1] if routing.scheme == "analogue" else 1
        self.tables = _tables(images, routing)
        rows = int(self.tables.pattern_start[-1]) * self.terms
        room = _ROOM_BYTES // (max(rows, 1) * self.tables.matrix.itemsize)
        self.step, self.column_step = (
            max(1, min(room, most) // routing.slices) for most in (_BLOCK_DRIVES, _BLOCK_READS)
        )
        self.width = int(routing.width.max(initial=0))

    def corrected(self, routing: TileRouting) -> LoadedTiles:
        """See LoadedTiles."""
        other = copy(self)
        other.routing, other.tables = routing, self.tables._replace(**_corrections(routing))
        return other

    def without_images(self) -> LoadedTiles:
        """See LoadedTiles."""
        other = copy(self)
        other.images = None
        return other

    def add(self, values: np.ndarray, reads: ReadBlock, sums: np.ndarray) -> None:
        """See LoadedTiles."""
        reads_of_column = values.shape[1] * self.routing.slices
        by_columns = self.width <= _FEW_COLUMNS and reads_of_column >= _READS_PER_COLUMN * self.width
        kernel, step = (add_columns, self.column_step) if by_columns else (add_tiles, self.step)
        kernel(values, *self._arguments(values.shape[1], reads), sums, step)

    def add_patches(self, patches: PatchValues, reads: ReadBlock, sums: np.ndarray, first: int) -> None:
        """See LoadedTiles."""
        add_patches(patches, *self._arguments(patches.count, reads), sums, first, self.column_step)

    def _arguments(self, vectors: int, reads: ReadBlock) -> tuple[Any, ...]:
        """What all kernels are told of so many vectors."""
        routing, size = self.routing, (vectors, self.routing.slices, self.columns)
        counter = read_counter((np.uint32(0), np.uint32(0)), reads.first_vector, reads.first_slice, size)
        return (
            self.tables, self.terms, SCHEMES[routing.scheme], routing.both_signs, routing.coefficients, self.readout,
            blocks_of(self.columns), middle_quantiles(), quantile_pieces(), counter,
        )  # fmt: skip


def _tables(images: LinearImages, routing: TileRouting) -> Tables:
    """The kernel's tables of tiles."""
    columns = images.matrices.shape[3]
    number_of: dict[bytes, int] = {}
    pattern = np.zeros(routing.tiles, np.int64)
    sources, signs, groups, matrices = [], [], [], []
    constant, order = np.zeros(routing.columns.shape), np.zeros(routing.columns.shape, np.int32)
    first_block, block_count = np.zeros(routing.tiles, np.int64), np.zeros(routing.tiles, np.int64)
    for i in range(routing.tiles):
        used, width = ~routing.idle[i], int(routing.width[i])
        source = routing.source[i, used].astype(np.int32)
        sign = np.ones(len(source), np.float32) if routing.row_sign is None else routing.row_sign[i, used]
        key = routing.group[i].tobytes() + source.tobytes() + sign.tobytes()
        if key not in number_of:
            number_of[key] = len(number_of)
            sources.append(source)
            signs.append(sign)
            groups.append(routing.group[i])
        pattern[i] = number_of[key]
        wanted = routing.columns[i, :width]
        matrix = images.matrices[i]
        constant[i, :width] = images.constants[i, wanted]
        chosen = matrix[:, used][:, :, wanted]
        if images.single:
            matrices.append(chosen[0])
        else:
            idle = _powers(routing.idle_drive[~used][None], len(matrix))[0]
            constant[i, :width] += idle @ (matrix[:, ~used][:, :, wanted].reshape(-1, width) / _STEPS)
            matrices.append(chosen.reshape(-1, width) / _STEPS if routing.scheme == "analogue" else chosen.sum(axis=0))
        first_block[i], block_count[i] = wanted_blocks(wanted)
        order[i, :width] = np.argsort(block_of(wanted), kind="stable")
    dtype = np.float32 if images.binary or images.single else np.float64
    return Tables(
        pattern_group=np.array(groups, np.int64),
        pattern_start=np.cumsum([0, *map(len, sources)]),
        source=np.concatenate([np.zeros(0, np.int32), *sources]),
        sign=np.concatenate([np.zeros(0, np.float32), *signs]).astype(np.float32),
        group=routing.group.astype(np.int64),
        output=routing.output.astype(np.int64),
        width=routing.width.astype(np.int64),
        pattern=pattern,
        matrix_start=np.cumsum([0, *(matrix.size for matrix in matrices)])[:-1],
        matrix=np.concatenate([np.zeros(0, dtype), *(matrix.ravel() for matrix in matrices)]).astype(dtype),
        constant=constant.astype(dtype),
        first_block=first_block,
        blocks=block_count,
        halves=half_of(routing.columns, columns),
        order=order,
        keys=np.array(images.keys(routing.tile), np.uint32).reshape(-1, 2),
        **_corrections(routing),
    )


def _corrections(routing: TileRouting) -> dict[str, np.ndarray]:
    changed = np.any((routing.subtract != 0) | (routing.factor != 1), axis=1)
    return {"subtract": routing.subtract, "factor": routing.factor, "corrects": changed}
