"""Copies of images on spare arrays, which share the vectors of a batch: for a short batch, or for many batches."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xbcompile.ir.schedule import Use
from xbcompile.tiler.schedule.workload import TimeBase, Workload

_MOST_SUMS = 400_000_000  # assumed: sums that the search for the best split of spare arrays may form
_MOST_TRIALS = 20_000  # assumed: layers that are tried while spare arrays are given out one by one


@dataclass(frozen=True, eq=False)
class Replication:
    """How long each visit takes when its image has so many copies: as long as the first copy's share, the largest.

    Args:
        work: visits of images with one copy each, each for one use.
        vectors: int64 [visits], vectors of one batch.
        slices: int64 [visits], reads of each tile per vector.
        time_base: of the durations.
    """

    work: Workload
    vectors: np.ndarray
    slices: np.ndarray
    time_base: TimeBase

    @classmethod
    def of(cls, work: Workload, uses: Sequence[Use], time_base: TimeBase) -> Replication:
        """From the uses of `work`, whose groups are one use each."""
        use = np.array([group[0] for group in work.groups], dtype=np.int64)[work.rank]
        vectors = np.array([each.vectors * time_base.batch for each in uses], dtype=np.int64)[use]
        slices = np.array([each.reads // each.vectors for each in uses], dtype=np.int64)[use]
        return cls(work, vectors, slices, time_base)

    def ticks(self, visits: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """Duration of visits whose images have so many copies, int64."""
        share = -(-self.vectors[visits] // copies)
        return self.work.reads[visits] * self.time_base.read_ticks(share * self.slices[visits])

    def copies(self, visits: np.ndarray, ticks: int) -> np.ndarray:
        """Fewest copies with which visits last at most `ticks`, int64; 0 where none are enough."""
        per_vector = self.work.reads[visits] * self.time_base.read_ticks(self.slices[visits]).clip(1)
        share = np.minimum(ticks // per_vector + 1, self.vectors[visits])  # rounding moves it by one at most
        for _ in range(2):
            long = self.work.reads[visits] * self.time_base.read_ticks(share * self.slices[visits]) > ticks
            share = share - long
        return np.where(share > 0, -(-self.vectors[visits] // np.maximum(share, 1)), 0)

    def more(self, visit: int, copies: int) -> int:
        """The next number of copies that makes a visit shorter; 0 where there is none."""
        share = -(-int(self.vectors[visit]) // copies)
        return -(-int(self.vectors[visit]) // (share - 1)) if share > 1 else 0


class _Visits:
    """The visits of each image."""

    def __init__(self, work: Workload) -> None:
        self.order = np.argsort(work.image, kind="stable")
        self.edges = np.searchsorted(work.image[self.order], np.arange(work.images + 1))

    def of(self, image: int) -> np.ndarray:
        """Visits of one image, in order of rank."""
        return self.order[self.edges[image] : self.edges[image + 1]]


def copies_for_period(replication: Replication, arrays: int) -> np.ndarray:
    """Copies with which the busiest array is busy for the shortest time, int64 [images].

    The busiest image gets the next copies that help it, until they are not to be had. No other choice does better: in it,
    too, this image has as many copies as are not enough. No array is used in vain.
    """
    work = replication.work
    visits_of = _Visits(work)
    copies = np.ones(work.images, dtype=np.int64)
    heap = [(-int(ticks), image) for image, ticks in enumerate(work.image_ticks.tolist())]
    heapq.heapify(heap)
    spare = arrays - work.images
    while heap and spare:
        _, image = heap[0]
        now = int(copies[image])
        mine = visits_of.of(image)
        options = [replication.more(visit, now) for visit in mine.tolist()]
        wanted = min((option for option in options if option), default=0)
        if not wanted or wanted - now > spare:
            break
        spare -= wanted - now
        copies[image] = wanted
        heapq.heapreplace(heap, (-int(replication.ticks(mine, np.full(len(mine), wanted)).sum()), image))
    # the last copies of an image that stayed the busiest are in vain
    return _without_vain(replication, visits_of, copies)


def _without_vain(replication: Replication, visits_of: _Visits, copies: np.ndarray) -> np.ndarray:
    """Take back copies that are not needed for the busiest array to be as busy as it is."""
    work = replication.work
    busy = np.zeros(work.images, dtype=np.int64)
    np.add.at(busy, work.image, replication.ticks(np.arange(work.visits), copies[work.image]))
    limit = int(busy.max(initial=0))
    for image in np.flatnonzero(copies > 1).tolist():
        mine = visits_of.of(image)
        low, high = 0, int(copies[image])  # `low` copies are too few
        while high - low > 1:
            middle = (low + high) // 2
            enough = int(replication.ticks(mine, np.full(len(mine), middle)).sum()) <= limit
            low, high = (low, middle) if enough else (middle, high)
        copies[image] = high
    return copies


def copies_for_latency(
    replication: Replication, arrays: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Copies with which a batch is short, int64 [images]; and a makespan that no copies on so many arrays undercut.

    Both follow from the layers on the critical path: a layer that is to last for T at most needs a number of copies of
    each of its images. Which T of each layer gives the smallest sum is found by dynamic programming over the spare arrays.
    For the bound, an image that several layers read is counted for the layer alone where it takes longest, or for each of
    them in part; for the copies, for each of them. Where layers form a chain and no image is read by two of them, the
    copies are the best there are. What is then left is given to one layer after the other on the critical path, to the
    one that saves most per copy.

    Args:
        replication: durations.
        arrays: arrays in all.
        start: copies that are given.
    """
    work = replication.work
    given = np.ones(work.images, dtype=np.int64) if start is None else start
    spare = arrays - int(given.sum())
    path = _longest_path(work, _layer_ticks(replication, given))[1]
    plain = np.ones(work.images, dtype=np.int64)
    longest = _longest_path(work, _layer_ticks(replication, plain))[1]
    bound = max(
        _split(replication, longest, arrays - work.images, plain, weight)[1] for weight in _weights(work, longest)
    )
    split = _split(replication, path, spare, given, np.ones(work.visits))[0]
    choices = [_give_rest(replication, arrays, start) for start in (split, given)]
    best = min(choices, key=lambda each: (_longest_path(work, _layer_ticks(replication, each))[0], int(each.sum())))
    return best, bound


