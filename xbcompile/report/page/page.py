"""Pages: facts as tables, pictures drawn in the browser from data in the page, and all that they need inside it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from xbcompile import __version__
from xbcompile.deferred import library
from xbcompile.ir.schedule import READ
from xbcompile.program.program import Program
from xbcompile.report.page.cells import cell_panel
from xbcompile.report.page.network_graph import HEIGHT, WIDTH, network_drawing
from xbcompile.report.page.packing import packed_bytes
from xbcompile.report.page.panels import floorplan_panel, timeline_panel
from xbcompile.report.summary import summarize
from xbcompile.units import percent, si

if TYPE_CHECKING:
    import jinja2
else:
    jinja2 = library("jinja2")

MOST_ROWS = 50  # of a table whose numbers a picture shows too; assumed
_SCRIPTS = ("base.js", "arrays.js", "schedule.js", "figures.js", "report.js")
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "ortools")


def report_page(
    program: Program,
    commands: Sequence[str],
    run: Mapping[str, Any] | None = None,
    origins: Mapping[str, str] | None = None,
) -> str:
    """One HTML page that needs no network: tables, pictures, and what is needed to make them again.

    Args:
        program: the program.
        commands: the command lines that made it and the page.
        run: what a run on a device gave, with the keys of `run --json`; None: no run.
        origins: digests of files that the page comes from, by what they are.
    """
    facts = summarize(program)
    cells, floorplan = cell_panel(program), floorplan_panel(program)
    columns = [] if run is None else run["columns"]
    data = {
        "layers": [row["layer"] for row in facts["layers"]],
        "share": [
            {"reads_j": row["e_read_per_inference_j"], "reads_s": row["t_read_per_inference_s"]}
            for row in facts["layers"]
        ],
        "write_j": facts["totals"]["e_write_per_inference_j"],
        "cells": cells,
        "timeline": timeline_panel(program),
        "floorplan": floorplan,
        "run": None
        if run is None
        else {
            "layers": run["layers"],
            "columns": columns,
            "unit": "LSB" if run["has_converter"] else "dot-product units",
        },
    }
    return rendered_page(
        "report.html.j2",
        _SCRIPTS,
        data,
        facts=facts,
        network=network_drawing(program, facts["layers"]),
        box={"width": WIDTH, "height": HEIGHT},
        used=cells["utilisation"],
        busy=_busy(program),
        worst=_worst(columns),
        flows=floorplan["flows"] if floorplan else [],
        commands=commands,
        origins={"program, sha256": program.digest} | dict(origins or {}) | versions(),
        run=run,
        has_floorplan=floorplan is not None,
    )


def rendered_page(template: str, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> str:
    """A page of this folder's look.

    Args:
        template: a file of this folder, which extends base.html.j2.
        scripts: files of this folder, in this order.
        data: what the scripts draw.
        values: of the template.
    """
    page = (
        _environment()
        .get_template(template)
        .render(
            data=_json(data),
            style=_markup(_text("page.css")),
            program_of_page=_markup("\n".join(map(_text, scripts))),
            plotly=_markup(_plotly()),
            version=__version__,
            **values,
        )
    )
    return page.encode("utf-8", "backslashreplace").decode()  # names of files may be no text


def versions() -> dict[str, str]:
    """What a result may depend on, beside the files: versions by name."""
    return {"versions": ", ".join([
        f"xbcompile {__version__}", f"Python {platform.python_version()}",
        *(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
    ])}  # fmt: skip


def _busy(program: Program) -> list[dict[str, Any]]:
    """How long arrays read and write in a batch; those that do for the longest time."""
    schedule, steps = program.schedule, program.schedule.steps
    lengths, reads = steps["end_s"] - steps["start_s"], steps["operation"] == READ
    reads_s, writes_s = (
        np.bincount(steps["array"][mine], weights=lengths[mine], minlength=schedule.arrays) for mine in (reads, ~reads)
    )
    images = np.bincount(schedule.copies["array"], minlength=schedule.arrays)
    busiest = np.argsort(-(reads_s + writes_s), kind="stable")[:MOST_ROWS].tolist()
    return [
        {
            "array": array,
            "images": int(images[array]),
            "reads_s": float(reads_s[array]),
            "writes_s": float(writes_s[array]),
            "share": float((reads_s[array] + writes_s[array]) / schedule.makespan_s) if schedule.makespan_s else 0.0,
        }
        for array in busiest
    ]


def _worst(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Columns with the largest mean absolute errors, of all layers."""
    keys = ("readings", "mean_error_lsb", "mean_absolute_error_lsb", "range_used_fraction")
    rows = [
        {"layer": each["layer"], "column": i} | {key: each[key][i] if each[key] else None for key in keys}
        for each in layers
        for i, readings in enumerate(each["readings"])
        if readings
    ]
    return sorted(rows, key=lambda row: -row["mean_absolute_error_lsb"])[:MOST_ROWS]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"si": si, "percent": percent, "count": "{:,}".format}
    return environment


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@cache
def _plotly() -> str:
    """Plotly's own JavaScript, which its Python package ships, packed."""
    return packed_bytes(resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


def _json(data: Any) -> Any:
    """Data as it stands in a script element: nothing in it ends the element; what JSON has no number for is null."""
    return _markup(json.dumps(_finite(data), allow_nan=False).replace("<", "\\u003c"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
