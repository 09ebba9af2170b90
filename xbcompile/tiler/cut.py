"""Cut matrices into tiles that fit an array, as tables: no Python object per tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.schedule import TILE

MAX_COLUMNS = 65_535  # column permutations are stored as uint16


@dataclass(frozen=True)
class MatrixShape:
    """Shape of one layer's weights: `groups` independent matrices of `inputs` rows and `outputs` columns each."""

    groups: int
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """Number of weights of the layer."""
        return self.groups * self.inputs * self.outputs


def check_array(rows: int, columns: int) -> None:
    """Raise `ScheduleError` unless an array of this size can hold tiles."""
    if rows < 1 or columns < 1:
        raise ScheduleError(f"array of {rows} rows x {columns} columns: both must be at least 1")
    if columns > MAX_COLUMNS:
        raise ScheduleError(f"array of {columns} columns: at most {MAX_COLUMNS:,} columns can be permuted")


def check_shapes(shapes: Sequence[MatrixShape]) -> None:
    """Raise `ScheduleError` for a matrix without weights, naming its layer."""
    for layer, shape in enumerate(shapes):
        if min(shape.groups, shape.inputs, shape.outputs) < 1:
            raise ScheduleError(
                f"layer {layer}: {shape.groups} group(s) of {shape.inputs} x {shape.outputs} weights; "
                "groups, inputs and outputs must be at least 1"
            )


def cut_greedy(shapes: Sequence[MatrixShape], rows: int, columns: int) -> np.ndarray:
    """Cut every `rows` inputs and every `columns` outputs; each tile has its own image.

    A residual strip, the r = inputs mod rows last rows of column block c, starts at physical row
    (c mod (rows // r)) * r, so that strips of neighbouring column blocks can share an array where they are. All other
    tiles start at row 0, and every tile at column 0.

    Args:
        shapes: one per layer.
        rows: rows of an array.
        columns: columns of an array.

    Returns:
        TILE table ordered by layer, group, m0, k0; image i holds tile i.
    """
    sizes = np.array([(s.groups, s.inputs, s.outputs) for s in shapes], dtype=np.int64).reshape(-1, 3)
    row_blocks, column_blocks = -(-sizes[:, 1] // rows), -(-sizes[:, 2] // columns)
    counts = sizes[:, 0] * row_blocks * column_blocks
    layer = np.repeat(np.arange(len(sizes)), counts)
    index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row_block = index % row_blocks[layer]
    index //= row_blocks[layer]
    column_block = index % column_blocks[layer]

    tiles = np.zeros(len(layer), dtype=TILE)
    tiles["layer"] = layer
    tiles["group"] = index // column_blocks[layer]
    tiles["k0"] = row_block * rows
    tiles["k1"] = np.minimum(row_block * rows + rows, sizes[layer, 1])
    tiles["m0"] = column_block * columns
    tiles["m1"] = np.minimum(column_block * columns + columns, sizes[layer, 2])
    tiles["image"] = np.arange(len(tiles))
    height = tiles["k1"] - tiles["k0"]
    tiles["row"] = np.where(height < rows, column_block % (rows // height) * height, 0)
    return tiles
