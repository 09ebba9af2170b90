"""Cut matrices into tiles that fit an array, as tables: no Python object per tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xbcompile.ir.schedule import TILE, tile_rows
from xbcompile.tiler.shapes import MatrixShape


def cut_greedy(shapes: Sequence[MatrixShape], rows: int, columns: int) -> np.ndarray:
    """Cut every `rows` inputs and every `columns` outputs; each tile has its own image.

    A residual strip, the r = inputs mod rows last rows of column block c, starts at physical row
    (c mod (rows // r)) * r, so that strips of neighbouring column blocks can share an array where they are. Column
    blocks are counted through all groups of a layer. All other tiles start at row 0, and every tile at column 0.

    Args:
        shapes: one per layer.
        rows: rows of an array.
        columns: columns of an array.

    Returns:
        TILE table ordered by layer, group, m0, k0; image i holds tile i.
    """
    blocks = _Blocks(shapes, rows, columns)
    tiles = blocks.table()
    tiles["k0"] = blocks.row_block * rows
    tiles["k1"] = np.minimum(tiles["k0"] + rows, blocks.inputs)
    tiles["m0"] = blocks.column_block * columns
    tiles["m1"] = np.minimum(tiles["m0"] + columns, blocks.outputs)
    return stagger_rows(tiles, blocks.column_block_of_layer, rows)


class _Blocks:
    """All blocks of all matrices as tables [blocks]: layer, group, row block, column block, the matrix's size."""

    def __init__(self, shapes: Sequence[MatrixShape], rows: int, columns: int) -> None:
        sizes = np.array([(s.groups, s.inputs, s.outputs) for s in shapes], dtype=np.int64).reshape(-1, 3)
        row_blocks, column_blocks = -(-sizes[:, 1] // rows), -(-sizes[:, 2] // columns)
        counts = sizes[:, 0] * row_blocks * column_blocks
        self.layer = np.repeat(np.arange(len(sizes)), counts)
        index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.row_blocks, self.column_blocks = row_blocks[self.layer], column_blocks[self.layer]
        self.inputs, self.outputs = sizes[self.layer, 1], sizes[self.layer, 2]
        self.row_block = index % self.row_blocks
        self.column_block_of_layer = index // self.row_blocks
        self.column_block = self.column_block_of_layer % self.column_blocks
        self.group = self.column_block_of_layer // self.column_blocks

    def table(self) -> np.ndarray:
        """TILE table with layer, group and image filled in."""
        tiles = np.zeros(len(self.layer), dtype=TILE)
        tiles["layer"], tiles["group"] = self.layer, self.group
        tiles["image"] = np.arange(len(tiles))
        return tiles


def stagger_rows(tiles: np.ndarray, column_block: np.ndarray, rows: int) -> np.ndarray:
    """Start a tile of r rows in column block c of its layer at row (c mod (rows // r)) * r.

    Where a matrix has more than one row block of r > rows / 2, that is row 0.

    Args:
        tiles: TILE table, changed in place.
        column_block: int64 [tiles], number of the tile's column block, counted through the groups of its layer.
        rows: rows of an array.

    Returns:
        `tiles`.
    """
    height = tile_rows(tiles)
    tiles["row"] = column_block % (rows // height) * height
    return tiles


def cut_balanced(shapes: Sequence[MatrixShape], rows: int, columns: int) -> np.ndarray:
    """Cut into as many blocks as `cut_greedy`, of nearly equal size: heights, and widths, differ by at most one.

    Block i of n of a length l is [i * l // n, (i + 1) * l // n). Rows are staggered as in `cut_greedy`: only blocks of at
    most half an array's height move, and such a matrix has one row block, so that both cuts give the same rows there.

    Args:
        shapes: one per layer.
        rows: rows of an array.
        columns: columns of an array.

    Returns:
        TILE table ordered by layer, group, m0, k0; image i holds tile i.
    """
    blocks = _Blocks(shapes, rows, columns)
    tiles = blocks.table()
    for first, last, block, count, length in (
        ("k0", "k1", blocks.row_block, blocks.row_blocks, blocks.inputs),
        ("m0", "m1", blocks.column_block, blocks.column_blocks, blocks.outputs),
    ):
        tiles[first] = block * length // count
        tiles[last] = (block + 1) * length // count
    return stagger_rows(tiles, blocks.column_block_of_layer, rows)
