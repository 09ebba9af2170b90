"""Which images to keep loaded between two layers that both read them: fewest writes for a given order of layers."""

from __future__ import annotations

import heapq

import numpy as np

NEVER = np.iinfo(np.int64).max  # rank of the next use of an image that no later layer reads


def keep_resident(rank: np.ndarray, next_rank: np.ndarray, arrays: int) -> np.ndarray:
    """Choose the images that stay in their arrays from one visit to the next.

    Between two layers at most `arrays` images can be held, and while a layer between is read at most `arrays` - 1, as
    one array holds what is read. A sweep over the layers that drops the image needed latest, whenever too many are
    held, keeps as many as possible (Belady's rule; the intervals are those of a k-colourable interval graph).

    Args:
        rank: int64 [visits], position of the visit's layer; ascending.
        next_rank: int64 [visits], rank of the next visit of the same image, or `NEVER`.
        arrays: number of arrays.

    Returns:
        bool [visits]: keep the image until its next visit. No execution in this order of layers spares more writes.
    """
    keep = np.zeros(len(rank), dtype=bool)
    candidates = np.flatnonzero(next_rank != NEVER)
    starts, ends = _by_value(rank[candidates], candidates), _by_value(next_rank[candidates], candidates)
    events = sorted({*starts, *ends})
    held: list[tuple[int, int]] = []  # (-rank of the end, visit): a heap with the latest end first
    dropped: set[int] = set()
    count = 0

    def hold_at_most(limit: int) -> None:
        nonlocal count
        while count > limit:
            dropped.add(heapq.heappop(held)[1])  # one that has not ended: it has the latest end of all
            count -= 1

    for position, at in enumerate(events):
        arrived = [visit for visit in ends.get(at, []) if visit not in dropped]
        keep[arrived] = True
        count -= len(arrived)
        hold_at_most(arrays - 1)  # while layer `at` is read
        for visit in starts.get(at, []):
            heapq.heappush(held, (-int(next_rank[visit]), visit))
            count += 1
        next_layer = at + 1 in events[position + 1 : position + 2]
        hold_at_most(arrays if next_layer else arrays - 1)  # else a layer that ends nothing needs an array
    return keep


def _by_value(values: np.ndarray, items: np.ndarray) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for value, item in zip(values.tolist(), items.tolist(), strict=True):
        result.setdefault(value, []).append(item)
    return result
