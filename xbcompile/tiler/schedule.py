"""Schedules: when each weight image is written into an array and when its tiles are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import READ, STEP, WRITE, Schedule, Use
from xbcompile.tiler.layout import DEFAULT_EFFORT, Layout
from xbcompile.tiler.place import Placement, Work, collect_work, group_uses, place_multiplexed, place_stationary
from xbcompile.tiler.place_bounds import makespan_bound, writes_bound
from xbcompile.tiler.place_solver import improve_placement
from xbcompile.tiler.scramble import scramble_columns

_TIME_BITS = 50  # sums of times stay below 2**_TIME_BITS ticks: exact in float64


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
) -> Schedule:
    """Place the images of a layout on arrays and time their writes and reads.

    With an array per image weights are stationary: written once, before time 0. With fewer arrays every batch writes
    all images, from empty arrays: few writes first, then a short makespan; one write of an image may serve several uses of
    its matrix. Digital work counts no time.

    Args:
        layout: for an array of the size of `spec`.
        uses: what is read, and after what; every matrix of the layout is used.
        spec: the target's array; only its size and times are used.
        arrays: physical arrays to use at most; 0: as many as images.
        batch: inferences served by one write of an image, at least 1.
        seed: seed of the column permutations.
        scramble: False: no column is moved.
        effort: the solver's deterministic time (one unit takes some seconds); 0 for list scheduling alone.

    Returns:
        The schedule. Times are multiples of a power of two, 2**-50 of all work, so that sums are exact. Steps are in
        order of start, then array; where some take no time, in order of execution. `images_lower_bound` is the
        layout's area bound, which holds for any cuts.

    Raises:
        ScheduleError: impossible numbers of arrays or inferences, or a layout for another array.
    """
    _check(layout, spec, arrays, batch, seed)
    apart = [(use,) for use in range(len(uses))]
    tick_s, work = _work(layout, uses, apart, spec, batch)
    stationary = arrays == 0 or arrays >= work.images
    used = work.images if stationary else arrays
    fewest = work.images if stationary else writes_bound(work, used)
    shortest = makespan_bound(work, used, 0 if stationary else fewest)
    if stationary:
        placement = place_stationary(work)
    else:
        placement = place_multiplexed(work, used)
        together = group_uses(uses)
        if len(together) < len(apart):
            joined = _work(layout, uses, together, spec, batch)[1]
            other = place_multiplexed(joined, used)
            if (other.writes, other.makespan(joined)) < (placement.writes, placement.makespan(work)):
                work, placement = joined, other
        placement = improve_placement(work, used, placement, shortest=shortest, effort=effort)
    return Schedule(
        rows=layout.rows,
        columns=layout.columns,
        arrays=used,
        batch=batch,
        tiles=layout.tiles,
        image_array=placement.image_array(work),
        column_permutation=scramble_columns(work.images, layout.columns, seed=seed, scramble=scramble),
        steps=_steps(work, placement, tick_s, stationary=stationary),
        stationary=stationary,
        images_lower_bound=layout.area_lower_bound,
        packing_status=layout.packing_status,
        makespan_lower_bound_s=shortest * tick_s,
        weight_updates_lower_bound=fewest,
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


def _work(
    layout: Layout, uses: Sequence[Use], groups: Sequence[tuple[int, ...]], spec: ArraySpec, batch: int
) -> tuple[float, Work]:
    """The tick in seconds, and what has to be read in ticks."""
    tiles = layout.tiles
    counts = np.bincount(tiles["layer"], minlength=max((use.matrix + 1 for use in uses), default=0))
    used = np.array([use.matrix for use in uses], dtype=np.intp)
    if set(used.tolist()) != set(np.flatnonzero(counts).tolist()):
        raise ValueError(f"uses of matrices {sorted(set(used.tolist()))} for a layout with tiles of others")
    read_s = np.array([batch * use.reads * spec.t_read_s for use in uses], dtype=np.float64)
    # no schedule here takes longer than all reads one after another, each behind a write of its own
    longest_s = int(counts[used].sum()) * spec.t_write_s + float(counts[used] @ read_s)
    tick_s = math.ldexp(1.0, math.frexp(longest_s)[1] - _TIME_BITS) if longest_s else 1.0
    read_ticks = np.rint(read_s / tick_s).astype(np.int64)
    return tick_s, collect_work(tiles, uses, groups, read_ticks, round(spec.t_write_s / tick_s))


def _steps(work: Work, placement: Placement, tick_s: float, *, stationary: bool) -> np.ndarray:
    """STEP table of a placement."""
    visit = np.repeat(np.arange(work.visits), work.reads)
    ended = np.cumsum(work.read_ticks) - work.read_ticks  # ticks of all reads before
    if stationary:
        # every image is on its own array: one write each, before all visits
        written, start = np.arange(work.images), np.full(work.images, -work.write_ticks)
        write_array, write_image, write_sequence = written, written, np.full(work.images, -1)
    else:
        written = np.flatnonzero(placement.write)
        start, write_array, write_image = placement.write_start[written], placement.array[written], work.image[written]
        write_sequence = 2 * placement.sequence[written]
    writes, reads = len(written), len(visit)

    steps = np.empty(writes + reads, dtype=STEP)
    steps["operation"][:writes], steps["operation"][writes:] = WRITE, READ
    steps["array"] = np.concatenate([write_array, placement.array[visit]])
    steps["image"] = np.concatenate([write_image, work.image[visit]])
    steps["tile"] = np.concatenate([np.full(writes, -1), work.tile])
    steps["use"] = np.concatenate([np.full(writes, -1), work.use])
    within = ended - ended[work.first_read[visit]] if reads else ended
    start = np.concatenate([start, placement.read_start[visit] + within])
    end = start + np.concatenate([np.full(writes, work.write_ticks), work.read_ticks])
    steps["start_s"], steps["end_s"] = start * tick_s, end * tick_s
    sequence = np.concatenate([write_sequence, 2 * placement.sequence[visit] + 1])
    timeless = bool(np.any(end == start))
    return steps[np.lexsort((sequence, np.zeros_like(start) if timeless else steps["array"], start))]
