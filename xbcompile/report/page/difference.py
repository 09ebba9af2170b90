"""The page of two programs side by side, in the look of the page of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xbcompile.program.program import Program
from xbcompile.report.comparison import FIGURES, figure_text, ratio_text, value_text
from xbcompile.report.page.page import rendered_page, versions
from xbcompile.report.summary import summarize

_SCRIPTS = ("base.js", "difference.js")
# Of each layer of both programs: the key, a title, the unit.
_LAYER_PICTURES = (
    ("images", "Weight images", ""),
    ("e_read_per_inference_j", "Energy of reads per inference", "J"),
    ("t_read_per_inference_s", "Time of reads, one after another", "s"),
)
_ERROR_PICTURE = ("mean_absolute_error_lsb", "Mean absolute error of readings (LSB, or dot-product units)", "")


def difference_page(
    programs: Sequence[Program],
    result: Mapping[str, Any],
    commands: Sequence[str],
    origins: Mapping[str, str] | None = None,
) -> str:
    """One HTML page that needs no network: what was decided otherwise, and what came of it.

    Args:
        programs: the two.
        result: the keys of `compare --json`.
        commands: the command lines that made the page.
        origins: digests of files that the page comes from, by what they are.
    """
    layers = [summarize(program)["layers"] for program in programs]
    pictures = [_picture(layers, *each) for each in _LAYER_PICTURES]
    if result.get("runs"):
        pictures.append(_picture([run["layers"] for run in result["runs"]], *_ERROR_PICTURE))
    rows = [
        {
            "figure": FIGURES[row["figure"]],
            "first": figure_text(row["figure"], row["first"]),
            "second": figure_text(row["figure"], row["second"]),
            "ratio": row["ratio"],
            "ratio_text": ratio_text(row["ratio"]),
        }
        for row in result["figures"]
    ]
    return rendered_page(
        "difference.html.j2",
        _SCRIPTS,
        {"figures": rows, "pictures": pictures, "names": result["names"]},
        result=result,
        figures=rows,
        decided=[row | {key: value_text(row[key]) for key in ("first", "second")} for row in result["decided"]],
        layers=[
            row | {"words": [(key.replace("_", " "), *map(value_text, pair)) for key, pair in row["differs"].items()]}
            for row in result["layers"]
        ],
        pictures=pictures,
        programs=[{"model": program.network.name, "target": program.target.name} for program in programs],
        commands=commands,
        origins=_digests(result) | dict(origins or {}) | versions(),
    )


def _digests(result: Mapping[str, Any]) -> dict[str, str]:
    return {f"program {name}, sha256": digest for name, digest in zip(result["names"], result["digests"], strict=True)}


def _picture(layers: Sequence[Sequence[Mapping[str, Any]]], key: str, title: str, unit: str) -> dict[str, Any]:
    """A figure of each layer of either program; null where a program lacks the layer."""
    values = [{row["layer"]: row[key] for row in rows} for rows in layers]
    names = list(dict.fromkeys(name for each in values for name in each))
    columns = [[each.get(name) for name in names] for each in values]
    return {
        "title": title,
        "unit": unit,
        "layers": names,
        "values": columns,
        "rows": list(zip(names, *columns, strict=True)),
    }
