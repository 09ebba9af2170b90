"""Pictures of figures that are values (`Figure.as_json` of `xbcompile.experiments.figure`).

What was found is drawn in colours, what a paper publishes in hollow black marks; levels are lines, matrices colours with their
numbers, notes stand under the picture. Numbers that are not finite are left out of pictures, and null in files. matplotlib is
loaded when something is drawn.
"""

from __future__ import annotations

import json
import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from xbcompile.report.plot_style import COLOURS, MAP_COLOURS, logarithmic, plot_style, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Values = dict[str, Any]

_PANEL_WIDTH, _AXES_HEIGHT = 4.8, 2.9  # inches
_CHARACTER = 0.58 / 72  # width of a character, inches per point of its size
_LINE = 1.35 / 72  # height of a line, likewise
_TITLE_SIZE, _LABEL_SIZE, _NOTE_SIZE = 11.0, 9.0, 8.0
_MARKERS = "osD^vP"
_DASHES = ("--", ":", "-.")
_MOST_MARKED = 30  # marks on a line, which colours alone may not tell from others
_MOST_TICKS = 12  # names along an axis of a map
_MOST_PRINTED = 14  # rows or columns of a map whose numbers are printed


def draw_figure(name: str, title: str, figure: Values) -> dict[str, bytes]:
    """The files of a figure by ending: png, svg and json, which says all that the pictures show.

    Args:
        name: of the figure, kept in the JSON file.
        title: above the panels.
        figure: the keys of `Figure.as_json`.
    """
    whole = finite({"name": name, "title": title, **figure})
    with plot_style():
        files = rendered(_drawn(title, whole))
    return {**files, "json": json.dumps(whole, indent=1, allow_nan=False).encode() + b"\n"}


def finite(value: Any) -> Any:
    """Plain values with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drawn(title: str, whole: Values) -> Figure:
    """The title, rows of panels, and the note, each with the height that its lines take."""
    from matplotlib.figure import Figure

    panels = whole["panels"]
    columns = _columns(len(panels))
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    width = _PANEL_WIDTH * max(columns, 1.25)
    headline, note = _wrapped(title, width - 0.3, _TITLE_SIZE), _wrapped(whole["note"], width - 0.3, _NOTE_SIZE)
    heights = [
        _height(headline, _TITLE_SIZE),
        *(max(map(_panel_height, row)) for row in rows),
        _height(note, _NOTE_SIZE),
    ]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    parts[0].text(0.5, 0.4, headline, ha="center", va="center", fontsize=_TITLE_SIZE)
    parts[-1].text(0.15 / width, 0.9, note, ha="left", va="top", fontsize=_NOTE_SIZE, color="#333333")
    for part, row in zip(parts[1:-1], rows, strict=True):
        for place, panel in zip(part.subfigures(1, columns, squeeze=False)[0], row, strict=False):
            _draw_panel(place, panel)
    return figure


def _columns(panels: int) -> int:
    """Panels side by side: three at most, four in two rows."""
    return 2 if panels == 4 else min(max(panels, 1), 3)


def _wrapped(text: str, inches: float, size: float) -> str:
    """A text in lines of at most that width; its own line breaks stay."""
    characters = max(int(inches / (_CHARACTER * size)), 10)
    return "\n".join("\n".join(textwrap.wrap(line, characters)) for line in text.splitlines())


def _height(text: str, size: float) -> float:
    """Of a wrapped text with a margin, inches; never nothing, which no layout could take."""
    return 0.12 + _LINE * size * len(text.splitlines())


def _panel_height(panel: Values) -> float:
    """Of axes with what stands above and below them, inches."""
    title = _wrapped(panel["title"], _PANEL_WIDTH - 0.5, _LABEL_SIZE)
    lines = 0 if panel["map"] is not None else sum(_legend_lines(panel))
    height = _AXES_HEIGHT if panel["map"] is None else max(_AXES_HEIGHT, 0.6 + 0.24 * min(len(panel["map"]["y"]), 16))
    return height + _height(title, _LABEL_SIZE) + _LINE * _LABEL_SIZE * 1.25 * lines


def _labels(panel: Values) -> list[str]:
    """The texts of a panel's legend."""
    names = [_published(each["name"]) if each["published"] else each["name"] for each in panel["series"]]
    for name, number in panel["lines"]:
        shown = "not finite" if number is None else f"{number:g}"
        names.append(name if shown in name else f"{name}: {shown}")
    return [_wrapped(name, _PANEL_WIDTH - 0.9, _LABEL_SIZE) for name in names]