def _weights(work: Workload, path: list[int]) -> Iterator[np.ndarray]:
    """Parts of an image's copies that are counted for each of its visits on a path, 1 in all; float64 [visits]."""
    on_path = np.isin(work.rank, path)
    yield _longest_of_image(work, on_path).astype(np.float64)
    times = np.bincount(work.image[on_path], minlength=work.images)
    yield on_path / np.maximum(times[work.image], 1)


def _layer_ticks(replication: Replication, copies: np.ndarray) -> np.ndarray:
    """Longest visit of each rank, int64 [groups]."""
    work = replication.work
    ticks = replication.ticks(np.arange(work.visits), copies[work.image])
    return np.maximum.reduceat(ticks, work.edges[:-1]) if work.visits else np.zeros(0, dtype=np.int64)


def _longest_path(work: Workload, layer_ticks: np.ndarray) -> tuple[int, list[int]]:
    """Length of the longest path of layers, and its ranks."""
    ends: list[int] = []
    before: list[int] = []
    for rank, waits in enumerate(work.waits_for):
        latest = max(waits, key=lambda w: (ends[w], -w), default=-1)
        before.append(latest)
        ends.append((ends[latest] if latest >= 0 else 0) + int(layer_ticks[rank]))
    if not ends:
        return 0, []
    at = max(range(len(ends)), key=lambda rank: (ends[rank], -rank))
    length, path = ends[at], []
    while at >= 0:
        path.append(at)
        at = before[at]
    return length, path[::-1]


