"""What commands print on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console


def console() -> Console:
    """The console of this process's output; piped output is not cut to 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, emoji=False)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object and nothing else."""
    print(json.dumps(value, indent=1))


def print_notes(console: Console, notes: list[str]) -> None:
    """Remarks, one per line."""
    for note in notes:
        console.print(note, markup=False, emoji=False)


def warn(text: str) -> None:
    """A warning, on the error output."""
    print(f"xbcompile: warning: {text}", file=sys.stderr)


def shows_progress(as_json: bool) -> bool:
    """Whether somebody looks at the error output while a command works."""
    return not as_json and sys.stderr.isatty()
