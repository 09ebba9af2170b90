"""Place weight images on arrays and order their writes and reads: list scheduling in integer time.

Times are ticks, int64: the caller chooses the tick so that all sums are exact in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from xbcompile.ir.schedule import Use
from xbcompile.tiler.place_keeps import NEVER, plan_keeps


@dataclass(frozen=True, eq=False)
class Work:
    """What has to be read, as visits: one visit is all reads from one image for one group of uses.

    The uses of a group are placed together: all of them wait for what any of them waits for. A group is one use, but where
    `group_uses` joins several of the same matrix.

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
        images: number of images.
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
    images: int

    @property
    def visits(self) -> int:
        """Number of visits."""
        return len(self.rank)

    @cached_property
    def first_read(self) -> np.ndarray:
        """Position of each visit's first read, int64 [visits]."""
        return np.cumsum(self.reads) - self.reads

    @cached_property
    def visit_ticks(self) -> np.ndarray:
        """Duration of each visit's reads, int64 [visits]."""
        ends = np.concatenate([[0], np.cumsum(self.read_ticks)])
        return ends[self.first_read + self.reads] - ends[self.first_read]


@dataclass(frozen=True, eq=False)
class Placement:
    """When and where each visit happens.

    Args:
        array: int64 [visits]; all visits of an image are on one array.
        write: bool [visits], whether the image is written before the visit.
        write_start: int64 [visits], ticks; meaningless without a write.
        read_start: int64 [visits], ticks.
        sequence: int64 [visits], an order of execution (decides between steps without duration).
    """

    array: np.ndarray
    write: np.ndarray
    write_start: np.ndarray
    read_start: np.ndarray
    sequence: np.ndarray

    @property
    def writes(self) -> int:
        """Number of writes."""
        return int(np.count_nonzero(self.write))

    def makespan(self, work: Work) -> int:
        """End of the last read, ticks from the start of the batch."""
        return int((self.read_start + work.visit_ticks).max(initial=0))

    def image_array(self, work: Work) -> np.ndarray:
        """Array of each image, int32 [images]."""
        result = np.zeros(work.images, dtype=np.int32)
        result[work.image] = self.array
        return result


def order_by_dependency(dependencies: Sequence[Collection[int]]) -> tuple[int, ...]:
    """Order things so that each follows those it waits for, earlier indices first.

    Raises:
        ValueError: the dependencies are cyclic or name what does not exist (a fault of the caller).
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(dependencies)))
    graph.add_edges_from((before, after) for after, waits in enumerate(dependencies) for before in waits)
    if len(graph) != len(dependencies):
        raise ValueError(f"dependencies name uses outside 0..{len(dependencies) - 1}")
    try:
        return tuple(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        raise ValueError(f"dependencies of the uses are cyclic: {dependencies}") from None


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


def collect_work(
    tiles: np.ndarray,
    uses: Sequence[Use],
    groups: Sequence[tuple[int, ...]],
    read_ticks: np.ndarray,
    write_ticks: int,
) -> Work:
    """Make visits of a TILE table and the uses of its matrices.

    Args:
        tiles: TILE table.
        uses: what reads the tiles.
        groups: uses to be placed together; each use is in one group.
        read_ticks: int64 [uses], duration of one tile's reads for one batch.
        write_ticks: duration of one write.

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

    tile, use = _reads_of_uses(tiles, uses)
    rank, image = rank_of[group_of[use]], tiles["image"][tile].astype(np.int64)
    in_visits = np.lexsort((image, rank))
    tile, use, rank, image = tile[in_visits], use[in_visits], rank[in_visits], image[in_visits]
    new = np.ones(len(tile), dtype=bool)
    new[1:] = (rank[1:] != rank[:-1]) | (image[1:] != image[:-1])
    first = np.flatnonzero(new)
    rank, image = rank[first], image[first]

    next_rank = np.full(len(first), NEVER)
    by_image = np.lexsort((rank, image))
    same = image[by_image][1:] == image[by_image][:-1]
    next_rank[by_image[:-1][same]] = rank[by_image[1:][same]]
    return Work(
        rank=rank,
        image=image,
        reads=np.diff(first, append=len(tile)),
        next_rank=next_rank,
        tile=tile,
        use=use,
        read_ticks=np.asarray(read_ticks, dtype=np.int64)[use],
        groups=tuple(tuple(groups[index]) for index in order),
        waits_for=tuple(tuple(sorted({int(rank_of[w]) for w in waits[index]})) for index in order),
        write_ticks=write_ticks,
        images=int(image.max(initial=-1)) + 1,
    )


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


