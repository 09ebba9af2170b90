"""Lower bounds on the writes and on the makespan of any schedule of given images on given arrays."""

from __future__ import annotations

import numpy as np

from xbcompile.tiler.place import Work
from xbcompile.tiler.place_keeps import plan_keeps


def writes_bound(work: Work, arrays: int) -> int:
    """Fewest writes per batch: one per image, more where layers in a chain share more images than arrays hold.

    When each layer waits for the one before, the order of the layers is forced, and `plan_keeps` gives the most writes
    that can be spared.
    """
    chained = all(rank - 1 in waits for rank, waits in enumerate(work.waits_for) if rank)
    if not chained:
        return work.images
    return work.visits - int(plan_keeps(work.rank, work.next_rank, arrays).sum())


def makespan_bound(work: Work, arrays: int, writes: int) -> int:
    """Shortest time from the start of a batch to its last read, ticks.

    Args:
        work: what has to be read.
        arrays: number of arrays.
        writes: writes within the batch: 0 for stationary weights, else a lower bound on them.

    Returns:
        The largest of: all work spread evenly; for stationary weights the busiest array; the critical path, where a
        layer takes at least its largest visit, and at least its reads and the writes that cannot precede them (each
        array can hold one image when the layer becomes ready) spread evenly.
    """
    if not work.visits:
        return 0
    duration = work.visit_ticks
    total = int(duration.sum()) + writes * work.write_ticks
    best = -(-total // arrays)
    write_ticks = work.write_ticks if writes else 0
    if not writes:
        busy = np.zeros(work.images, dtype=np.int64)
        np.add.at(busy, work.image, duration)
        best = max(best, int(busy.max()))
    edges = np.searchsorted(work.rank, np.arange(len(work.groups) + 1))
    ends: list[int] = []
    for rank, waits in enumerate(work.waits_for):
        mine = duration[edges[rank] : edges[rank + 1]]
        late = len(mine) if not waits else max(0, len(mine) - arrays)
        even = -(-(int(mine.sum()) + late * write_ticks) // arrays)
        largest = int(mine.max(initial=0)) + (write_ticks if not waits and len(mine) else 0)
        ends.append(max((ends[w] for w in waits), default=0) + max(even, largest))
    return max(best, *ends)
