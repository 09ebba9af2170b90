"""The demo command's work: other commands, one after another, on what comes with the package."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from xbcompile.cli import terminal
from xbcompile.cli.output import make_folder


def demonstrate(app: Callable[..., Any], folder: Path) -> None:
    """Show commands and run them; what they write is left in the folder, which is made.

    Args:
        app: the application, called with `args`.
        folder: for the program and its page.

    Raises:
        ProgramError: the folder cannot be made or written.
    """
    make_folder(folder)
    program, page = str(folder / "letters.xbar"), str(folder / "letters.html")
    data = ["--data", "letters:test"]
    terminal.show_line("a network that tells four letters of 4x4 pixels apart, on 20x20 passive memristors")
    steps = [
        ["compile", "letters_mlp", "--target", "memristor20", "--calibration", "letters:train", "-o", program],
        ["verify", program],
        ["run", program, *data, "--repeat", "5"],
        ["report", program, *data, "-o", page],
    ]
    called_with = sys.argv
    try:
        for step in steps:
            terminal.show_line("")
            terminal.show_command(f"$ {shlex.join(['xbcompile', *step])}")
            sys.argv = ["xbcompile", *step]  # the page tells by which command it was made
            status = app(args=step, standalone_mode=False)
            if status:
                raise typer.Exit(status)
    finally:
        sys.argv = called_with
    terminal.show_line("")
    terminal.show_line(f"open {page} in a browser; 'xbcompile --help' lists all commands")
