"""The report command's work."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from xbcompile.cli.output import check_output
from xbcompile.cli.running import run_program
from xbcompile.files import write_atomically
from xbcompile.program.program import load_program
from xbcompile.report.page.page import report_page


def report_file(
    path: Path,
    output: Path,
    data: str | None,
    device: str | None,
    seed: int,
    repeat: int,
    threads: int | None,
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """Write the page of a program, with a run where there is data; the keys are those of `report --json`."""
    check_output(output, path, data)
    program, run = load_program(path), None
    if data is not None:
        run = run_program(path, data, device, seed, repeat, None, threads=threads, show_progress=show_progress)
    commands = [
        f"xbcompile compile MODEL.onnx --like {shlex.quote(str(path))} -o AGAIN.xbar",
        shlex.join(["xbcompile", *sys.argv[1:]]),
    ]
    page = report_page(program, commands, run).encode()
    write_atomically(output, page)
    return {"path": str(output), "bytes": len(page), "run": run, "warnings": [] if run is None else run["warnings"]}
