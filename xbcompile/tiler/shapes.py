"""Shapes: the sizes of matrices and arrays, and which of them can be mapped at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.errors import ScheduleError

MAX_COLUMNS = 65_535  # column permutations are stored as uint16


@dataclass(frozen=True)
class MatrixShape:
    """Shape of one layer's weights: `groups` independent matrices of `inputs` rows and `outputs` columns each.

    `reads` says how often each tile is read per inference, compared with those of other layers: where cuts are free, they
    are made where they cost few reads.
    """

    groups: int
    inputs: int
    outputs: int
    reads: int = 1

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


def reads_of(tiles: np.ndarray, shapes: Sequence[MatrixShape]) -> int:
    """Reads per inference of all tiles of a TILE table, as the shapes count them."""
    reads = np.array([shape.reads for shape in shapes], dtype=np.int64)
    return int(reads[tiles["layer"]].sum())
