"""The plan command's work."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from xbcompile.cli.targeting import changed_target
from xbcompile.errors import ScheduleError
from xbcompile.frontend.dims import parse_dims
from xbcompile.planning.plan import plan


def parse_array(text: str | None) -> tuple[int, int] | None:
    """Rows and columns of `ROWSxCOLUMNS`.

    Raises:
        ScheduleError: another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.strip(), re.ASCII)
    if match is None:
        raise ScheduleError(f"--array {text}: write --array ROWSxCOLUMNS, for example --array 256x256")
    return int(match[1]), int(match[2])


def plan_file(
    source: str,
    target: str,
    *,
    settings: list[str] | None,
    array: str | None,
    digital: list[str] | None,
    dims: list[str] | None,
    require: list[str] | None,
    progress: Callable[[str], None],
    **options: Any,
) -> dict[str, Any]:
    """Plan a file of shapes or a model; the summary as plain data. `options`: see `xbcompile.plan`."""
    return plan(
        source,
        changed_target(target, settings),
        array=parse_array(array),
        digital=digital or (),
        dims=parse_dims(dims or ()),
        require=require or (),
        progress=progress,
        **options,
    ).summary
