"""A program on labelled data, on one chip or more: what each gives, and all of it as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np

from xbcompile.data.datasets import Data
from xbcompile.data.stored import StoredArray, blocks
from xbcompile.errors import DataError
from xbcompile.ir.corrections import Corrections, Effort
from xbcompile.program.program import Program
from xbcompile.reference.sequence import with_initial_states
from xbcompile.runtime import ColumnStatistics, Cost, LayerStatistics, Session, cost_of
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.runtime.prepared import MEMORY_BYTES, PreparedProgram
from xbcompile.targets import Device
from xbcompile.units import percent

# Part of a layer's inputs outside of the range that they are coded for, above which it is told.
CLIPPED_FRACTION = 0.01


@dataclass(frozen=True)
class ChipRun:
    """What a run on one chip gave.

    Args:
        cost: of the run.
        effort: what it took to fit the chip's corrections.
        statistics: of the layers; readings are observed on the first chip alone.
        columns: of the columns, by layer; likewise.
        has_converter: whether the chip has one.
        not_finite: how many output values are NaN or infinite.
        accuracy: fraction of samples classified right; None without labels.
        rule: how classes were read; None without labels.
        outputs: by name, where they are wanted.
    """

    cost: Cost
    effort: Effort
    statistics: list[LayerStatistics]
    columns: list[ColumnStatistics]
    has_converter: bool
    not_finite: int
    accuracy: float | None
    rule: dict[str, Any] | None
    outputs: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A program and the samples that each chip runs.

    Args:
        program: the program.
        data: the samples.
        device: a device name of the program's target, or a Device; None takes the default.
        corrections: of the one chip that is run; None: they are fitted on each.
        states: inputs by the output whose value of one sample they take in the next.
        threshold: see `Classifier.of`.
        threads: worker threads; None takes one per processor.
        memory_bytes: see `Session`.

    Raises:
        DataError: there is a threshold, and the samples have no labels.
    """

    program: Program
    data: Data
    device: str | Device | None = None
    corrections: Corrections | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    threads: int | None = None
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self) -> None:
        if self.data.labels is None and self.threshold is not None:
            raise DataError(
                f"--threshold {self.threshold:g} is for accuracy, and data {self.data.name!r} has no labels"
            )

    @cached_property
    def classifier(self) -> Classifier:
        """How classes are read."""
        return Classifier.of(self.program.network, self.threshold)

    @cached_property
    def prepared(self) -> PreparedProgram:
        """What the chips share."""
        return PreparedProgram(self.program, self.threads, self.memory_bytes)

    def software_accuracy(self) -> float | None:
        """Of the user's model on the samples; None without labels, or where the program does not hold the model."""
        if self.data.labels is None:
            return None
        inputs = with_initial_states(self.program.network, self.data.inputs, self.states)
        chunk = self.prepared.samples_at_once(inputs)
        return software_accuracy(self.program, inputs, self.data.labels, self.states, self.classifier, chunk)

    def run(self, seed: int, first: bool, keep_outputs: bool, progress: Callable[[int], None] | None = None) -> ChipRun:
        """Run the samples on a chip.

        Args:
            seed: which.
            first: observe readings.
            keep_outputs: hand them back.
            progress: told the number of samples done.
        """
        session, states = Session(self.prepared, self.device, seed, self.corrections), self.states
        network, labels, inputs = self.program.network, self.data.labels, self.data.inputs
        scored = network.outputs[0].name
        not_finite = 0

        def wanted() -> Iterator[dict[str, Any]]:
            nonlocal not_finite
            for part in session.run_parts(inputs, progress, states=states, observe=first):
                not_finite += count_not_finite(part)
                kept = part if keep_outputs else {} if labels is None else {scored: part[scored]}
                yield kept

        outputs = session.join(inputs, wanted(), states)
        accuracy = rule = None
        if labels is not None:
            output = network.samples.samples_first(scored, outputs[scored])
            accuracy, rule = self.classifier.accuracy(output, labels), self.classifier.rule(output)
        return ChipRun(
            cost_of(self.program, session.counters),
            session.corrections_effort,
            session.statistics,
            session.column_statistics,
            session.device.lsb is not None,
            not_finite,
            accuracy,
            rule,
            outputs if keep_outputs else {},
        )


def run_facts(
    evaluation: Evaluation,
    runs: Sequence[ChipRun],
    seeds: Sequence[int],
    software: float | None,
    fit: str | None,
    seconds: float,
) -> dict[str, Any]:
    """All that the chips gave, with the keys of `run --json`; no requirements.

    Args:
        evaluation: what each ran.
        runs: of the chips.
        seeds: of the chips.
        software: accuracy of the user's model.
        fit: file of the corrections; None: they were fitted.
        seconds: that all took.
    """
    program, device = evaluation.program, evaluation.device
    cost, effort = reduce(add, (run.cost for run in runs)), reduce(add, (run.effort for run in runs))
    name = device if device is None or isinstance(device, str) else type(device).__name__
    result: dict[str, Any] = {
        "device": name or program.target.device_names[0],
        "data": evaluation.data.name,
        "samples": evaluation.data.samples,
        "seeds": list(seeds),
        "fit": fit,
        "accuracy": _accuracy(runs, software),
        "not_finite": {"inputs": count_not_finite(evaluation.data.inputs), "outputs": runs[-1].not_finite},
        "layers": [asdict(each) | _taken(program, each.layer) for each in runs[0].statistics],
        "columns": [asdict(each) for each in runs[0].columns],
        "has_converter": runs[0].has_converter,
        "counters": _counters(cost),
        "commissioning": asdict(effort),
        "cost": _cost(cost),
        "seconds": seconds,
        "requirements": [],
    }
    return result | {"warnings": _warnings(result)}


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


def count_not_finite(values: dict[str, Any]) -> int:
    """How many numbers are NaN or infinite."""
    floats = (x for x in values.values() if isinstance(x, np.ndarray | StoredArray) and x.dtype.kind == "f")
    return sum(int(np.count_nonzero(~np.isfinite(block))) for x in floats for block in blocks(x))
