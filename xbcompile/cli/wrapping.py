"""Breaking lines where a terminal ends: between words, but never between a number and its unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.containers import Lines
from rich.text import Text

_HELD = "\ue000"  # stands for a space that holds; `characters.visible` leaves none of these in a text
_UNIT = r"(?:[GMkmµunpf]?(?:J|s|Ohm|V|A|S|W|Hz|m)|[KMGT]iB|bytes|LSB|dot|levels|points|nets|TOPS/W|s²)\b"
_SPACE = re.compile(rf"(?<=[\d?]) (?=[±%→]|{_UNIT})|(?<=[±→]) (?=[\d?])")
_WORD = re.compile(r"\s*\S+\s*")
_PART = re.compile(r".+?(?:[,;/](?=\D)|$)")  # of a word that is longer than a line


class Unbroken(Text):
    """A text whose lines end between words, but neither before a unit nor about a ±; long words end at commas and slashes."""

    @classmethod
    def of(cls, text: Text) -> Unbroken:
        """The same text."""
        made = cls(style=text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap, end=text.end)
        made.append_text(text)
        return made

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        """The lines of at most so many characters; see `Text.wrap`. With the overflow "ignore", words stay whole."""
        if options.get("no_wrap"):
            return super().wrap(console, width, **options)
        lines: list[Text] = []
        for line in self.split(allow_blank=True):
            parts = line.divide(list(_ends(line.plain, width, options.get("overflow") != "ignore")))
            for part in parts:
                part.rstrip()
            lines += parts
        return Text("\n", style=self.style).join(lines).wrap(console, width, **options)


def _ends(line: str, width: int, fold: bool) -> Iterator[int]:
    """Where a line is broken: the numbers of characters before each break."""
    used = 0
    for match in _WORD.finditer(_SPACE.sub(_HELD, line)):
        for start, part in _pieces(match, width) if fold else [(match.start(), match[0])]:
            if used and used + cell_len(part.rstrip()) > width:
                yield start
                used = 0
            used += cell_len(part)


def _pieces(word: re.Match[str], width: int) -> Iterator[tuple[int, str]]:
    """A word with its place, or where it is longer than a line its parts."""
    if cell_len(word[0].rstrip()) <= width:
        yield word.start(), word[0]
        return
    start = word.start()
    for part in _PART.findall(word[0]):
        for piece in [part] if cell_len(part.rstrip()) <= width else chop_cells(part, width):
            yield start, piece
            start += len(piece)