def place_stationary(work: Work) -> Placement:
    """Read all images where they stay: image i on array i; the caller adds the writes before time 0."""
    placer = _Placer(work, work.images, work.next_rank)
    placer.home[:] = placer.resident[:] = np.arange(work.images)
    return placer.run()


def place_multiplexed(work: Work, arrays: int) -> Placement:
    """Write images in turn into fewer arrays than images; every load of an image is on the same array.

    Fewest writes come first: a group reads the images that are already loaded, then those that are not to be kept,
    then those that `plan_keeps` keeps for a later group, the next to be used last. Among arrays whose images may be
    overwritten, the earliest takes the next image, the longest image first.
    """
    keep = plan_keeps(work.rank, work.next_rank, arrays)
    return _Placer(work, arrays, np.where(keep, work.next_rank, NEVER)).run()


class _Placer:
    """The state of all arrays while groups of uses are placed one after another."""

    def __init__(self, work: Work, arrays: int, kept_until: np.ndarray) -> None:
        self.work = work
        self.kept_until = kept_until  # per visit: rank for which its image stays loaded, or NEVER
        self.home = np.full(work.images, -1, dtype=np.int64)  # array that an image was written into
        self.resident = np.full(arrays, -1, dtype=np.int64)  # image that an array holds
        self.next_use = np.full(arrays, NEVER)  # rank for which the resident image is kept
        self.free = np.zeros(arrays, dtype=np.int64)  # end of an array's last step
        self.array = np.full(work.visits, -1, dtype=np.int64)
        self.write = np.zeros(work.visits, dtype=bool)
        self.write_start = np.zeros(work.visits, dtype=np.int64)
        self.read_start = np.zeros(work.visits, dtype=np.int64)
        self.sequence = np.zeros(work.visits, dtype=np.int64)
        self.placed = 0

    def run(self) -> Placement:
        """Place all groups in order."""
        work = self.work
        bounds = np.searchsorted(work.rank, np.arange(len(work.groups) + 1))
        duration = work.visit_ticks
        ends = np.zeros(len(work.groups), dtype=np.int64)
        for rank, waits in enumerate(work.waits_for):
            visits = np.arange(bounds[rank], bounds[rank + 1])
            ready = int(ends[list(waits)].max(initial=0))
            self._place_group(visits, duration, ready)
            ends[rank] = int((self.read_start[visits] + duration[visits]).max(initial=ready))
        return Placement(self.array, self.write, self.write_start, self.read_start, self.sequence)

    def _place_group(self, visits: np.ndarray, duration: np.ndarray, ready: int) -> None:
        image, kept_until = self.work.image[visits], self.kept_until[visits]
        home = self.home[image]
        loaded = home >= 0
        loaded[loaded] = self.resident[home[loaded]] == image[loaded]
        self._read_loaded(visits[loaded], duration, ready)
        last_new = ~loaded & (home < 0) & (kept_until == NEVER)
        others = visits[~loaded & ~last_new]
        others = others[np.argsort(-self.kept_until[others], kind="stable")]
        reloads = self.kept_until[others] == NEVER  # into the arrays where they were before
        for visit in others[reloads]:
            self._load(int(visit), int(duration[visit]), ready)
        self._load_equals(visits[last_new], duration, ready)
        for visit in others[~reloads]:
            self._load(int(visit), int(duration[visit]), ready)

    def _read_loaded(self, visits: np.ndarray, duration: np.ndarray, ready: int) -> None:
        array = self.home[self.work.image[visits]]
        start = np.maximum(self.free[array], ready)
        self.free[array] = start + duration[visits]
        self.next_use[array] = self.kept_until[visits]
        self._record(visits, array, start)

    def _load_equals(self, visits: np.ndarray, duration: np.ndarray, ready: int) -> None:
        """Load images that are not kept, longest first, on the arrays whose images are done with."""
        if not len(visits):
            return
        candidates = np.flatnonzero(self.next_use == NEVER)
        if not len(candidates):
            candidates = np.array([self._victim()])
        lengths, group = np.unique(-duration[visits], return_inverse=True)
        write = self.work.write_ticks
        for index, length in enumerate(-lengths):
            members = visits[group == index]
            effective = np.maximum(self.free[candidates] + write, ready) - write
            machine, turn = spread_equal_jobs(effective, len(members), int(length) + write)
            array = candidates[machine]
            base = effective[machine] + turn * (length + write)
            self.write[members] = True
            self.write_start[members] = np.where(turn == 0, self.free[array], base)
            self._record(members, array, base + write)
            # the members are in order of start, so the last assignment per array stands
            self.free[array] = base + write + length
            self.home[self.work.image[members]] = array
            self.resident[array] = self.work.image[members]
        self.next_use[candidates] = NEVER

    def _load(self, visit: int, duration: int, ready: int) -> None:
        image = int(self.work.image[visit])
        array = int(self.home[image]) if self.home[image] >= 0 else self._victim()
        write_start = int(self.free[array])
        start = max(write_start + self.work.write_ticks, ready)
        self.home[image], self.resident[array] = array, image
        self.next_use[array] = self.kept_until[visit]
        self.free[array] = start + duration
        self.write[visit], self.write_start[visit] = True, write_start
        self._record(np.array([visit]), np.array([array]), np.array([start]))

    def _victim(self) -> int:
        """Array whose image is kept for the latest layer or for none; among those the earliest that is free."""
        latest = np.flatnonzero(self.next_use == self.next_use.max())
        return int(latest[np.argmin(self.free[latest])])

    def _record(self, visits: np.ndarray, array: np.ndarray, read_start: np.ndarray) -> None:
        self.array[visits], self.read_start[visits] = array, read_start
        self.sequence[visits] = self.placed + np.arange(len(visits))
        self.placed += len(visits)


