"""Tables that fit the console: on a wide one as they are, on a narrow one in another layout, but always with every number whole.

Every table of this package is a `FittedTable`. Where there is not room for it, these layouts are tried in turn: texts on several
lines; thinner rules; then the columns as several tables, each led by the first column, or one block of lines for each row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | Text
Narrow = Literal["split", "stack"]

PIPED_WIDTH = 160  # characters of output that goes to no terminal, unless somebody says how many it has
_LINES = 3  # lines that a text may take before another layout is chosen; assumed
_NAME_WIDTH = 20  # characters that a longer name, a text without spaces, keeps on a line
_SHORT = 14  # characters of a text that stays on one line
_BOXED, _THIN = 3, 2  # characters between two columns
_INDENT = 2
_BREAKS = re.compile(r"\s+|(?<=[,;/])(?=\D)")  # where a text may go on in the next line


@dataclass(frozen=True)
class _Column:
    name: str
    right: bool
    width: int | None  # at most; None: as much as there is


class FittedTable:
    """Rows under the names of columns, laid out for the console that prints them.

    Args:
        *columns: names of left-aligned columns of text.
        narrow: layout where there is no room: "split" for numbers that are compared down a column, "stack" for texts.
        title: above.
        caption: below.
        thin: no rules between columns, however wide the console is.
        show_header: whether the names of the columns are shown.
    """

    def __init__(
        self,
        *columns: str,
        narrow: Narrow = "split",
        title: str | None = None,
        caption: str | None = None,
        thin: bool = False,
        show_header: bool = True,
    ) -> None:
        self._columns = [_Column(name, False, None) for name in columns]
        self._rows: list[list[Cell] | None] = []  # None: a rule
        self._narrow, self._thin, self._show_header = narrow, thin, show_header
        self._title, self._caption = title, caption

    def add_column(
        self, name: str, justify: Literal["left", "right"] = "left", *, max_width: int | None = None
    ) -> None:
        """Add a column: right-aligned ones hold numbers, which are never broken; others texts, of at most so many characters."""
        self._columns.append(_Column(name, justify == "right", max_width))

    def add_row(self, *cells: Cell) -> None:
        """Add a row; cells that are left out are empty."""
        self._rows.append([*cells, *[""] * (len(self._columns) - len(cells))])

    def add_section(self) -> None:
        """Draw a rule below the rows so far."""
        self._rows.append(None)

    @property
    def headings(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self._columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The first layout that has room."""
        chosen, room = range(len(self._columns)), options.max_width
        for widths in (self._natural(chosen), self._least(chosen)):
            for thin in (False, True)[self._thin :]:
                if _taken(widths, thin) <= room:
                    yield self._table(chosen, room, thin, self._title, self._caption)
                    return
        parts = self._parts(room) if self._narrow == "split" else None
        yield from self._stacked(room) if parts is None else self._split(parts, room)

    def _natural(self, chosen: Iterable[int]) -> list[int]:
        """Widths with every cell on one line."""
        return [self._width(number, _longest_line, _longest_word) for number in chosen]

    def _least(self, chosen: Iterable[int]) -> list[int]:
        """Widths below which a number would be cut, a word broken, or a text take too many lines."""
        longest_name = _NAME_WIDTH if self._narrow == "split" else 10 * _NAME_WIDTH
        of_text = partial(_shortest, longest_name=longest_name)
        measures = (_longest_line if self._columns[number].right else of_text for number in chosen)
        return [self._width(number, measure, _longest_word) for number, measure in zip(chosen, measures, strict=True)]

    def _width(self, number: int, of_cell: Callable[[Cell], int], of_name: Callable[[Cell], int]) -> int:
        column = self._columns[number]
        name = of_name(column.name) if self._show_header else 0
        found = max([1, name, *(of_cell(row[number]) for row in self._rows if row is not None)])
        return found if column.width is None else min(found, max(column.width, name))

    def _heading(self, number: int) -> int:
        return cell_len(self._columns[number].name) if self._show_header else 0

    def _table(self, chosen: Sequence[int], room: int, thin: bool, title: str | None, caption: str | None) -> Table:
        """A table of the chosen columns in a room that is not less than they need."""
        table = Table(
            header_style="bold",
            title=title,
            title_justify="left",
            title_style="bold",
            caption=caption,
            show_header=self._show_header,
            box=box.SIMPLE_HEAD if thin else box.HEAVY_HEAD,
            show_edge=not thin,
            pad_edge=not thin,
            padding=(0, 1, 0, 0) if thin else (0, 1),
        )
        wanted = [max(pair) for pair in zip(self._natural(chosen), map(self._heading, chosen), strict=True)]
        widths = _spread(self._least(chosen), wanted, room - _taken([0] * len(chosen), thin))
        for number, width in zip(chosen, widths, strict=True):
            column = self._columns[number]
            justify: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(column.name, justify=justify, overflow="fold", width=width)
        for row in self._rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*(row[number] for number in chosen))
        return table

    def _parts(self, room: int) -> list[list[int]] | None:
        """The columns of each of several tables, all with the first column; None where one does not fit."""
        parts = [[0]]
        for number in range(1, len(self._columns)):
            if _taken(self._least([*parts[-1], number]), True) > room and len(parts[-1]) > 1:
                parts.append([0])
            parts[-1].append(number)
        return parts if all(_taken(self._least(part), True) <= room for part in parts) else None

    def _split(self, parts: list[list[int]], room: int) -> RenderResult:
        for place, part in enumerate(parts):
            if place:
                yield ""
            yield self._table(part, room, True, None if place else self._title, None)
        yield from self._caption_line()

    def _stacked(self, room: int) -> RenderResult:
        """One block of lines for each row, led by its first cell."""
        if self._title is not None:
            yield Text(self._title, "bold")
        names = [column.name for column in self._columns[1:]]
        for row in self._rows:
            if row is not None:
                head = row[0] if isinstance(row[0], Text) else Text(row[0], "bold")
                yield head
                yield Padding(pairs(list(zip(names, row[1:], strict=True)), room - _INDENT), (0, 0, 0, _INDENT))
        yield from self._caption_line()

    def _caption_line(self) -> Iterator[Text]:
        if self._caption is not None:
            yield Text(self._caption, "italic")


