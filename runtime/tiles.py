"""The tiles of one layer as tables: what drives their rows, which columns are theirs, how readings are corrected and added up."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xbcompile.errors import ProgramError
from xbcompile.ir import ArraySpec, MatrixLayer
from xbcompile.ir.input_code import drives_rows
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.tile_block import TileBlock
from xbcompile.targets.tile_routing import TileRouting

# Cells of images that are evaluated together at most, beside one image: bounds the memory of their preparation.
BLOCK_CELLS = 1 << 20


def check_driven(layer: MatrixLayer, spec: ArraySpec) -> None:
    """Raise ProgramError for a layer whose inputs are not coded as rows take them: kernels look codes up in tables."""
    if not drives_rows(layer.input_code, spec.drive):
        raise ProgramError(
            f"layer {layer.name!r}: its inputs are not coded as drives, and rows of the target take {spec.drive} drives; compile "
            f"the model for this target"
        )


class LayerTiles:
    """The tiles of one matrix layer on one chip.

    Args:
        placed: the program as the chip runs it.
        index: which matrix layer.
        block_cells: cells of images that are evaluated together at most, beside one image.
    """

    def __init__(self, placed: PlacedProgram, index: int, block_cells: int = BLOCK_CELLS) -> None:
        self.block_tiles = max(1, block_cells // (placed.program.spec.rows * placed.program.spec.columns))
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
    def widest(self) -> int:
        """The largest number of columns that a tile uses."""
        table = self.placed.program.schedule.tiles[self.index]
        return int((table["m1"] - table["m0"]).max(initial=0))

    @cached_property
    def blocks(self) -> list[TileBlock]:
        """All tiles in order of group, columns and rows."""
        key, known = (self.number, self.block_tiles), self.placed.blocks
        if key not in known:
            known[key] = self._all_blocks()
        return known[key]

    def _all_blocks(self) -> list[TileBlock]:
        new = self._new_outputs()
        blocks, first = [], 0
        while first < len(new):
            end = min(first + self.block_tiles, len(new))
            if end < len(new) and not new[end]:  # end where outputs end, if that leaves any tile
                starts = np.flatnonzero(new[first + 1 : end]) + first + 1
                end = int(starts[-1]) if len(starts) else end
            blocks.append(self._block(first, end, not new[first]))
            first = end
        return blocks

    def _new_outputs(self) -> npt.NDArray[np.bool_]:
        """Of each tile whether it and all behind it add into other outputs than those before it."""
        table = self.placed.program.schedule.tiles[self.index]
        output = table["group"].astype(np.int64) * self.layer.outputs
        ends = np.maximum.accumulate(output + table["m1"])
        new = np.ones(len(table), np.bool_)
        new[1:] = (output + table["m0"])[1:] >= ends[:-1]
        return new

    def _block(self, first: int, end: int, follows: bool) -> TileBlock:
        placed, spec, tiles = self.placed, self.spec, self.index[first:end]
        table, routes = placed.program.schedule.tiles[tiles], placed.corrections.routes
        width = (table["m1"] - table["m0"]).astype(np.intp)
        within = np.arange(int(width.max()))
        logical = table["column"][:, None] + np.where(within < width[:, None], within, 0)
        row, row_sign, factor = np.arange(spec.rows), None, np.ones(logical.shape)
        if routes is not None:
            mine = [routes[image] for image in table["image"]]
            row = np.stack([np.argsort(route.row) for route in mine])  # logical row of each physical one
            row_sign = np.stack([route.row_sign[rows] for route, rows in zip(mine, row, strict=True)])
            signs = np.stack([route.column_sign for route in mine]).astype(np.float64)
            factor = np.take_along_axis(signs, logical, axis=1)
        source = table["k0"][:, None] + row - table["row"][:, None]
        idle = (source < table["k0"][:, None]) | (source >= table["k1"][:, None])
        permutation = placed.cells.column_permutation[table["image"]]
        columns = np.take_along_axis(permutation, logical, axis=1).astype(np.intp)
        cells = placed.cells.of(table["image"])
        idle_sum = np.zeros(columns.shape)
        idle_drive = np.where(idle, spec.row_weight * spec.idle_drive, 0.0)
        if np.any(idle_drive):
            values = cells if spec.levels is None else spec.levels[cells]
            every = np.einsum("ir,irc->ic", idle_drive, values.astype(np.float64))
            idle_sum = np.take_along_axis(every, columns, axis=1)
        routing = TileRouting(
            tile=tiles,
            group=table["group"].astype(np.intp),
            output=table["m0"].astype(np.intp),
            width=width,
            source=np.where(idle, 0, source),
            idle=idle,
            idle_drive=spec.idle_drive,
            row_sign=row_sign,
            columns=columns,
            subtract=idle_sum * self.coefficients.sum(),
            factor=factor,
            scheme=self.scheme,
            both_signs=self.both_signs,
            coefficients=self.coefficients,
        )
        return TileBlock(first, tiles, routing, cells, follows)

    def routing(self, block: TileBlock, arrays: np.ndarray) -> TileRouting:
        """A block's routing on this chip: column offsets and tile gains are in it.

        Args:
            block: the tiles.
            arrays: int [n], where they are read.
        """
        routing, column_offset = block.routing, self.placed.corrections.column_offset
        if column_offset is not None:
            offset = np.take_along_axis(column_offset[arrays], routing.columns, axis=1) * self.coefficients.sum()
            routing = replace(routing, subtract=routing.subtract - offset)
        if self.tile_gain is not None:
            gain = self.tile_gain[block.first : block.first + len(block.tiles), : routing.columns.shape[1]]
            routing = replace(routing, factor=routing.factor * gain)
        return routing