def spread_equal_jobs(free: np.ndarray, jobs: int, duration: int) -> tuple[np.ndarray, np.ndarray]:
    """List scheduling of equal jobs: each goes to the machine that can start it first.

    Args:
        free: int64 [machines], time from which each machine is free.
        jobs: number of jobs.
        duration: of each job.

    Returns:
        machine and turn on that machine (0, 1, ...) of each job, int64 [jobs], in order of start, then machine.
    """
    machines = len(free)
    if duration == 0:
        index = np.arange(jobs)
        return index % machines, index // machines
    order = np.argsort(free, kind="stable")
    delay = (free[order] - free[order[0]]).astype(np.float64)
    level = (float(jobs) * duration + np.cumsum(delay)) / np.arange(1, machines + 1)
    enough = np.append(level[:-1] <= delay[1:], True)
    # all starts before the common end of work, and one round more for rounding, are candidates
    horizon = int(level[np.argmax(enough)]) + duration + int(free[order[0]])
    slots = np.maximum(-(-(horizon - free) // duration), 0)
    machine = np.repeat(np.arange(machines), slots)
    turn = np.arange(len(machine)) - np.repeat(np.cumsum(slots) - slots, slots)
    first = np.lexsort((machine, free[machine] + turn * duration))[:jobs]
    return machine[first], turn[first]
