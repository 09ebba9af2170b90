"""The plan command's work."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from xbcompile.cli.compiling import DEFAULT_TARGET, given_options
from xbcompile.cli.targeting import changed_target
from xbcompile.errors import ScheduleError, written
from xbcompile.planning.plan import plan
from xbcompile.program.program import load_program


def parse_array(text: str) -> tuple[int, int]:
    """Rows and columns of `ROWSxCOLUMNS`.

    Raises:
        ScheduleError: another form.
    """
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.strip(), re.ASCII)
    if match is None:
        raise ScheduleError(f"--array {written(text)}: write --array ROWSxCOLUMNS, for example --array 256x256")
    return int(match[1]), int(match[2])


def plan_file(
    source: str,
    target: str | None,
    settings: list[str] | None,
    require: list[str] | None,
    given: Mapping[str, Any],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Plan a file of shapes, a model or a program; the summary as plain data. `given`: options, None where left out."""
    options = given_options(given)
    if "array" in options:
        options["array"] = parse_array(options["array"])
    program = load_program(source) if source.endswith(".xbar") else None
    return plan(
        source if program is None else program,
        changed_target(target or (DEFAULT_TARGET if program is None else program.target), settings),
        require=require or (),
        progress=progress,
        **options,
    ).summary
