"""`--plot` of four commands, and the page of `compare`: files as their endings say, names as they are, errors before the work."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.small_programs import convolution_model, images
from xbcompile.cli.characters import visible
from xbcompile.report import plots
from xbcompile.report.plot_style import rendered


@pytest.fixture
def program(done, folder) -> Path:
    model = convolution_model()
    model.graph.node[0].name = "$\\frac{a}{b}$ <b>\x1b[31m 層"
    onnx.save(model, folder / "m.onnx")
    done("compile", "m.onnx", "--target", "sot", "-o", "p.xbar")
    return folder / "p.xbar"


def test_files_are_of_the_kind_of_their_names(done, program, folder):
    np.savez(folder / "d.npz", x=images(3, 2, 4, 4), labels=np.array([0, 1, 2]))
    commands = {
        "inspect": ["p.xbar"],
        "plan": ["m.onnx", "--target", "sot"],
        "diagnose": ["p.xbar", "--data", "d.npz"],
        "compare": ["p.xbar", "p.xbar", "--data", "d.npz"],
    }
    for name, arguments in commands.items():
        ending = "svg" if name in ("inspect", "compare") else "png"
        plain = done(name, *arguments, "--json").out
        drawn = done(name, *arguments, "--json", "--plot", f"{name}.{ending}").out
        assert json.loads(plain).keys() == json.loads(drawn).keys()  # the result stays as it is
        data = (folder / f"{name}.{ending}").read_bytes()
        assert data.startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    for name in ("inspect", "compare"):
        ET.parse(folder / f"{name}.svg")  # it is XML
    first = (folder / "inspect.svg").read_bytes()
    done("inspect", "p.xbar", "--plot", "inspect.svg")
    assert (folder / "inspect.svg").read_bytes() == first


def test_plots_that_cannot_be_are_refused_first(refused, program):
    for name in ("inspect", "plan", "diagnose", "compare"):
        arguments = {"diagnose": ["p.xbar", "--data", "x.npz"], "compare": ["p.xbar", "p.xbar"]}.get(name, ["p.xbar"])
        assert "allowed endings: .png, .svg" in refused(name, *arguments, "--plot", "plot.pdf")
        assert "does not exist" in refused(name, *arguments, "--plot", "nowhere/plot.png")
    assert "overwrite the input" in refused("compare", "p.xbar", "p.xbar", "-o", "p.xbar")
    assert "is a folder" in refused("compare", "p.xbar", "p.xbar", "-o", ".")


def test_the_page_of_two_programs(done, program, folder):
    np.savez(folder / "d.npz", x=images(3, 2, 4, 4), labels=np.array([0, 1, 2]))
    done("compile", "m.onnx", "--target", "m2tj4", "-o", "q.xbar")
    result = json.loads(done("compare", "p.xbar", "q.xbar", "--data", "d.npz", "-o", "page.html", "--json").out)
    page = (folder / "page.html").read_text()
    for run in result["runs"]:
        assert f"accuracy {100 * run['accuracy']['mean']:.2f} %" in page
    for digest in result["digests"]:
        assert digest in page
    assert "data d.npz, sha256" in page


def facts(layers: int) -> dict:
    """Of a made-up program whose layer i has i images and reads for i seconds."""
    rows = [
        {
            "layer": f"layer{i}", "images": i, "images_lower_bound": 1, "weights": 8 * i, "utilisation": 0.5,
            "e_read_per_inference_j": float(i), "t_read_per_inference_s": float(i),
        }
        for i in range(1, layers + 1)
    ]  # fmt: skip
    about = {"model": "m", "target": "t", "arrays": 1, "stationary": False, "array_rows": 4, "array_columns": 4}
    totals = {"images": 1, "images_lower_bound": 1, "e_per_inference_j": 1.0, "e_write_per_inference_j": 0.0}
    return {"program": about, "layers": rows, "totals": totals | {"t_per_inference_s": 1.0}}


def bars(axes) -> list[tuple[str, float]]:
    """Names and lengths of an axes' bars; panels side by side share the names of the first one."""
    names = [text.get_text() for text in axes.figure.axes[0].get_yticklabels()]
    return list(zip(names, [bar.get_width() for bar in axes.patches], strict=True))


