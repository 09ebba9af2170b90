"""The study command's work: options, tables, files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from xbcompile.cli.characters import visible
from xbcompile.cli.output import make_folder
from xbcompile.errors import TargetError
from xbcompile.experiments.random_products import StudySettings, states_between
from xbcompile.experiments.study import accuracy, study
from xbcompile.files import write_atomically
from xbcompile.report.fitted import FittedTable
from xbcompile.targets import load_target

_QUICK_SEEDS, _QUICK_MATRICES, _QUICK_STATES, _QUICK_INPUTS = 3, 10, 8, (4, 16, 64)


def parse_states(text: str, count: int = 20) -> tuple[int, ...]:
    """`2:64` (about `count` of them, all if there are no more) or `2,4,8`.

    Raises:
        TargetError: not whole numbers, or a range that does not rise.
    """
    first, colon, last = text.partition(":")
    try:
        if not colon:
            return tuple(int(part) for part in text.split(","))
        low, high = int(first), int(last)
    except ValueError:
        raise TargetError(
            f"--states {text!r} is neither a range nor a list of whole numbers; try 2:64 or 2,4,8,16"
        ) from None
    if not 2 <= low < high:
        raise TargetError(f"--states {text!r} does not rise from 2 or more; try 2:64")
    return states_between(low, high, count)


def parse_ohms(text: str) -> tuple[float, ...]:
    """`5,30,60`.

    Raises:
        TargetError: not numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise TargetError(f"--sigma-perp {text!r} is not a list of numbers in Ohm; try 5,30,60") from None


def study_settings(
    target: str, seeds: int, states: str, sigma_nl_ohm: float, sigma_perp: str, matrices: int, weights: str, quick: bool
) -> StudySettings:
    """The command's options as settings; `quick` lowers the numbers of draws, states and matrix sizes."""
    settings = StudySettings(
        target=load_target(target),
        seeds=seeds,
        states=parse_states(states, _QUICK_STATES if quick else 20),
        sigma_nl_ohm=sigma_nl_ohm,
        sigma_perp_ohm=parse_ohms(sigma_perp),
        matrices=matrices,
        weights=weights,
    )
    if not quick:
        return settings
    return replace(
        settings,
        seeds=min(seeds, _QUICK_SEEDS),
        matrices=min(matrices, _QUICK_MATRICES),
        inputs=_QUICK_INPUTS,
    )


