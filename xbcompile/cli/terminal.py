"""What commands print: results on the output, warnings on the error output.

Names come from files of others, so nothing in a text is taken for markup, and `visible` spells out what a terminal would obey.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from xbcompile.cli.characters import plain, visible
from xbcompile.cli.streams import tell
from xbcompile.cli.wrapping import Unbroken
from xbcompile.report.fitted import PIPED_WIDTH

Value = TypeVar("Value")

_WIDEST = 10_000  # characters of a line; more would take memory for nothing


class TextConsole(Console):
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


def errors_console() -> Console:
    """The console of this process's error output."""
    return TextConsole(stderr=True)


def console() -> Console:
    """The console of this process's output: as wide as the terminal, or `COLUMNS`."""
    return TextConsole(width=_width() or PIPED_WIDTH)


def _width() -> int | None:
    """Characters of a line of the output, if somebody says it: the environment, or a terminal."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return min(int(columns), _WIDEST)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


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
    if _width():
        console().print(Text(visible(text)), overflow="ignore", crop=False)
    else:
        show_command(text)


def show_command(text: str) -> None:
    """A command on the output, on one line however long, so that it can be taken from there."""
    print(visible(text))


def print_json(value: Any) -> None:
    """One JSON object and nothing else."""
    print(json.dumps(value, indent=1))


def warn(text: str) -> None:
    """A warning, on the error output."""
    tell(f"xbcompile: warning: {text}")
