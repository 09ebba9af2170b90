"""Schedules: when each weight image is written into an array and when its tiles are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import READ, STEP, WRITE, Schedule, Use
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.layout import Layout
from xbcompile.tiler.schedule.bounds import makespan_bound, writes_bound
from xbcompile.tiler.schedule.candidates import Candidate, Score, in_turns, multiplexed, stationary
from xbcompile.tiler.schedule.copies import Replication
from xbcompile.tiler.schedule.objective import Figures, Objective, parse_objective
from xbcompile.tiler.schedule.solver import FEW_VISITS, Price, improved_plans
from xbcompile.tiler.schedule.timetable import Timetable, VisitPlan, WriteRules
from xbcompile.tiler.schedule.workload import TimeBase, Workload, below, check_reads, collect_workload, group_uses
from xbcompile.tiler.scramble import scramble_columns


def make_schedule(
    layout: Layout,
    uses: Sequence[Use],
    spec: ArraySpec,
    *,
    arrays: int,
    batch: int = 1,
    seed: int = 0,
    scramble: bool = True,
    effort: float = DEFAULT_EFFORT,
    objective: str = "latency",
) -> Schedule:
    """Assign the images of a layout to arrays and time their writes and reads.

    With an array per image weights are stationary: written once, before the first batch, with copies of images on spare
    arrays where that helps, and batches may overlap. With fewer arrays, images take turns, each on one array, and batches
    follow each other, each starting with the images that arrays held at the end of the one before. One write of an image
    may serve several uses of its matrix. Digital work counts no time.

    Several kinds of plans are made, and the best by the objective stands, ties by makespan, weight updates, period and
    writes before the first batch. Few visits (60 images, 120 visits) go to a solver.

    Args:
        layout: for an array of the size of `spec`.
        uses: what is read, and after what; every matrix of the layout is used.
        spec: the target's array: its size, times, energies and rules of writing are used.
        arrays: physical arrays to use at most; 0: as many as images.
        batch: inferences served by one write of an image, at least 1.
        seed: seed of the column permutations.
        scramble: False: no column is moved.
        effort: the solver's deterministic time (one unit takes some seconds); 0 for list scheduling alone. More never
            makes a schedule worse.
        objective: see `parse_objective`: "latency" (makespan of a batch), "throughput" (period), "energy" (of the writes
            and reads of a batch), "weight-updates", or a weighted sum of these, each relative to its lower bound.

    Returns:
        The schedule. Times are multiples of a power of two, 2**-50 of all work, so that sums are exact. Steps are in
        order of start, then array; where some take no time, in order of execution. `images_lower_bound` is the
        layout's area bound, which holds for any cuts. The other bounds hold for any objective: of schedules whose images
        stay, with any copies, where there is an array per image; else of those that hold each image in one array.

    Raises:
        ScheduleError: impossible numbers of arrays or inferences, more reads than can be counted (`MOST_READS`), an unknown
            objective, or a layout for another array.
    """
    _check(layout, spec, arrays, batch, seed)
    check_reads(uses, batch)
    aim = parse_objective(objective)
    read = sorted({use.matrix for use in uses})
    if read != np.unique(layout.tiles["layer"]).tolist():
        raise ValueError(f"uses of matrices {read} for a layout with tiles of others")
    time_base = TimeBase.for_reads(layout.tiles, uses, spec, batch)
    available = arrays or layout.images
    search = _Search(layout, uses, spec, time_base, available, aim)
    found, bounds = search.stationary(effort) if available >= layout.images else search.multiplexed(effort)
    timetable = found.timetable
    initial = timetable.initial
    waves = -(-int(np.count_nonzero(initial >= 0)) // (spec.writes_at_a_time or max(timetable.arrays, 1)))
    steps, tick_s = steps_table(found.work, timetable, layout.rows, time_base.tick_s), time_base.tick_s
    makespan_s, period_s = float(steps["end_s"].max(initial=0.0)), found.period * tick_s
    rounding_s = (len(steps) + 1) * tick_s  # reads that are split over steps round apart
    return Schedule(
        rows=layout.rows,
        columns=layout.columns,
        arrays=timetable.arrays,
        batch=batch,
        tiles=layout.tiles,
        copies=timetable.copies(found.work),
        column_permutation=scramble_columns(layout.images, layout.columns, seed=seed, scramble=scramble),
        steps=steps,
        initial=np.where(initial >= 0, np.append(found.work.copy_of, -1)[initial], -1).astype(np.int32),
        setup_s=waves * spec.t_write_s,
        period_s=period_s,
        objective=objective,
        images_lower_bound=layout.area_lower_bound,
        packing_status=layout.packing_status,
        makespan_lower_bound_s=below(bounds.latency_s, makespan_s, rounding_s),
        period_lower_bound_s=below(bounds.period_s, period_s, rounding_s),
        weight_updates_lower_bound=bounds.weight_updates,
    )


def _check(layout: Layout, spec: ArraySpec, arrays: int, batch: int, seed: int) -> None:
    if arrays < 0:
        raise ScheduleError(f"arrays={arrays}: give the number of physical arrays, or 0 for one per image")
    if batch < 1:
        raise ScheduleError(f"batch={batch}: at least 1 inference must be served per weight update")
    if seed < 0:
        raise ScheduleError(f"seed={seed}: the seed of the column permutations must not be negative")
    if (layout.rows, layout.columns) != (spec.rows, spec.columns):
        raise ScheduleError(
            f"layout for an array of {layout.rows} x {layout.columns}, but the target's array is "
            f"{spec.rows} x {spec.columns}: plan the layout for the target"
        )


class _Search:
    """One search for a schedule: what is compared with what."""

    def __init__(
        self,
        layout: Layout,
        uses: Sequence[Use],
        spec: ArraySpec,
        time_base: TimeBase,
        arrays: int,
        objective: Objective,
    ) -> None:
        self.layout, self.uses, self.spec, self.time_base = layout, uses, spec, time_base
        self.arrays, self.objective = arrays, objective
        self.rules = WriteRules.of(spec)
        self.apart = self._collect([(use,) for use in range(len(uses))], None)
        tiles = np.bincount(layout.tiles["layer"], minlength=max((use.matrix + 1 for use in uses), default=0))
        self.read_energy_j = spec.e_read_j * time_base.batch * sum(use.reads * int(tiles[use.matrix]) for use in uses)

    def _collect(self, groups: Sequence[tuple[int, ...]], copies: np.ndarray | None) -> Workload:
        return collect_workload(self.layout.tiles, self.uses, groups, self.time_base, copies)

    def _bounds(self, makespan: int, period: int, writes: int, updates: int) -> Figures:
        tick_s = self.time_base.tick_s
        return Figures(makespan * tick_s, period * tick_s, self._energy_j(writes), updates)

    def _energy_j(self, writes: int) -> float:
        return self.read_energy_j + writes * self.spec.e_write_j

    def _score(self, bounds: Figures) -> Score:
        def score(found: Candidate) -> tuple[float, ...]:
            timetable, tick_s = found.timetable, self.time_base.tick_s
            held = int(np.count_nonzero(timetable.initial >= 0))
            figures = Figures(
                latency_s=found.makespan * tick_s,
                period_s=found.period * tick_s,
                energy_j=self._energy_j(timetable.writes),
                weight_updates=timetable.writes or held,
            )
            return (*self.objective.rank(figures, bounds), held)

        return score

    def stationary(self, effort: float) -> tuple[Candidate, Figures]:
        """Images that stay, and the bounds."""
        apart = self.apart
        images = apart.images
        replication = Replication.of(apart, self.uses, self.time_base)
        build = partial(self._collect, apart.groups)
        rough = self._bounds(int(apart.image_ticks.max(initial=0)), int(apart.image_ticks.max(initial=0)), 0, images)
        found, shortest, period = stationary(
            replication, self.arrays, build, self.objective, self._score(rough), effort
        )
        return found, self._bounds(shortest, period, 0, images)

    def multiplexed(self, effort: float) -> tuple[Candidate, Figures]:
        """Images that take turns, and the bounds."""
        works = [self.apart]
        together = group_uses(self.uses)
        if len(together) < len(self.uses):
            works.append(self._collect(together, None))
        fewest = writes_bound(self.apart, self.arrays)
        shortest = makespan_bound(self.apart, self.arrays, fewest, self.rules)
        bounds = self._bounds(shortest, shortest, fewest, fewest)
        score = self._score(bounds)
        best = multiplexed(works, self.arrays, self.rules, self.objective, score)
        plan, work = _plan_of(self.apart, best), self.apart
        if self.rules.bind(self.arrays) and not self.rules.while_reading and len(work.tile) <= FEW_VISITS:
            # an array may wait between two tiles while another one is written
            sequence = np.argsort(np.argsort(np.repeat(plan.sequence, work.reads), kind="stable"))
            plan, work = VisitPlan(np.repeat(plan.array, work.reads), sequence, plan.preloaded), work.tile_by_tile()
        price = self._price(bounds)
        for better in improved_plans(work, plan, self.rules, price, shortest=shortest, fewest=fewest, effort=effort):
            best = min(best, in_turns(work, better, self.rules), key=score)
        return best, bounds

    def _price(self, bounds: Figures) -> Price:
        """The objective per tick and per write, as far as it depends on them."""
        weight = self.objective.weight
        relative = {name: weight(name) / (bounds.of(name) or 1.0) for name, _ in self.objective.weights}
        per_second = relative.get("latency", 0.0) + relative.get("throughput", 0.0)
        per_write = relative.get("weight-updates", 0.0) + relative.get("energy", 0.0) * self.spec.e_write_j
        return Price(per_second * self.time_base.tick_s, per_write)


def _plan_of(work: Workload, found: Candidate) -> VisitPlan:
    """The plan of a candidate, for `work`, which has the same images and may have more, smaller visits."""
    timetable = found.timetable
    array = np.empty(work.images, dtype=np.int64)
    array[found.work.image] = timetable.array
    preloaded = timetable.initial >= 0
    if found.work is work:
        return VisitPlan(timetable.array, timetable.sequence, preloaded)
    rank_of_use = np.empty(sum(len(group) for group in found.work.groups), dtype=np.int64)
    for rank, group in enumerate(found.work.groups):
        rank_of_use[list(group)] = rank
    joined_rank = rank_of_use[np.array([group[0] for group in work.groups], dtype=np.int64)][work.rank]
    position = np.searchsorted(
        found.work.rank * work.images + found.work.image, joined_rank * work.images + work.image
    )  # fmt: skip
    order = np.lexsort((work.rank, timetable.sequence[position]))
    sequence = np.empty(work.visits, dtype=np.int64)
    sequence[order] = np.arange(work.visits)
    return VisitPlan(array[work.image], sequence, preloaded)


def steps_table(work: Workload, timetable: Timetable, rows: int, tick_s: float) -> np.ndarray:
    """STEP table of a timetable.

    Args:
        work: whose visits are timed.
        timetable: where and when each visit happens, in ticks.
        rows: rows of each write.
        tick_s: one tick.

    Returns:
        The table, in order of start, then array; where some steps take no time, in order of execution.
    """
    visit = np.repeat(np.arange(work.visits), work.reads)
    ended = np.cumsum(work.read_ticks) - work.read_ticks  # ticks of all reads before
    written = np.flatnonzero(timetable.write)
    writes, reads = len(written), len(visit)

    steps = np.empty(writes + reads, dtype=STEP)
    steps["operation"][:writes], steps["operation"][writes:] = WRITE, READ
    steps["array"] = np.concatenate([timetable.array[written], timetable.array[visit]])
    steps["image"] = work.copy_of[np.concatenate([work.image[written], work.image[visit]])]
    steps["tile"] = np.concatenate([np.full(writes, -1), work.tile])
    steps["use"] = np.concatenate([np.full(writes, -1), work.use])
    steps["rows"][:writes], steps["rows"][writes:] = rows, 0
    within = ended - ended[work.first_read[visit]] if reads else ended
    start = np.concatenate([timetable.write_start[written], timetable.read_start[visit] + within])
    end = start + np.concatenate([np.full(writes, work.write_ticks), work.read_ticks])
    steps["start_s"], steps["end_s"] = start * tick_s, end * tick_s
    turn = timetable.sequence[written] + work.visits * timetable.early[written]
    sequence = np.concatenate([2 * turn, 2 * timetable.sequence[visit] + 1])
    timeless = bool(np.any(end == start))
    return steps[np.lexsort((sequence, np.zeros_like(start) if timeless else steps["array"], start))]
