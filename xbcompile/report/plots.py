"""Plots of a mapping, a diagnosis and a comparison, drawn from what `--json` gives; a large network's layers are summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xbcompile.report.comparison import FIGURES, figure_text
from xbcompile.report.diagnosis import NAMES
from xbcompile.report.mapping import arrays_text
from xbcompile.report.plot_style import COLOURS, literal, logarithmic, new_figure, plot_style
from xbcompile.units import percent, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Facts = dict[str, Any]

MOST_BARS = 40  # of layers in one plot; assumed: what a page holds in legible letters
_LONGEST_NAME = 32
_REST = "…"  # in the place of a layer's name: all others


def mapping_figure(facts: Facts) -> Figure:
    """Images, use of cells, energy and time by layer: what `inspect --json` or `plan --json` gives.

    Args:
        facts: keys as in docs/json.md. Of more than 40 layers those with the most read time are drawn, and the sum of the others.
    """
    about = facts.get("program") or facts["plan"]
    name = about.get("model") or about["network"]
    total, rows = facts["totals"], _chosen(facts["layers"], "t_read_per_inference_s", about)
    with plot_style():
        figure, axes = new_figure(4, width=3.1, height=_height(len(rows)), sharey=True)
        labels = [row["layer"] for row in rows]
        _bars(axes[0], labels, [row["images"] for row in rows], COLOURS[0], "weight images")
        _marks(axes[0], [row["images_lower_bound"] for row in rows], "area bound")
        _bars(axes[1], labels, [100 * row["utilisation"] for row in rows], COLOURS[2], "cells used (%)")
        axes[1].set_xlim(0, 100)
        _bars(axes[2], labels, [row["e_read_per_inference_j"] for row in rows], COLOURS[1], "energy of reads", "J")
        _bars(axes[3], labels, [row["t_read_per_inference_s"] for row in rows], COLOURS[5], "time of reads", "s")
        figure.suptitle(
            literal(
                f"{_short(name)} on {_short(about['target'])}: {total['images']:,} weight images (at least "
                f"{total['images_lower_bound']:,}), {arrays_text(about)}\nper inference: "
                f"{si(total['e_per_inference_j'], 'J')} (writes {si(total['e_write_per_inference_j'], 'J')}), "
                f"{si(total['t_per_inference_s'], 's')}; time of reads: one after another"
            ),
            fontsize=10,
        )
    return figure


def diagnosis_figure(result: Facts) -> Figure:
    """What each source of error costs, by layer and end to end: what `diagnose --json` gives.

    Args:
        result: keys as in docs/json.md. Of more than 40 layers those with the largest error are drawn.
    """
    layers = [
        {"layer": row["layer"], "error": _finite(row["corrected"]["relative_mean_square"]), "row": row}
        for row in result["layers"]
    ]
    kept = sorted(range(len(layers)), key=lambda i: -layers[i]["error"])[:MOST_BARS]
    layers = [layers[i] for i in sorted(kept)]
    ends = {(row["case"], row["source"]): row for row in result["end_to_end"]}
    sources = [source for source in NAMES if ("without", source) in ends or source in result["sources"]]
    with plot_style():
        figure, axes = new_figure(2, width=5.6, height=max(_height(len(layers)), _height(len(sources))))
        _sources(axes[0], layers, sources)
        _ends(axes[1], ends, [source for source in sources if ("without", source) in ends])
        cut = "" if len(layers) == len(result["layers"]) else f"; the {len(layers)} layers with the largest errors"
        figure.suptitle(
            literal(
                f"{result['device']}, chip {result['seed']}, {result['samples']:,} samples of {result['data']}{cut}"
            ),
            fontsize=10,
        )
    return figure


def comparison_figure(result: Facts) -> Figure:
    """The second program's figures over the first one's: what `compare --json` gives.

    Args:
        result: keys as in docs/json.md, with `names`.
    """
    rows = [row for row in result["figures"] if row["ratio"]]
    names = [_short(each) for each in result["names"]]
    with plot_style():
        figure, (axes,) = new_figure(width=8.0, height=_height(len(rows)))
        ratios = [row["ratio"] for row in rows]
        colours = [COLOURS[0] if ratio <= 1 else COLOURS[1] for ratio in ratios]
        places = range(len(rows))
        axes.barh(places, [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.62)
        axes.set_yticks(places, [FIGURES[row["figure"]] for row in rows])
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=1)
        axes.margins(x=0.3)
        if ratios and max(ratios) / min(ratios) > 4:
            logarithmic(axes, y=False)
        for place, row in zip(places, rows, strict=True):
            texts = (figure_text(row["figure"], row[each]) for each in ("first", "second"))
            axes.annotate(
                literal(" → ".join(texts)), (row["ratio"], place), (4 if row["ratio"] >= 1 else -4, 0),
                textcoords="offset points", va="center", ha="left" if row["ratio"] >= 1 else "right", fontsize=8,
            )  # fmt: skip
        axes.set_xlabel("second program / first program")
        axes.set_title(literal(f"first: {names[0]}\nsecond: {names[1]}{_accuracies(result)}"), fontsize=9, loc="left")
    return figure


def _accuracies(result: Facts) -> str:
    found = [run["accuracy"] for run in result.get("runs", ())]
    if len(found) != 2 or None in found:
        return ""
    return f"\naccuracy {' → '.join(percent(each['mean']) for each in found)}"


def _height(bars: int) -> float:
    return 1.6 + 0.27 * max(bars, 3)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME // 2] + "…" + name[-_LONGEST_NAME // 2 + 1 :]


def _chosen(rows: Sequence[Facts], by: str, about: Facts) -> list[Facts]:
    """All layers in their order, or of many those with the largest figure, and a row of the others' sums."""
    if len(rows) <= MOST_BARS:
        return list(rows)
    largest = sorted(range(len(rows)), key=lambda i: -rows[i][by])[: MOST_BARS - 1]
    rest = [row for i, row in enumerate(rows) if i not in set(largest)]
    summed: Facts = {"layer": f"{_REST} {len(rest):,} others"}
    for key in ("images", "images_lower_bound", "weights", "e_read_per_inference_j", "t_read_per_inference_s"):
        summed[key] = sum(row[key] for row in rest)
    cells = summed["images"] * about["array_rows"] * about["array_columns"]
    summed["utilisation"] = summed["weights"] / cells if cells else 0.0
    return [*(rows[i] for i in sorted(largest)), summed]


