"""Reuse of what an array holds: rows that a write does not change are not written, and columns and orders that change less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import WRITE, Schedule, Use
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.reuse import REWRITE_MODES
from xbcompile.tiler.reuse.changed_cells import CellsOf
from xbcompile.tiler.reuse.image_order import order_images
from xbcompile.tiler.reuse.match_columns import match_columns
from xbcompile.tiler.reuse.steps import exchangeable_runs, reordered_steps, written_images
from xbcompile.tiler.schedule.retime import retime


def reuse_cells(
    schedule: Schedule,
    cells_of: CellsOf,
    uses: Sequence[Use],
    spec: ArraySpec,
    *,
    rewrite: str,
    effort: float = DEFAULT_EFFORT,
) -> Schedule:
    """Write only the rows that change, and choose orders and columns that change few cells.

    Args:
        schedule: with whole images written; times may be anything that its steps can keep.
        cells_of: cells [n, rows, columns] of n images in logical columns, uint8 or float32.
        uses: what the reads are for.
        spec: the target's array.
        rewrite: "all": every row of every write, the schedule as it is; "changed": rows in which a cell changes;
            "matched": the same, after `order_images` and `match_columns`.
        effort: of the two.

    Returns:
        The schedule with `rows` of its writes, steps as early as they can be in the same order, and arrays that start
        with what they hold at the end of a batch; its bounds are those of `retime`.

    Raises:
        ScheduleError: an unknown `rewrite`.
    """
    if rewrite not in REWRITE_MODES:
        raise ScheduleError(f"rewrite={rewrite!r} is unknown: use one of {', '.join(REWRITE_MODES)}")
    if rewrite == "all" or schedule.stationary:
        return schedule
    steps, initial = schedule.steps.copy(), schedule.initial.copy()
    arrays = np.unique(schedule.writes["array"]).tolist()
    chains = []
    for array in arrays:
        chain = written_images(steps, array)
        if rewrite == "matched" and len(chain) > 2:
            found = order_images(cells_of, chain, exchangeable_runs(steps, array), effort=effort / len(arrays))
            steps = reordered_steps(steps, array, found.order)
            chain = chain[found.order]
        chains.append(chain)
        initial[array] = chain[-1]
    move = rewrite == "matched"
    matched = match_columns(cells_of, chains, schedule.column_permutation, move=move, effort=effort)
    writes = np.flatnonzero(steps["operation"] == WRITE)
    rows = np.empty(len(writes), dtype=np.int64)
    for number, array in enumerate(arrays):
        rows[steps["array"][writes] == array] = matched.changes["rows"][matched.changes["chain"] == number]
    waves = -(-int(np.count_nonzero(initial >= 0)) // (spec.writes_at_a_time or schedule.arrays))
    reused = replace(
        schedule,
        column_permutation=matched.permutation,
        cells_written=matched.cells,
        steps=steps,
        initial=initial,
        setup_s=waves * spec.t_write_s,
    )
    return retime(reused, uses, spec, rows)
