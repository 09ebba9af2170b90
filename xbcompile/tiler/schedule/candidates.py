"""Plans worth comparing, for images that take turns on fewer arrays and for images that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.tiler.schedule.copies import Sharing, copies_for_latency, copies_for_period
from xbcompile.tiler.schedule.list_scheduling import plan_multiplexed
from xbcompile.tiler.schedule.objective import Objective
from xbcompile.tiler.schedule.overlap import pipelined, smallest_period
from xbcompile.tiler.schedule.read_order import stationary_plans
from xbcompile.tiler.schedule.times import Plan, WriteRules, time_plan
from xbcompile.tiler.schedule.work import Placement, Work

# Assumed: up to so many visits, many plans are tried, or a few; beyond, the one that is known to be good.
MANY_PLANS, FEW_PLANS = 2_000, 100_000
_MOST_ROTATIONS = 16  # assumed: arrays whose first write is tried at either end of the batch


@dataclass(frozen=True, eq=False)
class Candidate:
    """A placement, what it places and how soon the next batch may start, in ticks."""

    work: Work
    placement: Placement
    period: int

    @property
    def makespan(self) -> int:
        """Ticks from the start of the batch to its last step."""
        return self.placement.makespan(self.work)


Rank = Callable[[Candidate], tuple[float, ...]]


def in_turns(work: Work, plan: Plan, rules: WriteRules) -> Candidate:
    """A candidate whose batches follow each other."""
    placement = time_plan(work, plan, rules)
    return Candidate(work, placement, placement.makespan(work))


def multiplexed(works: Sequence[Work], arrays: int, rules: WriteRules, objective: Objective, rank: Rank) -> Candidate:
    """The best plan of images that take turns.

    Plans are those of `plan_multiplexed` for uses apart and uses joined, with none, some or all but one of the arrays
    each kept for one image, and with the first image of an array written at the end of the batch before or not.
    """
    best: Candidate | None = None
    for work in works:
        for plan in _plans(work, arrays, objective):
            for tried in (plan,) if work.read_once else (plan, _close_circles(work, plan)):
                found = _rotate(work, tried, rules, rank)
                if best is None or rank(found) < rank(best):
                    best = found
    assert best is not None
    return best


def _plans(work: Work, arrays: int, objective: Objective) -> Iterator[Plan]:
    if arrays == 1:
        yield plan_multiplexed(work, 1, rotated=False)
        return
    few_writes = objective.weight("energy") + objective.weight("weight-updates") > 0
    for count in _pin_counts(work, arrays, few_writes):
        for pinned in _pins(work, count):
            yield plan_multiplexed(work, arrays, pinned)
            if work.visits <= MANY_PLANS:
                yield plan_multiplexed(work, arrays, pinned, rotated=False)
                if not work.read_once:
                    yield plan_multiplexed(work, arrays, pinned, keeping=False)


def _pin_counts(work: Work, arrays: int, few_writes: bool) -> list[int]:
    """Numbers of images that stay for ever."""
    if work.visits <= MANY_PLANS:
        counts = {0, 1, 2, 3, arrays // 4, arrays // 2, 3 * arrays // 4, arrays - 3, arrays - 2, arrays - 1}
        return sorted(count for count in counts if 0 <= count < arrays)
    if work.visits <= FEW_PLANS:
        return sorted({0, arrays // 2, arrays - 1})
    return [0, arrays - 1] if few_writes else [0]


def _pins(work: Work, count: int) -> Iterator[np.ndarray]:
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


def _close_circles(work: Work, plan: Plan) -> Plan:
    """Let each array read last, in its last group, the image that it reads first, so that it stays for the next batch."""
    order = np.lexsort((plan.sequence, plan.array))
    array = plan.array[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = array[1:] != array[:-1]
    first = order[starts]
    last = order[np.append(starts[1:], True)]
    image, rank = np.full((2, len(plan.rotated)), -1, dtype=np.int64)
    image[plan.array[first]], rank[plan.array[last]] = work.image[first], work.rank[last]
    moved = (work.image == image[plan.array]) & (work.rank == rank[plan.array])
    sequence = np.empty(work.visits, dtype=np.int64)
    sequence[np.lexsort((plan.sequence, moved, work.rank))] = np.arange(work.visits)
    return replace(plan, sequence=sequence)


def _rotate(work: Work, plan: Plan, rules: WriteRules, rank: Rank) -> Candidate:
    """Write the first image of an array within the batch where its write at the end would make the batch longer."""
    best = in_turns(work, plan, rules)
    for _ in range(_MOST_ROTATIONS if work.visits <= MANY_PLANS else 1):
        early = np.flatnonzero(best.placement.early)
        ends = best.placement.write_start[early] + work.write_ticks
        reads_end = int((best.placement.read_start + work.visit_ticks).max(initial=0))
        late = early[ends > reads_end]
        if not len(late):
            break
        order = best.placement.array[late[np.argsort(-ends[ends > reads_end], kind="stable")]]
        changed = False
        for chosen in (order, order[:1]) if len(order) > 1 else (order,):
            rotated = plan.rotated.copy()
            rotated[chosen] = False
            found = in_turns(work, replace(plan, rotated=rotated), rules)
            if rank(found) < rank(best):
                best, plan, changed = found, replace(plan, rotated=rotated), True
                break
        if not changed:
            break
    return best


def stationary(
    sharing: Sharing, arrays: int, build: Callable[[np.ndarray], Work], objective: Objective, rank: Rank, effort: float
) -> tuple[Candidate, int, int]:
    """The best plan of images that stay, with copies on spare arrays; and bounds on its makespan and its period.

    Bounds hold for images that stay, with any copies.

    Args:
        sharing: of the images with one copy each.
        arrays: at least as many as images.
        build: the work of images with given numbers of copies.
        objective: what to look for.
        rank: order of candidates.
        effort: of solvers.
    """
    work = sharing.work
    plain = np.ones(work.images, dtype=np.int64)
    steady = copies_for_period(sharing, arrays)
    fast, fastest = copies_for_latency(sharing, arrays)
    choices = [plain, steady, fast]
    spare = arrays - work.images
    if spare:
        choices.append(copies_for_latency(sharing, arrays, steady)[0])
        budgets = {spare >> shift for shift in range(1, 24)} if len(objective.weights) > 1 else set()
        for budget in sorted(budgets - {0}):
            choices.append(copies_for_period(sharing, work.images + budget))
            choices.append(copies_for_latency(sharing, work.images + budget)[0])
    best: Candidate | None = None
    seen: set[bytes] = set()
    for copies in choices:
        if copies.tobytes() in seen:
            continue
        seen.add(copies.tobytes())
        shared = work if copies is plain else build(copies)
        for found in _timings(shared, effort):
            if best is None or rank(found) < rank(best):
                best = found
    assert best is not None
    busy = np.zeros(work.images, dtype=np.int64)
    np.add.at(busy, work.image, sharing.ticks(np.arange(work.visits), steady[work.image]))
    even = -(-int(work.image_ticks.sum()) // max(arrays, 1))
    period = max(int(busy.max(initial=0)), even)
    return best, max(fastest, period), period


def _timings(work: Work, effort: float) -> Iterator[Candidate]:
    """Each plan read as soon as can be, and later, for the shortest period."""
    for plan in stationary_plans(work, effort):
        placement = time_plan(work, plan, WriteRules())
        at_once = Candidate(work, placement, smallest_period(work, placement))
        yield at_once
        if at_once.period > int(work.image_ticks.max(initial=0)):
            yield Candidate(work, *pipelined(work, placement))
