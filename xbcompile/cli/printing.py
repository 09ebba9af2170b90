"""Listings of targets and passes, and networks between passes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xbcompile.errors import PipelineError
from xbcompile.ir import DigitalSegment, Executed, Network, Recurrence
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import NetworkPass, Pass
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.targets import Target


def network_printer(
    print_after: str | None, passes: str | None, target: Target
) -> Callable[[Pass, Network], None] | None:
    """A callback that prints the network after the named pass, or after every pass for 'all'."""
    if print_after is None:
        return None
    pipeline = parse_pipeline(target.pipeline if passes is None else passes)
    allowed = ["all", *(p.name for p in pipeline if isinstance(p, NetworkPass))]
    if print_after not in allowed:
        raise PipelineError(
            f"--print-after {print_after!r} is no network pass of the pipeline; allowed: {', '.join(allowed)}"
        )

    def show(each: Pass, network: Network) -> None:
        if print_after in ("all", each.name):
            print(f"after {each}:\n{network_text(network)}", file=sys.stderr)

    return show


def network_text(network: Network) -> str:
    """One line per node, in order of execution; a recurrence's body is indented."""
    lines = []
    for node in network.nodes:
        lines.extend(_recurrence_lines(node) if isinstance(node, Recurrence) else [_node_line(node)])
    return "\n".join(lines)


def _recurrence_lines(node: Recurrence) -> list[str]:
    steps = "as many steps as there are entries" if node.steps is None else f"{node.steps} steps"
    head = f"  recurrence {node.name}: ({', '.join(node.input_names)}) -> ({', '.join(node.output_names)}): {steps}"
    return [head, *(f"  {_node_line(inner)}" for inner in node.nodes)]


def _node_line(node: Executed) -> str:
    if isinstance(node, DigitalSegment):
        operators = ", ".join(n.op_type for n in node.model.graph.node)
        return (
            f"  digital {node.name}: ({', '.join(node.input_names)}) -> ({', '.join(node.output_names)}): {operators}"
        )
    code, input_code = node.weight_code, node.input_code
    weights = "real weights" if code is None else "continuous" if code.levels is None else f"{len(code.levels)} levels"
    inputs = "inputs as they are" if input_code is None else f"{input_code.scheme} x{input_code.bits}"
    shape = "x".join(map(str, node.shape))
    return f"  matrix {node.name}: {node.input} -> {node.output}: [{shape}], {weights}, {inputs}, {node.geometry}"


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
    table = Table("quantity", "value", "unit", "what", "source", header_style="bold")
    for name, entry in target.quantities.items():
        table.add_row(name, f"{entry['value']:g}", entry["unit"], target.declared[name].doc, escape(entry["source"]))
    console.print(table)


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
    }


def describe_passes() -> list[dict[str, Any]]:
    """Every pass with its options and defaults."""
    described = []
    for name in pass_names():
        loaded = load_pass(name)
        first_line = (loaded.__doc__ or "").strip().splitlines()[0]
        options = {f.name: None if f.default is MISSING else f.default for f in fields(loaded)}  # type: ignore[arg-type]  # passes are dataclasses
        described.append({"name": name, "what": first_line, "options": options})
    return described


def print_passes(console: Console, described: list[dict[str, Any]]) -> None:
    """One line per pass."""
    table = Table("pass", "options (default)", "what", header_style="bold")
    for each in described:
        options = " ".join(f"{key}={_shown(value)}" for key, value in each["options"].items())
        table.add_row(each["name"], options, each["what"])
    console.print(table)


def _shown(value: Any) -> str:
    return "none" if value is None else "''" if value == "" else str(value)
