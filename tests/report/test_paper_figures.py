"""Figures as files: the JSON file says all, pictures show every series, and no text lies on another one."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from xbcompile.experiments.figure import Figure, Map, Panel, Series
from xbcompile.report.paper_figures import _drawn, draw_figure, finite
from xbcompile.report.plot_style import plot_style

LONG = "a name that is far too long for one line of any legend, as captions of papers have them, with an end"
X = [0.0, 1.0, 2.0]
EVERY_MARK = Panel(
    "title " + LONG,
    "voltage (V)",
    "accuracy (%)",
    [
        Series("ours", X, [90.0, 91.0, 92.0], [1.0, 1.0, 2.0]),
        Series(LONG, X, [80.0, 81.0, math.nan], [], "points"),
        Series("bars", X, [70.0, 60.0, 50.0], [1.0, 1.0, 1.0], "bars"),
        Series("more bars", X, [60.0, 50.0, 40.0], [], "bars"),
        Series("steps", X, [5.0, 6.0, 7.0], [], "steps"),
        Series("text", [1.0], [88.0], [3.2], "points", published=True),
        Series("nothing", [], [], [], "steps"),
    ],
    lines=[("chance", 10.0), ("level of 20", 20.0)],
)
LOGARITHMIC = Panel(
    "", "pulses", "error", [Series("error", [1.0, 10.0, 100.0], [0.1, 0.0, 1e-6])], x_scale="log", y_scale="log"
)
NO_POINT = Panel("", "x", "y", [Series("none", [], []), Series("nan", [0.0], [math.nan])], x_scale="log", y_scale="log")
MATRIX = Panel(
    "map",
    "told",
    "is",
    map=Map("images", [[1.0, 2.0, None], [3.0, math.nan, 1e-3]], ["a name of three words", "b", "c"], ["p", "q"]),
)


def drawn(figure: Figure) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with plot_style():
        picture = _drawn("title " + LONG, finite(figure.as_json()))
        FigureCanvasAgg(picture).draw()
    return picture


def texts(picture: Any) -> list[tuple[str, Any]]:
    """Every text that is seen, with its box in pixels."""
    from matplotlib.text import Text

    seen = {id(each): each for each in picture.findobj(Text) if each.get_visible() and each.get_text().strip()}
    return [(each.get_text(), each.get_window_extent()) for each in seen.values()]


@pytest.mark.parametrize(
    "figure",
    [
        Figure([EVERY_MARK, LOGARITHMIC], "note " + 5 * LONG),
        Figure([MATRIX, NO_POINT, MATRIX, LOGARITHMIC]),
        Figure([]),
    ],
    ids=["marks", "maps", "no panel"],
)
def test_no_text_lies_on_another_or_outside(figure: Figure) -> None:
    picture = drawn(figure)
    box = picture.bbox
    found = texts(picture)
    ticks = {
        label.get_text()
        for axes in picture.findobj(lambda each: hasattr(each, "get_xticklabels"))
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    }
    for (one, first), (other, second) in itertools.combinations(found, 2):
        if {one, other} <= ticks:  # matplotlib hides ticks outside of the axes, but not their texts
            continue
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width <= 1 or height <= 1, (one, other)
    for text, extent in found:
        if text not in ticks:
            assert box.x0 <= extent.x0 <= extent.x1 <= box.x1, text
            assert box.y0 <= extent.y0 <= extent.y1 <= box.y1, text


def test_published_marks_are_hollow_and_black_and_ours_have_colours() -> None:
    picture = drawn(Figure([EVERY_MARK]))
    (legend,) = picture.findobj(lambda each: type(each).__name__ == "Legend")
    names = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert names == [
        "ours", LONG, "bars", "more bars", "steps", "published: text", "nothing", "chance: 10", "level of 20"
    ]  # fmt: skip
    axes = picture.findobj(lambda each: type(each).__name__ == "Axes")[0]
    by_label = {line.get_label(): line for line in axes.get_lines()}
    marks = [c.lines[0] for c in axes.containers if c.get_label() == "published: text"]
    assert [(line.get_color(), line.get_markerfacecolor()) for line in marks] == [("black", "none")]
    assert by_label["ours"].get_color() not in ("black", "#000000")
    np.testing.assert_array_equal(by_label["ours"].get_ydata(), [90, 91, 92])


def test_json_says_all_and_what_is_not_finite_is_null() -> None:
    figure = Figure([MATRIX], "a note")
    files = draw_figure("sot-fig1", "a title", figure.as_json())
    assert sorted(files) == ["json", "png", "svg"]
    assert files["png"].startswith(b"\x89PNG")
    assert b"</svg>" in files["svg"]
    read = json.loads(files["json"])
    assert (read["name"], read["title"], read["note"]) == ("sot-fig1", "a title", "a note")
    assert read["panels"][0]["map"]["values"] == [[1.0, 2.0, None], [3.0, None, 1e-3]]
    again = draw_figure("sot-fig1", "a title", figure.as_json())
    assert (again["json"], again["png"]) == (files["json"], files["png"])
    series = finite(Figure([EVERY_MARK]).as_json())["panels"][0]["series"]
    assert series[1] == {
        "name": LONG, "x": X, "y": [80.0, 81.0, None], "spread": [], "marks": "points", "published": False
    }  # fmt: skip
