"""The listing of passes."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from rich.console import Console

from xbcompile.passes import load_pass, pass_names
from xbcompile.report.fitted import FittedTable


def describe_passes() -> list[dict[str, Any]]:
    """Every pass with its options and defaults."""
    described = []
    for name in pass_names():
        loaded = load_pass(name)
        first_line = (loaded.__doc__ or "").strip().splitlines()[0]
        options = {f.name: None if f.default is MISSING else f.default for f in fields(loaded)}  # type: ignore[arg-type]  # passes are dataclasses
        described.append({"name": name, "what": first_line, "options": options})
    return described


def print_passes(console: Console, described: list[dict[str, Any]]) -> None:
    """One line per pass."""
    table = FittedTable("pass", "options (default)", "what", narrow="stack")
    for each in described:
        options = " ".join(f"{key}={_shown(value)}" for key, value in each["options"].items())
        table.add_row(each["name"], options, each["what"])
    console.print(table)


def _shown(value: Any) -> str:
    return "none" if value is None else "''" if value == "" else str(value)
