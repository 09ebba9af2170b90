"""The times of a schedule whose writes write fewer rows than an array has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import WRITE, Schedule, Use
from xbcompile.tiler.schedule.bounds import makespan_bound
from xbcompile.tiler.schedule.timetable import WriteRules, time_steps
from xbcompile.tiler.schedule.workload import TIME_BITS, TimeBase, below, collect_workload


def retime(schedule: Schedule, uses: Sequence[Use], spec: ArraySpec, rows: np.ndarray) -> Schedule:
    """Time a schedule anew: the same steps on the same arrays in the same order, each as early as can be.

    Args:
        schedule: from `make_schedule`, or with images exchanged in its steps.
        uses: what is read.
        spec: the array.
        rows: int [writes], rows written by each write of the STEP table, in its order.

    Returns:
        The schedule with these rows. Where the target's rules of writing do not bind, no step is later than before. The lower
        bounds of makespan and period are those of schedules that write at least the fewest of these rows each time.

    Raises:
        ScheduleError: another number of writes, or rows that an array does not have.
    """
    steps = schedule.steps.copy()
    writes = steps["operation"] == WRITE
    if len(rows) != np.count_nonzero(writes):
        raise ScheduleError(f"rows of {len(rows)} writes for a schedule with {np.count_nonzero(writes)}")
    if not len(rows):
        return schedule
    if np.min(rows) < 0 or np.max(rows) > spec.rows:
        raise ScheduleError(f"a write of {np.min(rows)} to {np.max(rows)} rows; an array has {spec.rows}")
    lasts_s = steps["end_s"] - steps["start_s"]
    lasts_s[writes] = rows * spec.t_write_row_s
    total_s = float(lasts_s.sum())
    tick_s = math.ldexp(1.0, math.frexp(total_s)[1] - TIME_BITS) if total_s else 1.0
    duration = np.rint(lasts_s / tick_s).astype(np.int64)
    rules = WriteRules.of(spec)
    waits_for = [use.waits_for for use in uses]
    starts = time_steps(steps["array"], steps["use"], duration, waits_for, rules, schedule.arrays)
    steps["rows"][writes] = rows
    steps["start_s"], steps["end_s"] = starts * tick_s, (starts + duration) * tick_s
    timeless = not duration.all()
    steps = steps[np.lexsort((np.zeros_like(starts) if timeless else steps["array"], starts))]

    time_base = TimeBase.for_reads(schedule.tiles, uses, spec, schedule.batch)
    fewest = round(int(np.min(rows)) * spec.t_write_row_s / time_base.tick_s)
    work = collect_workload(
        schedule.tiles, uses, [(use,) for use in range(len(uses))], replace(time_base, write_ticks=fewest)
    )
    shortest_s = makespan_bound(work, schedule.arrays, schedule.weight_updates_lower_bound, rules) * time_base.tick_s
    ends_s = float(steps["end_s"].max())
    shortest_s = below(
        shortest_s, ends_s, len(steps) * max(tick_s, time_base.tick_s)
    )  # their times have ticks of their own
    return replace(
        schedule,
        steps=steps,
        period_s=ends_s,
        makespan_lower_bound_s=shortest_s,
        period_lower_bound_s=shortest_s,
    )
