"""What the pictures of schedule and floorplan show, as plain data: small whatever the program's size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xbcompile.ir.schedule import READ
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.program.program import Program
from xbcompile.report.page.packing import packed
from xbcompile.verification.traffic import moves

MOST_STEPS = 3000  # that are drawn one by one; assumed
FIRST_STEPS = 1000  # of more that are; assumed
BINS = 600  # of time where steps are more; assumed
MOST_ROWS = 200  # of arrays there; assumed
MOST_BATCHES = 4  # that are drawn where they overlap; assumed
MOST_FLOWS = 60  # between arrays that are drawn and listed; assumed


def timeline_panel(program: Program) -> dict[str, Any]:
    """The steps of a batch and of those that overlap it, or where they are many, the share of time that arrays read and write.

    Args:
        program: the program.

    Returns:
        `batches` drawn, each `period_s` after the one before; `span_s`: until the last of them ends. `steps` of one batch:
        array, kind (-1: write, else layer), start and length of each; where they are many, of the first 1,000, and of all `bins`:
        `read` and `write` shares [arrays or groups of them, bins], packed float32; else null. Times are seconds.
    """
    schedule = program.schedule
    steps = schedule.steps
    overlapping = schedule.stationary and 0 < schedule.period_s < schedule.makespan_s
    batches = min(MOST_BATCHES, math.ceil(schedule.makespan_s / schedule.period_s)) if overlapping else 1
    facts: dict[str, Any] = {
        "arrays": schedule.arrays,
        "makespan_s": schedule.makespan_s,
        "period_s": schedule.period_s,
        "setup_s": schedule.setup_s,
        "stationary": schedule.stationary,
        "overlapping": overlapping,
        "batches": batches,
        "span_s": schedule.makespan_s + (batches - 1) * schedule.period_s,
        "count": len(steps),
        "steps": None,
        "bins": None,
    }
    if len(steps) * batches <= MOST_STEPS:
        facts["steps"] = _drawn(program, steps)
        return facts
    facts["steps"] = _drawn(program, steps[np.argsort(steps["start_s"], kind="stable")[:FIRST_STEPS]])
    each = -(-schedule.arrays // MOST_ROWS)
    rows = -(-schedule.arrays // each)
    sizes = np.bincount(np.arange(schedule.arrays) // each, minlength=rows)
    facts["bins"] = {"rows": rows, "arrays_of_each": each, "bins": BINS}
    for name, is_read in (("read", True), ("write", False)):
        mine = steps[(steps["operation"] == READ) == is_read]
        share = np.zeros((rows, BINS))
        for batch in range(batches):
            share += _shares(mine, facts["span_s"], each, rows, batch * schedule.period_s)
        facts["bins"][name] = packed((share / sizes[:, None]).astype(np.float32))
    return facts


def _drawn(program: Program, steps: np.ndarray) -> dict[str, list[Any]]:
    """Steps as columns."""
    uses = np.array([use.layer for use in program.network.uses], np.int64)
    kind = np.where(steps["operation"] == READ, uses[steps["use"]] if len(uses) else -1, -1)
    return {
        "array": steps["array"].tolist(),
        "kind": kind.tolist(),
        "image": steps["image"].tolist(),
        "start_s": steps["start_s"].tolist(),
        "length_s": (steps["end_s"] - steps["start_s"]).tolist(),
    }


def _shares(steps: np.ndarray, span_s: float, each: int, rows: int, shift_s: float = 0.0) -> np.ndarray:
    """Time that steps take in each bin over the bin's width, [rows, BINS]."""
    total = np.zeros((rows, BINS + 1))
    if span_s <= 0:
        return total[:, :BINS]
    width = span_s / BINS
    row = steps["array"] // each
    # The integral of what is busy, taken at the edges of bins, is a sum of ramps: one up at a start, one down at an end.
    for times, sign in ((steps["start_s"], 1.0), (steps["end_s"], -1.0)):
        place = np.clip((times + shift_s) / width, 0, BINS)
        first = np.floor(place).astype(np.int64)
        inside = first < BINS
        first, part, at = first[inside], (first + 1 - place)[inside], row[inside]
        np.add.at(total, (at, first), sign * part)
        np.add.at(total, (at, np.minimum(first + 1, BINS)), sign * (1 - part))
    return np.asarray(np.cumsum(total, axis=1)[:, :BINS])


def floorplan_panel(program: Program) -> dict[str, Any] | None:
    """Which array sits on which site, and what moves between them per inference; None without a floorplan.

    Args:
        program: the program.

    Returns:
        `site` of each array; `sent`, `received` (values per inference, what stays in an array apart) and `images` of each;
        `flows`: the largest by values times hops, with both arrays; `flow_count` of all.
    """
    schedule = program.schedule
    if not schedule.floorplan:
        return None
    grid = SiteGrid.parse(schedule.floorplan)
    source, to, values = _flows(program)
    down, across = (place[schedule.site] for place in grid.coordinates())
    hops = np.abs(down[source] - down[to]) + np.abs(across[source] - across[to])
    largest = np.argsort(-hops * values, kind="stable")[:MOST_FLOWS]
    totals = {
        name: np.bincount(ends, weights=values, minlength=schedule.arrays).astype(np.int64).tolist()
        for name, ends in (("sent", source), ("received", to))
    }
    return {
        "site_rows": grid.site_rows,
        "site_columns": grid.site_columns,
        "chips": grid.chips,
        "site": schedule.site.tolist(),
        "images": np.bincount(schedule.copies["array"], minlength=schedule.arrays).tolist(),
        **totals,
        "flows": [
            {"from": int(source[i]), "to": int(to[i]), "values": int(values[i]), "hops": int(hops[i])} for i in largest
        ],
        "flow_count": len(values),
        "hop_values": schedule.hop_values,
        "hop_values_lower_bound": schedule.hop_values_lower_bound,
    }


def _flows(program: Program) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values per inference from one array to another one, each pair once; int64 each."""
    schedule, arrays = program.schedule, program.schedule.arrays
    parts = list(moves(schedule.tiles, schedule.copies, program.network))
    if not parts:
        return (np.zeros(0, np.int64),) * 3
    source, to, values = (np.concatenate(each) for each in zip(*parts, strict=True))
    moved = source != to
    pairs, which = np.unique(source[moved] * arrays + to[moved], return_inverse=True)
    sums = np.zeros(len(pairs), np.int64)
    np.add.at(sums, which, values[moved])
    return pairs // arrays, pairs % arrays, sums
