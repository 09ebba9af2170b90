"""Place few loads with OR-Tools CP-SAT: the loads of a placement on arrays and in time, for a shorter makespan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ortools.sat.python import cp_model

from xbcompile.tiler.pack_solver import Allowance
from xbcompile.tiler.place import Placement, Work

SOLVER_LOADS, SOLVER_VISITS = 60, 120  # more than this is left to list scheduling
_HORIZON_BITS = 12  # the solver's own, coarser time: order and arrays are what it is asked for


def improve_placement(work: Work, arrays: int, placement: Placement, *, shortest: int, effort: float) -> Placement:
    """Shorten a placement without more writes.

    Args:
        work: what has to be read.
        arrays: number of arrays.
        placement: a valid placement; its loads (a write and the visits up to the next write of the image) are kept.
        shortest: a lower bound on the makespan, ticks; a placement that reaches it stands.
        effort: deterministic time; 0 leaves the placement as it is.

    Returns:
        The given placement, or a shorter one with the same number of writes.
    """
    makespan = placement.makespan(work)
    timeless = work.write_ticks == 0 or not work.visit_ticks.all()
    if effort <= 0 or arrays == 1 or timeless or makespan <= shortest or work.visits > SOLVER_VISITS:
        return placement
    loads = _loads(work, placement)
    if len(loads) > SOLVER_LOADS:
        return placement
    model = _PlacementModel(work, arrays, loads, shortest, makespan)
    model.hint(placement)
    solver = Allowance(effort).solver()
    solver.parameters.linearization_level = 0  # no relaxation of these models is worth its time
    if solver.solve(model.model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return placement
    better = model.solution(solver)
    return better if better.makespan(work) < makespan else placement


@dataclass(frozen=True)
class _Load:
    """One write of an image and the visits that it serves, in order."""

    image: int
    visits: tuple[int, ...]


def _loads(work: Work, placement: Placement) -> list[_Load]:
    loads: dict[int, list[list[int]]] = {}
    for visit in range(work.visits):  # in order of rank
        of_image = loads.setdefault(int(work.image[visit]), [])
        if placement.write[visit]:
            of_image.append([])
        of_image[-1].append(visit)
    return [_Load(image, tuple(visits)) for image, of_image in loads.items() for visits in of_image]


class _PlacementModel:
    """Each load occupies one array from the start of its write to the end of its last read."""

    def __init__(self, work: Work, arrays: int, loads: list[_Load], shortest: int, makespan: int) -> None:
        self.work, self.arrays, self.loads = work, arrays, loads
        self.unit = max(1, makespan >> _HORIZON_BITS)
        self.horizon = makespan // self.unit + 2 * work.visits  # each rounding adds at most one
        self.durations = [max(1, round(int(ticks) / self.unit)) for ticks in work.visit_ticks]
        self.write_duration = max(1, round(work.write_ticks / self.unit))
        self.model = cp_model.CpModel()
        self.read = [self.model.new_int_var(0, self.horizon, f"read{v}") for v in range(work.visits)]
        self.start = [self.model.new_int_var(0, self.horizon, f"start{i}") for i in range(len(loads))]
        self.size = [self.model.new_int_var(0, self.horizon, f"size{i}") for i in range(len(loads))]
        self.on = [[self.model.new_bool_var(f"on{i}_{a}") for a in range(arrays)] for i in range(len(loads))]
        self.ends = [self.model.new_int_var(0, self.horizon, f"end{rank}") for rank in range(len(work.groups))]
        lowest = max(0, shortest // self.unit - 2 * work.visits)
        self.makespan = self.model.new_int_var(lowest, self.horizon, "makespan")
        self._occupy_arrays()
        self._order_layers()
        self._break_symmetry()
        self.model.minimize(self.makespan)

    def _occupy_arrays(self) -> None:
        model = self.model
        on_array: list[list[cp_model.IntervalVar]] = [[] for _ in range(self.arrays)]
        spans = []
        for i, load in enumerate(self.loads):
            first, last = load.visits[0], load.visits[-1]
            model.add(self.read[first] >= self.start[i] + self.write_duration)
            for one, two in pairwise(load.visits):
                model.add(self.read[two] >= self.read[one] + self.durations[one])
            end: cp_model.LinearExprT = self.read[last] + self.durations[last]
            size = self.size[i]
            spans.append(model.new_interval_var(self.start[i], size, end, f"span{i}"))
            model.add_exactly_one(self.on[i])
            for intervals, on in zip(on_array, self.on[i], strict=True):
                intervals.append(model.new_optional_interval_var(self.start[i], size, end, on, f"{i}"))
            if i and self.loads[i - 1].image == load.image:
                for before, now in zip(self.on[i - 1], self.on[i], strict=True):
                    model.add(before == now)
        for intervals in on_array:
            model.add_no_overlap(intervals)
        model.add_cumulative(spans, [1] * len(spans), self.arrays)

    def _order_layers(self) -> None:
        work = self.work
        for visit, rank in enumerate(work.rank.tolist()):
            end = self.read[visit] + self.durations[visit]
            self.model.add(self.ends[rank] >= end)
            self.model.add(self.makespan >= end)
            for before in work.waits_for[rank]:
                self.model.add(self.read[visit] >= self.ends[before])

    def _break_symmetry(self) -> None:
        """Arrays are alike; so are images that are read alike."""
        for i in range(min(len(self.loads), self.arrays)):
            for array in range(i + 1, self.arrays):
                self.model.add(self.on[i][array] == 0)
        like: dict[tuple[tuple[int, int], ...], int] = {}
        images = [load.image for load in self.loads]
        for i, load in enumerate(self.loads):
            if images.count(load.image) > 1:
                continue
            look = tuple((int(self.work.rank[v]), self.durations[v]) for v in load.visits)
            if look in like:
                self.model.add(self.start[like[look]] <= self.start[i])
            like[look] = i

    def hint(self, placement: Placement) -> None:
        """Start the search from a placement: its order and arrays, in the solver's time."""
        order = np.lexsort((placement.sequence, placement.read_start)).tolist()
        array_of = [int(placement.array[load.visits[0]]) for load in self.loads]
        names = {array: name for name, array in enumerate(dict.fromkeys(array_of))}
        array_of = [names[array] for array in array_of]
        replayed = self._replay(order, array_of, self.write_duration, self.durations)
        ends = [0] * len(self.work.groups)
        for visit, start in enumerate(replayed.read_start.tolist()):
            rank = int(self.work.rank[visit])
            ends[rank] = max(ends[rank], start + self.durations[visit])
            self.model.add_hint(self.read[visit], start)
        for i, load in enumerate(self.loads):
            first, last = int(replayed.write_start[load.visits[0]]), load.visits[-1]
            self.model.add_hint(self.start[i], first)
            self.model.add_hint(self.size[i], int(replayed.read_start[last]) + self.durations[last] - first)
            for array, on in enumerate(self.on[i]):
                self.model.add_hint(on, array == array_of[i])
        for end, ticks in zip(self.ends, ends, strict=True):
            self.model.add_hint(end, ticks)
        self.model.add_hint(self.makespan, max(ends))

    def solution(self, solver: cp_model.CpSolver) -> Placement:
        """The solver's arrays and order in exact time, every step as early as it can be."""
        array_of = [next(a for a in range(self.arrays) if solver.boolean_value(on[a])) for on in self.on]
        order = sorted(range(self.work.visits), key=lambda v: (solver.value(self.read[v]), v))
        return self._replay(order, array_of, self.work.write_ticks, self.work.visit_ticks.tolist())

    def _replay(
        self, order: Sequence[int], array_of: Sequence[int], write_ticks: int, durations: Sequence[int]
    ) -> Placement:
        """Time the visits in the given order, with the loads on the given arrays."""
        work = self.work
        load_of = {visit: i for i, load in enumerate(self.loads) for visit in load.visits}
        free, ends = [0] * self.arrays, [0] * len(work.groups)
        columns = np.zeros((4, work.visits), dtype=np.int64)
        write = np.zeros(work.visits, dtype=bool)
        for sequence, visit in enumerate(order):
            load, rank = load_of[visit], int(work.rank[visit])
            array, earliest = array_of[load], free[array_of[load]]
            write[visit] = first = visit == self.loads[load].visits[0]
            loaded = earliest + (write_ticks if first else 0)
            start = max([loaded, *(ends[before] for before in work.waits_for[rank])])
            columns[:, visit] = array, earliest, start, sequence
            free[array] = start + durations[visit]
            ends[rank] = max(ends[rank], free[array])
        return Placement(columns[0], write, columns[1], columns[2], columns[3])
