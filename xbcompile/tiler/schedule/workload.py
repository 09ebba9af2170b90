"""What has to be read: the workload of a schedule as visits of images, and its durations in whole ticks.

Times are ticks, int64: a tick is so short that they are exact, and so long that sums are exact in float64.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from xbcompile.errors import ScheduleError, shown
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import Use, shares_of
from xbcompile.tiler.schedule.residency import NEVER

TIME_BITS = 50  # sums of times stay below 2**TIME_BITS ticks: exact in float64
MOST_READS = 2**40  # assumed: counts of a million tiles stay in int64


def check_reads(uses: Sequence[Use], batch: int) -> None:
    """Raise ScheduleError where a batch makes more reads of a tile than can be counted."""
    reads = sum(use.reads for use in uses)
    if reads * batch <= MOST_READS:
        return
    most = f"a batch of {MOST_READS // reads:,} at most" if reads <= MOST_READS else "fewer vectors"
    raise ScheduleError(
        f"more than {MOST_READS:,} reads of a tile per batch: an inference makes {reads:,}, and batch={shown(batch)}; take {most}"
    )


@dataclass(frozen=True)
class TimeBase:
    """Seconds as whole ticks: durations of reads and writes.

    Args:
        tick_s: one tick, a power of two.
        t_read_s: time of one read.
        write_ticks: time to write one array.
        batch: inferences per batch.
    """

    tick_s: float
    t_read_s: float
    write_ticks: int
    batch: int

    @classmethod
    def for_reads(cls, tiles: np.ndarray, uses: Sequence[Use], spec: ArraySpec, batch: int) -> TimeBase:
        """A time base for all reads one after another, each behind a write of its own: no schedule here takes longer."""
        counts = np.bincount(tiles["layer"], minlength=max((use.matrix + 1 for use in uses), default=0))
        used = np.array([use.matrix for use in uses], dtype=np.intp)
        reads = np.array([float(batch) * use.reads for use in uses], dtype=np.float64)
        longest_s = 2 * int(counts[used].sum()) * spec.t_write_s + float(counts[used] @ reads) * spec.t_read_s
        tick_s = math.ldexp(1.0, math.frexp(longest_s)[1] - TIME_BITS) if longest_s else 1.0
        return cls(tick_s, spec.t_read_s, round(spec.t_write_s / tick_s), batch)

    @property
    def ticks_per_read(self) -> float:
        """Duration of one read, not rounded."""
        return self.t_read_s / self.tick_s

    def read_ticks(self, reads: np.ndarray) -> np.ndarray:
        """Duration of numbers of reads, int64."""
        ticks: np.ndarray = np.rint(reads * self.ticks_per_read).astype(np.int64)
        return ticks

    def most_reads(self, ticks: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The largest number of reads, at most `limit`, that `read_ticks` gives no more than `ticks` (0 or more); int64."""
        with np.errstate(divide="ignore", over="ignore"):
            estimate = (ticks + 0.5) / np.float64(
                self.ticks_per_read
            ) + 1  # rounded down it is right, or by one or two too large
        reads = np.minimum(estimate, limit).astype(np.int64)
        while np.any(longer := self.read_ticks(reads) > ticks):
            reads -= longer
        return reads


