"""Batches that overlap while all images stay in their arrays: how soon the next one may start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbcompile.tiler.schedule.timetable import Timetable
from xbcompile.tiler.schedule.workload import Workload

_MOST_JUMPS = 1000  # assumed; after so many, batches do not overlap
_MOMENT_BITS = 26  # assumed: a moment is 2**-26 of a batch, beyond the tolerance of checks


def _lengths(work: Workload, timetable: Timetable) -> np.ndarray:
    """Duration of each visit; where one takes no time, a moment, so that no other visit is timed across it."""
    moment = max(1, timetable.makespan(work) >> _MOMENT_BITS)
    several = np.bincount(timetable.array, minlength=timetable.arrays)[timetable.array] > 1
    return np.where(several, work.visit_ticks.clip(moment), work.visit_ticks)


def smallest_period(work: Workload, timetable: Timetable) -> int:
    """The smallest period, in ticks, at which no array reads for two batches at a time, with these times.

    Reads of visits [a, b) and [c, d) of one array meet in batches k apart where k P lies between c - b and d - a. The period
    starts at the busiest array's time, and jumps over the intervals that forbid it, until none does.
    """
    makespan = timetable.makespan(work)
    if not makespan:
        return 0
    array, start = timetable.array, timetable.read_start
    end = start + _lengths(work, timetable)
    busy = np.zeros(timetable.arrays, dtype=np.int64)
    np.add.at(busy, array, end - start)
    several = np.bincount(array, minlength=timetable.arrays)[array] > 1
    array, start, end = array[several], start[several], end[several]
    period = int(busy.max())
    for _ in range(_MOST_JUMPS):
        later = _next_period(array, start, end, period)
        if later == period or later >= makespan:
            return min(later, max(makespan, period))
        period = later
    return makespan


def _next_period(array: np.ndarray, start: np.ndarray, end: np.ndarray, period: int) -> int:
    """`period` where no two visits of an array meet, else the smallest one at which those that meet now do not."""
    if not len(array):
        return period
    at = start % period
    order = np.lexsort((at, array))
    array, start, end, at = array[order], start[order], end[order], at[order]
    first = np.ones(len(array), dtype=bool)
    first[1:] = array[1:] != array[:-1]
    begin = np.flatnonzero(first)
    after = np.arange(1, len(array) + 1)
    after[np.append(begin[1:], len(array)) - 1] = begin  # the next visit around the period
    space = (at[after] - at) % period
    meet = np.flatnonzero(space < end - start)
    if not len(meet):
        return period
    # the later one in time has to stay behind the earlier one, k periods on
    one, two = meet, after[meet]
    swap = start[one] > start[two]
    early, late = np.where(swap, two, one), np.where(swap, one, two)
    middle = (start[late] + end[late] - start[early] - end[early]) / (2 * period)
    jumps = [period + 1]
    for times in (np.floor(middle), np.ceil(middle)):
        k = np.maximum(times.astype(np.int64), 1)
        inside = (k * period > start[late] - end[early]) & (k * period < end[late] - start[early])
        jumps += (-(-(end[late] - start[early])[inside] // k[inside])).tolist()
    return max(jumps)


def pipelined(work: Workload, timetable: Timetable) -> tuple[Timetable, int]:
    """Read later, so that the period is the busiest array's time, which is the smallest there is.

    Each visit starts when its layer is ready and its array is free at that time of the period. Where what is free lies in
    pieces that are too short, the array's visits follow each other without pauses, around the period: all have room
    then, as an array is busy for one period at most.

    Returns:
        The timetable and its period.
    """
    busy = np.zeros(timetable.arrays, dtype=np.int64)
    np.add.at(busy, timetable.array, _lengths(work, timetable))
    period = int(busy.max(initial=0))
    gapless = np.zeros(timetable.arrays, dtype=bool)
    while True:
        starts, failed = _around(work, timetable, period, gapless)
        if not len(failed):
            return replace(timetable, read_start=starts, sequence=_sequence(work, starts)), period
        gapless[failed] = True


def _around(work: Workload, timetable: Timetable, period: int, gapless: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start of each visit, and the arrays without room for one."""
    several = np.bincount(timetable.array, minlength=timetable.arrays)[timetable.array] > 1
    starts = np.zeros(work.visits, dtype=np.int64)
    duration, lengths = work.visit_ticks, _lengths(work, timetable)
    ends = np.zeros(len(work.groups), dtype=np.int64)
    taken: dict[int, list[tuple[int, int]]] = {}
    failed: list[int] = []
    for rank, waits in enumerate(work.waits_for):
        visits = np.arange(work.edges[rank], work.edges[rank + 1])
        ready = int(ends[list(waits)].max(initial=0)) if waits else 0
        starts[visits] = ready
        for visit in visits[several[visits]].tolist():
            array = int(timetable.array[visit])
            mine = taken.setdefault(array, [])
            length = int(lengths[visit])
            start = _after_last(mine, ready, period) if gapless[array] else _first_free(mine, ready, length, period)
            if start < 0:
                failed.append(array)
                start = ready
            starts[visit] = start
            mine.append((start % period, length))
        ends[rank] = int((starts[visits] + duration[visits]).max(initial=ready))
    return starts, np.array(sorted(set(failed)), dtype=np.int64)


def _after_last(taken: list[tuple[int, int]], ready: int, period: int) -> int:
    """The first time from `ready` on that follows the array's last visit, around the period."""
    if not taken:
        return ready
    return ready + (sum(taken[-1]) - ready) % period


def _first_free(taken: list[tuple[int, int]], ready: int, length: int, period: int) -> int:
    """The first time from `ready` on at which an array is free for `length` around the period; -1 where there is none."""
    for start in sorted({ready, *(ready + (at + lasts - ready) % period for at, lasts in taken)}):
        if all((at - start) % period >= length and (start - at) % period >= lasts for at, lasts in taken):
            return start
    return -1


def _sequence(work: Workload, starts: np.ndarray) -> np.ndarray:
    """Order of execution: by rank, then start."""
    order = np.lexsort((starts, work.rank))
    sequence = np.empty(work.visits, dtype=np.int64)
    sequence[order] = np.arange(work.visits)
    return sequence
