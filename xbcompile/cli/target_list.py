"""The listing of targets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xbcompile.targets import Target


def print_targets(console: Console, targets: list[Target]) -> None:
    """One line per target."""
    table = Table("target", "array", "devices", "what", "default passes", header_style="bold")
    for target in targets:
        spec = target.array_spec
        size = f"{spec.rows}x{spec.columns}"
        told = map(
            escape, (target.name, size, ", ".join(target.device_names), target.summary, target.pipeline or "none")
        )
        table.add_row(*told)
    console.print(table)


def print_target(console: Console, target: Target) -> None:
    """All numbers of one target."""
    console.print(
        f"[bold]{escape(target.name)}[/]: {escape(target.summary)}\npaper: {escape(target.paper)}\nmodel: {target.model}"
    )
    console.print(
        f"devices: {', '.join(target.device_names)}\ndefault passes: {target.pipeline or 'none'}", markup=False
    )
    table = Table("quantity", "value", "range", "unit", "what", "source", header_style="bold")
    ranges = target.assumed_ranges
    for name, entry in target.quantities.items():
        tried = f"{ranges[name].low:g} to {ranges[name].high:g}" if name in ranges else ""
        what, source = target.declared[name].doc, escape(entry["source"])
        table.add_row(name, f"{entry['value']:g}", tried, entry["unit"], what, source)
    console.print(table)
    if ranges:
        console.print("range: of assumed numbers, to be tried by 'xbcompile sensitivity'", markup=False)


def target_json(target: Target) -> dict[str, Any]:
    """One target as plain data."""
    return {
        "name": target.name,
        "model": target.model,
        "summary": target.summary,
        "paper": target.paper,
        "pipeline": target.pipeline,
        "devices": list(target.device_names),
        "quantities": target.quantities,
        "assumed": {name: asdict(each) for name, each in target.assumed_ranges.items()},
    }