@dataclass(frozen=True, eq=False)
class Workload:
    """What has to be read, as visits: one visit is all reads from one image for one group of uses.

    The uses of a group are scheduled together: all of them wait for what any of them waits for. A group is one use, but where
    `group_uses` joins several of the same matrix. Where an image has several copies, each copy counts as an image of its
    own here, which reads its share of the vectors; the copies of an image have neighbouring numbers.

    Args:
        rank: int64 [visits], position of the visit's group in `groups`; visits are ordered by rank, then image.
        image: int64 [visits].
        reads: int64 [visits], number of tiles that the visit reads, each counted once per use.
        next_rank: int64 [visits], rank of the image's next visit, or `NEVER`.
        tile: int64 [all reads], tile of each read in the order of the visits.
        use: int64 [all reads], use that each read serves.
        read_ticks: int64 [all reads], duration of each read for one batch.
        groups: groups of uses in an order that honours the dependencies.
        waits_for: per rank, the ranks whose reads must have ended.
        write_ticks: duration of one write.
        copy_of: int64 [images], the layout's image of which each is a copy.
    """

    rank: np.ndarray
    image: np.ndarray
    reads: np.ndarray
    next_rank: np.ndarray
    tile: np.ndarray
    use: np.ndarray
    read_ticks: np.ndarray
    groups: tuple[tuple[int, ...], ...]
    waits_for: tuple[tuple[int, ...], ...]
    write_ticks: int
    copy_of: np.ndarray

    @property
    def visits(self) -> int:
        """Number of visits."""
        return len(self.rank)

    @property
    def images(self) -> int:
        """Number of images, each copy counted."""
        return len(self.copy_of)

    @cached_property
    def first_read(self) -> np.ndarray:
        """Position of each visit's first read, int64 [visits]."""
        return np.cumsum(self.reads) - self.reads

    @cached_property
    def visit_ticks(self) -> np.ndarray:
        """Duration of each visit's reads, int64 [visits]."""
        ends = np.concatenate([[0], np.cumsum(self.read_ticks)])
        return ends[self.first_read + self.reads] - ends[self.first_read]

    @cached_property
    def image_ticks(self) -> np.ndarray:
        """Duration of all reads of each image in one batch, int64 [images]."""
        ticks = np.zeros(self.images, dtype=np.int64)
        np.add.at(ticks, self.image, self.visit_ticks)
        return ticks

    @cached_property
    def edges(self) -> np.ndarray:
        """First visit of each rank, and the number of all visits, int64 [groups + 1]."""
        return np.searchsorted(self.rank, np.arange(len(self.groups) + 1))

    @cached_property
    def chained(self) -> bool:
        """Whether each group waits for the one before, so that their order is forced."""
        return all(rank - 1 in waits for rank, waits in enumerate(self.waits_for) if rank)

    def tile_by_tile(self) -> Workload:
        """The same with one visit per tile and use, for timetables that do something else between them."""
        return replace(
            self,
            rank=np.repeat(self.rank, self.reads),
            image=np.repeat(self.image, self.reads),
            reads=np.ones_like(self.tile),
            next_rank=np.repeat(self.next_rank, self.reads),
        )

    @cached_property
    def read_once(self) -> bool:
        """Whether each image has one visit per batch."""
        return self.visits == self.images


def order_by_dependency(dependencies: Sequence[Collection[int]]) -> tuple[int, ...]:
    """Order things so that each follows those it waits for, earlier indices first.

    Raises:
        ValueError: the dependencies are cyclic or name what does not exist (a fault of the caller).
    """
    count = len(dependencies)
    waits_for = [set(waits) for waits in dependencies]
    if not set().union(*waits_for) <= set(range(count)):
        raise ValueError(f"dependencies name uses outside 0..{count - 1}")
    followers: list[list[int]] = [[] for _ in range(count)]
    for after, waits in enumerate(waits_for):
        for before in waits:
            followers[before].append(after)
    waiting = [len(waits) for waits in waits_for]
    ready = [i for i in range(count) if not waiting[i]]  # a heap as it stands
    order = []
    while ready:
        order.append(heappop(ready))
        for after in followers[order[-1]]:
            waiting[after] -= 1
            if not waiting[after]:
                heappush(ready, after)
    if len(order) < count:
        raise ValueError(f"dependencies of the uses are cyclic: {dependencies}")
    return tuple(order)


def group_uses(uses: Sequence[Use]) -> list[tuple[int, ...]]:
    """Join uses of one matrix that can be read together, so that one write of an image serves all of them.

    Uses at the same depth of the dependencies (the longest way to them from a use that waits for none) do not wait for
    each other, and joining them closes no cycle, as every wait leads from a lower depth to a higher one.

    Returns:
        groups of uses, in the order of their first.
    """
    depth = [0] * len(uses)
    for i in order_by_dependency([use.waits_for for use in uses]):
        depth[i] = max((depth[before] + 1 for before in uses[i].waits_for), default=0)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, use in enumerate(uses):
        groups.setdefault((use.matrix, depth[i]), []).append(i)
    return [tuple(group) for group in groups.values()]


