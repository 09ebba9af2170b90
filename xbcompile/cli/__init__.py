"""The command line: `xbcompile compile | inspect | run | diagnose | verify | study | reproduce | ...`.

`app.py` (read it first) declares the commands and their options; each other file is one command's work, which the
public functions of `xbcompile` do, and `report` prints.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from xbcompile.errors import XbcompileError

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Run the command line; a user's error is one line on standard error and exit status 1."""
    if sys.stdout is None:  # closed by the caller: there is nothing to print to
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # open until the process ends
    try:
        _run()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as ended:  # typer's own way of telling an interruption
        if ended.code == INTERRUPTED:
            _interrupted()
        raise
    except Exception as error:  # one message instead of a traceback, or raised again: see `_report`
        if _follows_interruption(error):
            _interrupted()
        _report(error)


def _interrupted() -> NoReturn:
    print("xbcompile: interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _follows_interruption(error: BaseException | None) -> bool:
    """Whether the error came of an interruption: a library interrupted while it loads raises an error of its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _report(error: Exception) -> None:
    """End with one line for what the user can mend; raise what is our own fault."""
    try:
        raise error
    except XbcompileError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"not enough memory: {error}")
    except BrokenPipeError:  # the reader of our output went away
        _discard_output()
        sys.exit(1)
    except OSError as error:
        _discard_output()
        where = f"{error.filename!r}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")


def _run() -> None:
    from xbcompile.cli.app import app

    hook, sys.unraisablehook = sys.unraisablehook, _heed_interruption
    try:
        app()
    finally:  # here, where a full disk or a closed pipe can still be told
        sys.unraisablehook = hook
        sys.stdout.flush()


def _heed_interruption(lost: sys.UnraisableHookArgs) -> None:
    """An interruption that falls into a finalizer would be swallowed, and the command would go on."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        print("xbcompile: interrupted", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(lost)


def _discard_output() -> None:
    """Send what is buffered and cannot be written to nowhere: else the interpreter would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str) -> None:
    print(f"xbcompile: error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(1)