def run_study(
    settings: StudySettings,
    folder: Path | None,
    model: Path | None,
    data: str | None,
    calibration: str | None,
    threads: int | None,
    progress: Callable[[str], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Measure, and write plots and study.json where a folder is given; the keys are those of `study --json`.

    Raises:
        ProgramError: the folder cannot be written.
        TargetError: a model without data, or the other way round.
    """
    if (model is None) != (data is None) or (model is None and calibration is not None):
        raise TargetError(
            "--model and --data go together (and --calibration with them): MODEL.onnx and mnist:test:1000"
        )
    if folder is not None:
        make_folder(folder)
    result: dict[str, Any] = {}
    if model is not None and data is not None:  # first: a fault of the user's files shows at once
        progress(f"accuracy of {model}")
        result = {"accuracy": accuracy(settings, model, data, calibration, warn, threads)}
    result = {**study(settings, progress), **result}
    if folder is not None:
        progress("plots")
        result["files"] = _write(folder, result)
    return result


def _write(folder: Path, result: dict[str, Any]) -> list[str]:
    """Write the plots and study.json, each beside its place and renamed; returns their paths."""
    from xbcompile.report.study_plots import plot_study

    files = {**plot_study(visible(result)), "study.json": json.dumps(result, indent=1).encode() + b"\n"}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [str(folder / name) for name in files]


def print_study(console: Console, result: dict[str, Any]) -> None:
    """The figures that the paper's plots show, as tables."""
    s = result["settings"]
    facts = (
        f": {s['seeds']} seeds of {s['matrices']} random {s['rows']}x{s['columns']} matrices "
        f"({s['weights']} weights), {s['vectors']} inputs each; R_max - R_min = {s['range_ohm']:.1f} Ohm; "
        "mean ± spread over seeds"
    )
    console.print(Text.assemble((result["target"], "bold"), facts))
    console.print(_states_table(result))
    exponent, sweep, sizes = (
        result["by_states"]["quantization_exponent"],
        result["by_sigma"],
        result["by_inputs"]["exponents"],
    )
    console.print(f"quantization alone: RMSE ~ N^({exponent['mean']:.3f} ± {exponent['std']:.3f})")
    plateaus = ", ".join(f"{p['plateau']['mean']:.3f} at sigma_NL = {p['sigma_nl_ohm']:g} Ohm" for p in sweep["perp"])
    console.print(f"{sweep['states']} states, no sigma_perp: RMSE {plateaus}")
    console.print(
        f"{sweep['states']} states, large sigma: RMSE {_per_ohm(sweep['slope_nl_per_ohm'])} sigma_NL, "
        f"{_per_ohm(sweep['slope_perp_per_ohm'])} sigma_perp: {sweep['slope_ratio']:.2f} : 1"
    )
    if sizes["nl"] is not None:
        console.print(
            f"device alone, matrices with n inputs: RMSE ~ n^{sizes['nl']['mean']:.2f} with sigma_NL, "
            f"n^{sizes['perp']['mean']:.2f} with sigma_perp (n^{sizes['perp_one_array']['mean']:.2f} on one array for all tiles)"
        )
    console.print(_best_table(result))
    law = result["best_states"]["law"]
    if law["k"] is None:
        console.print("no point to fit k to: take more states")
    else:
        fitted = sum(point["fitted"] for point in law["points"])
        console.print(
            f"fewest states = k (R_max - R_min) / sqrt(sigma_NL² + sigma_perp²): k = {law['k']:.3f} "
            f"({fitted} points, relative residual {100 * law['relative_residual']:.0f} %)"
        )
    if "accuracy" in result:
        console.print(_accuracy_table(result["accuracy"]))
    if "files" in result:
        console.print(f"written: {len(result['files'])} files in {os.path.dirname(result['files'][0])}")


def _per_ohm(slope: dict[str, float]) -> str:
    return f"{slope['mean']:.5f} ± {slope['std']:.5f} per Ohm of"


def _states_table(result: dict[str, Any]) -> FittedTable:
    part = result["by_states"]
    caption = "RMSE of the product; a sigma alone: of the device, without the quantization"
    table = FittedTable(caption=caption)
    table.add_column("states", justify="right")
    columns = []
    for curve in part["curves"]:
        pair = curve["sigma_nl_ohm"], curve["sigma_perp_ohm"]
        together = all(pair) or not any(pair)
        columns.append(curve["rmse" if together else "rmse_device"])
        names = [f"{name} {sigma:g} Ohm" for name, sigma in zip(("NL", "perp"), pair, strict=True) if sigma]
        alone = " alone" if not together or not any(pair) else ""
        table.add_column((" + ".join(names) or "quantization") + alone, justify="right")
    for i, states in enumerate(part["states"]):
        table.add_row(str(states), *(f"{curve['mean'][i]:.4f} ± {curve['std'][i]:.4f}" for curve in columns))
    return table


def _best_table(result: dict[str, Any]) -> FittedTable:
    part, s = result["best_states"], result["settings"]
    table = FittedTable(caption=f"at sigma_NL = {part['sigma_nl_ohm']:g} Ohm")
    fewest = f"fewest states within {100 * s['tolerance']:g} % of the lowest RMSE"
    for name in ("sigma_perp", "best N, mean", "median", f"best N up to {s['target_states']}", fewest):
        table.add_column(name, justify="right")
    for best in part["best"]:
        few = best["fraction_few"]
        table.add_row(
            f"{best['sigma_perp_ohm']:g} Ohm",
            f"{best['mean']['mean']:.1f} ± {best['mean']['std']:.1f}",
            f"{best['median']:g}",
            f"{100 * few['mean']:.1f} ± {100 * few['std']:.1f} %",
            f"above {s['states'][-1] / 2:g}" if best["fewest_states"] is None else f"{best['fewest_states']:.1f}",
        )
    return table


def _accuracy_table(part: dict[str, Any]) -> FittedTable:
    software = "unknown" if part["software"] is None else f"{100 * part['software']:.2f} %"
    table = FittedTable(caption=f"accuracy of {part['model']} on {part['data']}; software {software}")
    table.add_column("states", justify="right")
    for curve in part["curves"]:
        table.add_column(f"NL {curve['sigma_nl_ohm']:g} + perp {curve['sigma_perp_ohm']:g} Ohm", justify="right")
    for i, states in enumerate(part["states"]):
        cells = (curve["accuracy"] for curve in part["curves"])
        table.add_row(str(states), *(f"{100 * c['mean'][i]:.2f} ± {100 * c['std'][i]:.2f} %" for c in cells))
    return table
