"""Signals that end a command: it unwinds, so that no temporary file and no process is left, and its status says which."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from xbcompile.cli.streams import settle, tell
from xbcompile.files import discard_unfinished

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
_AGAIN = 0.01  # seconds until a signal that fell on deaf ears is sent again
_GRACE = 5.0  # seconds that a library may go on without looking at signals; assumed

_received: int | None = None
_noticed = 0  # signals that the main thread took notice of


class Ended(KeyboardInterrupt):
    """A signal came that ends the command; its number is `received()`."""


def heed() -> None:
    """Raise `Ended` where one of the signals comes, in this process, which is to end after that.

    A second one ends the process at once, and so does a first one that nobody takes notice of for 5 s; signals that the caller
    ignores (nohup) stay ignored.
    """
    sys.unraisablehook = _send_again
    numbers = [number for number in _WORDS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    for number in numbers:
        signal.signal(number, _end)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, frozenset(numbers)), daemon=True).start()


def done() -> None:
    """From now on, a signal ends the process as if it knew none of this: there is nothing left to tidy up."""
    signal.set_wakeup_fd(-1)
    for number in _WORDS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def received() -> int:
    """The signal that came: SIGINT where none was seen."""
    return _received or signal.SIGINT


def status(number: int) -> int:
    """The exit status of a command that a signal ended, as shells have it."""
    return 128 + number


def words(number: int) -> str:
    """What to say of a command that a signal ended."""
    return f"xbcompile: {_WORDS[signal.Signals(number)]}"


def leave(status: int) -> NoReturn:
    """End the process, all tidied up, without unloading libraries: an interruption may have caught one half loaded."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        settle(stream)
    os._exit(status)


def _end(number: int, frame: FrameType | None) -> None:
    global _received, _noticed
    _noticed += 1
    if _received is not None:
        _end_at_once(number)
    _received = number
    raise Ended


def _end_at_once(number: int) -> None:
    discard_unfinished()
    tell(words(number))
    os._exit(status(number))


def _watch(reading: int, numbers: frozenset[int]) -> None:
    """In a thread of its own: a library that works for long leaves the main thread no time to take notice of a signal."""
    sent = 0
    while byte := os.read(reading, 1):
        if byte[0] in numbers:
            sent += 1
            time.sleep(_GRACE)
            if _noticed < sent:
                _end_at_once(byte[0])


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    """An interruption that falls into a finalizer would be swallowed, and the command would go on."""
    global _received
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    number, _received = received(), None
    threading.Timer(_AGAIN, os.kill, (os.getpid(), number)).start()
