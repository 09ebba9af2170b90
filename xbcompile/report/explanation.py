"""The table of `explain`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.report.fitted import FittedTable

WIDTH = 120  # characters of the table at most


def print_explanation(console: Console, explanation: dict[str, Any]) -> None:
    """One row per node of the model, and the totals."""
    what = ": rows x columns x vectors, and MACs (multiply-accumulates), per inference"
    console.print(Text.assemble((explanation["model"], "bold"), what))
    table = FittedTable(narrow="stack")
    table.add_column("node", max_width=40)
    table.add_column("operator", max_width=24)
    table.add_column("on arrays", max_width=34)
    table.add_column("digital", max_width=44)
    table.add_column("MACs", justify="right")
    for node in explanation["nodes"]:
        table.add_row(
            "  " * bool(node["inside"]) + node["node"],
            node["operator"],
            " + ".join(matrix_text(matrix) for matrix in node["matrices"]),
            node["reason"],
            "?" if node["macs"] is None else f"{node['macs']:,}" if node["macs"] else "",
        )
    console.print(table, width=min(console.width, WIDTH))
    _print_totals(console, explanation)


def matrix_text(matrix: dict[str, Any]) -> str:
    """`784x128x1`, with the groups before it where there are several: `32 x 9x1x196`."""
    groups = f"{matrix['groups']} x " if matrix["groups"] > 1 else ""
    vectors = "?" if matrix["vectors"] is None else matrix["vectors"]
    return f"{groups}{matrix['inputs']}x{matrix['outputs']}x{vectors}"


def _print_totals(console: Console, explanation: dict[str, Any]) -> None:
    total = explanation["totals"]
    share = "nothing to count" if total["share_percent"] is None else f"{total['share_percent']:.2f} %"
    uncounted = (
        f"; {_count(total['uncounted'], 'matrix product')} of unknown size not counted" if total["uncounted"] else ""
    )
    facts = f" ({total['macs_on_arrays']:,} of {total['macs']:,} per inference{uncounted})"
    console.print(Text.assemble("MACs on arrays: ", (share, "bold"), facts))
    console.print(
        f"{_count(total['nodes'], 'node')}, {total['lowered']:,} of them on arrays: "
        f"{_count(total['matrices'], 'matrix', 'matrices')}, {_count(total['weights'], 'weight')}; "
        f"{_count(total['segments'], 'digital segment')}"
    )
    console.print(f"samples: {explanation['samples']}")
    if explanation["open_dimensions"]:
        names = explanation["open_dimensions"]
        options = " ".join(f"--dim {name}=SIZE" for name in names)
        console.print(f"open dimensions: {', '.join(names)}; to fix: {options}")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
