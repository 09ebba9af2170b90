"""In which order the images that stay are read, where layers do not form a chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.deferred import library
from xbcompile.tiler.effort import FIRST_EFFORT, Allowance, solve
from xbcompile.tiler.schedule.list_scheduling import stationary_plan
from xbcompile.tiler.schedule.timetable import VisitPlan, WriteRules, time_visits
from xbcompile.tiler.schedule.workload import Workload

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
else:
    cp_model = library("ortools.sat.python.cp_model")

_MOST_VISITS, _SOLVER_VISITS = 100_000, 120  # assumed: more are read in the order of their groups
_SHARE = 1 / 8  # of the effort
_SOLVER_BITS = 24  # the solver's own, coarser time


def read_orders(work: Workload, effort: float) -> Iterator[VisitPlan]:
    """Plans of images that stay, image i on array i.

    In a chain of layers, or where each image is read once, every order that honours the dependencies gives the same times:
    one plan. Else also one that reads first what most of the batch's time waits for, and those that a solver finds.
    """
    plan = stationary_plan(work)
    yield plan
    if work.chained or work.read_once or work.visits > _MOST_VISITS:
        return
    tail = _tails(work)
    urgent = np.lexsort((work.rank, -tail[work.rank]))
    plans = [plan, _with_order(plan, urgent)]
    yield plans[1]
    if work.visits <= _SOLVER_VISITS:
        best = min(plans, key=lambda each: time_visits(work, each, WriteRules()).makespan(work))
        yield from _solved(work, best, int(tail.max()), effort * _SHARE)


def _with_order(plan: VisitPlan, order: np.ndarray) -> VisitPlan:
    sequence = np.empty(len(order), dtype=np.int64)
    sequence[order] = np.arange(len(order))
    return VisitPlan(plan.array, sequence, plan.preloaded)


def _tails(work: Workload) -> np.ndarray:
    """Time from the start of each group to the end of all that waits for it, with an array per visit; int64 [groups]."""
    own = np.maximum.reduceat(work.visit_ticks, work.edges[:-1])
    tails = own.copy()
    for rank in range(len(work.groups) - 1, -1, -1):
        for before in work.waits_for[rank]:
            tails[before] = max(tails[before], own[before] + tails[rank])
    return tails


def _solved(work: Workload, plan: VisitPlan, path: int, effort: float) -> Iterator[VisitPlan]:
    """Orders found by CP-SAT, better and better by its own, coarser time."""
    timetable = time_visits(work, plan, WriteRules())
    makespan = timetable.makespan(work)
    if makespan <= max(path, int(work.image_ticks.max())):
        return
    unit = max(1, makespan >> _SOLVER_BITS)
    duration = np.maximum(1, np.rint(work.visit_ticks / unit)).astype(np.int64).tolist()
    horizon = makespan // unit + 4 * work.visits
    model = cp_model.CpModel()
    read = [model.new_int_var(0, horizon, "") for _ in duration]
    ends = [model.new_int_var(0, horizon, "") for _ in work.groups]
    on_array: list[list[cp_model.IntervalVar]] = [[] for _ in range(work.images)]
    for visit, (rank, image) in enumerate(zip(work.rank.tolist(), work.image.tolist(), strict=True)):
        on_array[image].append(model.new_fixed_size_interval_var(read[visit], duration[visit], ""))
        model.add(ends[rank] >= read[visit] + duration[visit])
        for before in work.waits_for[rank]:
            model.add(read[visit] >= ends[before])
        model.add_hint(read[visit], int(timetable.read_start[visit]) // unit)
    for intervals in on_array:
        model.add_no_overlap(intervals)
    last = model.new_int_var(0, horizon, "")
    model.add_max_equality(last, ends)
    model.minimize(last)
    step = FIRST_EFFORT
    while step <= max(effort, 0):
        solver = Allowance(step).solver()
        status = solve(solver, model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            yield _with_order(plan, np.lexsort((work.rank, np.array([solver.value(each) for each in read]))))
        if status in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
            return
        step *= 2
