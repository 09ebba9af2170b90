"""Terminal tables of programs and runs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.report.fitted import PIPED_WIDTH, FittedTable
from xbcompile.report.mapping import arrays_text, energy_text, images_text, layer_table, times_text, updates_text
from xbcompile.units import percent, si

_COLUMNS = (
    "code",
    "input",
    "tiles",
    "images",
    "updates",
    "reads",
    "dot products",
    "utilisation",
    "read energy",
    "read time",
)


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """The schedule summary that `compile` and `inspect` print."""
    program, total = summary["program"], summary["totals"]
    facts = (
        f" ({program['array_rows']}x{program['array_columns']}, {arrays_text(program)}): {program['cuts']} cuts, "
        f"packing {program['packing']}; passes: {program['pipeline'] or 'none'}"
    )
    console.print(Text.assemble((program["model"], "bold"), " on ", (program["target"], "bold"), facts))
    caption = "reads, dot products, read energy and read time (one read after another): per inference"
    console.print(layer_table(summary["layers"], total, _COLUMNS, caption))
    _print_schedule_facts(console, program, total)
    console.print(f"samples: {program['samples']}")
    if program["open_sizes"]:
        console.print(program["open_sizes"])
    for layer in summary["layers"]:
        if layer["digital_macs_per_inference"] is not None:
            console.print(
                f"layer {layer['layer']}: its digital projection takes {layer['digital_macs_per_inference']:,} multiplications "
                f"per inference, {percent(layer['digital_macs_share'], 1)} of what the layer would take without it"
            )
    digital = [node for node in summary["nodes"] if not node["lowered"]]
    for node in digital:
        console.print(f"digital: {node['node']} ({node['operator']}): {node['reason']}")
    for note in summary["notes"]:
        console.print(note)


def _print_schedule_facts(console: Console, program: dict[str, Any], total: dict[str, Any]) -> None:
    held = "" if program["stationary"] else f"; {total['initial_writes']:,} writes before the first"
    console.print(updates_text(program, total) + held * bool(total["initial_writes"]))
    console.print(images_text(program, total))
    if total["cells_written"] is not None:
        console.print(
            f"rows written per batch: {total['rows_written']:,} of {total['weight_updates'] * program['array_rows']:,}; "
            f"cells that change: {total['cells_written']:,}"
        )
    console.print(times_text(total))
    console.print(energy_text(total))
    if program["floorplan"] is not None:
        console.print(
            f"floorplan {program['floorplan']}: {total['hop_values']:,} values x hops per inference "
            f"(at least {total['hop_values_lower_bound']:,})"
        )


def print_schedule(console: Console, rows: list[dict[str, Any]]) -> None:
    """The steps, one per line."""
    table = FittedTable()
    for name in ("start", "end", "step", "array", "image", "tile", "what"):
        table.add_column(name, "left" if name in ("step", "what") else "right")
    for row in rows:
        what = (
            ""
            if row["operation"] == "write"
            else (
                f"{row['layer']}[{row['inputs'][0]}:{row['inputs'][1]}, {row['outputs'][0]}:{row['outputs'][1]}] "
                f"at row {row['row']}, {row['reads']:,} reads"
            )
        )
        table.add_row(
            si(row["start_s"], "s"),
            si(row["end_s"], "s"),
            row["operation"],
            str(row["array"]),
            str(row["image"]),
            str(row.get("tile", "")),
            what,
        )
    console.print(table)


def print_image(console: Console, image: dict[str, Any]) -> None:
    """One image's physical cells."""
    arrays = ", ".join(map(str, image["arrays"]))
    where = f" in array{'s' * (len(image['arrays']) > 1)} {arrays}"
    console.print(Text.assemble((f"image {image['image']}", "bold"), where))
    for tile in image["tiles"]:
        console.print(
            f"  {tile['layer']}[{tile['inputs'][0]}:{tile['inputs'][1]}, {tile['outputs'][0]}:{tile['outputs'][1]}] "
            f"at row {tile['row']}, logical column {tile['column']}"
        )
        for real in tile.get("real_levels", [])[:4]:
            console.print("    weights of the levels: " + ", ".join(f"{value:.4g}" for value in real))
    for index, state in enumerate(image["states"]):
        console.print(f"  {index} = level {image['levels'][index]:.4g}, {state}")
    _print_cells(console, image["cells"], "" if image["states"] and len(image["states"]) < 10 else " ")


