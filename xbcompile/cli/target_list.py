"""The listing of targets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.report.fitted import FittedTable
from xbcompile.targets import Target


def print_targets(console: Console, targets: list[dict[str, Any]]) -> None:
    """One line per target."""
    table = FittedTable("target", "array", "devices", "what", "default passes", narrow="stack")
    for target in targets:
        devices, passes = ", ".join(target["devices"]), target["pipeline"] or "none"
        table.add_row(target["name"], target["size"], devices, target["summary"], passes)
    console.print(table)


def print_target(console: Console, target: dict[str, Any]) -> None:
    """All numbers of one target."""
    console.print(Text.assemble((target["name"], "bold"), f": {target['summary']}"))
    console.print(f"paper: {target['paper']}\nmodel: {target['model']}")
    console.print(f"devices: {', '.join(target['devices'])}\ndefault passes: {target['pipeline'] or 'none'}")
    table = FittedTable("quantity", "value", "range", "unit", "what", "source", narrow="stack")
    ranges = target["assumed"]
    for name, entry in target["quantities"].items():
        tried = f"{ranges[name]['low']:g} to {ranges[name]['high']:g}" if name in ranges else ""
        table.add_row(name, f"{entry['value']:g}", tried, entry["unit"], target["what"][name], entry["source"])
    console.print(table)
    if ranges:
        console.print("range: of assumed numbers, to be tried by 'xbcompile sensitivity'")


def target_facts(target: Target) -> dict[str, Any]:
    """What is printed of a target: its plain data, the size of an array, and what each quantity is."""
    spec = target.array_spec
    what = {name: target.declared[name].doc for name in target.quantities}
    return {**target_json(target), "size": f"{spec.rows}x{spec.columns}", "what": what}


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
