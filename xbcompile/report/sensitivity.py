"""The effect of assumed numbers as a table and as a tornado plot: the widest bar at the top."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from xbcompile.report.fitted import FittedTable
from xbcompile.report.plot_style import COLOURS, literal, new_figure, plot_style, rendered

Result = dict[str, Any]

_MOST_BARS = 30


def print_sensitivity(console: Console, result: Result) -> None:
    """What `sensitivity --json` gives, as a table."""
    console.print(
        f"{result['model']} on {result['target']}, {result['samples']:,} samples of {result['data']}, {result['repeat']} "
        f"chips: software {result['software']:.2f} %, array {_accuracy(result['baseline'])} %"
    )
    table = FittedTable(thin=True)
    for name in ("assumed", "value", "low", "array", "high", "array", "swing", ""):
        table.add_column(name, justify="left" if name in ("assumed", "") else "right")
    for row in result["numbers"]:
        ends = [cell for end in (row["low"], row["high"]) for cell in (f"{end['value']:g}", _cell(end))]
        told = "none" if _without_effect(result, row) else "noise" if row["within_noise"] else ""
        table.add_row(row["name"], f"{row['value']:g}", *ends, f"{row['swing']:.2f}", told)
    console.print(table)
    noise = result["noise"]
    compared = (
        "one chip alone says nothing of noise" if noise is None else f"up to {noise:.2f} may be noise of the chips"
    )
    console.print(f"accuracies in per cent, swings in points; {compared}; {result['seconds']:.0f} s")
    for row in result["numbers"]:
        for end in (row["low"], row["high"]):
            if end["error"] is not None:
                console.print(f"{row['name']} = {end['value']:g} cannot be: {end['error']}")


def _without_effect(result: Result, row: dict[str, Any]) -> bool:
    """Whether every chip does the same at both ends."""
    own = result["baseline"]["per_seed"]
    return all(end["accuracy"] is not None and end["accuracy"]["per_seed"] == own for end in (row["low"], row["high"]))


def _cell(end: dict[str, Any]) -> str:
    return "error" if end["accuracy"] is None else f"{end['accuracy']['mean']:.2f}"


def _accuracy(found: dict[str, Any]) -> str:
    return f"{found['mean']:.2f}" + ("" if found["std"] is None else f" ± {found['std']:.2f}")


def plot_sensitivity(result: Result) -> dict[str, bytes]:
    """The tornado plot of what `sensitivity --json` gives; at most 30 numbers, those with the largest swing.

    Returns:
        file contents by ending: png and svg.
    """
    rows = result["numbers"][:_MOST_BARS]
    own = result["baseline"]["mean"]
    with plot_style():
        figure, (axes,) = new_figure(width=7.0, height=1.4 + 0.42 * len(rows))
        for key, colour in (("low", COLOURS[0]), ("high", COLOURS[1])):
            ends = [row[key]["accuracy"] for row in rows]
            widths = [0.0 if end is None else end["mean"] - own for end in ends]
            # One above the other, as both may lie on one side; the axis points down.
            places = [place + (-0.19 if key == "low" else 0.19) for place in range(len(rows))]
            axes.barh(places, widths, height=0.36, left=own, color=colour, label=f"at the {key} end")
        if result["noise"]:
            label = f"may be noise of {result['repeat']} chips"
            axes.axvspan(
                own - result["noise"],
                own + result["noise"],
                color="#999999",
                alpha=0.25,
                linewidth=0,
                label=label,
                zorder=0,
            )
        axes.axvline(own, color="black", linewidth=1, label=f"as described: {_accuracy(result['baseline'])} %")
        axes.set_yticks(range(len(rows)), [literal(_row_label(row)) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel(literal(f"accuracy on the array (%), {result['samples']:,} samples of {result['data']}"))
        title = f"{os.path.basename(result['model'])} on {result['target']}: assumed numbers"
        axes.set_title(literal(title), fontsize=9)
        axes.margins(x=0.08)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return rendered(figure)


def _row_label(row: dict[str, Any]) -> str:
    """Name and range of a number; an end that cannot be is named."""
    low, high = (
        f"{end['value']:g}" + (" (fails)" if end["accuracy"] is None else "") for end in (row["low"], row["high"])
    )
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    return f"{row['name']}\n{row['value']:g} ({low} to {high}){unit}"
