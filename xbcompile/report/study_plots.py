"""Plots of the error study, laid out like Figs. 13 to 18 of MultiSpin.AI deliverable D4.2 (2026).

Bands are one standard deviation over seeds on either side of the mean. matplotlib is loaded when a plot is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from xbcompile.report.plot_style import COLOURS, legend_below, literal, logarithmic, new_figure, plot_style, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = dict[str, Any]

_PRODUCT_ERROR = "RMSE of the product"
_STATES = "states per cell N"
_NL, _PERP = r"$\sigma_\mathrm{NL}$", r"$\sigma_\perp$"


def plot_study(result: Result) -> dict[str, bytes]:
    """Draw every part of a study that `result` (the keys of `study --json`) holds.

    Returns:
        file contents by file name: a PNG and an SVG of each plot.
    """
    plots: dict[str, Callable[[Result], Figure]] = {
        "fig13_quantization": _plot_quantization,
        "fig14_levels": _plot_levels,
        "fig15_sigma_nl": _plot_sigma_nl,
        "fig16_sigma_perp": _plot_sigma_perp,
        "fig17_combined": _plot_combined,
        "fig18_best_states": _plot_best_states,
        "error_sources": _plot_sources,
        "matrix_size": _plot_inputs,
        "best_states_law": _plot_law,
        "accuracy": _plot_accuracy,
    }
    files: dict[str, bytes] = {}
    with plot_style():
        for name, plot in plots.items():
            if name == "accuracy" and "accuracy" not in result:
                continue
            files |= {f"{name}.{ending}": content for ending, content in rendered(plot(result)).items()}
    return files


def _line(axes: Axes, x: Iterable[float], curve: Result, colour: str, label: str, marker: str = "o") -> None:
    """Mean with a band; on a logarithmic axis the band stays above zero."""
    at, mean, std = np.asarray(list(x)), np.asarray(curve["mean"]), np.asarray(curve["std"])
    axes.plot(at, mean, marker=marker, markersize=3.5, linewidth=1.2, color=colour, label=label)
    axes.fill_between(at, np.maximum(mean - std, 0.05 * mean), mean + std, color=colour, alpha=0.2, linewidth=0)


def _states_axis(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.set_xlabel(_STATES)


def _ohm(sigma_ohm: float) -> str:
    return f"{sigma_ohm:g} Ω"


def _curve_of(result: Result, sigma_nl_ohm: float, sigma_perp_ohm: float) -> Result:
    """The curve over states at these offsets."""
    found: Result = next(
        curve
        for curve in result["by_states"]["curves"]
        if (curve["sigma_nl_ohm"], curve["sigma_perp_ohm"]) == (sigma_nl_ohm, sigma_perp_ohm)
    )
    return found


def _plot_quantization(result: Result) -> Figure:
    part = result["by_states"]
    states, curve = np.asarray(part["states"]), _curve_of(result, 0.0, 0.0)
    figure, (axes,) = new_figure()
    for key, name, label, colour in (
        ("rmse", "quantization_exponent", "product", COLOURS[0]),
        ("rmse_weight", "quantization_weight_exponent", "weights", COLOURS[2]),
    ):
        exponent = part[name]
        text = f"{label}: slope {exponent['mean']:.3f} ± {exponent['std']:.3f}"
        _line(axes, states, curve[key], colour, text)
    axes.plot(states, 1 / states, color="black", linestyle="--", linewidth=1, label="1 / N")
    _states_axis(axes)
    logarithmic(axes, x=False)
    axes.set_ylabel("RMSE (quantization alone)")
    legend_below(figure, axes, 2)
    return figure


def _plot_levels(result: Result) -> Figure:
    levels = result["levels_ohm"]
    nominal = levels["nominal"]
    figure, (axes,) = new_figure()
    index = np.arange(1, len(nominal) + 1)
    for number, ohm in enumerate(nominal):
        axes.axhline(ohm, color="black", linestyle="--", linewidth=0.9, label="equidistant" if number == 0 else None)
    markers = "osv^D"
    for chip, ohms in enumerate(levels["chips"]):
        options: dict[str, Any] = {"color": COLOURS[chip % len(COLOURS)], "linewidth": 0.8, "markersize": 5}
        axes.plot(index, ohms, marker=markers[chip % len(markers)], label=f"chip {chip}", **options)
    axes.set_xticks(index)
    axes.set_xlabel("state")
    axes.set_ylabel("resistance (Ω)")
    axes.set_title(f"{_NL} = {_ohm(result['settings']['sigma_nl_ohm'])}", fontsize=9)
    legend_below(figure, axes, 3)
    return figure


def _sigma_sweep(axes: Axes, result: Result, name: str) -> None:
    """Error against one sigma, with the plateau of the quantization and the straight line of large sigmas."""
    part = result["by_sigma"]
    sigma = np.asarray(part["sigma_ohm"])
    curve, symbol = (part["nl"], _NL) if name == "nl" else (part["perp"][0]["rmse"], _PERP)
    slope = part[f"slope_{name}_per_ohm"]["mean"]
    plateau = part["plateau"]["mean"]
    _line(axes, sigma, curve, COLOURS[0] if name == "nl" else COLOURS[1], f"all errors, N = {part['states']}")
    axes.axhline(plateau, color="black", linestyle=":", linewidth=1, label=f"quantization: {plateau:.3f}")
    straight = sigma * slope
    shown = straight > plateau / 6
    axes.plot(
        sigma[shown], straight[shown], color="black", linestyle="--", linewidth=1, label=f"{slope:.4f} / Ω · {symbol}"
    )
    logarithmic(axes)
    axes.set_xlabel(f"{symbol} (Ω)")
    axes.set_ylabel(_PRODUCT_ERROR)


def _plot_sigma_nl(result: Result) -> Figure:
    figure, (axes,) = new_figure()
    _sigma_sweep(axes, result, "nl")
    legend_below(figure, axes, 2)
    return figure


def _plot_sigma_perp(result: Result) -> Figure:
    part = result["by_sigma"]
    figure, (left, right) = new_figure(2)
    _sigma_sweep(left, result, "perp")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    sigma = part["sigma_ohm"]
    _line(right, sigma, part["nl"], COLOURS[0], f"{_NL}, shared by all cells")
    _line(right, sigma, part["perp"][0]["rmse"], COLOURS[1], f"{_PERP}, each cell's own", "s")
    right.set_xlabel(f"{_NL} or {_PERP} (Ω)")
    right.set_ylabel(_PRODUCT_ERROR)
    right.set_title(f"slopes {part['slope_ratio']:.2f} : 1", fontsize=9)
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return figure


def _plot_combined(result: Result) -> Figure:
    part = result["by_sigma"]
    figure, (axes,) = new_figure()
    for number, each in enumerate(part["perp"]):
        colour = COLOURS[number]
        label = f"{_NL} = {_ohm(each['sigma_nl_ohm'])}, plateau {each['plateau']['mean']:.3f}"
        _line(axes, part["sigma_ohm"], each["rmse"], colour, label, "osD"[number])
        axes.axhline(each["plateau"]["mean"], color=colour, linestyle=":", linewidth=1)
    logarithmic(axes)
    axes.set_xlabel(f"{_PERP} (Ω)")
    axes.set_ylabel(f"{_PRODUCT_ERROR}, N = {part['states']}")
    legend_below(figure, axes)
    return figure


def _plot_best_states(result: Result) -> Figure:
    part = result["best_states"]
    figure, panels = new_figure(len(part["best"]), width=3.0, sharey=True)
    places, few = np.arange(len(part["states"])), result["settings"]["target_states"]
    for number, (axes, best) in enumerate(zip(panels, part["best"], strict=True)):
        axes.bar(places, 100 * np.asarray(best["fraction"]), width=0.85, color=COLOURS[number % len(COLOURS)])
        mean = float(np.interp(best["mean"]["mean"], part["states"], places))
        axes.axvline(mean, color="black", linestyle="--", linewidth=1)
        axes.set_xticks(places[::3], [str(n) for n in part["states"][::3]])
        axes.set_xlabel(_STATES)
        axes.grid(visible=False, axis="x")
        axes.set_title(
            f"{_PERP} = {_ohm(best['sigma_perp_ohm'])}\nmean {best['mean']['mean']:.1f} ± {best['mean']['std']:.1f}; "
            f"N ≤ {few}: {100 * best['fraction_few']['mean']:.1f} %",
            fontsize=9,
        )
    panels[0].set_ylabel("share of matrices (%)")
    figure.suptitle(
        f"{_NL} = {_ohm(part['sigma_nl_ohm'])} ; N of the lowest RMSE of each matrix (dashed: mean)", fontsize=10
    )
    return figure


def _plot_sources(result: Result) -> Figure:
    """One panel per sigma_perp: quantization, each offset alone, all together."""
    s = result["settings"]
    states, nl = result["by_states"]["states"], s["sigma_nl_ohm"]
    figure, panels = new_figure(len(s["sigma_perp_ohm"]), width=3.1, height=3.8, sharey=True)
    fewest = {best["sigma_perp_ohm"]: best["fewest_states"] for best in result["best_states"]["best"]}
    for axes, perp in zip(panels, s["sigma_perp_ohm"], strict=True):
        _line(axes, states, _curve_of(result, 0.0, 0.0)["rmse"], COLOURS[0], "quantization alone")
        for pair, colour, label, marker in (
            ((nl, 0.0), COLOURS[2], f"{_NL} alone", "s"),
            ((0.0, perp), COLOURS[4], f"{_PERP} alone", "^"),
        ):
            if any(pair):
                _line(axes, states, _curve_of(result, *pair)["rmse_device"], colour, label, marker)
        _line(axes, states, _curve_of(result, nl, perp)["rmse"], COLOURS[1], "all together", "D")
        if fewest[perp] is not None:
            label = f"fewest states within {100 * s['tolerance']:g} % of the lowest"
            axes.axvline(fewest[perp], color="black", linestyle="--", linewidth=1, label=label)
        _states_axis(axes)
        logarithmic(axes, x=False)
        axes.set_title(f"{_NL} = {_ohm(nl)}, {_PERP} = {_ohm(perp)}", fontsize=9)
    panels[0].set_ylabel(_PRODUCT_ERROR)
    legend_below(figure, panels[0], 3)
    return figure


def _plot_inputs(result: Result) -> Figure:
    part = result["by_inputs"]
    figure, (axes,) = new_figure()
    labels = {
        "nl": (f"{_NL}", COLOURS[0], "o"),
        "perp": (f"{_PERP}, an array per tile", COLOURS[1], "s"),
        "perp_one_array": (f"{_PERP}, one array for all tiles", COLOURS[3], "^"),
    }
    for name, (label, colour, marker) in labels.items():
        slope = part["exponents"][name]
        text = label if slope is None else f"{label}: slope {slope['mean']:.2f} ± {slope['std']:.2f}"
        _line(axes, part["inputs"], part[name], colour, text, marker)
    logarithmic(axes)
    axes.set_xticks(part["inputs"])
    axes.set_xlabel("inputs of the matrix")
    axes.set_ylabel("RMSE of the device alone")
    axes.set_title(f"N = {part['states']}, σ = {_ohm(part['sigma_ohm'])}", fontsize=9)
    legend_below(figure, axes)
    return figure


def _plot_law(result: Result) -> Figure:
    s, law = result["settings"], result["best_states"]["law"]
    figure, (axes,) = new_figure()
    held = list(dict.fromkeys(point["sigma_nl_ohm"] for point in law["points"]))
    low, high = s["states"][0], s["states"][-1]
    for number, nl in enumerate(held):
        points = [p for p in law["points"] if p["sigma_nl_ohm"] == nl and p["fewest_states"] is not None]
        options: dict[str, Any] = {
            "color": COLOURS[number],
            "marker": "osD"[number],
            "markersize": 5,
            "linestyle": "none",
        }
        for fitted, label in ((True, f"{_NL} = {_ohm(nl)}"), (False, None)):
            kept = [p for p in points if p["fitted"] == fitted]
            xy = [[p[key] for p in kept] for key in ("range_over_sigma", "fewest_states")]
            axes.plot(*xy, fillstyle="full" if fitted else "none", label=label, **options)
    ratio = np.array([p["range_over_sigma"] for p in law["points"]])
    if law["k"] is not None:
        x = np.geomspace(max(ratio.min(), low / law["k"] / 1.5), min(ratio.max(), high / law["k"]), 2)
        axes.plot(
            x,
            law["k"] * x,
            color="black",
            linestyle="--",
            linewidth=1,
            label=f"k = {law['k']:.2f} (hollow: not fitted)",
        )
    logarithmic(axes)
    axes.set_xlabel(rf"$(R_\mathrm{{max}} - R_\mathrm{{min}})\,/\,\sqrt{{{_NL[1:-1]}^2 + {_PERP[1:-1]}^2}}$")
    axes.set_ylabel(f"fewest states within {100 * s['tolerance']:g} %\nof the lowest RMSE")
    legend_below(figure, axes, 2)
    return figure


def _plot_accuracy(result: Result) -> Figure:
    part = result["accuracy"]
    figure, (axes,) = new_figure()
    for number, curve in enumerate(part["curves"]):
        percent = {key: 100 * np.asarray(curve["accuracy"][key]) for key in ("mean", "std")}
        label = f"{_NL} = {_ohm(curve['sigma_nl_ohm'])}, {_PERP} = {_ohm(curve['sigma_perp_ohm'])}"
        _line(axes, part["states"], percent, COLOURS[number % len(COLOURS)], label)
    if part["software"] is not None:
        label = f"software: {100 * part['software']:.2f} %"
        axes.axhline(100 * part["software"], color="black", linestyle=":", linewidth=1, label=label)
    _states_axis(axes)
    axes.set_ylabel("accuracy (%)")
    axes.set_title(literal(f"{part['model']}, {part['data']}"), fontsize=9)
    legend_below(figure, axes, 1)
    return figure
