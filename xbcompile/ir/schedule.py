"""The tiling and the schedule as tables: rows of numpy structured arrays, never objects per tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xbcompile.ir.content_equality import ContentEqual

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

# One row per step: write `rows` rows of `image` into `array` (tile and use are -1), or read `tile` from the image that
# `array` holds (`rows` is 0), for all slices of this copy's share of the vectors of one batch of one use of its matrix. Times
# are seconds from the start of one batch, and every batch takes all steps.
STEP = np.dtype(
    [
        ("operation", "u1"),
        ("array", "<i4"),
        ("image", "<i4"),
        ("tile", "<i4"),
        ("use", "<i4"),
        ("rows", "<i4"),
        ("start_s", "<f8"),
        ("end_s", "<f8"),
    ]
)

# One row per copy of an image, the array that it is written into, ordered by image, then array. The copies of an image
# share the vectors of a batch, see `share_of`.
COPY = np.dtype([("image", "<i4"), ("array", "<i4")])


@dataclass(frozen=True)
class Use:
    """One use of a matrix: every tile of it is read once, for all vectors of one layer, or of one time step of it.

    Args:
        layer: index of the layer that uses the matrix.
        matrix: the matrix's owner, which is the first layer that uses it.
        reads: reads of each tile per inference: drive slices times vectors.
        waits_for: uses whose reads must have ended, as positions in the list of all uses.
        vectors: vectors per inference, of which each takes the same number of reads.
    """

    layer: int
    matrix: int
    reads: int
    waits_for: tuple[int, ...] = ()
    vectors: int = 1


def vectors_of(matrices: Sequence[int], uses: Sequence[Use]) -> list[int]:
    """Vectors per inference that each matrix is read with, in all of its uses."""
    total = dict.fromkeys(matrices, 0)
    for use in uses:
        total[use.matrix] += use.vectors
    return list(total.values())


@dataclass(frozen=True, eq=False)
class Schedule(ContentEqual):
    """Where every weight sits and when every array is written and read.

    Args:
        rows: rows of an array.
        columns: columns of an array.
        arrays: number of physical arrays used by the schedule.
        batch: inferences served between two weight updates of the same image.
        tiles: TILE table; every weight of every matrix is in exactly one tile.
        copies: COPY table; each image has at least one copy.
        column_permutation: uint16 [images, columns], physical column of each logical column; a bijection per row.
        steps: STEP table in order of start time, then array (where some step takes no time: then an order in which it
            can be executed); each image is written before it is read; each copy of a tile is read once per use of its
            matrix.
        initial: int32 [arrays], the image that each array holds where a batch starts, and holds again where it ends; -1: none
            that is used. These are written once, before the first batch.
        setup_s: time of those writes.
        period_s: time from the start of a batch to the start of the next one.
        objective: what the schedule was made for.
        images_lower_bound: no layout, whatever its cuts, has fewer images: ceil(weights / cells of an array).
        packing_status: "optimal" (proven for the chosen cuts), "feasible" (best found), or "unpacked".
        makespan_lower_bound_s: no schedule of these images on these arrays is shorter. This bound and the next two hold,
            with an array per image or more, for all schedules whose images stay, with any copies; with fewer arrays, for
            all that hold each image in one array.
        period_lower_bound_s: no such schedule starts batches sooner after each other.
        weight_updates_lower_bound: no such schedule writes fewer images per batch (where all stay: once and for all).
        cells_written: cells that the writes of a batch change; None where they were not counted.
        site: int32 [arrays], site of each array on the floorplan; empty without one.
        floorplan: see `SiteGrid.parse`; empty without one.
        hop_values: values that move between arrays per inference, times the hops that each takes.
        hop_values_lower_bound: no placement of these arrays on this floorplan has less.
    """

    rows: int
    columns: int
    arrays: int
    batch: int
    tiles: np.ndarray
    copies: np.ndarray
    column_permutation: np.ndarray
    steps: np.ndarray
    initial: np.ndarray
    setup_s: float
    period_s: float
    objective: str
    images_lower_bound: int
    packing_status: str
    makespan_lower_bound_s: float
    period_lower_bound_s: float
    weight_updates_lower_bound: int
    cells_written: int | None = None
    site: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    floorplan: str = ""
    hop_values: int = 0
    hop_values_lower_bound: int = 0

    @property
    def images(self) -> int:
        """Number of weight images."""
        return len(self.column_permutation)

    @property
    def writes(self) -> np.ndarray:
        """The writes of every batch, STEP table."""
        written: np.ndarray = self.steps[self.steps["operation"] == WRITE]
        return written

    @property
    def initial_writes(self) -> int:
        """Array writes before the first batch."""
        return int(np.count_nonzero(self.initial >= 0))

    @property
    def stationary(self) -> bool:
        """Whether all images stay in their arrays: all writes happen before the first batch."""
        return not np.any(self.steps["operation"] == WRITE)

    @property
    def weight_updates(self) -> int:
        """Array writes per batch; for a stationary schedule, array writes once and for all."""
        return self.initial_writes if self.stationary else len(self.writes)

    @property
    def rows_written(self) -> int:
        """Rows written per batch; for a stationary schedule, once and for all."""
        return self.initial_writes * self.rows if self.stationary else int(self.writes["rows"].sum())

    @property
    def makespan_s(self) -> float:
        """Time from the start of a batch to its last step."""
        return float(self.steps["end_s"].max(initial=0.0))

    def reads_of(self, step: np.void, use: Use) -> int:
        """Reads per batch that a read step makes: its copy's share of the vectors, times the slices of each."""
        arrays = self.copies["array"][self.copies["image"] == step["image"]]
        start, end = share_of(int(np.searchsorted(arrays, step["array"])), len(arrays), self.batch * use.vectors)
        return (end - start) * (use.reads // use.vectors)

    def arrays_of(self, images: np.ndarray) -> np.ndarray:
        """Arrays that hold images [n], int32 [n, most copies]; an image of fewer copies repeats them in turn."""
        first = np.searchsorted(self.copies["image"], images)
        count = np.searchsorted(self.copies["image"], images, side="right") - first
        turn = np.arange(count.max(initial=1))
        arrays: np.ndarray = self.copies["array"][first[:, None] + turn % count[:, None]]
        return arrays

    def tiles_of(self, matrix: int) -> np.ndarray:
        """Indices of the tiles of one matrix, given by its owner (`Network.matrices`), ordered by group, columns and rows."""
        index = np.flatnonzero(self.tiles["layer"] == matrix)
        tiles = self.tiles[index]
        return index[np.lexsort((tiles["k0"], tiles["m0"], tiles["group"]))]


def share_of(copy: int, copies: int, vectors: int) -> tuple[int, int]:
    """First and end of the vectors that one copy of an image serves, of the `vectors` of one batch of one use.

    Vectors are numbered sample after sample. Shares are contiguous, as equal as can be, and the first is the largest.
    """
    return -(-copy * vectors // copies), -(-(copy + 1) * vectors // copies)


def shares_of(copy: np.ndarray, copies: np.ndarray, vectors: np.ndarray | int) -> np.ndarray:
    """How many vectors each of many copies serves, see `share_of`; integer arrays, element by element.

    Whole shares are left out of the products, which stay in int64 for any number of vectors and 2**31 copies.
    """
    whole, rest = np.divmod(vectors, copies)
    shares: np.ndarray = whole - (-(copy + 1) * rest // copies) + (-copy * rest // copies)
    return shares


def tile_rows(tiles: np.ndarray) -> np.ndarray:
    """Number of rows of each tile, int32."""
    return tiles["k1"] - tiles["k0"]


def tile_columns(tiles: np.ndarray) -> np.ndarray:
    """Number of columns of each tile, int32."""
    return tiles["m1"] - tiles["m0"]
