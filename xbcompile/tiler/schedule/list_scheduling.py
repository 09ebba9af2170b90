"""Plans by list scheduling: groups of uses one after another, each image on the array that can have it first."""

from __future__ import annotations

import numpy as np

from xbcompile.tiler.schedule.residency import NEVER, keep_resident
from xbcompile.tiler.schedule.timetable import VisitPlan
from xbcompile.tiler.schedule.workload import Workload

_PINNED = -1  # in place of a rank: the image is never overwritten


def stationary_plan(work: Workload) -> VisitPlan:
    """Read all images where they stay: image i on array i."""
    return VisitPlan(work.image, np.arange(work.visits), np.ones(work.images, dtype=bool))


def list_schedule(
    work: Workload, arrays: int, pinned: np.ndarray | None = None, *, preloaded: bool = True, keeping: bool = True
) -> VisitPlan:
    """Write images in turn into fewer arrays than images; every load of an image is on the same array.

    A group reads the images that are already loaded, then those that are not to be kept, then those that `keep_resident`
    keeps for a later group, the next to be used last. Among arrays whose images may be overwritten, the earliest takes
    the next image, the longest image first.

    Args:
        work: what has to be read, from more images than arrays.
        arrays: number of arrays.
        pinned: images that stay for ever, each on an array of its own; fewer than arrays.
        preloaded: the first image of each array is there when the batch starts.
        keeping: False: images are kept only where nothing else takes their arrays.
    """
    pinned = np.zeros(0, dtype=np.int64) if pinned is None else pinned
    free = arrays - len(pinned)
    others = ~np.isin(work.image, pinned)
    kept_until = np.where(others, NEVER, _PINNED)
    if keeping:
        keep = keep_resident(work.rank[others], work.next_rank[others], free)
        kept_until[others] = np.where(keep, work.next_rank[others], NEVER)
    scheduler = _ListScheduler(work, arrays, kept_until, -work.write_ticks if preloaded else 0)
    scheduler.pin(pinned)
    return scheduler.run(preloaded)


class _ListScheduler:
    """The state of all arrays while groups of uses are scheduled one after another."""

    def __init__(self, work: Workload, arrays: int, kept_until: np.ndarray, start: int) -> None:
        self.work = work
        self.kept_until = kept_until  # per visit: rank for which its image stays loaded, NEVER or _PINNED
        self.home = np.full(work.images, -1, dtype=np.int64)  # array that an image was written into
        self.resident = np.full(arrays, -1, dtype=np.int64)  # image that an array holds
        self.next_use = np.full(arrays, NEVER)  # rank for which the resident image is kept
        self.free = np.full(arrays, start, dtype=np.int64)  # end of an array's last step
        self.array = np.full(work.visits, -1, dtype=np.int64)
        self.read_start = np.zeros(work.visits, dtype=np.int64)
        self.sequence = np.zeros(work.visits, dtype=np.int64)
        self.scheduled = 0

    def pin(self, images: np.ndarray) -> None:
        """Let images stay in the last arrays."""
        arrays = len(self.free) - len(images) + np.arange(len(images))
        self.home[images], self.resident[arrays], self.next_use[arrays] = arrays, images, _PINNED
        self.free[arrays] = 0

    def run(self, preloaded: bool) -> VisitPlan:
        """Schedule all groups in order."""
        work, edges = self.work, self.work.edges.tolist()
        duration = work.visit_ticks
        ends: list[int] = []
        for rank, waits in enumerate(work.waits_for):
            ready = max((ends[before] for before in waits), default=0)
            if edges[rank + 1] - edges[rank] == 1:
                ends.append(self._schedule_one(edges[rank], int(duration[edges[rank]]), ready))
                continue
            visits = np.arange(edges[rank], edges[rank + 1])
            self._schedule_group(visits, duration, ready)
            ends.append(int((self.read_start[visits] + duration[visits]).max(initial=ready)))
        return VisitPlan(self.array, self.sequence, np.full(len(self.free), preloaded))

    def _schedule_one(self, visit: int, duration: int, ready: int) -> int:
        """A group of one visit; the end of its read."""
        image = int(self.work.image[visit])
        home, kept_until = int(self.home[image]), int(self.kept_until[visit])
        if home >= 0 and self.resident[home] == image:
            start = max(int(self.free[home]), ready)
            self._read_at(visit, home, start, duration)
        elif home < 0 and kept_until == NEVER:
            self._load_on(visit, self._soonest(ready, duration), duration, ready)
        else:
            self._load(visit, duration, ready)
        return max(ready, int(self.read_start[visit]) + duration)

    def _schedule_group(self, visits: np.ndarray, duration: np.ndarray, ready: int) -> None:
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
            self._record(members, array, base + write)
            # the members are in order of start, so the last assignment per array stands
            self.free[array] = base + write + length
            self.home[self.work.image[members]] = array
            self.resident[array] = self.work.image[members]
        self.next_use[candidates] = NEVER

    def _load(self, visit: int, duration: int, ready: int) -> None:
        image = int(self.work.image[visit])
        self._load_on(visit, int(self.home[image]) if self.home[image] >= 0 else self._victim(), duration, ready)

    def _load_on(self, visit: int, array: int, duration: int, ready: int) -> None:
        """Load an image on an array, as soon as that is free, and read it."""
        image = int(self.work.image[visit])
        start = max(int(self.free[array]) + self.work.write_ticks, ready)
        self.home[image], self.resident[array] = array, image
        self._read_at(visit, array, start, duration)

    def _read_at(self, visit: int, array: int, start: int, duration: int) -> None:
        """Read an image that is on its array."""
        self.next_use[array] = self.kept_until[visit]
        self.free[array] = start + duration
        self.array[visit], self.read_start[visit] = array, start
        self.sequence[visit] = self.scheduled
        self.scheduled += 1

    def _soonest(self, ready: int, duration: int) -> int:
        """Array that can have an image first that is not kept; where nothing takes time, the first one."""
        candidates = np.flatnonzero(self.next_use == NEVER)
        if not len(candidates):
            return self._victim()
        write = self.work.write_ticks
        if not duration + write:
            return int(candidates[0])
        return int(candidates[np.argmin(np.maximum(self.free[candidates] + write, ready) - write)])

    def _victim(self) -> int:
        """Array whose image is kept for the latest layer or for none; among those the earliest that is free."""
        latest = np.flatnonzero(self.next_use == self.next_use.max())
        return int(latest[np.argmin(self.free[latest])])

    def _record(self, visits: np.ndarray, array: np.ndarray, read_start: np.ndarray) -> None:
        self.array[visits], self.read_start[visits] = array, read_start
        self.sequence[visits] = self.scheduled + np.arange(len(visits))
        self.scheduled += len(visits)


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
