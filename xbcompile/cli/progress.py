"""How far a command is, on the error output: a bar with the time left on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.text import Text

from xbcompile.cli.characters import plain, visible
from xbcompile.cli.streams import tell
from xbcompile.cli.terminal import errors_console

LINE_EVERY = 5.0  # seconds between two lines where there is no terminal; assumed

Update = Callable[[str, float | None], None]


class _State:
    """What is done now, and how much of the whole: `fraction` in 0..1, None where nobody knows."""

    def __init__(self, text: str) -> None:
        self.text, self.fraction, self.started = text, None, time.monotonic()  # type: str, float | None, float

    def update(self, text: str, fraction: float | None) -> None:
        self.text, self.fraction = text, fraction

    def times(self) -> str:
        """Time left, if what is left takes as long as what is done did; else the time passed."""
        passed_s = time.monotonic() - self.started
        if not self.fraction:
            return f"{_duration(passed_s)} so far"
        return f"about {_duration(passed_s * (1 / self.fraction - 1))} left"


@contextmanager
def progress(text: str, shown: bool = True) -> Iterator[Update]:
    """Show what a command does while it does it; nothing is left of that on a terminal.

    Args:
        text: what is done first.
        shown: false: nothing is shown.

    Yields:
        a function of what is done now, and of the part of all (0 to 1) that is done; None: unknown.
    """
    if not shown:
        yield lambda now, fraction: None
        return
    state, errors = _State(text), errors_console()
    with _bar(state, errors) if errors.is_terminal and not errors.is_dumb_terminal else _lines(state):
        yield state.update


@contextmanager
def _bar(state: _State, errors: Console) -> Iterator[None]:
    from rich.live import Live

    with Live(_Line(state, errors), console=errors, refresh_per_second=8, transient=True):
        yield


class _Line:
    """A state as one line of a terminal."""

    def __init__(self, state: _State, errors: Console) -> None:
        from rich.spinner import Spinner

        self._state, self._errors = state, errors
        self._spinner = Spinner("dots" if errors.encoding.startswith("utf") else "line")

    def __rich__(self) -> RenderableType:
        """The spinner, what is done, a bar, and the time."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        state, table = self._state, Table.grid(padding=(0, 1))
        text = Text(plain(visible(state.text), self._errors.encoding), overflow="ellipsis", no_wrap=True)
        cells: list[RenderableType] = [self._spinner, text]
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        if state.fraction is not None:
            table.add_column(no_wrap=True)
            cells.append(ProgressBar(1.0, min(state.fraction, 1.0), width=20))
        table.add_column(no_wrap=True)
        table.add_row(*cells, state.times())
        return table


@contextmanager
def _lines(state: _State) -> Iterator[None]:
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(LINE_EVERY):
            done = "" if state.fraction is None else f"{100 * state.fraction:.0f} %, "
            tell(f"xbcompile: {state.text}: {done}{state.times()}")

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