def _published(name: str) -> str:
    """A name that says that its numbers are the paper's, once."""
    return name if name.startswith("published") else f"published: {name}"


def _legend_lines(panel: Values) -> list[int]:
    """Lines of each row of a panel's legend; short texts stand in two columns."""
    labels = _labels(panel)
    lines = [len(label.splitlines()) for label in labels]
    return lines[::2] if _in_two_columns(labels) else lines


def _in_two_columns(labels: list[str]) -> bool:
    return len(labels) > 1 and max(map(len, labels)) <= 26


def _draw_panel(place: SubFigure, panel: Values) -> None:
    axes = place.subplots()
    axes.set_title(_wrapped(panel["title"], _PANEL_WIDTH - 0.5, _LABEL_SIZE), fontsize=_LABEL_SIZE)
    axes.set_xlabel(_wrapped(panel["x_label"], _PANEL_WIDTH - 1, _LABEL_SIZE))
    axes.set_ylabel(_wrapped(panel["y_label"], _AXES_HEIGHT - 0.4, _LABEL_SIZE))
    if panel["map"] is not None:
        _draw_map(place, axes, panel["map"])
        return
    labels = _labels(panel)
    _draw_series(axes, panel, labels[: len(panel["series"])])
    for number, (_, level) in enumerate(panel["lines"]):
        style: Any = {"color": "#555555", "linewidth": 1.1, "linestyle": _DASHES[number % len(_DASHES)]}
        label = labels[len(panel["series"]) + number]
        if level is None:
            axes.plot([], [], label=label, **style)
        else:
            axes.axhline(level, label=label, **style)
    logarithmic(axes, *(_is_logarithmic(panel, axis) for axis in "xy"))
    if labels:
        handles, texts = axes.get_legend_handles_labels()
        order = sorted(
            range(len(texts)), key=lambda i: labels.index(texts[i])
        )  # as they are given, whatever their kind
        place.legend(
            [handles[i] for i in order],
            [texts[i] for i in order],
            loc="outside lower center",
            ncols=2 if _in_two_columns(labels) else 1,
            fontsize=_LABEL_SIZE,
        )


def _is_logarithmic(panel: Values, axis: str) -> bool:
    """Whether an axis, x or y, is to be logarithmic and has a number that can be shown so."""
    found = (value for each in panel["series"] for value in each[axis] if value is not None)
    return panel[f"{axis}_scale"] == "log" and any(value > 0 for value in found)


def _draw_series(axes: Axes, panel: Values, labels: list[str]) -> None:
    """All series of a panel: colours for ours, black for what is published; what a logarithmic axis cannot show is left out."""
    series = panel["series"]
    bars = [each for each in series if each["marks"] == "bars" and not each["published"]]
    ours = published = 0
    for each, label in zip(series, labels, strict=True):
        spread = _numbers(each["spread"])
        x, y = (_shown(each[axis], _is_logarithmic(panel, axis)) for axis in "xy")
        colour = "black" if each["published"] else COLOURS[ours % (len(COLOURS) - 1)]
        number = (
            published if each["published"] else ours + ours // (len(COLOURS) - 1)
        )  # no pair of colour and mark twice
        marker = _MARKERS[number % len(_MARKERS)]
        if each["marks"] == "steps":
            _draw_steps(axes, x, y, colour, label, filled=not each["published"])
        elif each["published"]:
            _draw_published(axes, x, y, spread, marker, label, joined=each["marks"] == "line")
        elif each["marks"] == "bars":
            _draw_bars(axes, x, y, spread, colour, label, (bars.index(each), len(bars)))
        elif each["marks"] == "points":
            _draw_points(axes, x, y, spread, marker, label, colour)
        else:
            _draw_line(axes, x, y, spread, marker, label, colour, _is_logarithmic(panel, "y"))
        published += each["published"]
        ours += not each["published"]
    at = sorted({value for each in bars for value in each["x"] if value is not None})
    if 0 < len(at) <= _MOST_TICKS:
        axes.set_xticks(at)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _shown(values: list[float | None], logarithmic: bool) -> np.ndarray:
    """Numbers, NaN where a logarithmic axis cannot show them."""
    found = _numbers(values)
    return np.where(found > 0, found, math.nan) if logarithmic else found


