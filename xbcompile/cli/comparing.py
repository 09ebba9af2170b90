"""The compare command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xbcompile.cli import streams
from xbcompile.cli.output import check_output
from xbcompile.cli.reporting import file_digests, this_command
from xbcompile.cli.running import run_program
from xbcompile.files import write_atomically
from xbcompile.program.program import load_program
from xbcompile.report.comparison import compare


def compare_files(
    first: Path,
    second: Path,
    data: str | None,
    seed: int,
    repeat: int,
    threads: int | None,
    output: Path | None = None,
    *,
    labels: str | None = None,
    show_progress: bool,
) -> dict[str, Any]:
    """What differs between two programs, and where there is data what runs of both give; the keys of `compare --json`.

    With an output, a page of it is written.
    """
    if output is not None:
        check_output(output, first, second, data)
        streams.keep_clear(output)
    programs = [load_program(each) for each in (first, second)]
    result = {"names": [str(first), str(second)], **compare(*programs)}
    if data is not None:
        result["runs"] = [
            run_program(
                each, data, None, seed, repeat, None, threads=threads, labels=labels, show_progress=show_progress
            )
            for each in (first, second)
        ]
    if output is not None:
        from xbcompile.report.page.difference import difference_page

        page = difference_page(programs, result, [this_command()], file_digests(data))
        write_atomically(output, page.encode())
    return result