def _options(
    replication: Replication, visits: np.ndarray, given: np.ndarray, spare: int, weight: np.ndarray
) -> list[tuple[int, int]]:
    """Durations that a layer can have and the spare arrays that each costs; the shorter, the more they cost."""
    options: list[tuple[int, int]] = []
    now = given[replication.work.image[visits]]
    ticks = int(replication.ticks(visits, now).max())
    cost = 0
    while cost <= spare:
        options.append((ticks, cost))
        needed = replication.copies(visits, ticks - 1)
        if np.any(needed == 0) or np.any(needed - now > spare):
            break
        needed = np.maximum(needed, now)
        ticks = int(replication.ticks(visits, needed).max())
        cost = int(float((needed - now) @ weight) + 1e-9)
    return options


def _split(
    replication: Replication, path: list[int], spare: int, given: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, int]:
    """The duration of each layer on a path with the smallest sum: the copies for it, and the sum."""
    work = replication.work
    layers = [np.arange(start, end) for start, end in pairwise(work.edges.tolist())]
    options = [_options(replication, layers[rank], given, spare, weight[layers[rank]]) for rank in path]
    spare = min(spare, sum(each[-1][1] for each in options))
    if spare * sum(map(len, options)) > _MOST_SUMS:
        # a bound still: each layer as short as all spare arrays make it
        return given.copy(), sum(each[-1][0] for each in options)
    best = np.zeros(spare + 1, dtype=np.int64)
    chosen = np.zeros((len(path), spare + 1), dtype=np.int64)
    for layer, each in enumerate(options):
        sums = np.full(spare + 1, np.iinfo(np.int64).max)
        for index, (ticks, cost) in enumerate(each):
            if cost <= spare:
                found = best[: spare + 1 - cost] + ticks
                shorter = found < sums[cost:]
                sums[cost:][shorter] = found[shorter]
                chosen[layer, cost:][shorter] = index
        best = sums
    copies, left = given.copy(), spare
    for layer in range(len(path) - 1, -1, -1):
        ticks, cost = options[layer][int(chosen[layer, left])]
        left -= cost
        visits = layers[path[layer]]
        image = work.image[visits]
        copies[image] = np.maximum(copies[image], replication.copies(visits, ticks))
    return copies, int(best[spare])


def _longest_of_image(work: Workload, allowed: np.ndarray) -> np.ndarray:
    """Whether a visit is the longest allowed one of its image, bool [visits]; one per image."""
    visits = np.flatnonzero(allowed)
    order = visits[np.lexsort((work.rank[visits], -work.visit_ticks[visits], work.image[visits]))]
    first = np.ones(len(order), dtype=bool)
    first[1:] = work.image[order][1:] != work.image[order][:-1]
    longest = np.zeros(work.visits, dtype=bool)
    longest[order[first]] = True
    return longest


def _give_rest(replication: Replication, arrays: int, copies: np.ndarray) -> np.ndarray:
    """Give spare arrays to layers on the critical path, as long as that shortens it."""
    work = replication.work
    layers = [np.arange(start, end) for start, end in pairwise(work.edges.tolist())]
    ticks, trials = _layer_ticks(replication, copies), 0
    while trials < _MOST_TRIALS:
        spare = arrays - int(copies.sum())
        length, path = _longest_path(work, ticks)
        best: tuple[float, int, np.ndarray] | None = None
        for rank in path if spare else []:
            visits = layers[rank]
            trials += 1
            needed = replication.copies(visits, int(ticks[rank]) - 1)
            if np.any(needed == 0):
                continue
            more = copies.copy()
            more[work.image[visits]] = np.maximum(more[work.image[visits]], needed)
            cost = int(more.sum() - copies.sum())
            if cost > spare:
                continue
            saved = length - _longest_path(work, _layer_ticks(replication, more))[0]
            if saved > 0 and (best is None or saved / cost > best[0]):
                best = (saved / cost, rank, more)
        if best is None:
            break
        copies = best[2]
        ticks = _layer_ticks(replication, copies)
    return copies
