"""The run command's work: accuracy over chips, counters, cost."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xbcompile.cli.commissioning import read_fit
from xbcompile.data.datasets import Data, load_data
from xbcompile.errors import DataError
from xbcompile.ir.corrections import Effort
from xbcompile.program.archive import write_atomically
from xbcompile.program.program import Program, load_program
from xbcompile.reference.sequence import with_initial_states
from xbcompile.runtime import Cost, LayerStatistics, Session, cost_of
from xbcompile.runtime.accuracy import accuracy_of, software_accuracy


def run_program(
    path: Path,
    data: str,
    device: str | None,
    seed: int,
    repeat: int,
    output: Path | None,
    fit: Path | None = None,
    state: Sequence[str] | None = None,
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """Run a program on `repeat` chips; the keys are those of `run --json`."""
    program, corrections = load_program(path), read_fit(fit, repeat)
    states = parse_states(state or ())
    loaded = load_data(data, program.network.inputs, program.network.samples, states.values())
    started = time.perf_counter()
    seeds = list(range(seed, seed + repeat))
    costs: list[Cost] = []
    efforts: list[Effort] = []
    accuracies: list[float] = []
    outputs: dict[str, np.ndarray] = {}
    statistics: list[LayerStatistics] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show_progress, transient=True) as progress:
        task = progress.add_task("samples", total=loaded.samples * repeat)
        for done, each in enumerate(seeds):
            session = Session(program, device, each, corrections)
            outputs = session.run_samples(
                loaded.inputs,
                lambda n, base=done: progress.update(task, completed=base * loaded.samples + n),  # type: ignore[misc]  # a default binds the loop's value
                states=states,
            )
            costs.append(cost_of(program, session.counters))
            efforts.append(session.corrections_effort)
            statistics = session.statistics if done == 0 else statistics
            if loaded.labels is not None:
                name = program.network.outputs[0].name
                scored = program.network.samples.samples_first(name, outputs[name])
                accuracies.append(accuracy_of(scored, loaded.labels))
            has_converter = session.device.lsb is not None
    if output is not None:
        save_outputs(output, outputs)
    cost, effort = reduce(add, costs), reduce(add, efforts)
    return {
        "device": device or program.target.device_names[0],
        "data": data,
        "samples": loaded.samples,
        "seeds": seeds,
        "fit": None if fit is None else str(fit),
        "accuracy": None if loaded.labels is None else _accuracy(program, loaded, states, accuracies),
        "layers": [asdict(layer) for layer in statistics],
        "has_converter": has_converter,
        "counters": {
            "inferences": cost.inferences,
            "reads": cost.reads,
            "dot_products": cost.dot_products,
            "weight_updates": cost.weight_updates,
            "rows_written": cost.rows_written,
        },
        "commissioning": asdict(effort),
        "cost": {
            "energy_j": cost.energy_j,
            "energy_per_inference_j": cost.energy_j / cost.inferences,
            "time_s": cost.time_s,
            "time_per_inference_s": cost.time_s / cost.inferences,
        },
        "seconds": time.perf_counter() - started,
    }


def _accuracy(program: Program, data: Data, states: dict[str, str], measured: list[float]) -> dict[str, Any]:
    assert data.labels is not None
    inputs = with_initial_states(program.network, data.inputs, states)
    return {
        "mean": float(np.mean(measured)),
        "std": float(np.std(measured)),
        "per_seed": measured,
        "software": software_accuracy(program, inputs, data.labels, states),
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


def save_outputs(path: Path, outputs: dict[str, np.ndarray]) -> None:
    """Write outputs as .npz, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **outputs)  # type: ignore[arg-type]  # names are the model's
    write_atomically(path, buffer.getvalue())