def _draw_line(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    spread: np.ndarray,
    marker: str,
    label: str,
    colour: str,
    is_logarithmic: bool,
) -> None:
    """With a band of one standard deviation."""
    every = math.ceil(len(x) / _MOST_MARKED) or 1
    axes.plot(x, y, color=colour, linewidth=1.3, label=label, marker=marker, markersize=3.5, markevery=every)
    if len(spread):
        low = np.maximum(y - spread, 0.05 * y) if is_logarithmic else y - spread  # above zero
        axes.fill_between(x, low, y + spread, color=colour, alpha=0.2, linewidth=0)


def _draw_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, spread: np.ndarray, marker: str, label: str, colour: str
) -> None:
    error = spread if len(spread) else None
    axes.errorbar(x, y, error, fmt=marker, markersize=4.5, capsize=2.5, linewidth=1, color=colour, label=label)


def _draw_published(
    axes: Axes, x: np.ndarray, y: np.ndarray, spread: np.ndarray, marker: str, label: str, joined: bool
) -> None:
    """Hollow black marks, above all others."""
    axes.errorbar(
        x,
        y,
        spread if len(spread) else None,
        fmt=marker,
        markersize=7,
        markerfacecolor="none",
        markeredgewidth=1.4,
        color="black",
        capsize=3,
        linewidth=1,
        linestyle="--" if joined else "none",
        label=label,
        zorder=5,
    )


def _draw_bars(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    spread: np.ndarray,
    colour: str,
    label: str,
    place: tuple[int, int],
) -> None:
    """Bars of one series beside those of the others: the one at `place[0]` of `place[1]`."""
    gaps = np.diff(np.unique(x[np.isfinite(x)]))
    width = 0.8 * (float(gaps.min()) if len(gaps) else 1.0) / place[1]
    at = x + width * (place[0] - (place[1] - 1) / 2)
    error: Any = {"yerr": spread, "capsize": 2.5} if len(spread) else {}
    axes.bar(at, y, width=width, color=colour, label=label, **error)


def _draw_steps(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str, filled: bool) -> None:
    """A histogram: x are left edges, the last bin as wide as the one before."""
    if len(x) == 0:
        axes.plot([], [], color=colour, label=label)
        return
    edges = np.append(x, x[-1] + (x[-1] - x[-2] if len(x) > 1 else 1.0))
    if filled:
        axes.stairs(y, edges, color=colour, fill=True, alpha=0.25)
    axes.stairs(y, edges, color=colour, linewidth=1.3, label=label)


def _draw_map(place: SubFigure, axes: Axes, matrix: Values) -> None:
    """Colours with a bar; numbers in the cells where there are few. Numbers of the second axis rise upwards, names go down."""
    from matplotlib import colormaps

    values = np.array([_numbers(row) for row in matrix["values"]]).reshape(len(matrix["y"]), len(matrix["x"]))
    names = any(isinstance(each, str) for each in matrix["y"])
    colours = colormaps[MAP_COLOURS].with_extremes(bad="#DDDDDD")
    shown = axes.imshow(values, cmap=colours, aspect="auto", origin="upper" if names else "lower")
    axes.grid(visible=False)
    _name_cells(axes, matrix)
    bar = place.colorbar(shown, ax=axes)
    bar.set_label(_wrapped(matrix["name"], _AXES_HEIGHT - 0.4, _LABEL_SIZE))
    if max(values.shape, default=0) <= _MOST_PRINTED:
        _print_values(axes, values)


def _name_cells(axes: Axes, matrix: Values) -> None:
    """Names or numbers along both axes of a map, every second, third, ... where they are many."""
    wide = 0.75 * _PANEL_WIDTH / max(1, min(len(matrix["x"]), _MOST_TICKS))
    for texts, axis, inches in ((matrix["x"], axes.xaxis, wide), (matrix["y"], axes.yaxis, 1.4)):
        step = max(1, math.ceil(len(texts) / _MOST_TICKS))
        written = [each if isinstance(each, str) else f"{each:.4g}" for each in texts[::step]]
        axis.set_ticks(range(0, len(texts), step), [_wrapped(each, inches, _LABEL_SIZE) for each in written])
        if axis is axes.xaxis and max(map(len, written), default=0) > inches / (_CHARACTER * _LABEL_SIZE) < 8:
            axes.tick_params(axis="x", labelrotation=90)


def _print_values(axes: Axes, values: np.ndarray) -> None:
    """The number in each cell, light on dark and dark on light."""
    found = values[np.isfinite(values)]
    middle = (found.min() + found.max()) / 2 if len(found) else 0.0
    size = 9.0 if values.shape[1] <= 8 else 7.0 if values.shape[1] <= 11 else 6.0
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text = f"{value:.3g}" if math.isfinite(value) else "none"
        colour = "white" if math.isfinite(value) and value < middle else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
