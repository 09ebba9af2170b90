"""The commission command's work: fitting a program's device passes on one chip, and the file of what was fitted."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xbcompile.cli.progress import progress
from xbcompile.errors import ProgramError
from xbcompile.files import regular_size
from xbcompile.ir.corrections import Corrections
from xbcompile.program.program import device_passes, load_program
from xbcompile.runtime import commission, save_corrections


def commission_program(
    path: Path, output: Path, device: str | None, seed: int, threads: int | None = None, *, show_progress: bool
) -> dict[str, Any]:
    """Commission a simulated chip for a program and write its corrections; the keys are those of `commission --json`."""
    program = load_program(path)
    passes = device_passes(program.pipeline)
    if not passes:
        raise ProgramError(
            f"program {str(path)!r} has no device passes, so there is nothing to fit on a chip; run it as it is"
        )
    started = time.perf_counter()
    with progress("commissioning", show_progress) as tell:
        corrections = commission(
            program, device, seed, threads, lambda what, done: tell(f"commissioning: {what}", done)
        )
    save_corrections(corrections, output)
    spec, effort = program.spec, corrections.effort
    return {
        "program": program.digest,
        "chip": corrections.chip,
        "passes": [str(each) for each in passes],
        "corrected": _corrected(corrections),
        "effort": {
            **asdict(effort),
            "energy_j": effort.rows_written * spec.e_write_row_j + effort.reads * spec.e_read_j,
            "time_s": effort.rows_written * spec.t_write_row_s + effort.reads * spec.t_read_s,
        },
        "output": {"path": str(output), "bytes": regular_size(output)},
        "seconds": time.perf_counter() - started,
    }


def _corrected(corrections: Corrections) -> dict[str, int]:
    """How much was fitted, by kind."""
    offset, routes = corrections.column_offset, corrections.routes
    return {
        "outputs": sum(int(((layer.gain != 1) | (layer.shift != 0)).sum()) for layer in corrections.layers),
        "tile_gains": sum(
            0 if layer.tile_gain is None else int((layer.tile_gain != 1).sum()) for layer in corrections.layers
        ),
        "column_offsets": 0 if offset is None else int((offset != 0).sum()),
        "images_moved": len(routes or ())
        if corrections.column_permutation is None
        else len(corrections.column_permutation),
    }


def check_one_chip(repeat: int) -> None:
    """Raise ProgramError when more than one chip is to be run with one chip's corrections."""
    if repeat > 1:
        raise ProgramError(
            f"--fit holds the corrections of one chip, and --repeat {repeat} runs on {repeat}: leave one out"
        )
