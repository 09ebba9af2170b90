"""What notebooks show of a value: one line, and a table below it, as HTML; whatever names are in them, they are only text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_AMOUNT = re.compile(r"[-−±]?\d[\d,.e+-]*( \S+)?")  # a number, and maybe its unit
MOST_ROWS = 20  # that a notebook shows; assumed


def html_text(text: str) -> str:
    """A paragraph.

    Args:
        text: any text.
    """
    return f"<p>{escape(printable(text))}</p>"


def html_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", most: int = MOST_ROWS
) -> str:
    """A table of which the first rows are shown, and how many more there are.

    Args:
        columns: their headers; none: the table has none.
        rows: a cell for each column; numbers, and texts of one with its unit, stand at the right.
        caption: above the table.
        most: rows that are shown.
    """
    listed = list(rows)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in listed[:most])
    head = "".join(f'<th scope="col" style="text-align:left">{escape(printable(name))}</th>' for name in columns)
    title = f"<caption>{escape(printable(caption))}</caption>" if caption else ""
    more = len(listed) - most
    rest = f"<p>and {more:,} more</p>" if more > 0 else ""
    above = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f"<table>{title}{above}<tbody>{body}</tbody></table>{rest}"


def _cell(value: object) -> str:
    text = printable("" if value is None else f"{value:,}" if isinstance(value, int) else str(value))
    side = "right" if _AMOUNT.fullmatch(text) else "left"
    return f'<td style="text-align:{side}">{escape(text)}</td>'


def printable(text: str) -> str:
    """The same text, where what a terminal would obey, or what turns around the order of letters, is spelled out.

    Args:
        text: any text; ends of lines stay.
    """
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)
