"""Schedule few visits with OR-Tools CP-SAT: arrays, order and writes, for any objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.deferred import library
from xbcompile.tiler.effort import FIRST_EFFORT, Allowance, solve
from xbcompile.tiler.schedule.timetable import VisitPlan, WriteRules, time_visits
from xbcompile.tiler.schedule.workload import Workload

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
else:
    cp_model = library("ortools.sat.python.cp_model")

SOLVER_IMAGES, SOLVER_VISITS = 60, 120  # more than this is left to list scheduling
FEW_VISITS = 12  # their optimum is found soon
_MANY_SHARE = 1 / 8  # of the effort, for more visits
_COARSE_BITS, _FINE_BITS = 12, 24  # the solver's own, coarser time: order and arrays are what it is asked for
_OBJECTIVE_BITS = 44


@dataclass(frozen=True)
class Price:
    """What is to be small: a weighted sum of makespan and writes; one without a weight breaks ties."""

    per_tick: float
    per_write: float


def improved_plans(
    work: Workload, plan: VisitPlan, rules: WriteRules, price: Price, *, shortest: int, fewest: int, effort: float
) -> Iterator[VisitPlan]:
    """Plans that the solver finds, better and better by its own, coarser time.

    Args:
        work: what has to be read, each use on its own.
        plan: a plan to start from.
        rules: of writing.
        price: what is to be small.
        shortest: a lower bound on the makespan, ticks.
        fewest: a lower bound on the writes.
        effort: deterministic time; 0 finds nothing.
    """

    def reached(found: VisitPlan) -> bool:
        """Whether the bounds are: no plan has a lower price, ties aside."""
        timed = time_visits(work, found, rules)
        return (timed.makespan(work) <= shortest or not price.per_tick) and (
            timed.writes <= fewest or not price.per_write
        )

    timeless = work.write_ticks == 0 and not work.visit_ticks.any()
    too_many = work.visits > SOLVER_VISITS or work.images > SOLVER_IMAGES
    if timeless or too_many or reached(plan) or (len(plan.preloaded) == 1 and work.visits > FEW_VISITS):
        return
    share = 1.0 if work.visits <= FEW_VISITS else _MANY_SHARE
    step = FIRST_EFFORT
    while step <= effort * share:
        model = _SchedulingModel(work, plan, rules, price, shortest, fewest)
        solver = Allowance(step).solver()
        solver.parameters.linearization_level = 0  # no relaxation of these models is worth its time
        status = solve(solver, model.model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            plan = model.plan(solver)
            yield plan
        if status in (cp_model.OPTIMAL, cp_model.INFEASIBLE) or reached(plan):
            return
        step *= 2


class _SchedulingModel:
    """Each array is occupied from the write of an image, or from the start, to the last read before the next write.

    An image's first visit in a batch is written now, or early: at the end of the batch before; or the image stayed
    ("stays"), as nothing is read on its array after its last visit and before its first.
    """

    def __init__(
        self, work: Workload, plan: VisitPlan, rules: WriteRules, price: Price, shortest: int, fewest: int
    ) -> None:
        self.work, self.arrays, self.rules = work, len(plan.preloaded), rules
        self.start_plan = plan
        before = time_visits(work, plan, rules)
        makespan = before.makespan(work)
        bits = _FINE_BITS if work.visits <= FEW_VISITS else _COARSE_BITS
        self.unit = max(1, makespan >> bits)
        durations = np.maximum(1, np.rint(work.visit_ticks / self.unit)).astype(np.int64)
        self.durations = durations.tolist()
        self.write_duration = max(1, round(work.write_ticks / self.unit))
        self.scaled = replace(
            work, reads=np.ones_like(work.reads), read_ticks=durations, write_ticks=self.write_duration
        )
        # where writes cost most, a longer batch may be worth it: all steps one after another
        longest = int(durations.sum()) + (work.visits + 1) * self.write_duration
        self.horizon = longest if price.per_write else makespan // self.unit + 4 * work.visits
        self.model = model = cp_model.CpModel()
        visits = range(work.visits)
        self.read = [model.new_int_var(0, self.horizon, f"read{v}") for v in visits]
        self.start = [model.new_int_var(-self.write_duration, self.horizon, f"start{v}") for v in visits]
        self.now = [model.new_bool_var(f"now{v}") for v in visits]
        self.of_image: list[list[int]] = [[] for _ in range(work.images)]
        for visit, image in enumerate(work.image.tolist()):
            self.of_image[image].append(visit)
        self.early = [model.new_bool_var(f"early{i}") for i in range(work.images)]
        self.stays = [model.new_bool_var(f"stays{i}") for i in range(work.images)]
        self.on = [[model.new_bool_var(f"on{i}_{a}") for a in range(self.arrays)] for i in range(work.images)]
        self.end = [model.new_int_var(0, self.horizon, f"end{i}") for i in range(work.images)]
        self.in_order = work.chained or work.read_once or work.visits > FEW_VISITS
        self.last_write = [model.new_int_var(0, self.horizon, f"last{a}") for a in range(self.arrays)]
        self.has_last = [model.new_bool_var(f"has_last{a}") for a in range(self.arrays)]
        lowest = max(0, shortest // self.unit - 4 * work.visits)
        self.makespan = model.new_int_var(min(lowest, self.horizon), self.horizon, "makespan")
        self.writes = model.new_int_var(fewest, work.visits, "writes")
        self._occupy()
        self._write_around()
        self._apply_rules()
        self._order()
        self._break_symmetry()
        self._minimize(price)
        self._hint()

    def _ends(self, visit: int) -> cp_model.LinearExpr:
        return self.read[visit] + self.durations[visit]

    def _occupy(self) -> None:
        """One image at a time on each array, from the write or the visit before to the end of each visit."""
        model, write = self.model, self.write_duration
        on_array: list[list[cp_model.IntervalVar]] = [[] for _ in range(self.arrays)]
        spans = []
        for image, visits in enumerate(self.of_image):
            model.add_exactly_one(self.on[image])
            self._order_visits(image, visits)
            for visit in visits:
                model.add(self.read[visit] >= self.start[visit] + write).only_enforce_if(self.now[visit])
                model.add(self.read[visit] >= self.start[visit])
                model.add(self.start[visit] >= 0).only_enforce_if(self.now[visit])
                size = model.new_int_var(0, self.horizon + write, f"size{visit}")
                end = self._ends(visit)
                spans.append(model.new_interval_var(self.start[visit], size, end, f"span{visit}"))
                for intervals, on in zip(on_array, self.on[image], strict=True):
                    intervals.append(model.new_optional_interval_var(self.start[visit], size, end, on, f"{visit}"))
        for intervals in on_array:
            model.add_no_overlap(intervals)
        model.add_cumulative(spans, [1] * len(spans), self.arrays)

    def _order_visits(self, image: int, visits: list[int]) -> None:
        """The visits of one image after each other, the first one behind a write of some kind."""
        model = self.model
        arcs: list[tuple[int, int, cp_model.LiteralT]] = []
        for turn, visit in enumerate(visits):
            first, last = (model.new_bool_var("") for _ in range(2))
            arcs += [(0, turn + 1, first), (turn + 1, 0, last)]
            model.add_exactly_one(self.now[visit], self.early[image], self.stays[image]).only_enforce_if(first)
            model.add(self.start[visit] == -self.write_duration).only_enforce_if(first, ~self.now[visit])
            model.add(self.end[image] == self._ends(visit)).only_enforce_if(last)
            for other, before in enumerate(visits):
                if before == visit or (self.in_order and other + 1 != turn):
                    continue
                follows = model.new_bool_var("")
                arcs.append((other + 1, turn + 1, follows))
                model.add(self.start[visit] >= self._ends(before)).only_enforce_if(follows)
                model.add(self.start[visit] == self._ends(before)).only_enforce_if(follows, ~self.now[visit])
        if len(visits) == 1:
            model.add_bool_and(arcs[0][2], arcs[1][2])
        else:
            model.add_circuit(arcs)

    def _write_around(self) -> None:
        """Writes at the end of a batch for the next one, and images that stay."""
        model, write = self.model, self.write_duration
        for array, (last, has) in enumerate(zip(self.last_write, self.has_last, strict=True)):
            for image, visits in enumerate(self.of_image):
                on = self.on[image][array]
                model.add_implication(self.early[image], has).only_enforce_if(on)
                model.add(last >= self.end[image]).only_enforce_if(on, has)
                for other in range(len(self.of_image)):
                    together = [self.stays[image], on, self.on[other][array]]
                    if other != image and len(visits) == 1:
                        model.add_bool_or([~literal for literal in together])
                    elif other != image:
                        model.add(self.end[other] <= self.end[image]).only_enforce_if(together)
            model.add(self.makespan >= last + write).only_enforce_if(has)

    def _apply_rules(self) -> None:
        """Writes side by side, and beside reads."""
        model, write = self.model, self.write_duration
        writes = [*zip(self.start, self.now, strict=True), *zip(self.last_write, self.has_last, strict=True)]
        if 0 < self.rules.at_a_time < self.arrays:
            writing = [model.new_optional_fixed_size_interval_var(start, write, now, "") for start, now in writes]
            model.add_cumulative(writing, [1] * len(writing), self.rules.at_a_time)
        if not self.rules.while_reading:
            for start, now in writes:
                for visit, read in enumerate(self.read):
                    before = model.new_bool_var("")
                    model.add(start + write <= read).only_enforce_if(now, before)
                    model.add(self._ends(visit) <= start).only_enforce_if(now, ~before)

    def _order(self) -> None:
        """Layers in order, and the makespan behind them."""
        ends = [self.model.new_int_var(0, self.horizon, f"end{rank}") for rank in range(len(self.work.groups))]
        for visit, rank in enumerate(self.work.rank.tolist()):
            self.model.add(ends[rank] >= self._ends(visit))
            self.model.add(self.makespan >= self._ends(visit))
            for before in self.work.waits_for[rank]:
                self.model.add(self.read[visit] >= ends[before])

    def _break_symmetry(self) -> None:
        """Arrays are alike; so are images that are read once and alike."""
        for image in range(min(self.work.images, self.arrays)):
            for array in range(image + 1, self.arrays):
                self.model.add(self.on[image][array] == 0)
        like: dict[tuple[int, int], int] = {}
        for visits in self.of_image:
            if len(visits) == 1:
                look = int(self.work.rank[visits[0]]), self.durations[visits[0]]
                if look in like:
                    self.model.add(self.start[like[look]] <= self.start[visits[0]])
                like[look] = visits[0]

    def _minimize(self, price: Price) -> None:
        self.model.add(self.writes == sum(self.now) + sum(self.early))
        per_unit = price.per_tick * self.unit
        scale = 2.0**_OBJECTIVE_BITS / (per_unit * self.horizon + price.per_write * self.work.visits)
        weights = [round(weight * scale) for weight in (per_unit, price.per_write)]
        if not price.per_write:
            weights = [self.work.visits + 1, 1]
        elif not price.per_tick:
            weights = [1, self.horizon + 1]
        self.model.minimize(weights[0] * self.makespan + weights[1] * self.writes)

    def _hint(self) -> None:
        """Start the search from the plan, in the solver's time."""
        work, model, plan = self.scaled, self.model, self.start_plan
        timed = time_visits(work, plan, WriteRules(True, self.rules.at_a_time))
        names = {array: name for name, array in enumerate(dict.fromkeys(self._array_of_images(plan)))}
        array_of = [names[array] for array in self._array_of_images(plan)]
        written, early = timed.write & ~timed.early, timed.early
        for image, visits in enumerate(self.of_image):
            for array, on in enumerate(self.on[image]):
                model.add_hint(on, array == array_of[image])
            model.add_hint(self.early[image], bool(early[visits[0]]))
            model.add_hint(self.stays[image], not written[visits[0]] and not early[visits[0]])
            for turn, visit in enumerate(visits):
                model.add_hint(self.read[visit], int(timed.read_start[visit]))
                model.add_hint(self.now[visit], bool(written[visit]))
                start = -self.write_duration
                if written[visit]:
                    start = int(timed.write_start[visit])
                elif turn:
                    start = int(timed.read_start[visits[turn - 1]]) + self.durations[visits[turn - 1]]
                model.add_hint(self.start[visit], start)
        model.add_hint(self.makespan, timed.makespan(work))
        model.add_hint(self.writes, timed.writes)

    def _array_of_images(self, plan: VisitPlan) -> list[int]:
        return [int(plan.array[visits[0]]) for visits in self.of_image]

    def plan(self, solver: cp_model.CpSolver) -> VisitPlan:
        """The solver's arrays and order."""
        work, visits = self.work, self.work.visits
        array_of = np.array([[solver.boolean_value(on) for on in ons].index(True) for ons in self.on])
        read = np.array([solver.value(each) for each in self.read])
        written = np.array([solver.value(each) for each in self.start])
        preloaded = np.zeros(self.arrays, dtype=bool)
        for image, array in enumerate(array_of.tolist()):
            early = solver.boolean_value(self.early[image])
            preloaded[array] |= early or solver.boolean_value(self.stays[image])
            if early:
                first = min(self.of_image[image], key=lambda visit: int(written[visit]))
                written[first] = solver.value(self.last_write[array])
        order = np.lexsort((np.arange(visits), work.rank, read))
        sequence, turns = np.empty(visits, dtype=np.int64), np.empty(2 * visits, dtype=np.int64)
        sequence[order] = np.arange(visits)
        is_write = np.repeat([0, 1], visits)
        turns[np.lexsort((np.tile(work.rank, 2), is_write, np.concatenate([read, written])))] = np.arange(2 * visits)
        return VisitPlan(array_of[work.image], sequence, preloaded, turns)
