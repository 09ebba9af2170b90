"""Two programs side by side: what was decided otherwise, and what came of it. Every key is documented in docs/json.md."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from xbcompile.program.program import Program
from xbcompile.report.fitted import FittedTable
from xbcompile.report.summary import summarize
from xbcompile.units import percent, si

# What is compared of the totals, with what it is called on the terminal.
FIGURES = {
    "images": "weight images",
    "images_lower_bound": "area bound",
    "utilisation": "utilisation",
    "tiles": "tiles",
    "weight_updates": "weight updates",
    "reads_per_inference": "reads per inference",
    "makespan_s": "time of a batch",
    "t_per_inference_s": "time per inference",
    "e_read_per_inference_j": "read energy per inference",
    "e_write_per_inference_j": "write energy per inference",
    "e_per_inference_j": "energy per inference",
}
_LAYER_FIGURES = ("inputs", "outputs", "levels", "input_code", "slices", "tiles", "images", "reads_per_inference")
_PROGRAM = ("model", "target", "pipeline", "arrays", "batch", "stationary", "cuts", "packing", "floorplan")


def compare(first: Program, second: Program) -> dict[str, Any]:
    """What differs between two programs.

    Args:
        first: one program.
        second: the other one.

    Returns:
        `same` (whether their files are equal); `decided`: option or number of the target by name, with both values; `figures`:
        totals of both and the second over the first; `layers`: those that differ, by name, with both values of what does.
    """
    one, two = summarize(first), summarize(second)
    return {
        "same": first.digest == second.digest,
        "digests": [first.digest, second.digest],
        "decided": _decided(first, second, one, two),
        "figures": [
            {"figure": name, "first": a, "second": b, "ratio": b / a if a and b is not None else None}
            for name in FIGURES
            for a, b in [(one["totals"][name], two["totals"][name])]
        ],
        "layers": _layers(one["layers"], two["layers"]),
    }


def _decided(first: Program, second: Program, one: dict[str, Any], two: dict[str, Any]) -> list[dict[str, Any]]:
    found = {name: (one["program"][name], two["program"][name]) for name in _PROGRAM}
    found |= {
        f"option {name}": (one["options"].get(name), two["options"].get(name))
        for name in dict.fromkeys([*one["options"], *two["options"]])
    }
    numbers = [
        {name: quantity["value"] for name, quantity in program.target.quantities.items()} for program in (first, second)
    ]
    found |= {
        f"target {name}": (numbers[0].get(name), numbers[1].get(name))
        for name in dict.fromkeys([*numbers[0], *numbers[1]])
    }
    return [{"what": name, "first": a, "second": b} for name, (a, b) in found.items() if a != b]


def _layers(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{row["layer"]: row for row in rows} for rows in (one, two)]
    found = []
    for name in dict.fromkeys([*rows[0], *rows[1]]):
        a, b = rows[0].get(name), rows[1].get(name)
        if a is None or b is None:
            found.append({"layer": name, "only_in": "first" if b is None else "second", "differs": {}})
            continue
        differs = {key: [a[key], b[key]] for key in _LAYER_FIGURES if a[key] != b[key]}
        if differs:
            found.append({"layer": name, "only_in": None, "differs": differs})
    return found


def print_comparison(console: Console, result: dict[str, Any]) -> None:
    """The comparison as tables.

    Args:
        console: where.
        result: of `compare`, with what the two programs are called as `names`, and `runs` where there were some.
    """
    names = result["names"]
    if result["same"]:
        console.print("the two files hold the same program")
    if result["decided"]:
        table = FittedTable("decided", *names)
        for row in result["decided"]:
            table.add_row(row["what"], *(value_text(row[each]) for each in ("first", "second")))
        console.print(table)
    table = FittedTable("figure")
    for name in (*names, "second / first"):
        table.add_column(name, "right")
    for row in result["figures"]:
        table.add_row(
            FIGURES[row["figure"]],
            *(figure_text(row["figure"], row[each]) for each in ("first", "second")),
            ratio_text(row["ratio"]),
        )
    console.print(table)
    if result["layers"]:
        table = FittedTable("layer", "what differs", narrow="stack")
        for row in result["layers"]:
            words = [
                f"{key.replace('_', ' ')} {value_text(a)} -> {value_text(b)}" for key, (a, b) in row["differs"].items()
            ]
            table.add_row(row["layer"], "; ".join(words) or f"only in the {row['only_in']} program")
        console.print(table)
    for name, run in zip(names, result.get("runs", ()), strict=False):
        accuracy = run["accuracy"]
        said = "no labels" if accuracy is None else f"accuracy {percent(accuracy['mean'])}"
        console.print(f"{name} on {run['device']}: {said}, {run['samples']:,} samples")


def figure_text(figure: str, value: float) -> str:
    """A figure with its unit.

    Args:
        figure: one of `FIGURES`.
        value: in SI units.
    """
    if figure.endswith(("_s", "_j")):
        return si(value, "s" if figure.endswith("_s") else "J")
    return percent(value, 1) if figure == "utilisation" else f"{value:,}"


def ratio_text(ratio: float | None) -> str:
    """How many times a figure is another one, three digits.

    Args:
        ratio: None: there is none.
    """
    return "-" if ratio is None else f"{ratio:,.0f}" if ratio >= 1000 else f"{ratio:.3g}"


def value_text(value: Any) -> str:
    """A decision as text: texts as they are, others as JSON.

    Args:
        value: plain data.
    """
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)
