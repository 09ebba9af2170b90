"""What a program costs on the arrays, from its schedule and the target's own numbers: without a run."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from xbcompile.program.program import Program
from xbcompile.report.mapping import energy_text, layer_table, times_text, updates_text
from xbcompile.report.summary import summarize

_LAYER_KEYS = (
    "layer", "groups", "inputs", "outputs", "tiles", "images", "weight_updates", "reads_per_inference",
    "dot_products_per_inference", "e_read_per_inference_j", "t_read_per_inference_s", "share_of_array_time",
)  # fmt: skip
_COLUMNS = ("updates", "reads", "read energy", "read time", "share")


def cost_facts(program: Program) -> dict[str, Any]:
    """Reads, writes, energy (joules) and time (seconds) of each layer and in all, with `program` and `totals` as in `summarize`.

    Args:
        program: the program.
    """
    facts = summarize(program)
    layers = [{name: row[name] for name in _LAYER_KEYS} for row in facts["layers"]]
    return {"program": facts["program"], "layers": layers, "totals": facts["totals"]}


def print_cost(console: Console, facts: dict[str, Any]) -> None:
    """A row for each layer, then writes, time and energy.

    Args:
        console: where to print.
        facts: of `cost_facts`.
    """
    caption = "reads, read energy and read time (one read after another): per inference; digital parts are not included"
    console.print(layer_table(facts["layers"], facts["totals"], _COLUMNS, caption))
    console.print(updates_text(facts["program"], facts["totals"]))
    console.print(times_text(facts["totals"]))
    console.print(energy_text(facts["totals"]))