def pairs(rows: Sequence[tuple[str, Cell]], room: int) -> Table:
    """Names beside their values, which go on below themselves; on a very narrow console below the names.

    Args:
        rows: names with values; those without a value are left out.
        room: characters.
    """
    shown = [(name, value) for name, value in rows if len(value)]
    names = max((cell_len(name) for name, _ in shown), default=1)
    table = Table.grid(padding=(0, 1, 0, 0))
    if room < names + _NAME_WIDTH:
        table.add_column(overflow="fold")
        for name, value in shown:
            table.add_row(Text.assemble(f"{name}: ", value))
        return table
    table.add_column(width=names)
    table.add_column(overflow="fold")
    for name, value in shown:
        table.add_row(name, value)
    return table


def _taken(widths: Sequence[int], thin: bool) -> int:
    """Characters of a table whose columns have these widths."""
    return sum(widths) + (_THIN * (len(widths) - 1) if thin else _BOXED * len(widths) + 1)


def _spread(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Widths between the least and the natural ones: what room is left goes to the column that lacks most of its own."""
    widths = [min(pair) for pair in zip(least, natural, strict=True)]
    for _ in range(room - sum(widths)):
        number = max(range(len(widths)), key=lambda n: natural[n] / widths[n])
        if widths[number] >= natural[number]:
            break
        widths[number] += 1
    return widths


def _longest_line(cell: Cell) -> int:
    return max((cell_len(line) for line in str(cell).split("\n")), default=0)


def _longest_word(cell: Cell) -> int:
    return max(map(cell_len, _BREAKS.split(str(cell))), default=0)


def _shortest(cell: Cell, longest_name: int) -> int:
    """Characters on a line that a text needs: its longest word, if that is no long name, and a part of the whole."""
    longest = _longest_line(cell)
    return min(longest, max(min(_longest_word(cell), longest_name), math.ceil(longest / _LINES), _SHORT))
