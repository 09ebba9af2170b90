"""Calling the command that a process was started with."""

from __future__ import annotations

import io
from typing import Any

import typer

from xbcompile.cli.failures import tell_failure
from xbcompile.cli.more_commands import app

_Refused: Any = typer.BadParameter.__mro__[2]  # ClickException, which typer does not hand on


class _Shown(io.StringIO):
    def isatty(self) -> bool:
        return True  # or control characters would vanish from the message


def run() -> int:
    """Run the command of this process's arguments; arguments that cannot be read are told on the error output.

    Returns:
        The exit status.
    """
    try:
        return app(standalone_mode=False, prog_name="xbcompile") or 0
    except _Refused as error:
        error.show(shown := _Shown())
        tell_failure("UsageError", error.format_message(), *shown.getvalue().splitlines())
        return int(error.exit_code)
