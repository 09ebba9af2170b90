"""The report command's work."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

from xbcompile.cli import streams
from xbcompile.cli.output import check_output
from xbcompile.cli.running import run_program
from xbcompile.files import write_atomically
from xbcompile.program.program import Program, load_program
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
    labels: str | None = None,
    show_progress: bool,
) -> dict[str, Any]:
    """Write the page of a program, with a run where there is data; the keys are those of `report --json`."""
    check_output(output, path, data)
    streams.keep_clear(output)
    program, run = load_program(path), None
    if data is not None:
        run = run_program(
            path, data, device, seed, repeat, None, threads=threads, labels=labels, show_progress=show_progress
        )
    commands = [compiled_again(program, path), this_command()]
    page = report_page(program, commands, run, file_digests(data)).encode()
    write_atomically(output, page)
    return {"path": str(output), "bytes": len(page), "run": run, "warnings": [] if run is None else run["warnings"]}


def compiled_again(program: Program, path: Path) -> str:
    """The command line that compiles a program's model again as it was."""
    coded = any(layer.input_code is not None and layer.input_code.low is not None for layer in program.network.layers)
    calibration = " --calibration DATA" if program.calibration or coded else ""
    return f"xbcompile compile MODEL.onnx --like {shlex.quote(str(path))}{calibration} -o AGAIN.xbar"


def this_command() -> str:
    """The command line of this process."""
    return shlex.join(["xbcompile", *sys.argv[1:]])


def file_digests(data: str | None) -> dict[str, str]:
    """The sha256 of data that are a file, by what is shown beside it; of data sets, the name is enough."""
    if data is None or not Path(data).is_file():
        return {}
    with open(data, "rb") as file:
        return {f"data {data}, sha256": hashlib.file_digest(file, "sha256").hexdigest()}