def test_many_layers_are_summed_up():
    """Of 100 layers the 39 with the most time, and the sum of the others: 1 + ... + 61."""
    figure = plots.mapping_figure(facts(100))
    drawn = bars(figure.axes[0])
    assert drawn == [*((f"layer{i}", i) for i in range(62, 101)), ("… 61 others", 61 * 62 / 2)]
    assert dict(bars(figure.axes[3]))["… 61 others"] == 61 * 62 / 2
    assert dict(bars(figure.axes[1]))["… 61 others"] == pytest.approx(100 * 8 / 16)
    assert len(bars(plots.mapping_figure(facts(40)).axes[0])) == 40
    assert rendered(plots.mapping_figure(facts(0)), ("png",))["png"].startswith(b"\x89PNG")


def test_ratios_are_drawn_from_one():
    result = {
        "names": ["a", "b"],
        "figures": [
            {"figure": "images", "first": 4, "second": 8, "ratio": 2.0},
            {"figure": "tiles", "first": 8, "second": 4, "ratio": 0.5},
            {"figure": "makespan_s", "first": 0.0, "second": 1.0, "ratio": None},
        ],
    }
    (axes,) = plots.comparison_figure(result).axes
    assert bars(axes) == [("weight images", 1.0), ("tiles", -0.5)]
    assert [text.get_text() for text in axes.texts] == ["4 → 8", "8 → 4"]
    assert rendered(plots.comparison_figure(result | {"figures": []}), ("svg",))["svg"].startswith(b"<?xml")


def test_names_of_any_characters():
    """What a font lacks, what text cannot hold and what would be a formula stop no plot."""
    figures = [{"figure": "images", "first": 4, "second": 8, "ratio": 2.0}]
    result = visible({"names": ["a\udcff.xbar", "b\x1b$x$ $\\frac\n層"], "figures": figures})
    for kind in ("png", "svg"):
        assert rendered(plots.comparison_figure(result), (kind,))[kind]


def drawn_bars(axes):
    """Start and width of each horizontal bar."""
    return [(bar.get_x(), bar.get_width()) for bar in axes.patches]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_errors_that_are_no_numbers_are_not_drawn(value):
    source = {"source": "weights", "relative_mean_square": value}
    layer = {"layer": "fc", "corrected": {"relative_mean_square": value, "sources": [source]}}
    cases = [("device", None), ("model", None), ("without", "weights"), ("alone", "weights")]
    ends = [{"case": case, "source": each, "accuracy": None, "relative_error": value} for case, each in cases]
    result = {"device": "d", "seed": 0, "samples": 1, "data": "x", "sources": ["weights"], "layers": [layer]}
    figure = plots.diagnosis_figure(result | {"end_to_end": ends})
    assert rendered(figure, ("png",))["png"]
    assert sum(width for axes in figure.axes for _, width in drawn_bars(axes)) == 0


def test_sources_are_stacked():
    """Their lengths are the relative mean squares, one behind the other; the whole, with cross terms, is a mark."""
    squares = {"weights": 0.2, "coding": 0.0, "random": 0.1}
    sources = [{"source": name, "relative_mean_square": value} for name, value in squares.items()]
    layer = {"layer": "fc", "corrected": {"relative_mean_square": 0.25, "sources": sources}}
    cases: list[tuple[str, str | None, float]] = [("device", None, 0.5), ("model", None, 0.9)]
    cases += [(case, name, 0.6) for case in ("without", "alone") for name in squares]
    ends = [{"case": case, "source": name, "accuracy": value, "relative_error": 0.1} for case, name, value in cases]
    result = {"device": "d", "seed": 0, "samples": 1, "data": "x", "sources": list(squares), "layers": [layer]}
    by_layer, end_to_end = plots.diagnosis_figure(result | {"end_to_end": ends}).axes
    np.testing.assert_allclose(drawn_bars(by_layer), [(0.0, 0.2), (0.2, 0.1)])
    assert np.asarray(by_layer.lines[0].get_xdata()).tolist() == [0.25]
    assert {width for _, width in drawn_bars(end_to_end)} == {60.0}
    assert [np.asarray(line.get_xdata())[0] for line in end_to_end.lines] == [50.0, 90.0]
