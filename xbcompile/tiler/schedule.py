"""Schedules: when each weight image is written into an array and when its tiles are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import READ, STEP, WRITE, Schedule
from xbcompile.tiler.layout import DEFAULT_EFFORT, Layout
from xbcompile.tiler.place import Placement, Work, collect_work, place_multiplexed, place_stationary
from xbcompile.tiler.place_bounds import makespan_bound, writes_bound
from xbcompile.tiler.place_solver import improve_placement
from xbcompile.tiler.scramble import scramble_columns

_TIME_BITS = 50  # sums of times stay below 2**_TIME_BITS ticks: exact in float64


def make_schedule(
    layout: Layout,
    reads_per_tile: Sequence[int],
    dependencies: Sequence[Sequence[int]],
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
    all images, from empty arrays: few writes first, then a short makespan. Digital work counts no time.

    Args:
        layout: for an array of the size of `spec`.
        reads_per_tile: per layer, reads of each tile per inference: drive slices times vectors.
        dependencies: per layer, the layers whose results it needs.
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
    tick_s, work = _work(layout, reads_per_tile, dependencies, spec, batch)
    stationary = arrays == 0 or arrays >= work.images
    used = work.images if stationary else arrays
    fewest = work.images if stationary else writes_bound(work, used)
    shortest = makespan_bound(work, used, 0 if stationary else fewest)
    placement = place_stationary(work) if stationary else place_multiplexed(work, used)
    if not stationary:
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
    layout: Layout, reads_per_tile: Sequence[int], dependencies: Sequence[Sequence[int]], spec: ArraySpec, batch: int
) -> tuple[float, Work]:
    """The tick in seconds, and what has to be read in ticks."""
    tiles = layout.tiles
    if not len(reads_per_tile) == len(dependencies) == tiles["layer"].max(initial=-1) + 1:
        raise ValueError(f"{len(reads_per_tile)} reads and {len(dependencies)} dependencies for the layout's layers")
    read_s = np.array([batch * reads * spec.t_read_s for reads in reads_per_tile], dtype=np.float64)
    counts = np.bincount(tiles["layer"], minlength=len(read_s))
    # no schedule here takes longer than all writes and reads one after another
    longest_s = len(tiles) * spec.t_write_s + float(counts @ read_s)
    tick_s = math.ldexp(1.0, math.frexp(longest_s)[1] - _TIME_BITS) if longest_s else 1.0
    read_ticks = np.rint(read_s / tick_s).astype(np.int64)
    return tick_s, collect_work(tiles, dependencies, read_ticks, round(spec.t_write_s / tick_s))


def _steps(work: Work, placement: Placement, tick_s: float, *, stationary: bool) -> np.ndarray:
    """STEP table of a placement."""
    visit = np.repeat(np.arange(work.visits), work.tiles)
    turn = np.arange(len(visit)) - np.repeat(np.cumsum(work.tiles) - work.tiles, work.tiles)
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
    steps["tile"] = np.concatenate([np.full(writes, -1), work.tile_order])
    duration = work.read_ticks[work.rank[visit]]
    start = np.concatenate([start, placement.read_start[visit] + turn * duration])
    end = start + np.concatenate([np.full(writes, work.write_ticks), duration])
    steps["start_s"], steps["end_s"] = start * tick_s, end * tick_s
    sequence = np.concatenate([write_sequence, 2 * placement.sequence[visit] + 1])
    timeless = bool(np.any(end == start))
    return steps[np.lexsort((sequence, np.zeros_like(start) if timeless else steps["array"], start))]
