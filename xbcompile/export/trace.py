"""The schedule as a trace that Chrome's and Perfetto's viewers show: arrays are threads, reads and writes are slices.

Times are microseconds, as the Trace Event Format has them, from the first set-up write on: Perfetto drops what is before 0.
Batches follow each other by the schedule's period, so that where weights stay they overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from xbcompile.ir.schedule import READ
from xbcompile.program.program import Program

_MICROSECONDS = 1e6


def trace_events(program: Program, batches: int = 1) -> Iterator[dict[str, Any]]:
    """Events of the set-up writes and of so many batches: metadata first, then in the order of the schedule.

    Args:
        program: the program.
        batches: how many, 1 or more.
    """
    schedule = program.schedule
    yield {
        "ph": "M",
        "pid": 0,
        "name": "process_name",
        "args": {"name": f"{program.network.name} on {program.target.name}"},
    }
    for array in range(schedule.arrays):
        yield {"ph": "M", "pid": 0, "tid": array, "name": "thread_name", "args": {"name": f"array {array}"}}
        yield {"ph": "M", "pid": 0, "tid": array, "name": "thread_sort_index", "args": {"sort_index": array}}
    yield from _setup(program)
    for batch in range(batches):
        yield from _batch(program, batch)


def _setup(program: Program) -> Iterator[dict[str, Any]]:
    """Writes before the first batch, one after another unless the electronics write side by side."""
    schedule = program.schedule
    held = np.flatnonzero(schedule.initial >= 0).tolist()
    if not held:
        return
    each_s = program.spec.t_write_s
    at_a_time = program.spec.writes_at_a_time or len(held)
    for place, array in enumerate(held):
        start_s = place // at_a_time * each_s
        image = int(schedule.initial[array])
        args = {"image": image, "rows": schedule.rows, "energy_joule": program.spec.e_write_j}
        yield _slice(array, f"write image {image}", "set-up write", start_s, each_s, args)


def _batch(program: Program, batch: int) -> Iterator[dict[str, Any]]:
    schedule, network, spec = program.schedule, program.network, program.spec
    uses, shift_s = network.uses, schedule.setup_s + batch * schedule.period_s
    for step in schedule.steps:
        array, image = int(step["array"]), int(step["image"])
        start_s, length_s = float(step["start_s"]), float(step["end_s"] - step["start_s"])
        args: dict[str, Any] = {"batch": batch, "image": image}
        if step["operation"] == READ:
            use = uses[step["use"]]
            tile, layer = schedule.tiles[step["tile"]], network.layers[use.layer]
            reads = schedule.reads_of(step, use)
            args |= {
                "tile": int(step["tile"]),
                "inputs": f"{tile['k0']}:{tile['k1']}",
                "outputs": f"{tile['m0']}:{tile['m1']}",
                "reads": reads,
                "energy_joule": reads * spec.e_read_j,
            }
            name, category = f"{layer.name}", "read"
        else:
            args |= {"rows": int(step["rows"]), "energy_joule": int(step["rows"]) * spec.e_write_row_j}
            name, category = f"write image {image}", "write"
        yield _slice(array, name, category, shift_s + start_s, length_s, args)


def _slice(
    array: int, name: str, category: str, start_s: float, length_s: float, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": 0,
        "tid": array,
        "name": name,
        "cat": category,
        "ts": start_s * _MICROSECONDS,
        "dur": length_s * _MICROSECONDS,
        "args": args,
    }


def write_trace(program: Program, file: IO[bytes], batches: int = 1) -> int:
    """Write the trace as one JSON object, an event a line; returns the number of events.

    Args:
        program: the program.
        file: open for writing.
        batches: see `trace_events`.
    """
    count = 0
    file.write(b'{"displayTimeUnit": "ns", "traceEvents": [')
    for event in trace_events(program, batches):
        file.write((",\n" if count else "\n").encode() + json.dumps(event).encode())
        count += 1
    file.write(b"\n]}\n")
    return count