def collect_workload(
    tiles: np.ndarray,
    uses: Sequence[Use],
    groups: Sequence[tuple[int, ...]],
    time_base: TimeBase,
    copies: np.ndarray | None = None,
) -> Workload:
    """Make visits of a TILE table and the uses of its matrices.

    Args:
        tiles: TILE table.
        uses: what reads the tiles.
        groups: uses to be scheduled together; each use is in one group.
        time_base: of the durations.
        copies: int64 [images], number of copies of each image; None: one each.

    Raises:
        ValueError: see `order_by_dependency`.
    """
    order_by_dependency([use.waits_for for use in uses])  # every group may wait for itself, no use may
    group_of = np.empty(len(uses), dtype=np.int64)
    for index, group in enumerate(groups):
        group_of[list(group)] = index
    waits = [{int(group_of[before]) for i in group for before in uses[i].waits_for} for group in groups]
    order = order_by_dependency(waits)
    rank_of = np.empty(len(groups), dtype=np.int64)
    rank_of[list(order)] = np.arange(len(order))

    images = int(tiles["image"].max(initial=-1)) + 1
    tile, use = _reads_of_uses(tiles, uses)
    image = tiles["image"][tile].astype(np.int64)
    if copies is None or np.all(copies == 1):
        copy_of = np.arange(images)
        reads = np.array([time_base.batch * each.reads for each in uses], dtype=np.int64)[use]
    else:
        copy_of = np.repeat(np.arange(images), copies)
        tile, use, image, reads = _shared_reads(tile, use, image, uses, time_base.batch, copies)
    rank = rank_of[group_of[use]]
    in_visits = np.lexsort((image, rank))
    tile, use, rank, image = tile[in_visits], use[in_visits], rank[in_visits], image[in_visits]
    new = np.ones(len(tile), dtype=bool)
    new[1:] = (rank[1:] != rank[:-1]) | (image[1:] != image[:-1])
    first = np.flatnonzero(new)
    rank, image = rank[first], image[first]

    return Workload(
        rank=rank,
        image=image,
        reads=np.diff(first, append=len(tile)),
        next_rank=_next_rank(rank, image),
        tile=tile,
        use=use,
        read_ticks=time_base.read_ticks(reads)[in_visits],
        groups=tuple(tuple(groups[index]) for index in order),
        waits_for=tuple(tuple(sorted({int(rank_of[w]) for w in waits[index]})) for index in order),
        write_ticks=time_base.write_ticks,
        copy_of=copy_of,
    )


def _next_rank(rank: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Rank of the next visit of each visit's image, or `NEVER`; int64 [visits]."""
    result = np.full(len(rank), NEVER)
    by_image = np.lexsort((rank, image))
    same = image[by_image][1:] == image[by_image][:-1]
    result[by_image[:-1][same]] = rank[by_image[1:][same]]
    return result


def _shared_reads(
    tile: np.ndarray, use: np.ndarray, image: np.ndarray, uses: Sequence[Use], batch: int, copies: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tile, use, copy (numbered image by image) and number of reads of every read, see `share_of`."""
    count = copies[image]
    number = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    first_copy = np.cumsum(copies) - copies
    tile, use, image, count = (np.repeat(each, count) for each in (tile, use, image, count))
    vectors = np.array([batch * each.vectors for each in uses], dtype=np.int64)[use]
    slices = np.array([each.reads // each.vectors for each in uses], dtype=np.int64)[use]
    return tile, use, first_copy[image] + number, shares_of(number, count, vectors) * slices


def _reads_of_uses(tiles: np.ndarray, uses: Sequence[Use]) -> tuple[np.ndarray, np.ndarray]:
    """Tile and use of every read, int64, in order of use, then tile."""
    matrix = np.array([use.matrix for use in uses], dtype=np.int64)
    by_matrix = np.argsort(tiles["layer"], kind="stable")
    sorted_matrices = tiles["layer"][by_matrix]
    first = np.searchsorted(sorted_matrices, matrix)
    count = np.searchsorted(sorted_matrices, matrix, side="right") - first
    use = np.repeat(np.arange(len(uses)), count)
    turn = np.arange(len(use)) - np.repeat(np.cumsum(count) - count, count)
    return by_matrix[first[use] + turn], use


def below(bound_s: float, found_s: float, rounding_s: float) -> float:
    """A lower bound that stands above what was found by the rounding of times to ticks alone; a larger excess stays, as it is a
    fault.

    Args:
        bound_s: the bound.
        found_s: what was found.
        rounding_s: the most that rounding makes of it.
    """
    return found_s if found_s < bound_s <= found_s + rounding_s else bound_s
