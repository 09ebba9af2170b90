"""What terminal tables of programs and of plans share: the table of layers, and totals beside their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from xbcompile.report.fitted import FittedTable
from xbcompile.units import percent, si

MOST_LAYERS = 60  # assumed: what a reader of a terminal scrolls through; --json has all
_LEFT = ("code", "input")

Facts = dict[str, Any]
# Text of a layer, and of the sums, by column.
_COLUMNS: dict[str, tuple[Callable[[Facts], str], Callable[[Facts], str]]] = {
    "code": (lambda row: "real" if row["levels"] is None else f"{row['levels']} levels", lambda total: ""),
    "input": (lambda row: _input_text(row), lambda total: ""),
    "vectors": (lambda row: _or_unknown(row["vectors_per_inference"]), lambda total: ""),
    "slices": (lambda row: str(row["slices"]), lambda total: ""),
    "tiles": (lambda row: f"{row['tiles']:,}", lambda total: f"{total['tiles']:,}"),
    "images": (lambda row: f"{row['images']:,}", lambda total: f"{total['images']:,}"),
    "updates": (lambda row: f"{row['weight_updates']:,}", lambda total: f"{total['weight_updates']:,}"),
    "reads": (lambda row: f"{row['reads_per_inference']:,}", lambda total: f"{total['reads_per_inference']:,}"),
    "dot products": (
        lambda row: f"{row['dot_products_per_inference']:,}",
        lambda total: f"{total['dot_products_per_inference']:,}",
    ),
    "utilisation": (lambda row: percent(row["utilisation"], 1), lambda total: percent(total["utilisation"], 1)),
    "read energy": (
        lambda row: si(row["e_read_per_inference_j"], "J"),
        lambda total: si(total["e_read_per_inference_j"], "J"),
    ),
    "read time": (
        lambda row: si(row["t_read_per_inference_s"], "s"),
        lambda total: si(total["t_read_per_inference_s"], "s"),
    ),
    "share": (lambda row: percent(row["share_of_array_time"], 1), lambda total: ""),
}


def layer_table(layers: Sequence[Facts], total: Facts, columns: Sequence[str], caption: str) -> FittedTable:
    """One row per layer and one of totals, with these columns of `_COLUMNS` behind name and matrix."""
    table = FittedTable("layer", "matrix", caption=caption)
    for name in columns:
        table.add_column(name, justify="left" if name in _LEFT else "right")
    for row in layers[:MOST_LAYERS]:
        matrix = f"{row['groups']:,}x " * (row["groups"] > 1) + f"{row['inputs']}x{row['outputs']}"
        table.add_row(row["layer"], matrix, *(_COLUMNS[name][0](row) for name in columns))
    if len(layers) > MOST_LAYERS:
        table.add_row(f"... {len(layers) - MOST_LAYERS:,} more")
    table.add_section()
    sums = total | {"t_read_per_inference_s": sum(row["t_read_per_inference_s"] for row in layers)}
    table.add_row("total", f"{total['weights']:,} weights", *(_COLUMNS[name][1](sums) for name in columns))
    return table


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _input_text(row: Facts) -> str:
    if row["input_code"] == "none":
        return "as it is"
    text: str = row["input_code"]
    if row["slices"] > 1:
        text += f" {row['slices']} ({row['noise_power']:g} s²)"
    if row["input_low"] is None:
        return f"{text}, own range"
    return f"{text}, {row['input_low']:.3g}..{row['input_high']:.3g}"


def arrays_text(mapped: Facts) -> str:
    """How many arrays, and whether weights stay on them."""
    count = mapped["arrays"]
    return f"{count:,} array{'s' * (count > 1)}, {'weights stay' if mapped['stationary'] else 'recycled'}"


def images_text(mapped: Facts, total: Facts) -> Text:
    """Images, beside what no cuts and no packing go below."""
    bound = (
        f", at least {total['images_lower_bound']:,} by area, whatever the cuts "
        f"(gap {percent(total['images_gap'], 1)}; packing {mapped['packing_status']})"
    )
    return Text.assemble("images: ", (f"{total['images']:,}", "bold"), bound)


def updates_text(mapped: Facts, total: Facts) -> Text:
    """Weight updates, beside what no schedule of these images goes below."""
    once = "once" if mapped["stationary"] else f"per batch of {mapped['batch']:,}"
    least = f"at least {total['weight_updates_lower_bound']:,} with these images"
    return Text.assemble(f"weight updates {once}: ", (f"{total['weight_updates']:,}", "bold"), f" ({least})")


def times_text(total: Facts) -> str:
    """Times, beside what no schedule of these images goes below."""
    text = f"time per batch {_with_bound(total['makespan_s'], total['makespan_lower_bound_s'])}"
    if total["period_s"] != total["makespan_s"]:
        text += f", a batch every {_with_bound(total['period_s'], total['period_lower_bound_s'])}"
    return f"{text}, per inference {si(total['t_per_inference_s'], 's')}"


def _with_bound(value_s: float, bound_s: float) -> str:
    gap = f", gap {percent(value_s / bound_s - 1, 1)}" if bound_s else ""
    return f"{si(value_s, 's')} (at least {si(bound_s, 's')} with these images{gap})"


def energy_text(total: Facts) -> str:
    """Energy per inference, of reads and of writes."""
    return (
        f"energy per inference {si(total['e_per_inference_j'], 'J')} (reads {si(total['e_read_per_inference_j'], 'J')}, "
        f"writes {si(total['e_write_per_inference_j'], 'J')})"
    )
