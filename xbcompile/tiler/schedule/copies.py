"""Copies of images on spare arrays, which share the vectors of a batch: for a short batch, or for many batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xbcompile.ir.schedule import Use
from xbcompile.tiler.schedule.workload import TimeBase, Workload

_MOST_SUMS, _MOST_OPTIONS = 400_000_000, 5_000  # assumed: what the search for the best split of spare arrays may try
_HALVINGS = 60  # of an interval of scales, for one that float64 tells from its neighbours
# Assumed: layers that are tried while spare arrays are given out one by one, and visits that are timed for that.
_MOST_TRIALS, _MOST_TRIED_VISITS = 20_000, 200_000_000
_MOST_COPIED_READS = 1_000_000  # assumed: read steps of copies; tables of more would take minutes


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

    def copies(self, visits: np.ndarray, ticks: np.ndarray | int) -> np.ndarray:
        """Fewest copies with which visits last at most `ticks`, int64; 0 where none are enough."""
        vectors, slices = self.vectors[visits], self.slices[visits]
        tile_ticks = np.maximum(ticks, 0) // self.work.reads[visits]
        share = self.time_base.most_reads(tile_ticks, vectors * slices) // slices
        return np.where((share > 0) & (np.asarray(ticks) >= 0), -(-vectors // np.maximum(share, 1)), 0)

    def image_ticks(self, copies: np.ndarray) -> np.ndarray:
        """How long each image is read in a batch by its busiest copy, int64 [images]."""
        ticks = np.zeros(self.work.images, dtype=np.int64)
        np.add.at(ticks, self.work.image, self.ticks(np.arange(self.work.visits), copies[self.work.image]))
        return ticks


def usable_arrays(work: Workload, arrays: int) -> int:
    """How many of the arrays copies may take, so that tables of their reads stay small, whatever the batch."""
    reads = np.bincount(work.image, weights=work.reads, minlength=work.images)
    return min(arrays, work.images + _MOST_COPIED_READS // max(int(reads.max(initial=0)), 1))


def copies_for_period(replication: Replication, arrays: int) -> np.ndarray:
    """Copies with which the busiest array is busy for the shortest time, int64 [images]; no array is used in vain.

    What is sought is the shortest time for which the copies that each image needs, to be read within it, are to be had.
    """
    work = replication.work
    most = np.ones(work.images, dtype=np.int64)
    np.maximum.at(most, work.image, np.minimum(replication.vectors, arrays))
    least = int(replication.image_ticks(most).max(initial=0)) - 1  # no time as short as this is enough
    enough = int(work.image_ticks.max(initial=0))
    found = np.ones(work.images, dtype=np.int64)
    while enough - least > 1:
        middle = (least + enough) // 2
        copies = _copies_within(replication, middle, most)
        if int(copies.sum()) <= arrays:
            enough, found = middle, copies
        else:
            least = middle
    return found


def _copies_within(replication: Replication, ticks: int, most: np.ndarray) -> np.ndarray:
    """Fewest copies with which each image is read for at most `ticks`, int64 [images]; with `most` it is."""
    work = replication.work
    if work.read_once:
        copies = np.empty(work.images, dtype=np.int64)
        copies[work.image] = replication.copies(np.arange(work.visits), ticks)
        return copies
    few, enough = np.zeros_like(most), most
    while np.any(enough - few > 1):
        middle = np.maximum((few + enough) // 2, 1)
        short = replication.image_ticks(middle) <= ticks
        few, enough = np.where(short, few, middle), np.where(short, middle, enough)
    return enough


def copies_for_latency(replication: Replication, arrays: int, start: np.ndarray | None = None) -> np.ndarray:
    """Copies with which a batch is short, int64 [images].

    They follow from the layers on the critical path: a layer that is to last for T at most needs a number of copies of each of
    its images. Which T of each layer gives the smallest sum is found by dynamic programming over the spare arrays; an image
    that several layers read is counted for each of them. Where layers form a chain and no image is read by two of them, the
    copies are the best there are, unless there are so many to choose from that they are only nearly so. What is then left is
    given to one layer after the other on the critical path, to the one that saves most per copy.

    Args:
        replication: durations.
        arrays: arrays in all.
        start: copies that are given.
    """
    work = replication.work
    given = np.ones(work.images, dtype=np.int64) if start is None else start
    path = _longest_path(work, _layer_ticks(replication, given))[1]
    split = _split(replication, path, arrays - int(given.sum()), given, np.ones(work.visits))
    starts = [split.copies, given] if split.best else [split.copies]
    choices = [_give_rest(replication, arrays, each) for each in starts]
    return min(choices, key=lambda each: (_longest_path(work, _layer_ticks(replication, each))[0], int(each.sum())))


def latency_bound(replication: Replication, arrays: int) -> int:
    """A makespan that no copies on so many arrays undercut, in ticks.

    As in `copies_for_latency`, but an image that several layers read is counted for the layer alone where it takes longest, or
    for each of them in part.
    """
    work = replication.work
    plain = np.ones(work.images, dtype=np.int64)
    path = _longest_path(work, _layer_ticks(replication, plain))[1]
    spare = arrays - work.images
    return max(_split(replication, path, spare, plain, weight).bound for weight in _weights(work, path))


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


@dataclass(frozen=True, eq=False)
class _Split:
    """Spare arrays given to the layers of a path.

    Args:
        copies: int64 [images].
        bound: ticks; no split makes the path shorter.
        best: whether `copies` reach the bound.
    """

    copies: np.ndarray
    bound: int
    best: bool


@dataclass(frozen=True, eq=False)
class _Path:
    """Layers one after another, and what they need to be as short as is wanted.

    Args:
        replication: durations.
        visits: int64 [n], visits of all layers, layer by layer.
        counts: int64 [layers], number of visits of each.
        given: int64 [n], copies of their images that there are.
        weight: float64 [n], what a copy of each counts.
    """

    replication: Replication
    visits: np.ndarray
    counts: np.ndarray
    given: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, replication: Replication, ranks: list[int], given: np.ndarray, weight: np.ndarray) -> _Path:
        """Of the layers of these ranks, copies of all images and weights of all visits."""
        edges = replication.work.edges
        visits = np.concatenate([np.arange(edges[rank], edges[rank + 1]) for rank in ranks] or [np.zeros(0, np.int64)])
        counts = np.diff(edges)[ranks] if ranks else np.zeros(0, np.int64)
        return cls(replication, visits, counts, given[replication.work.image[visits]], weight[visits])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n] over each layer."""
        return np.add.reduceat(values, np.cumsum(self.counts) - self.counts)

    def ticks(self, copies: np.ndarray) -> np.ndarray:
        """Duration of each layer with so many copies [n], int64 [layers]."""
        ticks = self.replication.ticks(self.visits, copies)
        longest: np.ndarray = np.maximum.reduceat(ticks, np.cumsum(self.counts) - self.counts)
        return longest

    def copies(self, ticks: np.ndarray) -> np.ndarray:
        """Fewest copies [n] with which layers last for `ticks` [layers] at most; 0 where none are enough."""
        needed = self.replication.copies(self.visits, np.repeat(ticks, self.counts))
        return np.where(needed > 0, np.maximum(needed, self.given), 0)

    def costs(self, copies: np.ndarray) -> np.ndarray:
        """Spare arrays that the copies [n] of each layer take, int64 [layers]; fractions are rounded down."""
        return (self.sums((copies - self.given) * self.weight) + 1e-9).astype(np.int64)

    def shortest(self, spare: int) -> np.ndarray:
        """Duration of each layer with all spare arrays for itself, int64 [layers]."""
        high = self.ticks(self.given)
        low = np.full_like(high, -1)
        while np.any(high - low > 1):
            middle = (low + high) // 2
            copies = self.copies(middle)
            enough = (self.sums(copies == 0) == 0) & (self.costs(copies) <= spare)
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high

    def areas(self) -> np.ndarray:
        """Ticks that all vectors of each layer take one after another, each visit by its weight, float64 [layers]."""
        each = self.replication
        tile_ticks = each.vectors[self.visits] * each.slices[self.visits] * each.time_base.ticks_per_read
        return self.sums(self.weight * each.work.reads[self.visits] * tile_ticks)

    def with_durations(self, ticks: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Copies, int64 [images], with which layers last for `ticks` [layers] at most."""
        copies = given.copy()
        np.maximum.at(copies, self.replication.work.image[self.visits], self.copies(ticks))
        return copies


def _split(replication: Replication, ranks: list[int], spare: int, given: np.ndarray, weight: np.ndarray) -> _Split:
    """The duration of each layer on a path with the smallest sum."""
    path = _Path.of(replication, ranks, given, weight)
    if not spare or not ranks:
        return _Split(given.copy(), int(path.ticks(path.given).sum()) if ranks else 0, best=True)
    if len(ranks) > _MOST_OPTIONS:
        return _nearly_split(path, spare, given)
    options: list[list[tuple[int, int]]] = []
    for rank in ranks:
        layer = _Path.of(replication, [rank], given, weight)
        found = _options(layer, spare, _MOST_OPTIONS - sum(map(len, options)))
        if found is None:
            return _nearly_split(path, spare, given)
        options.append(found)
    spare = min(spare, sum(each[-1][1] for each in options))
    if spare * sum(map(len, options)) > _MOST_SUMS:
        return _nearly_split(path, spare, given)
    best = np.zeros(spare + 1, dtype=np.int64)
    chosen = np.zeros((len(ranks), spare + 1), dtype=np.int64)
    for index, each in enumerate(options):
        sums = np.full(spare + 1, np.iinfo(np.int64).max)
        for number, (ticks, cost) in enumerate(each):
            if cost <= spare:
                found_sums = best[: spare + 1 - cost] + ticks
                shorter = found_sums < sums[cost:]
                sums[cost:][shorter] = found_sums[shorter]
                chosen[index, cost:][shorter] = number
        best = sums
    durations, left = np.zeros(len(ranks), dtype=np.int64), spare
    for index in range(len(ranks) - 1, -1, -1):
        durations[index], cost = options[index][int(chosen[index, left])]
        left -= cost
    return _Split(path.with_durations(durations, given), int(best[spare]), best=True)


def _options(layer: _Path, spare: int, most: int) -> list[tuple[int, int]] | None:
    """Durations that one layer can have and the spare arrays that each costs, the shorter the more; None for more than `most`."""
    options: list[tuple[int, int]] = []
    copies = layer.given
    while np.all((copies > 0) & (copies - layer.given <= spare)) and int(layer.costs(copies)[0]) <= spare:
        if len(options) == most:
            return None
        ticks = layer.ticks(copies)
        options.append((int(ticks[0]), int(layer.costs(copies)[0])))
        copies = layer.copies(ticks - 1)
    return options


def _nearly_split(path: _Path, spare: int, given: np.ndarray) -> _Split:
    """The same where there are too many durations to choose from.

    A visit of r tiles, whose V vectors take a ticks each, lasts for T at most with r a V / (T + r / 2) copies at least, as
    ticks are rounded. So layers whose visits' areas r a V add up to A make a path of (sum of sqrt(A))^2 / arrays at least, less
    the rounding, where T is as sqrt(A) (Cauchy and Schwarz); T is taken as near to that as can be.
    """
    roots = np.sqrt(path.areas())
    arrays = spare + float(path.given @ path.weight)
    reads = path.replication.work.reads[path.visits]
    rounding = float(np.maximum.reduceat(reads, np.cumsum(path.counts) - path.counts).sum()) / 2
    shortest, longest = path.shortest(spare), path.ticks(path.given)
    bound = max(int(shortest.sum()), math.floor(float(roots.sum()) ** 2 / arrays * (1 - 1e-12) - rounding))

    def durations(scale: float) -> np.ndarray:
        wanted = np.ceil(np.minimum(scale * roots, longest)).astype(np.int64)
        return np.maximum(shortest, wanted)

    few, enough = 0.0, float((longest / np.maximum(roots, 1.0)).max()) + 1.0
    for _ in range(_HALVINGS):
        middle = (few + enough) / 2
        taken = float((path.copies(durations(middle)) - path.given) @ path.weight)
        few, enough = (few, middle) if taken <= spare else (middle, enough)
    return _Split(path.with_durations(durations(enough), given), bound, best=False)


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
    ticks, trials, tried = _layer_ticks(replication, copies), 0, 0
    while trials < _MOST_TRIALS:
        spare = arrays - int(copies.sum())
        length, path = _longest_path(work, ticks)
        best: tuple[float, int, np.ndarray] | None = None
        if not spare or len(path) * work.visits > _MOST_TRIED_VISITS - tried:
            break
        tried += len(path) * work.visits
        for rank in path:
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
