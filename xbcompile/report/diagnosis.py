"""Terminal tables of a diagnosis."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.report.fitted import FittedTable
from xbcompile.units import percent

NAMES = {
    "weights": "weight quantization",
    "coding": "input coding",
    "systematic": "systematic device errors",
    "saturation": "readout saturation",
    "rounding": "readout quantization",
    "random": "random noise",
    "inherited": "inherited from earlier layers",
}


def print_diagnosis(console: Console, result: dict[str, Any]) -> None:
    """Each layer's sources by cost, what to try, and the whole program without and with each source alone."""
    absent = ", ".join(NAMES[source] for source in result["absent"])
    facts = f", chip {result['seed']}, {result['samples']:,} samples of {result['data']}"
    lacking = f"; this device has no {absent}" if absent else ""
    console.print(Text.assemble((result["device"], "bold"), facts, lacking))
    for layer in result["layers"]:
        _print_layer(console, layer)
    _print_end_to_end(console, result["end_to_end"])
    console.print(f"measured in {result['seconds']:.1f} s")


def _print_layer(console: Console, layer: dict[str, Any]) -> None:
    corrected, uncorrected = layer["corrected"], layer["uncorrected"]
    saturated = layer["saturated_fraction"]
    title = f"layer {layer['layer']}, {layer['vectors']:,} vectors"
    if saturated is not None:
        title += f", {percent(saturated)} of readings saturated"
    table = FittedTable("output error from", title=title)
    for name in ("mean square / variance", "error / std", "share", "uncorrected mean square / variance"):
        table.add_column(name, justify="right")
    before = {each["source"]: each["relative_mean_square"] for each in uncorrected["sources"]}
    for each in sorted(corrected["sources"], key=lambda each: -1.0 if each["share"] is None else -each["share"]):
        table.add_row(
            NAMES[each["source"]],
            _share(each["relative_mean_square"]),
            _share(each["relative_error"]),
            _share(each["share"], 1),
            _share(before[each["source"]]),
        )
    table.add_section()
    crossing = (_share(each["relative_cross_terms"]) for each in (corrected, uncorrected))
    table.add_row("cross terms", next(crossing), "", "", next(crossing))
    table.add_row(
        "whole",
        _share(corrected["relative_mean_square"]),
        _share(corrected["relative_error"]),
        _share(1.0 if layer["largest"] else None, 1),
        _share(uncorrected["relative_mean_square"]),
    )
    console.print(table)
    if layer["reference"] == "program":
        console.print(
            "the model has no tensor of this layer's output: compared with the program's exact meaning, weight "
            "quantization and input coding not measured"
        )
    if layer["largest"] is None:
        console.print(f"layer {layer['layer']} has no error")
    else:
        console.print(
            Text.assemble(f"largest on {layer['layer']}: ", (NAMES[layer["largest"]], "bold"), f": {layer['advice']}")
        )


def _print_end_to_end(console: Console, rows: list[dict[str, Any]]) -> None:
    found = {(row["case"], row["source"]): row for row in rows}
    model, device = found["model", None], found["device", None]
    has_accuracy = device["accuracy"] is not None
    table = FittedTable("the whole program", title="end to end")
    for name in ("accuracy without", "accuracy alone") if has_accuracy else ():
        table.add_column(name, justify="right")
    for name in ("output error without", "output error alone"):
        table.add_column(name, justify="right")
    sources = [row["source"] for row in rows if row["case"] == "without"]
    for source in sorted(sources, key=lambda name: _order(found["without", name])):
        cells = [NAMES[source]]
        for key in ("accuracy", "relative_error") if has_accuracy else ("relative_error",):
            cells += [_share(found[case, source][key]) for case in ("without", "alone")]
        table.add_row(*cells)
    console.print(table)
    if has_accuracy:
        console.print(f"accuracy: model {percent(model['accuracy'])}, device {percent(device['accuracy'])}")
    if device["relative_error"] is not None:
        console.print(f"output error of the device: {percent(device['relative_error'])} of the standard deviation")
    if not all(row["possible"] for row in rows):
        console.print(
            "'-': not measured, as the model has no tensor before some layer, and its weights cannot be put in there"
        )


def _order(row: dict[str, Any]) -> float:
    """The source whose removal leaves the least error comes first."""
    error = row["relative_error"] if row["relative_error"] is not None else row["accuracy"] and -row["accuracy"]
    return float("inf") if error is None else float(error)


def _share(fraction: float | None, digits: int = 2) -> str:
    return "-" if fraction is None else percent(round(fraction, digits + 2) + 0.0, digits)
