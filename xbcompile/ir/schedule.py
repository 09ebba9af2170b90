"""The tiling and the schedule as tables: rows of numpy structured arrays, never objects per tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.ir.content import ContentEqual

# One row per tile: the piece [k0:k1, m0:m1] of one group of a matrix sits in weight image `image`, its first weight at
# physical row `row` and logical column `column` (the image's permutation gives physical columns). `layer` is the matrix's
# owner: the first layer that uses it.
TILE = np.dtype(
    [
        ("layer", "<i4"),
        ("group", "<i4"),
        ("k0", "<i4"),
        ("k1", "<i4"),
        ("m0", "<i4"),
        ("m1", "<i4"),
        ("image", "<i4"),
        ("row", "<i4"),
        ("column", "<i4"),
    ]
)

WRITE, READ = 0, 1

# One row per step: write `image` into `array` (tile and use are -1), or read `tile` from the image that `array` holds, for
# all vectors and slices of one batch of one use of its matrix. Times are seconds from the start of one batch; stationary
# images are written before time 0.
STEP = np.dtype(
    [
        ("operation", "u1"),
        ("array", "<i4"),
        ("image", "<i4"),
        ("tile", "<i4"),
        ("use", "<i4"),
        ("start_s", "<f8"),
        ("end_s", "<f8"),
    ]
)


@dataclass(frozen=True)
class Use:
    """One use of a matrix: every tile of it is read once, for all vectors of one layer, or of one time step of it.

    Args:
        layer: index of the layer that uses the matrix.
        matrix: the matrix's owner, which is the first layer that uses it.
        reads: reads of each tile per inference: drive slices times vectors.
        waits_for: uses whose reads must have ended, as positions in the list of all uses.
    """

    layer: int
    matrix: int
    reads: int
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Schedule(ContentEqual):
    """Where every weight sits and when every array is written and read.

    Args:
        rows: rows of an array.
        columns: columns of an array.
        arrays: number of physical arrays used by the schedule.
        batch: inferences served between two weight updates of the same image.
        tiles: TILE table; every weight of every matrix is in exactly one tile.
        image_array: int32 [images], the physical array that each image is written into.
        column_permutation: uint16 [images, columns], physical column of each logical column; a bijection per row.
        steps: STEP table in order of start time, then array (where some step takes no time: then an order in which it
            can be executed); each image is written before it is read; each tile is read once per use of its matrix.
        stationary: all images stay in their arrays: writes happen once, before the first batch.
        images_lower_bound: no layout, whatever its cuts, has fewer images: ceil(weights / cells of an array).
        packing_status: "optimal" (proven for the chosen cuts), "feasible" (best found), or "unpacked".
        makespan_lower_bound_s: no schedule of these images on these arrays is shorter.
        weight_updates_lower_bound: no schedule of these images on these arrays writes fewer images per batch
            that starts from empty arrays.
    """

    rows: int
    columns: int
    arrays: int
    batch: int
    tiles: np.ndarray
    image_array: np.ndarray
    column_permutation: np.ndarray
    steps: np.ndarray
    stationary: bool
    images_lower_bound: int
    packing_status: str
    makespan_lower_bound_s: float
    weight_updates_lower_bound: int

    @property
    def images(self) -> int:
        """Number of weight images."""
        return len(self.image_array)

    @property
    def weight_updates(self) -> int:
        """Array writes per batch; for a stationary schedule, array writes once and for all."""
        return int(np.count_nonzero(self.steps["operation"] == WRITE))

    @property
    def makespan_s(self) -> float:
        """Time from the start of a batch to its last read."""
        return float(self.steps["end_s"].max(initial=0.0))

    def tiles_of(self, matrix: int) -> np.ndarray:
        """Indices of the tiles of one matrix, given by its owner (`Network.matrices`), ordered by group, columns and rows."""
        index = np.flatnonzero(self.tiles["layer"] == matrix)
        tiles = self.tiles[index]
        return index[np.lexsort((tiles["k0"], tiles["m0"], tiles["group"]))]


def tile_rows(tiles: np.ndarray) -> np.ndarray:
    """Number of rows of each tile, int32."""
    return tiles["k1"] - tiles["k0"]


def tile_columns(tiles: np.ndarray) -> np.ndarray:
    """Number of columns of each tile, int32."""
    return tiles["m1"] - tiles["m0"]
