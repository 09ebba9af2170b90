"""Plain data that shows itself: on a terminal and in a notebook, with the tables that the command line prints."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from xbcompile.notebook import html_table, html_text, printable

_WIDE = 10_000  # characters: nothing is wrapped
_MOST_ROWS = 60  # of a table in a notebook; assumed


class Facts(dict[str, Any]):
    """A dict, with the keys of what the command of the same name prints for `--json`, that is shown as that command shows it.

    Args:
        values: the data.
        printer: prints them on a console of rich.
    """

    def __init__(self, values: Mapping[str, Any], printer: Callable[[Console, Any], None]) -> None:
        super().__init__(values)
        self._printer = printer

    def __repr__(self) -> str:
        """The tables, as wide as the terminal."""
        file = io.StringIO()
        width = shutil.get_terminal_size((100, 24)).columns
        self._printer(_Console(file=file, width=width), self)
        return "\n".join(line.rstrip() for line in printable(file.getvalue()).splitlines())

    def _repr_html_(self) -> str:
        """The same as tables of HTML."""
        console = _HtmlConsole()
        self._printer(console, self)
        return "".join(console.parts)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython prints on a terminal, where it would show a dict."""
        printer.text("{...}" if cycle else repr(self))


class _Console(Console):
    """A console on which texts are only texts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            markup=False,
            highlight=False,
            emoji=False,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,  # else a notebook is printed to
            **options,
        )


class _HtmlConsole(_Console):
    """Gathers what is printed as HTML."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), width=_WIDE)
        self.parts: list[str] = []

    def print(self, *objects: Any, **options: Any) -> None:
        """Take a table as a table, all else as text."""
        for each in objects:
            self._take(each)

    def _take(self, value: Any) -> None:
        if isinstance(value, Table):
            self.parts.append(self._table(value))
        elif not isinstance(value, str | Text) and hasattr(value, "__rich_console__"):
            for each in value.__rich_console__(self, self.options):  # what a table of ours is, where there is room
                self._take(each)
        elif str(value):
            self.parts.append(html_text(self._plain(value)))

    def _table(self, table: Table) -> str:
        columns = [[self._plain(cell) for cell in column.cells] for column in table.columns]
        headers = [self._plain(column.header) for column in table.columns if table.show_header]
        caption = self._plain(table.title or "")
        below = html_text(self._plain(table.caption)) if table.caption else ""
        return html_table(headers, list(zip(*columns, strict=True)), caption, _MOST_ROWS) + below

    def _plain(self, value: RenderableType) -> str:
        if isinstance(value, str | Text):
            return str(value)
        with self.capture() as captured:
            super().print(value)
        return captured.get().strip()
