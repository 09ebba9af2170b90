"""Terminal tables of plans."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from xbcompile.report.fitted import FittedTable
from xbcompile.report.mapping import arrays_text, energy_text, images_text, layer_table, times_text, updates_text
from xbcompile.units import si

_COLUMNS = ("vectors", "slices", "tiles", "images", "updates", "reads", "utilisation", "read time", "share")
_UNITS = {"latency_s": "s", "period_s": "s", "t_per_inference_s": "s", "energy_j": "J"}


def print_plan(console: Console, summary: dict[str, Any]) -> None:
    """Layers, totals with bounds, what was tried, requirements and notes."""
    plan, total = summary["plan"], summary["totals"]
    facts = (
        f" ({plan['array_rows']}x{plan['array_columns']}, {arrays_text(plan)}): {plan['cuts']} cuts, "
        f"packing {plan['packing']}"
    )
    console.print(Text.assemble("plan of ", (plan["network"], "bold"), " on ", (plan["target"], "bold"), facts))
    caption = "reads and read time (one read after another): per inference; share: of the time that arrays are read and written"
    console.print(layer_table(summary["layers"], total, _COLUMNS, caption))
    packed = f"; so cut and ordered, at least {total['images_lower_bound_of_packing']:,}"
    console.print(images_text(plan, total) + packed)
    console.print(updates_text(plan, total))
    console.print(times_text(total))
    console.print(energy_text(total))
    if len(summary["candidates"]) > 1:
        _print_candidates(console, plan, summary["candidates"])
    console.print(f"slices of inputs: {plan['slices_from']}")
    for note in summary["notes"]:
        console.print(f"note: {note}")
    for requirement in summary["requirements"]:
        _print_requirement(console, requirement)
    console.print(f"tables checked; planned in {summary['seconds']:.1f} s")


def _print_candidates(console: Console, plan: dict[str, Any], candidates: list[dict[str, Any]]) -> None:
    caption = "at least: no packing with these cuts and this order has fewer images"
    table = FittedTable("tried", "cuts", "packing", caption=caption)
    for name in ("images", "at least", "tiles", "updates per batch", "time per batch", "energy per inference"):
        table.add_column(name, justify="right")
    for row in candidates:
        chosen = (row["cuts"], row["packing"]) == (plan["cuts"], plan["packing"])
        table.add_row(
            "chosen" if chosen else "",
            row["cuts"],
            row["packing"],
            f"{row['images']:,}",
            f"{row['images_lower_bound']:,}",
            f"{row['tiles']:,}",
            f"{row['weight_updates']:,}",
            si(row["latency_s"], "s"),
            si(row["energy_j"], "J"),
        )
    console.print(table)


def _print_requirement(console: Console, row: dict[str, Any]) -> None:
    """One requirement, and where it is not met what binds and what would help."""
    found, bound = _amount(row["quantity"], row["found"]), _amount(row["quantity"], row["lower_bound"])
    what = "images, at least" if row["limit"] is None else "at least"
    facts = f"; found {found}; {what} {bound}, however it is mapped under these options"
    console.print(Text.assemble(f"requirement {row['asked']}: ", (row["verdict"], "bold"), facts))
    if row["verdict"] == "met":
        return
    lines = [f"binds: {row['binds']}"]
    for relaxation in row["relaxations"]:
        option, least = relaxation["option"], relaxation["at_least"]
        proven = " (no smaller one will do)" if least == option else f" (bounds leave open {least})" * bool(least)
        lines.append(f"met with {option}{proven}: {_given_text(relaxation)}")
    for line in lines if row["relaxations"] else [*lines, "no single change of an option was found that meets it"]:
        console.print(Padding(line, (0, 0, 0, 2)))


def _amount(quantity: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return si(value, _UNITS[quantity]) if quantity in _UNITS else f"{value:,}"


def _given_text(row: dict[str, Any]) -> str:
    others = "" if row["meets_all"] else "; another requirement is not met then"
    return (
        f"{row['images']:,} image{'s' * (row['images'] > 1)} on {row['arrays']:,} array{'s' * (row['arrays'] > 1)}, "
        f"{row['weight_updates']:,} weight updates per batch, time per batch {si(row['latency_s'], 's')}, "
        f"energy per inference {si(row['energy_j'], 'J')}{others}"
    )
