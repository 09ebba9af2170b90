"""What commands print: results on the output, progress on the error output where somebody looks at it.

Names come from files of others, so nothing in a text is taken for markup, and `visible` spells out what a terminal would obey.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from xbcompile.cli.characters import plain, visible
from xbcompile.cli.streams import tell
from xbcompile.cli.wrapping import Unbroken

Value = TypeVar("Value")

_PIPED_WIDTH = 160  # characters; piped output is not cut to 80 columns


class _Console(Console):
    """A console on which texts are only texts, and fit the encoding before they are laid out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as rich lays it out."""
        return super().render_str(plain(text, self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What rich shows, but that no line ends between a number and its unit."""
        if isinstance(renderable, str):
            renderable = self.render_str(renderable)
        if isinstance(renderable, Text) and not isinstance(renderable, Unbroken):
            renderable = Unbroken.of(renderable)
        return super().render(renderable, options)


def console() -> Console:
    """The console of this process's output: as wide as the terminal, or `COLUMNS`."""
    return _Console(width=None if _has_width() else _PIPED_WIDTH)


def _has_width() -> bool:
    """Whether somebody says how wide the output is: a terminal, or the environment."""
    return sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()


def give(printer: Callable[[Console, Value], None], value: Value, as_json: bool) -> None:
    """Print a command's result: as one JSON object and nothing else, or as `show` does."""
    if as_json:
        print_json(value)
    else:
        show(printer, value)


def show(printer: Callable[[Console, Value], None], value: Value) -> None:
    """Plain data as a function of `report` prints them, with all characters of their texts visible."""
    printer(console(), visible(value))


def show_line(text: str) -> None:
    """One line on the output; on a terminal several, where it is long, but no word of it is broken."""
    if _has_width():
        console().print(Text(visible(text)), overflow="ignore", crop=False)
    else:
        print(visible(text))


def print_json(value: Any) -> None:
    """One JSON object and nothing else."""
    print(json.dumps(value, indent=1))


def warn(text: str) -> None:
    """A warning, on the error output."""
    tell(f"xbcompile: warning: {text}")


def shows_progress(as_json: bool) -> bool:
    """Whether somebody looks at the error output while a command works."""
    return not as_json and sys.stderr.isatty()


@contextmanager
def status(text: str, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A line on the error output that says what a command does, where that is a terminal; gives a function that changes it."""
    errors = _Console(stderr=True, quiet=not shown)
    spinner = "dots" if errors.encoding.startswith("utf") else "line"
    with errors.status(_line(errors, text), spinner=spinner) as found:
        yield lambda changed: found.update(_line(errors, changed))


@contextmanager
def progress_bar(text: str, total: int, shown: bool, time_left: bool = False) -> Iterator[Callable[[int, str], None]]:
    """A bar on the error output that says how much is done.

    Args:
        text: what is done.
        total: when all is done.
        shown: false: nothing is.
        time_left: at the end stands the time that is left, and not the time passed.

    Yields:
        a function of how much is done, and what is done now.
    """
    from rich import progress as parts

    errors = _Console(stderr=True)
    columns = (parts.TextColumn("{task.description}", markup=False), parts.BarColumn(), parts.MofNCompleteColumn())
    ending = parts.TimeRemainingColumn() if time_left else parts.TimeElapsedColumn()
    with parts.Progress(*columns, ending, console=errors, disable=not shown, transient=True) as progress:
        task = progress.add_task(_line(errors, text).plain, total=total)
        yield lambda done, now: progress.update(task, completed=done, description=_line(errors, now).plain)


def _line(errors: Console, text: str) -> Text:
    return Text(plain(visible(text), errors.encoding))
