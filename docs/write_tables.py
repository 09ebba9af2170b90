"""Put the tables of a `xbcompile reproduce --json` result into docs/reproduction.md, between its marks."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from xbcompile.report.reproduction import Cell, number_cells, row_cells, system_of

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- (xbcompile reproduce[^>]*) -->\n.*?<!-- end -->", re.DOTALL)
ROWS = (
    "experiment", "by", "published", "software", "array", "networks", "worst", "drop", "chips", "weight updates", "reads",
    "digital MACs", "goal", "met",
)  # fmt: skip
NUMBERS = ("number", "by", "published", "here", "unit", "basis", "goal", "met")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="what `xbcompile reproduce --json` printed")
    parser.add_argument("--command", default="xbcompile reproduce", help="how it was called")
    options = parser.parse_args()
    result = json.loads(options.result.read_text())
    asked = [row["met"] for row in (*result["rows"], *result["measurements"]) if row["met"] is not None]
    told = (
        f"{sum(asked)} of {len(asked)} goals met in {result['seconds'] / 60:.1f} minutes on two cores; accuracies in per cent, "
        "drops in points."
    )
    parts = [
        *_by_system(result["rows"], ROWS, _full),
        *_by_system(result["measurements"], NUMBERS, _number),
        told,
    ]
    _replace(ROOT / "docs" / "reproduction.md", options.command, "\n\n".join(parts))


def _replace(path: Path, command: str, text: str) -> None:
    page, count = MARKED.subn(lambda _: f"<!-- {command} -->\n{text}\n<!-- end -->", path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{path} has {count} marked places; one is wanted")
    path.write_text(page, encoding="utf-8")


def _by_system(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], cells: Callable[..., dict[str, str]]
) -> list[str]:
    return [
        f"**{system}**\n\n{_table(columns, map(cells, members))}"
        for system, members in groupby(rows, lambda row: system_of(row["target"]))
    ]


def _table(columns: Sequence[str], rows: Any) -> str:
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(cells: dict[str, Cell]) -> dict[str, str]:
    """Cells without their styles; nothing where a terminal says none."""
    return {name: "" if str(cell) == "none" else str(cell) for name, cell in cells.items()}


def _full(row: dict[str, Any]) -> dict[str, str]:
    cells = _plain(row_cells(row, wide=True))
    return cells | {
        "experiment": f"{row['title']} (`{row['experiment']}`)",
        "weight updates": f"{row['weight_updates']:,}",
    }


def _number(row: dict[str, Any]) -> dict[str, str]:
    cells = _plain(number_cells(row, wide=True))
    note = f": {row['note']}" if row["note"] else ""
    return cells | {"number": f"{row['title']} (`{row['measurement']}`){note}", "unit": row["unit"]}


if __name__ == "__main__":
    main()
