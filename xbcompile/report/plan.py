"""Terminal tables of plans."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from xbcompile.units import percent, si

_MOST_LAYERS = 60  # assumed: what a reader of a terminal scrolls through; --json has all
_UNITS = {"latency_s": "s", "period_s": "s", "t_per_inference_s": "s", "energy_j": "J"}


def print_plan(console: Console, summary: dict[str, Any]) -> None:
    """Layers, totals with bounds, what was tried, requirements and notes."""
    plan, total = summary["plan"], summary["totals"]
    arrays = plan["arrays"]
    held = "weights stay" if plan["stationary"] else "recycled"
    console.print(
        f"plan of [bold]{plan['network']}[/] on [bold]{plan['target']}[/] ({plan['array_rows']}x{plan['array_columns']}, "
        f"{arrays:,} array{'s' * (arrays > 1)}, {held}): {plan['cuts']} cuts, packing {plan['packing']}"
    )
    _print_layers(console, summary["layers"], total)
    _print_totals(console, plan, total)
    if len(summary["candidates"]) > 1:
        _print_candidates(console, plan, summary["candidates"])
    console.print(f"slices of inputs: {plan['slices_from']}", markup=False, emoji=False)
    for note in summary["notes"]:
        console.print(f"note: {note}", markup=False, emoji=False)
    for requirement in summary["requirements"]:
        _print_requirement(console, requirement)
    console.print(f"tables checked; planned in {summary['seconds']:.1f} s")


def _print_layers(console: Console, layers: list[dict[str, Any]], total: dict[str, Any]) -> None:
    caption = "reads and read time (one read after another): per inference; share: of the time that arrays are read and written"
    table = Table("layer", "matrix", header_style="bold", caption=caption)
    for name in ("vectors", "slices", "tiles", "images", "updates", "reads", "utilisation", "read time", "share"):
        table.add_column(name, justify="right")
    for layer in layers[:_MOST_LAYERS]:
        vectors = layer["vectors_per_inference"]
        table.add_row(
            layer["layer"],
            f"{layer['groups']:,}x " * (layer["groups"] > 1) + f"{layer['inputs']}x{layer['outputs']}",
            "?" if vectors is None else f"{vectors:,}",
            str(layer["slices"]),
            f"{layer['tiles']:,}",
            f"{layer['images']:,}",
            f"{layer['weight_updates']:,}",
            f"{layer['reads_per_inference']:,}",
            percent(layer["utilisation"], 1),
            si(layer["t_read_per_inference_s"], "s"),
            percent(layer["share_of_array_time"], 1),
        )
    if len(layers) > _MOST_LAYERS:
        table.add_row(f"... {len(layers) - _MOST_LAYERS:,} more")
    table.add_section()
    table.add_row(
        "total",
        f"{total['weights']:,} weights",
        "",
        "",
        f"{total['tiles']:,}",
        f"{total['images']:,}",
        f"{total['weight_updates']:,}",
        f"{total['reads_per_inference']:,}",
        percent(total["utilisation"], 1),
        si(sum(layer["t_read_per_inference_s"] for layer in layers), "s"),
        "",
    )
    console.print(table)


def _print_totals(console: Console, plan: dict[str, Any], total: dict[str, Any]) -> None:
    once = "once" if plan["stationary"] else f"per batch of {plan['batch']:,}"
    console.print(
        f"images: [bold]{total['images']:,}[/], area bound {total['images_lower_bound']:,} "
        f"(gap {percent(total['images_gap'], 1)}; packing {plan['packing_status']}, at least "
        f"{total['images_lower_bound_of_packing']:,} with its cuts and order)"
    )
    console.print(
        f"weight updates {once}: [bold]{total['weight_updates']:,}[/] (at least {total['weight_updates_lower_bound']:,})"
    )
    console.print(
        f"time per batch {_with_bound(total['makespan_s'], total['makespan_lower_bound_s'])}, from one batch to the next "
        f"{_with_bound(total['period_s'], total['period_lower_bound_s'])}, per inference {si(total['t_per_inference_s'], 's')}"
    )
    console.print(
        f"energy per inference {si(total['e_per_inference_j'], 'J')} (reads {si(total['e_read_per_inference_j'], 'J')}, "
        f"writes {si(total['e_write_per_inference_j'], 'J')})"
    )


def _with_bound(value_s: float, bound_s: float) -> str:
    gap = f", gap {percent(value_s / bound_s - 1, 1)}" if bound_s else ""
    return f"{si(value_s, 's')} (at least {si(bound_s, 's')}{gap})"


def _print_candidates(console: Console, plan: dict[str, Any], candidates: list[dict[str, Any]]) -> None:
    table = Table("tried", "cuts", "packing", header_style="bold")
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
    what = "images at least" if row["limit"] is None else "at least"
    console.print(f"requirement {row['asked']}: [bold]{row['verdict']}[/]; found {found}, {what} {bound}")
    if row["verdict"] == "met":
        return
    lines = [f"binds: {row['binds']}"]
    for relaxation in row["relaxations"]:
        option, least = relaxation["option"], relaxation["at_least"]
        proven = " (no smaller one will do)" if least == option else f" (bounds leave open {least})" * bool(least)
        lines.append(f"met with {option}{proven}: {_given_text(relaxation)}")
    for line in lines if row["relaxations"] else [*lines, "no single change of an option was found that meets it"]:
        console.print(f"  {line}", markup=False, emoji=False, soft_wrap=True)


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