def _print_cells(console: Console, rows: list[list[Any]], between: str) -> None:
    """Cells row by row; where a row is longer than a line, some columns after others."""
    columns = len(rows[0]) if rows else 0
    width = max((len(str(cell)) for row in rows for cell in row), default=1) + len(between)
    is_piped = not console.is_terminal and console.width >= PIPED_WIDTH
    at_once = max(1, columns if is_piped else console.width // width)
    for first in range(0, columns, at_once):
        last = min(first + at_once, columns)
        if columns > at_once:
            console.print(f"columns {first} to {last - 1}")
        for row in rows:
            console.print(between.join(map(str, row[first:last])), no_wrap=True, overflow="ignore", crop=False)


def print_run(console: Console, result: dict[str, Any]) -> None:
    """Accuracy, statistics, counters and cost of a run."""
    if result["accuracy"] is not None:
        _print_accuracy(console, result)
    _print_statistics(console, result)
    counters, cost = result["counters"], result["cost"]
    console.print(
        f"{counters['inferences']:,} inferences: {counters['dot_products']:,} dot products, {counters['reads']:,} reads, "
        f"{counters['weight_updates']:,} weight updates, {counters['rows_written']:,} rows written"
    )
    console.print(
        f"energy {si(cost['energy_j'], 'J')} ({si(cost['energy_per_inference_j'], 'J')} per inference), "
        f"array time {si(cost['time_s'], 's')}; simulated in {result['seconds']:.1f} s"
    )
    effort = result["commissioning"]
    if effort["reads"] or effort["weight_updates"]:
        earlier = f" (read from {result['fit']})" if result["fit"] else ""
        console.print(f"commissioning before that: {_effort(effort)}{earlier}")
    for each in result["requirements"]:
        console.print(f"required: {each['asked']}: {'met' if each['met'] else 'NOT MET'}, found {each['found']:.6g}")


def _print_accuracy(console: Console, result: dict[str, Any]) -> None:
    accuracy, chips = result["accuracy"], len(result["seeds"])
    software, spread, decision = accuracy["software"], accuracy["std"], accuracy["decision"]
    drop = "" if software is None else f", drop {100 * (software - accuracy['mean']):.2f} points"
    around = "" if spread is None else f" ± {100 * spread:.2f}"
    facts = (
        f"{around} ({chips} chip{'s' * (chips > 1)}, {result['samples']:,} samples); "
        f"software {'unknown' if software is None else percent(software)}{drop}"
    )
    console.print(Text.assemble(f"accuracy on {result['device']}: ", (percent(accuracy["mean"]), "bold"), facts))
    if spread is not None:
        console.print("±: sample standard deviation over chips")
    if decision["rule"] == "threshold":
        console.print(f"classes told apart at {decision['threshold']:g} ({decision['reason']}; --threshold)")
    elif decision["rule"] == "class":
        console.print("the output is taken for the class itself")


def _print_statistics(console: Console, result: dict[str, Any]) -> None:
    names = ("inputs clipped", "not finite", "readings observed", "saturated low", "saturated high", "range used")
    table = FittedTable("layer")
    for name in (*names, "mean error", "mean |error|"):
        table.add_column(name, justify="right")
    unit = "LSB" if result["has_converter"] else "dot"
    for layer in result["layers"]:
        table.add_row(
            layer["layer"],
            _part(layer["clipped_fraction"]),
            f"{layer['not_finite']:,}",
            f"{layer['readings']:,}",
            *(_part(layer[f"{key}_fraction"]) for key in ("saturated_low", "saturated_high", "range_used")),
            f"{layer['mean_error_lsb']:.3f} {unit}",
            f"{layer['mean_absolute_error_lsb']:.3f} {unit}",
        )
    console.print(table)


def _part(fraction: float | None) -> str:
    return "-" if fraction is None else percent(fraction)


def _effort(effort: dict[str, Any]) -> str:
    return f"{effort['reads']:,} reads, {effort['weight_updates']:,} weight updates, {effort['rows_written']:,} rows written"


def print_commissioning(console: Console, result: dict[str, Any]) -> None:
    """What was fitted on a chip, and what that took."""
    console.print(Text.assemble((result["chip"], "bold"), f" commissioned: {', '.join(result['passes'])}"))
    done = {
        "gain and shift of": (result["corrected"]["outputs"], "outputs"),
        "gains of": (result["corrected"]["tile_gains"], "columns of tiles"),
        "offsets of": (result["corrected"]["column_offsets"], "physical columns"),
        "places of": (result["corrected"]["images_moved"], "images"),
    }
    found = [f"{what} {count:,} {unit}" for what, (count, unit) in done.items() if count]
    console.print(f"fitted: {'; '.join(found) or 'nothing had to be corrected'}")
    effort = result["effort"]
    console.print(
        f"{_effort(effort)}: {si(effort['energy_j'], 'J')}, {si(effort['time_s'], 's')} one after another; "
        f"simulated in {result['seconds']:.1f} s"
    )
    size = result["output"]["bytes"]
    console.print(f"written: {result['output']['path']}" + ("" if size is None else f" ({size:,} bytes)"))
