"""Plans worth comparing, for images that take turns on fewer arrays and for images that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.tiler.schedule.copies import (
    Replication,
    copies_for_latency,
    copies_for_period,
    latency_bound,
    usable_arrays,
)
from xbcompile.tiler.schedule.list_scheduling import list_schedule
from xbcompile.tiler.schedule.objective import Objective
from xbcompile.tiler.schedule.overlap import pipelined, smallest_period
from xbcompile.tiler.schedule.read_order import read_orders
from xbcompile.tiler.schedule.timetable import Timetable, VisitPlan, WriteRules, time_visits
from xbcompile.tiler.schedule.workload import Workload

# Assumed: up to so many visits, many plans are tried, or a few; beyond, the one that is known to be good.
MANY_PLANS, FEW_PLANS = 2_000, 100_000
_MOST_DROPS = 16  # assumed: arrays whose first write is tried at either end of the batch


@dataclass(frozen=True, eq=False)
class Candidate:
    """A timetable, the visits that it times and how soon the next batch may start, in ticks."""

    work: Workload
    timetable: Timetable
    period: int

    @property
    def makespan(self) -> int:
        """Ticks from the start of the batch to its last step."""
        return self.timetable.makespan(self.work)


Score = Callable[[Candidate], tuple[float, ...]]


def in_turns(work: Workload, plan: VisitPlan, rules: WriteRules) -> Candidate:
    """A candidate whose batches follow each other."""
    timetable = time_visits(work, plan, rules)
    return Candidate(work, timetable, timetable.makespan(work))


def multiplexed(
    works: Sequence[Workload], arrays: int, rules: WriteRules, objective: Objective, score: Score
) -> Candidate:
    """The best plan of images that take turns.

    Plans are those of `list_schedule` for uses apart and uses joined, with none, some or all but one of the arrays
    each kept for one image, and with the first image of an array written at the end of the batch before or not.
    """
    best: Candidate | None = None
    for work in works:
        timed: set[bytes] = set()  # several choices of images that stay often make one plan
        for plan in _plans(work, arrays, objective):
            for tried in (plan,) if work.read_once else (plan, _close_circles(work, plan)):
                content = tried.content
                if content in timed:
                    continue
                timed.add(content)
                found = _drop_late_preloads(work, tried, rules, score)
                if best is None or score(found) < score(best):
                    best = found
    assert best is not None
    return best


def _plans(work: Workload, arrays: int, objective: Objective) -> Iterator[VisitPlan]:
    if arrays == 1:
        yield list_schedule(work, 1, preloaded=False)
        return
    few_writes = objective.weight("energy") + objective.weight("weight-updates") > 0
    for count in _pin_counts(work, arrays, few_writes):
        for pinned in _pins(work, count):
            yield list_schedule(work, arrays, pinned)
            if work.visits <= MANY_PLANS:
                yield list_schedule(work, arrays, pinned, preloaded=False)
                if not work.read_once:
                    yield list_schedule(work, arrays, pinned, keeping=False)


def _pin_counts(work: Workload, arrays: int, few_writes: bool) -> list[int]:
    """Numbers of images that stay for ever."""
    if work.visits <= MANY_PLANS:
        counts = {0, 1, 2, 3, arrays // 4, arrays // 2, 3 * arrays // 4, arrays - 3, arrays - 2, arrays - 1}
        return sorted(count for count in counts if 0 <= count < arrays)
    if work.visits <= FEW_PLANS:
        return sorted({0, arrays // 2, arrays - 1})
    return [0, arrays - 1] if few_writes else [0]


def _pins(work: Workload, count: int) -> Iterator[np.ndarray]:
    """Images that stay: those read longest, most often, and some of every part of the batch."""
    if not count:
        yield np.zeros(0, dtype=np.int64)
        return
    ticks = work.image_ticks
    yield np.sort(np.argsort(-ticks, kind="stable")[:count])
    visits = np.bincount(work.image, minlength=work.images)
    if not work.read_once:
        yield np.sort(np.lexsort((-ticks, -visits))[:count])
    if work.visits <= FEW_PLANS:
        _, first = np.unique(work.image, return_index=True)
        in_order = np.argsort(first, kind="stable")
        yield np.sort(in_order[np.arange(count) * work.images // count])
        yield np.sort(in_order[:count])
        yield np.sort(in_order[-count:])


def _close_circles(work: Workload, plan: VisitPlan) -> VisitPlan:
    """Let each array read last, in its last group, the image that it reads first, so that it stays for the next batch."""
    order = np.lexsort((plan.sequence, plan.array))
    array = plan.array[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = array[1:] != array[:-1]
    first = order[starts]
    last = order[np.append(starts[1:], True)]
    image, rank = np.full((2, len(plan.preloaded)), -1, dtype=np.int64)
    image[plan.array[first]], rank[plan.array[last]] = work.image[first], work.rank[last]
    moved = (work.image == image[plan.array]) & (work.rank == rank[plan.array])
    sequence = np.empty(work.visits, dtype=np.int64)
    sequence[np.lexsort((plan.sequence, moved, work.rank))] = np.arange(work.visits)
    return replace(plan, sequence=sequence)


def _drop_late_preloads(work: Workload, plan: VisitPlan, rules: WriteRules, score: Score) -> Candidate:
    """Write the first image of an array within the batch where its write at the end would make the batch longer."""
    best = in_turns(work, plan, rules)
    for _ in range(_MOST_DROPS if work.visits <= MANY_PLANS else 1):
        early = np.flatnonzero(best.timetable.early)
        ends = best.timetable.write_start[early] + work.write_ticks
        reads_end = int((best.timetable.read_start + work.visit_ticks).max(initial=0))
        late = early[ends > reads_end]
        if not len(late):
            break
        order = best.timetable.array[late[np.argsort(-ends[ends > reads_end], kind="stable")]]
        changed = False
        for chosen in (order, order[:1]) if len(order) > 1 else (order,):
            preloaded = plan.preloaded.copy()
            preloaded[chosen] = False
            found = in_turns(work, replace(plan, preloaded=preloaded), rules)
            if score(found) < score(best):
                best, plan, changed = found, replace(plan, preloaded=preloaded), True
                break
        if not changed:
            break
    return best


def stationary(
    replication: Replication,
    arrays: int,
    build: Callable[[np.ndarray], Workload],
    objective: Objective,
    score: Score,
    effort: float,
) -> tuple[Candidate, int, int]:
    """The best plan of images that stay, with copies on spare arrays; and bounds on its makespan and its period.

    Bounds hold for images that stay, with any copies.

    Args:
        replication: of the images with one copy each.
        arrays: at least as many as images.
        build: the work of images with given numbers of copies.
        objective: what to look for.
        score: order of candidates, the least is the best.
        effort: of solvers.
    """
    work = replication.work
    plain = np.ones(work.images, dtype=np.int64)
    usable = usable_arrays(work, arrays)
    steady = copies_for_period(replication, usable)
    choices = [plain, steady, copies_for_latency(replication, usable)]
    spare = usable - work.images
    if spare:
        choices.append(copies_for_latency(replication, usable, steady))
        budgets = {spare >> shift for shift in range(1, 24)} if len(objective.weights) > 1 else set()
        for budget in sorted(budgets - {0}):
            choices.append(copies_for_period(replication, work.images + budget))
            choices.append(copies_for_latency(replication, work.images + budget))
    best: Candidate | None = None
    seen: set[bytes] = set()
    for copies in choices:
        if copies.tobytes() in seen:
            continue
        seen.add(copies.tobytes())
        shared = work if copies is plain else build(copies)
        for found in _timings(shared, effort):
            if best is None or score(found) < score(best):
                best = found
    assert best is not None
    steadiest = steady if usable == arrays else copies_for_period(replication, arrays)
    even = -(-int(work.image_ticks.sum()) // max(arrays, 1))
    period = max(int(replication.image_ticks(steadiest).max(initial=0)), even)
    return best, max(latency_bound(replication, arrays), period), period


def _timings(work: Workload, effort: float) -> Iterator[Candidate]:
    """Each plan read as soon as can be, and later, for the shortest period."""
    for plan in read_orders(work, effort):
        timetable = time_visits(work, plan, WriteRules())
        at_once = Candidate(work, timetable, smallest_period(work, timetable))
        yield at_once
        if at_once.period > int(work.image_ticks.max(initial=0)):
            yield Candidate(work, *pipelined(work, timetable))
