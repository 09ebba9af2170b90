"""The command line: `xbcompile compile | inspect | run | diagnose | verify | study | reproduce | ...`.

`app.py` (read it first), `experiment_commands.py` and `more_commands.py` declare the commands and their options; each other
file is one command's work, which the public functions of `xbcompile` do, and `report` prints.
"""

from __future__ import annotations

import sys

from xbcompile.errors import XbcompileError

TYPE_CHECKING = False  # as in `xbcompile.names`
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Run the command line as this process's only work, with streams and signals prepared for it."""
    try:
        _run_prepared()
    except SystemExit as ended:
        if (
            isinstance(ended.code, int) and ended.code >= INTERRUPTED - 1
        ):  # SIGHUP is the first of those that are heeded
            from xbcompile.cli import signals

            signals.leave(ended.code)
        raise


def _run_prepared() -> None:
    try:
        from xbcompile.cli import signals, streams

        streams.prepare()
        signals.heed()
        try:
            command()
        finally:
            signals.done()
    except KeyboardInterrupt:
        _interrupted()


def command() -> None:
    """Run the command line and raise SystemExit; a user's error is one line on standard error and exit status 1."""
    try:
        _run()
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:  # one message instead of a traceback, or raised again: see `_report`
        if _follows_interruption(error):
            _interrupted()
        _report(error)


def _interrupted() -> NoReturn:
    from xbcompile.cli import signals
    from xbcompile.cli.streams import tell

    number = signals.received()
    tell(signals.words(number))
    sys.exit(signals.status(number))


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
    from xbcompile.cli.streams import settle

    try:
        raise error
    except XbcompileError as error:
        _fail(error, str(error))
    except MemoryError as error:
        _fail(error, f"not enough memory: {error}")
    except BrokenPipeError:  # the reader of our output went away
        settle(sys.stdout)
        sys.exit(1)
    except OSError as error:
        settle(sys.stdout)
        where = f"{error.filename!r}: " if error.filename else ""
        _fail(error, f"{where}{error.strerror or error}")


def _run() -> None:
    from xbcompile.cli.usage import run

    try:
        status = run()
    finally:  # here, where a full disk or a closed pipe can still be told
        sys.stdout.flush()
    if status == INTERRUPTED:  # typer's own way of telling that a signal came
        _interrupted()
    sys.exit(status)


def _fail(error: Exception, message: str) -> NoReturn:
    from xbcompile.cli.failures import tell_failure
    from xbcompile.cli.streams import settle

    tell_failure(type(error).__name__, message)
    settle(sys.stdout)
    sys.exit(1)
