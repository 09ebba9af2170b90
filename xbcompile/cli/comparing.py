"""The compare command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbcompile.cli.running import run_program
from xbcompile.program.program import load_program
from xbcompile.report.comparison import compare


def compare_files(
    first: Path,
    second: Path,
    data: str | None,
    seed: int,
    repeat: int,
    threads: int | None,
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """What differs between two programs, and where there is data what runs of both give; the keys of `compare --json`."""
    result = {"names": [str(first), str(second)], **compare(load_program(first), load_program(second))}
    if data is not None:
        result["runs"] = [
            run_program(each, data, None, seed, repeat, None, threads=threads, show_progress=show_progress)
            for each in (first, second)
        ]
    return result
