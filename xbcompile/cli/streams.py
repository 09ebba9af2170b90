"""Standard streams as they may be: closed, full, without a reader, in an encoding of few characters."""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress
from typing import TextIO

from xbcompile.cli.characters import ERRORS, visible


def prepare() -> None:
    """Make the process's standard streams such that any text can be printed.

    In the place of one that the caller has closed, what is printed goes nowhere; a file that is opened later would take its
    number, and get what libraries print.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def tell(text: str) -> None:
    """Print one line on the error output; a line that cannot be written ends no command."""
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def settle(stream: TextIO) -> None:
    """Write what a stream still holds; what cannot be written is discarded, else the interpreter would complain at its end."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, to nowhere."""
    with suppress(OSError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.flush()


def keep_clear(output: str | os.PathLike[str]) -> None:
    """Print on the error output from now on, where a file to be written is the standard output."""
    with suppress(OSError):  # there is no such file yet, or the output is no file
        found = os.stat(output)
        if not stat.S_ISCHR(found.st_mode) and os.path.samestat(found, os.fstat(sys.stdout.fileno())):
            sys.stdout = sys.stderr
