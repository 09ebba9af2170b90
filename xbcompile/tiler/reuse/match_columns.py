"""Columns of images that are written one after another into one array, matched so that few cells change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.deferred import library
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.reuse.changed_cells import CellsOf, PackedCells

optimize = library("scipy.optimize")

# Assumed: about five seconds of one core. SciPy's solver was the faster one: 0.18 ms at 64 columns and 1.2 to 2 ms at 256,
# OR-Tools' SimpleLinearSumAssignment 0.2 to 0.4 ms and 5 to 11 ms.
_ASSIGNMENTS = 20_000  # per unit of effort, at 64 columns
_LONGEST_MOVE = 64  # images that are moved together at most; assumed


# One row per write of a batch, chain by chain, in order of time: the cells and rows that it changes.
CHANGE = np.dtype(
    [
        ("chain", "<i4"),
        ("image", "<i4"),
        ("cells", "<i8"),
        ("rows", "<i4"),
    ]
)


@dataclass(frozen=True, eq=False)
class ColumnMatching(ContentEqual):
    """What the writes of one batch change, when batches repeat.

    Each write of a chain replaces the image before it; the first one replaces the last image of the batch before. A chain
    of one image is never written anew: its one write changes nothing.

    Args:
        permutation: uint16 [images, columns], physical column of each logical column.
        changes: CHANGE table.
        cells_lower_bound: no permutation changes fewer cells with these chains: sum of the fewest of each write alone.
    """

    permutation: np.ndarray
    changes: np.ndarray
    cells_lower_bound: int

    @property
    def cells(self) -> int:
        """Cells changed per batch."""
        return int(self.changes["cells"].sum())


def match_columns(
    cells_of: CellsOf,
    chains: Sequence[np.ndarray],
    permutation: np.ndarray,
    *,
    move: bool = True,
    effort: float = DEFAULT_EFFORT,
) -> ColumnMatching:
    """Permute columns of images so that writing one image over another changes few cells.

    The first image of a chain keeps its permutation; each next one is assigned to the images that were placed before it
    and that it replaces or is replaced by. That is optimal for each write but those that close a circle. Then runs of
    neighbouring images are moved together, by one assignment each, as long as fewer cells change: what the closing
    write changes too many is shared with other writes. Never worse than the permutation given.

    Rows are counted, not optimised: whether a row changes is no sum over columns, and of dense images nearly all rows
    change under every permutation.

    Args:
        cells_of: cells [n, rows, columns] of n images (indices int64 [n]) in logical columns, uint8 or float32.
        chains: per physical array, the images that it is written with in one batch, in order of time. An image may occur
            several times, also in several chains; it has one permutation.
        permutation: uint16 [images, columns], physical column of each logical column; images in no chain keep theirs.
        move: False leaves every column where it is, and counts what changes.
        effort: deterministic; one unit is some seconds of improvement, 0 leaves it at the first assignments.

    Returns:
        The permutations and what they change; equal arguments give equal results.
    """
    lists = [np.asarray(chain).tolist() for chain in chains]
    written = np.unique([image for chain in lists for image in chain]).astype(np.int64)
    if not len(written):
        return ColumnMatching(permutation.astype(np.uint16), np.zeros(0, CHANGE), 0)
    packed = PackedCells(cells_of, written)
    matching = _Matching(packed, lists, permutation)
    if move:
        before = matching.total
        matching.walk()
        if matching.total > before:
            matching = _Matching(packed, lists, permutation)
        matching.improve(int(effort * _ASSIGNMENTS * (64 / permutation.shape[1]) ** 2))
    pairs = [(chain[t - 1], chain[t]) for chain in lists for t in range(len(chain))]
    changes = np.zeros(len(pairs), CHANGE)
    changes["chain"] = np.repeat(np.arange(len(lists)), [len(chain) for chain in lists])
    changes["image"] = [image for _, image in pairs]
    changes["cells"], changes["rows"] = matching.changes(pairs)
    return ColumnMatching(
        permutation=matching.permutation(permutation),
        changes=changes,
        cells_lower_bound=sum(packed.fewest(one, two) for one, two in pairs),
    )


class _Matching:
    """Images as nodes of a graph; an edge's weight says how often one of its images replaces the other."""

    def __init__(self, packed: PackedCells, chains: list[list[int]], permutation: np.ndarray) -> None:
        self.packed, self.chains = packed, chains
        self.neighbours: dict[int, dict[int, int]] = {image: {} for chain in chains for image in chain}
        for chain in chains:
            for t, image in enumerate(chain):
                before = chain[t - 1]
                if before != image:
                    for one, two in ((before, image), (image, before)):
                        self.neighbours[one][two] = self.neighbours[one].get(two, 0) + 1
        self.logical = {image: np.argsort(permutation[image]) for image in self.neighbours}
        self.cells: dict[tuple[int, int], int] = {}
        for image in self.neighbours:
            self._count(image)

    def _count(self, image: int) -> None:
        """Count the cells that change between an image and its neighbours."""
        for other in self.neighbours[image]:
            cells, _ = self.packed.changed(image, self.logical[image], other, self.logical[other])
            self.cells[image, other] = self.cells[other, image] = cells

    @property
    def total(self) -> int:
        """Cells changed per batch."""
        return (
            sum(self.cells[one, two] * times for one in self.neighbours for two, times in self.neighbours[one].items())
            // 2
        )

    def _move(self, images: Sequence[int], fixed: Sequence[tuple[int, int]]) -> bool:
        """Move columns of some images, in the same way, to where the fewest cells differ from fixed neighbours.

        Args:
            images: what is moved.
            fixed: pairs of an image that is moved and a neighbour that is not.

        Returns:
            Whether fewer cells change; else nothing has been moved.
        """
        cost = np.zeros((self.packed.columns,) * 2, np.int64)
        for image, other in fixed:
            differing = self.packed.differing(image, other)
            cost += self.neighbours[image][other] * differing[np.ix_(self.logical[image], self.logical[other])]
        now, physical = optimize.linear_sum_assignment(cost)
        if cost[now, physical].sum() >= cost.trace():
            return False
        source = np.argsort(physical)
        for image in images:
            self.logical[image] = self.logical[image][source]
        for image, _ in fixed:
            self._count(image)
        return True

    def walk(self) -> None:
        """Assign each image, in order of time, to its neighbours that were assigned before."""
        placed: set[int] = set()
        for chain in self.chains:
            for image in chain:
                fixed = [(image, other) for other in self.neighbours[image] if other in placed]
                if image not in placed and fixed:
                    self._move([image], fixed)
                placed.add(image)

    def improve(self, assignments: int) -> None:
        """Move runs of images that begin at a write which changes more cells than it must, until none helps."""
        improved = True
        while improved:
            improved = False
            for chain in self.chains:
                for t in range(len(chain)):
                    for length in range(1, min(len(chain) - 1, _LONGEST_MOVE) + 1):
                        if not self._excess(chain[t - 1], chain[t]):
                            break
                        if assignments <= 0:
                            return
                        assignments -= 1
                        improved |= self._move_run([chain[(t + i) % len(chain)] for i in range(length)])

    def _excess(self, one: int, two: int) -> int:
        """Cells changed beyond the fewest possible for these two images."""
        return self.cells[one, two] - self.packed.fewest(one, two) if one != two else 0

    def _move_run(self, run: Sequence[int]) -> bool:
        together = dict.fromkeys(run)
        fixed = [(image, other) for image in together for other in self.neighbours[image] if other not in together]
        return bool(fixed) and self._move(list(together), fixed)

    def changes(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Cells and rows that change when the first image of each pair is replaced by the second, [2, pairs]."""
        changed = [self.packed.changed(a, self.logical[a], b, self.logical[b]) for a, b in pairs]
        return np.array(changed, np.int64).T

    def permutation(self, start: np.ndarray) -> np.ndarray:
        """Physical column of each logical column, of all images; uint16 [images, columns]."""
        result = np.array(start, np.uint16)
        for image, logical in self.logical.items():
            result[image] = np.argsort(logical)
        return result
