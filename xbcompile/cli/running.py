"""The run command's work: accuracy over chips, statistics, counters, cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.cli.chips import Bench, ChipRun, count_not_finite, run_chips
from xbcompile.cli.commissioning import check_one_chip
from xbcompile.cli.required import check_labels, judged, parse_requirements
from xbcompile.cli.saving import save_outputs
from xbcompile.cli.terminal import progress_bar
from xbcompile.errors import DataError
from xbcompile.program.program import Program
from xbcompile.runtime import Cost
from xbcompile.runtime.prepared import MEMORY_BYTES
from xbcompile.units import percent

# Part of a layer's inputs outside of the range that they are coded for, above which it is told.
CLIPPED_FRACTION = 0.01


def run_program(
    path: Path,
    data: str,
    device: str | None,
    seed: int,
    repeat: int,
    output: Path | None,
    fit: Path | None = None,
    state: Sequence[str] | None = None,
    threshold: float | None = None,
    threads: int | None = None,
    jobs: int = 1,
    memory_mib: int | None = None,
    require: Sequence[str] | None = None,
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """Run a program on `repeat` chips; the keys are those of `run --json`."""
    required = parse_requirements(require or ())
    if fit is not None:
        check_one_chip(repeat)
    memory_bytes = MEMORY_BYTES if memory_mib is None else memory_mib << 20
    states = tuple(parse_states(state or ()).items())
    bench = Bench(path, data, device, fit, states, threshold, threads, memory_bytes)
    program, _, loaded = bench.program, bench.corrections, bench.loaded  # in this order, faults are told
    if loaded.labels is None:
        check_labels(required, data)
    started = time.perf_counter()
    # First: labels that do not fit are told before the work.
    software = None if loaded.labels is None else bench.software_accuracy()
    seeds = list(range(seed, seed + repeat))
    with progress_bar("samples", loaded.samples * repeat, show_progress, time_left=True) as progress:
        runs = run_chips(bench, seeds, jobs, output is not None, lambda done: progress(done, "samples"))
    if output is not None:
        save_outputs(output, runs[-1].outputs)
    cost, effort = reduce(add, (run.cost for run in runs)), reduce(add, (run.effort for run in runs))
    result = {
        "device": device or program.target.device_names[0],
        "data": data,
        "samples": loaded.samples,
        "seeds": seeds,
        "fit": None if fit is None else str(fit),
        "accuracy": _accuracy(runs, software),
        "not_finite": {"inputs": count_not_finite(loaded.inputs), "outputs": runs[-1].not_finite},
        "layers": [asdict(each) | _taken(program, each.layer) for each in runs[0].statistics],
        "columns": [asdict(each) for each in runs[0].columns],
        "has_converter": runs[0].has_converter,
        "counters": _counters(cost),
        "commissioning": asdict(effort),
        "cost": _cost(cost),
        "seconds": time.perf_counter() - started,
    }
    return result | {"requirements": judged(result, required), "warnings": _warnings(result)}


def _accuracy(runs: Sequence[ChipRun], software: float | None) -> dict[str, Any] | None:
    """The key `accuracy`."""
    measured = [run.accuracy for run in runs if run.accuracy is not None]
    if not measured:
        return None
    return {
        "mean": float(np.mean(measured)),
        "std": float(np.std(measured, ddof=1)) if len(measured) > 1 else None,
        "per_seed": measured,
        "software": software,
        "decision": runs[-1].rule,
    }


def parse_states(settings: Iterable[str]) -> dict[str, str]:
    """States from `OUT=IN` texts: the input by the output whose value of one sample it takes in the next.

    Raises:
        DataError: a text is not of that form, or an input is given twice.
    """
    states: dict[str, str] = {}
    for setting in settings:
        output, equals, name = setting.rpartition("=")
        if not (output and equals and name) or name in states.values():
            raise DataError(
                f"--state {setting}: write --state OUTPUT=INPUT, once for each input that takes an output of the call before"
            )
        states[output] = name
    return states


def _taken(program: Program, name: str) -> dict[str, Any]:
    """The range for which a layer's inputs are coded."""
    code = next(layer.input_code for layer in program.network.layers if layer.name == name)
    return {"input_low": None if code is None else code.low, "input_high": None if code is None else code.high}


def _warnings(result: dict[str, Any]) -> list[str]:
    """What a user must know before trusting the outputs."""
    found = [
        f"layer {layer['layer']!r}: {percent(layer['clipped_fraction'])} of its inputs are clipped, as they lie outside of "
        f"{layer['input_low']:g} to {layer['input_high']:g}, for which it is coded; they go from {layer['lowest_input']:g} to "
        f"{layer['highest_input']:g}: scale the data as at calibration, or calibrate with data like these"
        for layer in result["layers"]
        if (layer["clipped_fraction"] or 0) > CLIPPED_FRACTION and layer["lowest_input"] is not None
    ]
    strange = result["not_finite"]
    if strange["inputs"] or strange["outputs"]:
        found.append(
            f"{strange['inputs']:,} input values are NaN or infinite, and {strange['outputs']:,} output values"
        )
    return found


def _counters(cost: Cost) -> dict[str, int]:
    return {
        "inferences": cost.inferences,
        "reads": cost.reads,
        "dot_products": cost.dot_products,
        "weight_updates": cost.weight_updates,
        "rows_written": cost.rows_written,
    }


def _cost(cost: Cost) -> dict[str, float]:
    return {
        "energy_j": cost.energy_j,
        "energy_per_inference_j": cost.energy_j / cost.inferences,
        "time_s": cost.time_s,
        "time_per_inference_s": cost.time_s / cost.inferences,
    }
