"""Lower bounds for images that take turns on fewer arrays, each image on one array, every batch like the one before.

They hold for every such schedule, whatever its objective. A batch may start with the images that arrays held at its end, so
that bounds are about a circle of steps: an array that reads two images or more writes each of them at least once.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from xbcompile.tiler.schedule.residency import NEVER, keep_resident
from xbcompile.tiler.schedule.timetable import WriteRules
from xbcompile.tiler.schedule.workload import Workload

# Assumed: what bounds may cost. Windows are neighbouring layers; visits and pairs of layers are counted once per window.
_MOST_WINDOW_VISITS, _MOST_PAIRS, _MOST_STARTS = 4_000_000, 2_000_000, 64
_MOST_BATCHES, _MOST_REPEATED_VISITS = 16, 60_000


def writes_bound(work: Workload, arrays: int) -> int:
    """Fewest writes per batch of more images than arrays.

    Some array is written, so that at most `arrays` - 1 images are never: the others are written at least once. The layers on
    a path, each waiting for the one before, are read in that order, and T batches in a row are one chain, of which
    `keep_resident` gives the fewest writes from empty arrays; starting with `arrays` images saves at most as many.
    """
    fewest = work.images - arrays + 1
    if work.read_once:
        return fewest
    rank, image, ranks = _longest_chain(work)
    visits = len(rank)
    order = np.lexsort((rank, image))
    last = np.ones(visits, dtype=bool)
    last[:-1] = image[order][1:] != image[order][:-1]
    first = np.append(0, np.flatnonzero(last)[:-1] + 1)
    following = np.empty(visits, dtype=np.int64)
    following[order[~last]] = rank[order[np.flatnonzero(~last) + 1]]
    following[order[last]] = rank[order[first]] + ranks  # in the next batch
    batches = 1
    while batches == 1 or (batches <= _MOST_BATCHES and batches * visits <= _MOST_REPEATED_VISITS):
        shift = np.repeat(np.arange(batches), visits) * ranks
        until = np.tile(following, batches) + shift
        until[until >= batches * ranks] = NEVER
        kept = int(keep_resident(np.tile(rank, batches) + shift, until, arrays).sum())
        fewest = max(fewest, -(-(batches * visits - kept - arrays) // batches))
        batches *= 2
    return fewest


def _longest_chain(work: Workload) -> tuple[np.ndarray, np.ndarray, int]:
    """Position and image of the visits on the path of groups with the most visits, and its length."""
    most: list[int] = []
    before: list[int] = []
    for waits, visits in zip(work.waits_for, np.diff(work.edges).tolist(), strict=True):
        latest = max(waits, key=lambda w: (most[w], -w), default=-1)
        before.append(latest)
        most.append(visits + (most[latest] if latest >= 0 else 0))
    at = max(range(len(most)), key=lambda rank: (most[rank], -rank))
    path = []
    while at >= 0:
        path.append(at)
        at = before[at]
    position = np.full(len(work.groups), -1, dtype=np.int64)
    position[path[::-1]] = np.arange(len(path))
    on_path = position[work.rank] >= 0
    return position[work.rank[on_path]], work.image[on_path], len(path)


def makespan_bound(work: Workload, arrays: int, writes: int, rules: WriteRules) -> int:
    """Shortest time from the start of a batch to its last step, ticks.

    Args:
        work: what has to be read, from more images than arrays.
        arrays: number of arrays.
        writes: a lower bound on the writes per batch.
        rules: of writing.

    Returns:
        The largest of: the whole batch on all arrays (`_whole`); the critical path, where each layer takes at least its
        largest visit and its images spread evenly (`_window`); for a chain of layers, that of windows of neighbouring
        layers too, also around the end of the batch; what the rules of writing make of the writes.
    """
    if not work.visits:
        return 0
    best = max(_whole(work, arrays, writes), _critical_path(work, arrays, work.write_ticks))
    layers = len(work.groups)
    few = layers <= _MOST_STARTS
    if work.chained and layers > 1 and (arrays > 1 or few):  # in one direction, writes of one array are counted already
        best = max(best, _windows(work, arrays))
    return max(best, _writes_in_turn(work, arrays, writes, rules))


def _writes_in_turn(work: Workload, arrays: int, writes: int, rules: WriteRules) -> int:
    """Writes, so many at a time; where none may be beside a read, the reads alone on top of them.

    With q arrays of one image each, the others take turns with all other reads and all writes, one for each image at least.
    """
    ticks = np.sort(work.image_ticks)[::-1]
    ahead = np.concatenate([[0], np.cumsum(ticks)])
    alone = np.arange(min(arrays, len(ticks)))
    in_turn = -(-np.maximum(len(ticks) - alone, writes) // rules.together(arrays)) * work.write_ticks
    if not rules.while_reading:
        in_turn += np.maximum(-(-(ahead[-1] - ahead[alone]) // (arrays - alone)), _critical_path(work, arrays, 0))
    return int(in_turn.min())


def _whole(work: Workload, arrays: int, writes: int) -> int:
    """One batch as a whole, on identical machines whose jobs are the images.

    With q arrays of one image each, the others spread all other reads and all writes, one for each image at least. Of
    the k * arrays + 1 longest images, some array reads at least k + 1, k > 0, and writes them.
    """
    ticks = np.sort(work.image_ticks)[::-1]
    write, images = work.write_ticks, len(ticks)
    ahead = np.concatenate([[0], np.cumsum(ticks)])
    alone = np.arange(min(arrays, images))
    most = np.maximum(images - alone, writes)
    spread = -(-(ahead[-1] - ahead[alone] + most * write) // (arrays - alone))
    return max(int(spread.min()), int(ticks[0]), _crowded(ahead, arrays, write, 1))


def _crowded(ahead: np.ndarray, arrays: int, write: int, written: int) -> int:
    """Of k * arrays + 1 images, some array reads k + 1 and writes k + `written` of them; `ahead`: sums, longest first."""
    images = len(ahead) - 1
    k = np.arange(1, (images - 1) // arrays + 1)
    return int((ahead[k * arrays + 1] - ahead[k * (arrays - 1)] + (k + written) * write).max(initial=0))


def _window(ticks: np.ndarray, arrays: int, write: int) -> int:
    """Time in which images are read, when each array may hold one of them before; `ticks`: int64 [images]."""
    ahead = np.concatenate([[0], np.cumsum(np.sort(ticks)[::-1])])
    even = -(-(int(ahead[-1]) + max(0, len(ticks) - arrays) * write) // arrays)
    return max(even, int(ahead[1]), _crowded(ahead, arrays, write, 0))


def _critical_path(work: Workload, arrays: int, write: int) -> int:
    """The longest path of layers, each of which takes at least its window."""
    ends: list[int] = []
    for waits, mine in zip(work.waits_for, _alone(work, arrays, write), strict=True):
        ends.append(max((ends[w] for w in waits), default=0) + mine)
    return max(ends)


def _alone(work: Workload, arrays: int, write: int) -> list[int]:
    """The window of each layer; of one image it is the image's reads."""
    ticks, edges = work.visit_ticks, work.edges.tolist()
    first = ticks[work.edges[:-1]].tolist()
    return [
        first[rank] if end - start == 1 else _window(ticks[start:end], arrays, write)
        for rank, (start, end) in enumerate(pairwise(edges))
    ]


