"""The tiles of one layer as tables: what drives their rows, which columns are theirs, how readings are corrected and added."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from xbcompile.runtime.placed import PlacedProgram
from xbcompile.targets.contract import CodedDrives

# Tiles evaluated together at most: bounds the memory of their drives.
BLOCK_TILES = 256


@dataclass(frozen=True, eq=False)
class TileBlock:
    """Tiles that add into the same output columns of one group.

    Args:
        group: index of the matrix.
        m0: first output column.
        first: position of the first tile among the layer's.
        tiles: int [n] indices into the schedule's tile table.
        source: intp [n, rows], index of the input that drives each row; 0 where idle.
        idle: bool [n, rows].
        columns: intp [n, width], physical columns.
        cells: [n, rows, columns], cells of the images that hold the tiles.
        idle_sum: float64 [n, width], what idle rows add to one ideal read.
        row_sign: float32 [n, rows], sign of each physical row's drive; None: all are +1.
        column_sign: float64 [n, width], sign of each reading; None: all are +1.
    """

    group: int
    m0: int
    first: int
    tiles: np.ndarray
    source: np.ndarray
    idle: np.ndarray
    columns: np.ndarray
    cells: np.ndarray
    idle_sum: np.ndarray
    row_sign: np.ndarray | None = None
    column_sign: np.ndarray | None = None


class LayerTiles:
    """The tiles of one matrix layer on one chip.

    Args:
        placed: the program as the chip runs it.
        index: which matrix layer.
        block_tiles: tiles that are evaluated together at most.
    """

    def __init__(self, placed: PlacedProgram, index: int, block_tiles: int = BLOCK_TILES) -> None:
        self.block_tiles = block_tiles
        self.placed, self.layer = placed, placed.program.network.layers[index]
        self.spec, schedule = placed.program.spec, placed.program.schedule
        self.index = schedule.tiles_of(placed.program.network.matrices[index])
        self.number = index
        code = self.layer.input_code
        self.both_signs = self.spec.drives_both_signs and code is not None
        self.coefficients = code.coefficients if code else np.ones(1)
        self.scheme = code.scheme if code else "analogue"
        images = schedule.tiles["image"][self.index]
        first, end = (np.searchsorted(schedule.copies["image"], images, side=side) for side in ("left", "right"))
        self._first_copy = first  # of each tile's image
        counts, self._copy_count = np.unique(end - first, return_inverse=True)
        self.copy_counts: list[int] = counts.tolist()  # numbers of copies that the tiles' images have, ascending
        held = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)] or [np.zeros(0, np.intp)])
        self.every_array = np.unique(schedule.copies["array"][held.astype(np.intp)])
        self.tile_gain = placed.corrections.layers[index].tile_gain

    def use(self, step: int) -> int:
        """Number of the use that the layer is at a step of its recurrence."""
        return self.placed.uses.of_layer[self.number][step]

    def arrays(self, block: TileBlock, copies: tuple[int, ...]) -> np.ndarray:
        """The array of each tile of a block, int [n].

        Args:
            block: the tiles.
            copies: which copy of an image, one for each of `copy_counts`.
        """
        some = slice(block.first, block.first + len(block.tiles))
        which = self._first_copy[some] + np.array(copies, dtype=np.intp)[self._copy_count[some]]
        arrays: np.ndarray = self.placed.program.schedule.copies["array"][which]
        return arrays

    @cached_property
    def blocks(self) -> list[TileBlock]:
        """All tiles in order of group, columns and rows; those in one block add into the same outputs."""
        table = self.placed.program.schedule.tiles[self.index]
        keys = np.stack([table["group"], table["m0"], table["m1"]], axis=1)
        changes = 1 + np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1))
        return [
            self._block(first, min(first + self.block_tiles, end))
            for start, end in pairwise([0, *changes.tolist(), len(keys)])
            for first in range(start, end, self.block_tiles)
        ]

    def _block(self, first: int, end: int) -> TileBlock:
        placed, spec, tiles = self.placed, self.spec, self.index[first:end]
        table, routes = placed.program.schedule.tiles[tiles], placed.corrections.routes
        row, row_sign, column_sign = np.arange(spec.rows), None, None
        width = int(table["m1"][0] - table["m0"][0])
        logical = table["column"][:, None] + np.arange(width)
        if routes is not None:
            mine = [routes[image] for image in table["image"]]
            row = np.stack([np.argsort(route.row) for route in mine])  # logical row of each physical one
            row_sign = np.stack([route.row_sign[rows] for route, rows in zip(mine, row, strict=True)])
            signs = np.stack([route.column_sign for route in mine]).astype(np.float64)
            column_sign = np.take_along_axis(signs, logical, axis=1)
        source = table["k0"][:, None] + row - table["row"][:, None]
        idle = (source < table["k0"][:, None]) | (source >= table["k1"][:, None])
        permutation = placed.cells.column_permutation[table["image"]]
        columns = np.take_along_axis(permutation, logical, axis=1).astype(np.intp)
        cells = placed.cells.of(table["image"])
        idle_sum = np.zeros((len(tiles), width))
        idle_drive = np.where(idle, spec.row_weight * spec.idle_drive, 0.0)
        if np.any(idle_drive):
            values = cells if spec.levels is None else spec.levels[cells]
            every = np.einsum("ir,irc->ic", idle_drive, values.astype(np.float64))
            idle_sum = np.take_along_axis(every, columns, axis=1)
        return TileBlock(
            group=int(table["group"][0]),
            m0=int(table["m0"][0]),
            first=first,
            tiles=tiles,
            source=np.where(idle, 0, source),
            idle=idle,
            columns=columns,
            cells=cells,
            idle_sum=idle_sum,
            row_sign=row_sign,
            column_sign=column_sign,
        )

    def coded_drives(self, block: TileBlock, value: np.ndarray) -> CodedDrives:
        """How coded vectors, float32 [V, K], drive the tiles of a block."""
        return CodedDrives(
            values=value,
            source=block.source,
            idle=block.idle,
            idle_drive=self.spec.idle_drive,
            row_sign=block.row_sign,
            columns=block.columns,
            scheme=self.scheme,
            both_signs=self.both_signs,
            coefficients=self.coefficients,
        )

    def correct(self, block: TileBlock, arrays: np.ndarray, totals: np.ndarray, one: int | None = None) -> None:
        """Take from totals [n, V, width], in place, what idle rows and column offsets add; apply signs and tile gains.

        Args:
            block: the tiles.
            arrays: int [n], where they were read.
            totals: sums over slices of the tiles' readings.
            one: the totals are those of this tile of the block alone, and so is the array.
        """
        some = slice(None) if one is None else slice(one, one + 1)
        columns, weight = block.columns[some], self.coefficients.sum()
        constant = block.idle_sum[some] * weight
        column_offset = self.placed.corrections.column_offset
        if column_offset is not None:
            constant = constant - np.take_along_axis(column_offset[arrays], columns, axis=1) * weight
        totals -= constant[:, None, :]
        if block.column_sign is not None:
            totals *= block.column_sign[some, None, :]
        if self.tile_gain is not None:
            gain = self.tile_gain[block.first : block.first + len(block.tiles)][some]
            totals *= gain[:, None, : columns.shape[1]]

    def add(self, block: TileBlock, totals: np.ndarray, sums: np.ndarray) -> None:
        """Add corrected totals [n, V, width], tile after tile, to the sums [groups, V, outputs]; the totals are used up."""
        out = sums[block.group, :, block.m0 : block.m0 + totals.shape[2]]
        # One tile after another, whatever the number of vectors: a sum of single numbers alone would go in pairs.
        if out.size == 1:
            for each in totals:
                out += each
            return
        totals[0] += out
        out[...] = np.add.reduce(totals, axis=0)
