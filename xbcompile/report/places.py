"""Where weights sit, on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from xbcompile.report.fitted import pairs


def print_place(console: Console, result: dict[str, Any]) -> None:
    """One block of lines for each weight."""
    if not result["weights"]:
        console.print("no weight: the cell is unused, and holds what adds the least to a read")
    for each in result["weights"]:
        console.print(f"{each['layer']}[{_numbers(each['onnx_index'])}]: weight {each['weight']:.6g}")
        console.print(pairs(_facts(each), console.width))


def _facts(place: dict[str, Any]) -> list[tuple[str, str]]:
    arrays = ", ".join(map(str, place["arrays"]))
    level = "" if place["level"] is None else f"level {place['level']}, "
    rows = [
        ("matrix", f"group {place['group']}, input {place['input']}, output {place['output']}"),
        ("cell", f"image {place['image']}, row {place['row']}, column {place['column']} (tile {place['tile']})"),
        ("arrays", arrays if place["sites"] is None else f"{arrays} at sites {', '.join(map(str, place['sites']))}"),
        ("holds", f"{level}value {place['cell_value']:g}"),
    ]
    rows += [(name, f"{value:.6g}") for name, value in place["device"].items()]
    if place["used_by"] != [place["layer"]]:
        rows.append(("used by", ", ".join(place["used_by"])))
    return rows


def _numbers(index: list[int]) -> str:
    return ",".join(map(str, index))