def _windows(work: Workload, arrays: int) -> int:
    """Windows of neighbouring layers of a chain that do not overlap, on the circle of repeated batches.

    A chain's batch is a circle of layers, one after another, whose length is the makespan at least. A window's images
    that no array holds at its start are written within.
    """
    layers = len(work.groups)
    of_layer = [np.arange(start, end) for start, end in pairwise(work.edges.tolist())]
    alone = _alone(work, arrays, work.write_ticks)
    reach = min(layers, math.isqrt(_MOST_WINDOW_VISITS // work.visits) + 1, round((_MOST_PAIRS / layers) ** (1 / 3)))
    if reach < 2:
        return sum(alone)
    window = np.zeros((layers, reach + 1), dtype=np.int64)  # [first layer, number of layers]
    for first in range(layers):
        window[first, 1] = alone[first]
        for count in range(2, min(reach, layers) + 1):
            inside = [(first + i) % layers for i in range(count)]
            window[first, count] = _of_layers(work, [of_layer[i] for i in inside], [alone[i] for i in inside], arrays)
    starts = range(layers) if layers <= _MOST_STARTS else range(1)
    best = 0
    for start in starts:
        length = [0] * (layers + 1)
        for end in range(1, layers + 1):
            length[end] = max(
                length[end - count] + int(window[(start + end - count) % layers, count])
                for count in range(1, min(reach, end) + 1)
            )
        best = max(best, length[layers])
    return best


def _of_layers(work: Workload, visits: list[np.ndarray], alone: list[int], arrays: int) -> int:
    """A window of some layers of a chain: their images spread evenly, and two of them on one array.

    Of more images than arrays, two are on one array. Both in one layer: it takes both reads and a write; in two layers:
    between the start of one and the end of the other are both reads and a write.
    """
    if sum(map(len, visits)) <= arrays:  # an array for each image
        return sum(alone)
    together = np.concatenate(visits)
    images, where = np.unique(work.image[together], return_inverse=True)
    ticks = np.zeros(len(images), dtype=np.int64)
    np.add.at(ticks, where, work.visit_ticks[together])
    best = max(sum(alone), _window(ticks, arrays, work.write_ticks))
    if len(images) <= arrays:
        return best
    total, stalled = sum(alone), []
    before = np.concatenate([[0], np.cumsum(alone)]).tolist()
    shortest = [np.sort(work.visit_ticks[mine])[:2].tolist() for mine in visits]
    for i, one in enumerate(shortest):
        if len(one) > 1:
            stalled.append(max(0, sum(one) + work.write_ticks - alone[i]))
        for j in range(i + 1, len(shortest)):
            stalled.append(max(0, one[0] + work.write_ticks + shortest[j][0] - before[j + 1] + before[i]))
    return max(best, total + min(stalled))
