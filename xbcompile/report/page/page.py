"""The page: facts as tables, pictures drawn in the browser from data in the page, and all that they need inside it."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from xbcompile.deferred import library
from xbcompile.program.program import Program
from xbcompile.report.page.network_graph import HEIGHT, WIDTH, network_drawing
from xbcompile.report.page.panels import cell_panel, floorplan_panel, timeline_panel
from xbcompile.report.summary import summarize
from xbcompile.units import percent, si

if TYPE_CHECKING:
    import jinja2
else:
    jinja2 = library("jinja2")


def report_page(program: Program, commands: list[str], run: dict[str, Any] | None = None) -> str:
    """One HTML page that needs no network: tables, pictures, and what is needed to make them again.

    Args:
        program: the program.
        commands: the command lines that made it and the page.
        run: what a run on a device gave, with the keys of `run --json`; None: no run.
    """
    facts = summarize(program)
    data = {
        "layers": [row["layer"] for row in facts["layers"]],
        "share": [
            {
                "reads_j": row["e_read_per_inference_j"],
                "reads_s": row["t_read_per_inference_s"],
                "share": row["share_of_array_time"],
            }
            for row in facts["layers"]
        ],
        "write_j": facts["totals"]["e_write_per_inference_j"],
        "cells": cell_panel(program),
        "timeline": timeline_panel(program),
        "floorplan": floorplan_panel(program),
        "run": None if run is None else run["layers"],
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"si": si, "percent": percent, "count": "{:,}".format}
    template = environment.from_string(_text("report.html.j2"))
    return template.render(
        facts=facts,
        network=network_drawing(program, facts["layers"]),
        box={"width": WIDTH, "height": HEIGHT},
        commands=commands,
        run=run,
        data=_json(data),
        has_floorplan=data["floorplan"] is not None,
        style=_text("report.css"),
        program_of_page=_script(_text("report.js")),
        plotly=_script(_plotly()),
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _plotly() -> str:
    """Plotly's own JavaScript, which its Python package ships."""
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")


def _json(data: Any) -> Any:
    """Data as it stands in a script element: nothing in it ends the element."""
    return _markup(json.dumps(data).replace("<", "\\u003c"))


def _script(text: str) -> Any:
    """Text that stands in a script element as it is: only what would end the element is written otherwise."""
    return _markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
