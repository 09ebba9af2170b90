"""Plans of visits and their timetables: every step as early as the arrays, the order of layers and the rules of writing allow."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import COPY
from xbcompile.tiler.schedule.workload import Workload

_FEW_VISITS = 8  # per group; so few are timed sooner one by one


@dataclass(frozen=True)
class WriteRules:
    """What a target allows of writing, see `ArraySpec`."""

    while_reading: bool = True
    at_a_time: int = 0

    @classmethod
    def of(cls, spec: ArraySpec) -> WriteRules:
        """The rules of an array."""
        return cls(spec.writes_while_reading, spec.writes_at_a_time)

    def together(self, arrays: int) -> int:
        """Arrays that can be written at a time."""
        return min(arrays, self.at_a_time or arrays)

    def bind(self, arrays: int) -> bool:
        """Whether they forbid anything that this many arrays could do; one array never writes and reads at a time."""
        return arrays > 1 and (not self.while_reading or 0 < self.at_a_time < arrays)


@dataclass(frozen=True, eq=False)
class VisitPlan:
    """On which array and in which order visits happen, without times.

    Args:
        array: int64 [visits]; all visits of an image are on one array.
        sequence: int64 [visits], a permutation that honours the dependencies.
        preloaded: bool [arrays]: the first image of an array is written at the end of the batch before, not at the start.
        turns: int64 [2 * visits], where steps wait for each other by the rules of writing: the order of the reads, visit by
            visit, then of the writes for each visit (where there is one); None: an order is found.
    """

    array: np.ndarray
    sequence: np.ndarray
    preloaded: np.ndarray
    turns: np.ndarray | None = None

    @property
    def content(self) -> bytes:
        """A digest of the values, alike for equal plans of the same work on as many arrays."""
        values = [self.array, self.sequence, self.preloaded] + ([] if self.turns is None else [self.turns])
        return sha256(b"".join(each.tobytes() for each in values)).digest()


@dataclass(frozen=True, eq=False)
class Timetable:
    """When and where each visit happens, in a batch that follows and is followed by batches like it.

    Args:
        array: int64 [visits]; all visits of an image are on one array.
        write: bool [visits], whether the image is written for the visit.
        early: bool [visits], whether that write is the last step of its array in the batch before: then `write_start` is
            the time in this batch of the write for the next one.
        write_start: int64 [visits], ticks; meaningless without a write.
        read_start: int64 [visits], ticks.
        sequence: int64 [visits], an order of execution (decides between steps without duration).
        initial: int64 [arrays], image that each array holds where a batch starts, or -1.
    """

    array: np.ndarray
    write: np.ndarray
    early: np.ndarray
    write_start: np.ndarray
    read_start: np.ndarray
    sequence: np.ndarray
    initial: np.ndarray

    @property
    def writes(self) -> int:
        """Number of writes per batch."""
        return int(np.count_nonzero(self.write))

    @property
    def arrays(self) -> int:
        """Number of arrays."""
        return len(self.initial)

    def makespan(self, work: Workload) -> int:
        """End of the last step, ticks from the start of the batch."""
        last_read = int((self.read_start + work.visit_ticks).max(initial=0))
        return max(last_read, int(self.write_start[self.write].max(initial=-work.write_ticks)) + work.write_ticks)

    def copies(self, work: Workload) -> np.ndarray:
        """COPY table: the arrays that each image is written into."""
        array = np.empty(work.images, dtype=np.int64)
        array[work.image] = self.array
        copies = np.empty(work.images, dtype=COPY)
        copies["image"], copies["array"] = work.copy_of, array
        return copies


def time_visits(work: Workload, plan: VisitPlan, rules: WriteRules) -> Timetable:
    """Time a plan, with writes only where an array holds another image.

    An array that reads one image alone, or whose last image is its first, keeps that image from batch to batch. Without
    rules that bind, no order of steps on each array is executed sooner. With them, writes wait for their turn in the order
    in which they would start without rules; where none may be beside a read, all that can be read is read, then all
    arrays that can be written are, in turns.
    """
    arrays = len(plan.preloaded)
    by_array = np.lexsort((plan.sequence, plan.array))
    array, image = plan.array[by_array], work.image[by_array]
    first = np.ones(len(array), dtype=bool)
    first[1:] = array[1:] != array[:-1]
    changes = first.copy()
    changes[1:] |= image[1:] != image[:-1]
    start = np.flatnonzero(first)
    last = np.append(start[1:], len(array)) - 1 if len(start) else start
    stays = image[start] == image[last]
    preloaded = plan.preloaded[array[start]]
    initial = np.full(arrays, -1, dtype=np.int64)
    held = stays | preloaded
    initial[array[start[held]]] = image[start[held]]
    changes[start[stays]] = False
    write, early = np.zeros(work.visits, dtype=bool), np.zeros(work.visits, dtype=bool)
    write[by_array] = changes
    early[by_array[start[preloaded & ~stays]]] = True
    empty = np.zeros(work.visits, dtype=np.int64)
    draft = Timetable(plan.array, write, early, empty, empty, plan.sequence, initial)
    rank = work.rank[by_array]
    in_order = bool(np.all(first[1:] | (rank[1:] >= rank[:-1]))) and work.visits > _FEW_VISITS * len(work.groups)
    timed = _time_by_rank(work, draft, by_array) if in_order else _time_in_sequence(work, draft)
    if not rules.bind(arrays) or not timed.writes or not work.write_ticks:
        return timed
    if plan.turns is not None:
        return _time_in_turn(work, timed, rules, plan.turns)
    if rules.while_reading:
        late = timed.early * (1 + int(timed.write_start.max(initial=0)))
        start = np.concatenate([timed.read_start, timed.write_start])
        tie = np.concatenate([2 * timed.sequence + 1, 2 * timed.sequence + late])
        turns = np.empty(2 * work.visits, dtype=np.int64)
        turns[np.lexsort((tie, start))] = np.arange(2 * work.visits)
        return _time_in_turn(work, timed, rules, turns)
    return _Phases(work, timed, by_array, rules).run()


def _with_times(draft: Timetable, write_start: np.ndarray, read_start: np.ndarray) -> Timetable:
    return Timetable(
        draft.array, draft.write, draft.early, write_start, read_start, draft.sequence, draft.initial
    )  # fmt: skip


def _time_by_rank(work: Workload, draft: Timetable, by_array: np.ndarray) -> Timetable:
    """Where each array takes groups in order of rank: group by group, all arrays at once."""
    free = np.zeros(draft.arrays, dtype=np.int64)
    ends = np.zeros(len(work.groups), dtype=np.int64)
    write_start, read_start = np.zeros(work.visits, dtype=np.int64), np.zeros(work.visits, dtype=np.int64)
    duration = work.visit_ticks
    writing = np.where(draft.write & ~draft.early, work.write_ticks, 0)
    by_rank = by_array[np.argsort(work.rank[by_array], kind="stable")]
    for rank, waits in enumerate(work.waits_for):
        visits = by_rank[work.edges[rank] : work.edges[rank + 1]]  # by array, then sequence
        ready = int(ends[list(waits)].max(initial=0)) if waits else 0
        array, read, wrote = draft.array[visits], duration[visits], writing[visits]
        first = np.ones(len(visits), dtype=bool)
        first[1:] = array[1:] != array[:-1]
        start = np.flatnonzero(first)
        # once its first read of the group has started, an array never waits
        busy = np.cumsum(read + wrote)
        since = busy - np.repeat(busy[start] - read[start], np.diff(start, append=len(visits)))
        base = np.maximum(free[array[start]] + wrote[start], ready)
        end = np.repeat(base, np.diff(start, append=len(visits))) + since
        read_start[visits] = end - read
        write_start[visits] = end - read - wrote
        write_start[visits[start]] = free[array[start]]
        last = np.append(start[1:], len(visits)) - 1
        free[array[last]] = end[last]
        ends[rank] = int(end[last].max())
    early = np.flatnonzero(draft.early)
    write_start[early] = free[draft.array[early]]
    return _with_times(draft, write_start, read_start)


def _time_in_sequence(work: Workload, draft: Timetable) -> Timetable:
    """Visit by visit, each behind its write; writes for the next batch last."""
    visits = work.visits
    turns = np.concatenate([2 * draft.sequence + 1, 2 * (draft.sequence + visits * draft.early)])
    return _time_in_turn(work, draft, WriteRules(), turns)


def _time_in_turn(work: Workload, timed: Timetable, rules: WriteRules, turns: np.ndarray) -> Timetable:
    """Step by step, none before what its rules have it wait for among the steps before it."""
    visits = work.visits
    step = np.concatenate([np.arange(visits), visits + np.flatnonzero(timed.write)])
    step = step[np.argsort(turns[step], kind="stable")]
    writes = step >= visits
    visit = np.where(writes, step - visits, step)
    duration = np.where(writes, work.write_ticks, work.visit_ticks[visit])
    times = np.zeros(2 * visits, dtype=np.int64)
    times[step] = time_steps(
        timed.array[visit], np.where(writes, -1, work.rank[visit]), duration, work.waits_for, rules, timed.arrays
    )
    return _with_times(timed, times[visits:], times[:visits])


def time_steps(
    array: np.ndarray,
    group: np.ndarray,
    duration: np.ndarray,
    waits_for: Sequence[Sequence[int]],
    rules: WriteRules,
    arrays: int,
) -> np.ndarray:
    """Start of steps in a given order: each as early as the steps before it allow.

    Args:
        array: int64 [steps], array of each step.
        group: int64 [steps], what is read, -1 for writes.
        duration: int64 [steps].
        waits_for: per group, the groups whose reads must have ended; they are earlier in the order.
        rules: of writing.
        arrays: number of arrays.

    Returns:
        int64 [steps].
    """
    free, ends = [0] * arrays, [0] * len(waits_for)
    writers = [0] * rules.together(max(arrays, 1))
    last_read = last_write = 0
    starts = []
    for of, read, lasts in zip(array.tolist(), group.tolist(), duration.tolist(), strict=True):
        if read < 0:
            start = max(free[of], writers[0], last_read)
            free[of] = end = start + lasts
            heapq.heapreplace(writers, end)
            if not rules.while_reading:
                last_write = max(last_write, end)
        else:
            start = max(free[of], last_write)
            for before in waits_for[read]:
                start = max(start, ends[before])
            free[of] = end = start + lasts
            ends[read] = max(ends[read], end)
            if not rules.while_reading:
                last_read = max(last_read, end)
        starts.append(start)
    return np.array(starts, dtype=np.int64)


class _Phases:
    """The arrays' queues of steps while phases of reading and writing take turns."""

    def __init__(self, work: Workload, timed: Timetable, by_array: np.ndarray, rules: WriteRules) -> None:
        self.work, self.timed, self.together = work, timed, rules.together(timed.arrays)
        self.queues: list[list[int]] = [[] for _ in range(timed.arrays)]  # reversed; visits + v: the write for visit v
        array, visits = timed.array.tolist(), work.visits
        write, early = timed.write.tolist(), timed.early.tolist()
        late: dict[int, int] = {}
        for visit in by_array.tolist():
            if write[visit] and not early[visit]:
                self.queues[array[visit]].append(visits + visit)
            elif early[visit]:
                late[array[visit]] = visits + visit
            self.queues[array[visit]].append(visit)
        for of, step in late.items():
            self.queues[of].append(step)
        for queue in self.queues:
            queue.reverse()
        self.left = np.diff(work.edges).tolist()  # visits of each rank that are not read; each rank has some
        self.waits = [len(set(waits)) for waits in work.waits_for]  # unread ranks that each rank waits for
        self.followers: list[list[int]] = [[] for _ in work.waits_for]
        for rank, waits in enumerate(work.waits_for):
            for before in set(waits):
                self.followers[before].append(rank)
        self.ready = [0] * len(work.groups)
        self.times = np.zeros(2 * visits, dtype=np.int64)

    def run(self) -> Timetable:
        """Alternate until all queues are empty."""
        visits, now = self.work.visits, 0
        while any(self.queues):
            now = self._read(now)
            waiting = [queue.pop() for queue in self.queues if queue and queue[-1] >= visits]
            waiting.sort(key=lambda step: (bool(self.timed.early[step - visits]), self.timed.sequence[step - visits]))
            turns = np.arange(len(waiting)) // self.together
            self.times[waiting] = now + turns * self.work.write_ticks
            now += -(-len(waiting) // self.together) * self.work.write_ticks
        return _with_times(self.timed, self.times[visits:], self.times[:visits])

    def _read(self, now: int) -> int:
        """Read all that can be read; the time when that has ended."""
        rank, duration, visits = self.work.rank, self.work.visit_ticks, self.work.visits
        free = [now] * len(self.queues)
        heads = [(int(rank[queue[-1]]), of) for of, queue in enumerate(self.queues) if queue and queue[-1] < visits]
        heapq.heapify(heads)
        latest, blocked = now, []
        while heads:
            at, of = heapq.heappop(heads)
            if self.waits[at]:
                blocked.append((at, of))
                continue
            visit = self.queues[of].pop()
            self.times[visit] = max(free[of], self.ready[at])
            free[of] = end = int(self.times[visit]) + int(duration[visit])
            latest = max(latest, end)
            self.left[at] -= 1
            for after in self.followers[at]:
                self.ready[after] = max(self.ready[after], end)
                self.waits[after] -= not self.left[at]
            if not self.left[at]:
                for entry in blocked:
                    heapq.heappush(heads, entry)
                blocked.clear()
            if self.queues[of] and self.queues[of][-1] < visits:
                heapq.heappush(heads, (int(rank[self.queues[of][-1]]), of))
        return latest
