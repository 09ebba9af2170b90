"""Tables of `xbcompile reproduce`: published accuracies and numbers beside those found here, system by system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.report.fitted import FittedTable

Row = dict[str, Any]
Cell = str | Text

_WIDE = 140  # characters; fewer would cut the cells of all columns
_LEFT = {"experiment", "measurement", "by", "goal", "basis", "unit", "note", "title"}
_ROWS_WIDE: tuple[str, ...] = (
    "experiment",
    "by",
    "published",
    "software",
    "array",
    "networks",
    "worst",
    "drop",
    "chips",
    "reads",
    "digital MACs",
    "goal",
    "met",
)
_ROWS_NARROW = (*(name for name in _ROWS_WIDE if name != "networks"), "title")  # by importance, as they are split
_NUMBERS_WIDE: tuple[str, ...] = ("measurement", "by", "published", "here", "unit", "basis", "goal", "met", "note")
_NUMBERS_NARROW = (*(name for name in _NUMBERS_WIDE if name != "unit"), "title")


def system_of(target: str) -> str:
    """The published system to which a target belongs: `sot` for `sot-single`."""
    return target.partition("-")[0]


def print_reproduction(console: Console, result: dict[str, Any]) -> None:
    """What `reproduce --json` gives, as tables; on a narrow console with the titles in a column of their own."""
    wide = console.width >= _WIDE
    rows, numbers = result["rows"], result["measurements"]
    if rows:
        columns = _ROWS_WIDE if wide else _ROWS_NARROW
        console.print(_table(columns, rows, lambda row: row_cells(row, wide)))
        console.print(
            "accuracies in per cent, drops in points; by: the paper's own procedure or ours; ± over chips, and under it over "
            "networks: sample standard deviations"
        )
    if numbers:
        columns = _NUMBERS_WIDE if wide else _NUMBERS_NARROW
        console.print(_table(columns, numbers, lambda row: number_cells(row, wide)))
        console.print(
            "basis: predicted from published numbers alone; calibrated so that this or a related number comes out; or resting on "
            "assumed numbers"
        )
    for each in result["figures"]:
        console.print(f"figure {each['figure']}: {', '.join(each['files'])}")
    asked = [row for row in (*rows, *numbers) if row["met"] is not None]
    missed = [row.get("experiment") or row["measurement"] for row in asked if not row["met"]]
    told = f"; missed: {', '.join(missed)}" if missed else ""
    console.print(f"{len(asked) - len(missed)} of {len(asked)} goals met{told}; {result['seconds']:.0f} s")


def _table(columns: Sequence[str], rows: list[Row], cells: Callable[[Row], dict[str, Cell]]) -> FittedTable:
    """Rows under a heading for each system, in their order."""
    table = FittedTable(thin=True)
    for name in columns:
        table.add_column(name, "left" if name in _LEFT else "right")
    for system, members in groupby(rows, lambda row: system_of(row["target"])):
        table.add_section()
        table.add_row(Text(system, "bold"))
        for row in members:
            found = cells(row)
            table.add_row(*(found[name] for name in columns))
    return table


def row_cells(row: Row, wide: bool) -> dict[str, Cell]:
    """An experiment's cells by the name of their column."""
    name, networks = row["experiment"], row["networks"]
    array = f"{row['array_mean']:.2f}"
    if row["seeds"] > 1:
        array += f" ± {row['array_std']:.2f}"
    between = f"{networks} ± {row['network_std']:.2f}" if networks > 1 else ""
    return {
        "experiment": f"{row['title']}\n{name}" if wide else name,
        "title": row["title"],
        "by": row["procedure"],
        "published": _published(row),
        "software": f"{row['software']:.2f}",
        "array": array if wide or not between else f"{array}\n{networks} nets {between.partition(' ')[2]}",
        "networks": between,
        "worst": f"{row['array_worst']:.2f}",
        "drop": f"{row['software'] - row['array_mean']:.2f}",
        "chips": str(row["seeds"]),
        "reads": f"{row['reads_per_inference']:,}",
        "digital MACs": f"{row['digital_macs_per_inference'] or 0:,}",
        "goal": row["goal"] or "",
        "met": _met(row),
    }


def number_cells(row: Row, wide: bool) -> dict[str, Cell]:
    """A measurement's cells by the name of their column; where there is no column for it, the unit follows the number."""
    name, unit = row["measurement"], "" if wide else f" {row['unit']}".rstrip()
    here = number(row["value"])
    if row["spread"] is not None:
        here += f" ± {number(row['spread'], 2)}"
    return {
        "measurement": f"{row['title']}\n{name}" if wide else name,
        "title": row["title"],
        "by": row["procedure"],
        "published": "none" if row["published"] is None else number(row["published"]) + unit,
        "here": here + unit,
        "unit": row["unit"],
        "basis": row["basis"],
        "goal": _asked(row["low"], row["high"]),
        "met": _met(row),
        "note": row["note"],
    }


def number(value: float, digits: int = 4) -> str:
    """A number of so many digits: thousands with commas, very large and very small ones with an exponent."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 1000 <= abs(rounded) < 1e9 else f"{rounded:.{digits}g}"


def _asked(low: float | None, high: float | None) -> str:
    """The range that is asked for."""
    if low is None or high is None:
        return "" if low is high else f"<= {high:g}" if low is None else f">= {low:g}"
    return f"{low:g} to {high:g}"


def _met(row: Row) -> Cell:
    return "" if row["met"] is None else "yes" if row["met"] else Text("no", "bold")


def _published(row: Row) -> str:
    software, array = row["published_software"], row["published_array"]
    if software is None and array is None:
        return "none"
    return f"{'?' if software is None else f'{software:g}'} → {'?' if array is None else f'{array:g}'}"