def _bars(axes: Axes, labels: Sequence[str], values: Sequence[float], colour: str, title: str, unit: str = "") -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    places = range(len(labels))
    axes.barh(places, values, color=colour, height=0.62)
    axes.set_yticks(places, [literal(_short(each)) for each in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{title} ({unit})" if unit else title)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=not unit))
    if unit:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def _marks(axes: Axes, values: Sequence[float], label: str) -> None:
    axes.plot(values, range(len(values)), "|", color="black", markersize=10, markeredgewidth=1.5, label=label)
    axes.legend(loc="lower right", fontsize=8, frameon=True)


def _sources(axes: Axes, layers: Sequence[Facts], sources: Sequence[str]) -> None:
    """Error of each layer's output, stacked by source; what does not add up is crossing terms, which may be negative."""
    places, left = range(len(layers)), [0.0] * len(layers)
    for source in sources:
        values = [_square(each["row"], source) for each in layers]
        if not any(values):
            continue
        axes.barh(places, values, left=left, height=0.62, color=_colour(source), label=NAMES[source])
        left = [a + b for a, b in zip(left, values, strict=True)]
    wholes = [each["error"] for each in layers]
    axes.plot(wholes, places, "|", color="black", markersize=10, markeredgewidth=1.5, label="whole, with cross terms")
    axes.set_yticks(places, [literal(_short(each["layer"])) for each in layers])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("mean square error of outputs / their variance")
    axes.set_title("by layer", fontsize=9, loc="left")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def _square(layer: Facts, source: str) -> float:
    squares = {each["source"]: each["relative_mean_square"] for each in layer["corrected"]["sources"]}
    return _finite(squares.get(source))


def _finite(value: float | None) -> float:
    """What is not known, or no number, is drawn as nothing."""
    return value if value is not None and math.isfinite(value) else 0.0


def _colour(source: str) -> str:
    return COLOURS[list(NAMES).index(source) % len(COLOURS)]


def _ends(axes: Axes, ends: dict[tuple[str, str | None], Facts], sources: Sequence[str]) -> None:
    """The whole program without each source, and with it alone; in accuracy where there are labels."""
    device = ends["device", None]
    key, unit = (
        ("accuracy", "accuracy (%)") if device["accuracy"] is not None else ("relative_error", "output error / std")
    )
    scale = 100.0 if key == "accuracy" else 1.0
    styles: tuple[tuple[str, Callable[[int], float], str, str], ...] = (
        ("without", lambda place: place - 0.19, COLOURS[0], "without this source"),
        ("alone", lambda place: place + 0.19, COLOURS[4], "this source alone"),
    )
    for case, at, colour, label in styles:
        shown = [(i, ends[case, source][key]) for i, source in enumerate(sources)]
        known = [(at(i), scale * value) for i, value in shown if value is not None and math.isfinite(value)]
        axes.barh([place for place, _ in known], [value for _, value in known], 0.36, color=colour, label=label)
    for case, style in (("device", "-"), ("model", ":")):
        value = ends[case, None][key]
        if value is not None and math.isfinite(value):
            axes.axvline(scale * value, color="black", linestyle=style, linewidth=1, label=f"{case} as it is")
    axes.set_yticks(range(len(sources)), [NAMES[source] for source in sources])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title("end to end", fontsize=9, loc="left")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
