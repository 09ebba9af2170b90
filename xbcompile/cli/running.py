"""The run command's work: accuracy over chips, statistics, counters, cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xbcompile.cli.commissioning import read_fit
from xbcompile.cli.saving import save_outputs
from xbcompile.data.datasets import Data, load_data
from xbcompile.errors import DataError
from xbcompile.ir.corrections import Effort
from xbcompile.program.program import Program, load_program
from xbcompile.reference.sequence import with_initial_states
from xbcompile.runtime import Cost, LayerStatistics, Session, cost_of
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.units import percent

# Part of a layer's inputs outside of the range that they are coded for, above which it is told.
CLIPPED_FRACTION = 0.01


@dataclass(frozen=True, eq=False)
class _ChipRun:
    """What a run on one chip gave, beside its outputs."""

    cost: Cost
    effort: Effort
    statistics: list[LayerStatistics]
    has_converter: bool


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
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """Run a program on `repeat` chips; the keys are those of `run --json`."""
    program, corrections = load_program(path), read_fit(fit, repeat)
    states = parse_states(state or ())
    loaded = load_data(data, program.network.inputs, program.network.samples, states.values(), finite=False)
    if loaded.labels is None and threshold is not None:
        raise DataError(f"--threshold {threshold:g} is for accuracy, and data {data!r} has no labels")
    started = time.perf_counter()
    scored = None if loaded.labels is None else _Scored(program, loaded, states, threshold)
    seeds = list(range(seed, seed + repeat))
    runs: list[_ChipRun] = []
    outputs: dict[str, Any] = {}
    with _samples_shown(loaded.samples * repeat, show_progress) as progress:
        for done, each in enumerate(seeds):
            session = Session(program, device, each, corrections)
            outputs = session.run_samples(loaded.inputs, partial(progress, done * loaded.samples), states=states)
            has_converter, cost = session.device.lsb is not None, cost_of(program, session.counters)
            runs.append(_ChipRun(cost, session.corrections_effort, session.statistics, has_converter))
            if scored is not None:
                scored.add(outputs)
    if output is not None:
        save_outputs(output, outputs)
    cost, effort = reduce(add, (run.cost for run in runs)), reduce(add, (run.effort for run in runs))
    result = {
        "device": device or program.target.device_names[0],
        "data": data,
        "samples": loaded.samples,
        "seeds": seeds,
        "fit": None if fit is None else str(fit),
        "accuracy": None if scored is None else scored.result(),
        "not_finite": {"inputs": _not_finite(loaded.inputs), "outputs": _not_finite(outputs)},
        "layers": [asdict(each) | _taken(program, each.layer) for each in runs[0].statistics],
        "has_converter": runs[0].has_converter,
        "counters": _counters(cost),
        "commissioning": asdict(effort),
        "cost": _cost(cost),
        "seconds": time.perf_counter() - started,
    }
    return result | {"warnings": _warnings(result)}


@contextmanager
def _samples_shown(total: int, show_progress: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress of a run over chips: it is told the samples of chips before, and those of the present one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show_progress, transient=True) as progress:
        task = progress.add_task("samples", total=total)
        yield lambda before, done: progress.update(task, completed=before + done)


class _Scored:
    """Accuracies of the chips, beside the model's own. It comes first: labels that do not fit are told before the work."""

    def __init__(self, program: Program, data: Data, states: dict[str, str], threshold: float | None) -> None:
        assert data.labels is not None
        self.output, self.axes = program.network.outputs[0].name, program.network.samples
        self.labels = data.labels
        self.classifier = Classifier.of(program.network, threshold)
        inputs = with_initial_states(program.network, data.inputs, states)
        self.software = software_accuracy(program, inputs, data.labels, states, self.classifier)
        self.measured: list[float] = []
        self.rule: dict[str, Any] = {}

    def add(self, outputs: dict[str, Any]) -> None:
        """Score one chip's outputs."""
        output = self.axes.samples_first(self.output, outputs[self.output])
        self.measured.append(self.classifier.accuracy(output, self.labels))
        self.rule = self.classifier.rule(output)

    def result(self) -> dict[str, Any]:
        """The key `accuracy`."""
        return {
            "mean": float(np.mean(self.measured)),
            "std": float(np.std(self.measured, ddof=1)) if len(self.measured) > 1 else None,
            "per_seed": self.measured,
            "software": self.software,
            "decision": self.rule,
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


def _not_finite(values: dict[str, Any]) -> int:
    """How many numbers are NaN or infinite."""
    floats = (x for x in values.values() if isinstance(x, np.ndarray) and x.dtype.kind == "f")
    return sum(x.size - int(np.count_nonzero(np.isfinite(x))) for x in floats)


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
