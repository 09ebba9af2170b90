"""What the assumed numbers of a target are worth: accuracy with each at the lower and the upper end of its range.

Everything is compiled anew for every number, as passes and mapping may see it, and run on the same chips (seeds) and samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.api import compile as compile_model
from xbcompile.data.datasets import load_data
from xbcompile.errors import DataError, XbcompileError
from xbcompile.experiments.reproduction import chip_accuracies
from xbcompile.runtime.accuracy import software_accuracy
from xbcompile.targets import Target

Ends = dict[tuple[str, float], "Accuracies | str"]


@dataclass(frozen=True)
class Accuracies:
    """Of one program on chips, in per cent.

    Args:
        arrays: of the chips 0, 1, ...
        software: of the network itself.
        samples: how many there are.
        warnings: of the compiler.
    """

    arrays: list[float]
    software: float
    samples: int
    warnings: list[str]


@dataclass(frozen=True)
class Trial:
    """A network, a target, data and chips.

    Args:
        model: path of the network.
        target: with the numbers of the baseline.
        data: labelled samples, see `load_data`.
        calibration: see `xbcompile.compile`.
        device: a device name of the target; None takes the default.
        repeat: chips.
        threads: worker threads.
        options: further options of `xbcompile.compile`.
    """

    model: Path
    target: Target
    data: str
    calibration: str | None = None
    device: str | None = None
    repeat: int = 3
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, quantities: Mapping[str, float] | None = None) -> Accuracies:
        """Compile for the target with some of its numbers changed, and run.

        Raises:
            DataError: the data have no labels.
            XbcompileError: the target cannot have these numbers, or the network cannot be compiled for it.
        """
        target = self.target
        if quantities:
            target = target.with_quantities("sensitivity", **quantities)
        told: list[str] = []
        program = compile_model(self.model, target, calibration=self.calibration, warn=told.append, **self.options)
        data = load_data(self.data, program.network.inputs, program.network.samples)
        if data.labels is None:
            raise DataError(f"data {self.data!r} has no labels, and there is no accuracy without")
        software = software_accuracy(program, data.inputs, data.labels)
        assert software is not None  # the program holds the model
        arrays = chip_accuracies(program, data, self.device, self.repeat, self.threads)
        return Accuracies(arrays, 100 * software, data.samples, told)

    def run_end(self, name: str, value: float) -> Accuracies | str:
        """The same with one number changed; why it cannot be where it cannot."""
        try:
            return self.run({name: value})
        except XbcompileError as error:
            return str(error)


def ends_to_run(target: Target, names: Iterable[str]) -> list[tuple[str, float]]:
    """Numbers and values that differ from the target's own: the ends of the ranges of these assumed numbers."""
    ranges = target.assumed_ranges
    return [
        (name, end)
        for name in names
        for end in dict.fromkeys((ranges[name].low, ranges[name].high))
        if end != target.quantities[name]["value"]
    ]


def noise_of(arrays: list[float]) -> float | None:
    """Twice the standard deviation of the difference of two means over as many chips, in points: what is smaller may be chance.

    Args:
        arrays: accuracies of independent chips, in per cent; of one alone nothing follows (None).
    """
    if len(arrays) < 2:
        return None
    return 2 * math.sqrt(2 / len(arrays)) * float(np.std(arrays, ddof=1))


def sensitivity_rows(target: Target, names: Iterable[str], baseline: Accuracies, ends: Ends) -> list[dict[str, Any]]:
    """One row per assumed number, those with the largest swing first; the keys are those of `numbers` of `sensitivity --json`.

    Args:
        target: whose numbers they are.
        names: of assumed numbers.
        baseline: accuracies with the target's own numbers.
        ends: what came out for each of `ends_to_run`; a text says why nothing did.
    """
    ranges, noise = target.assumed_ranges, noise_of(baseline.arrays)
    rows = []
    for name in names:
        tried, entry = ranges[name], target.quantities[name]
        found = [ends.get((name, end), baseline) for end in (tried.low, tried.high)]
        means = [float(np.mean(each.arrays)) for each in (*found, baseline) if isinstance(each, Accuracies)]
        swing = max(means) - min(means)
        rows.append(
            {
                "name": name,
                "value": entry["value"],
                "unit": entry["unit"],
                "source": entry["source"],
                "low": _end(tried.low, found[0]),
                "high": _end(tried.high, found[1]),
                "range_given": tried.given,
                "swing": swing,
                "within_noise": None if noise is None else swing <= noise,
            }
        )
    return sorted(rows, key=lambda row: -row["swing"])


def _end(value: float, found: Accuracies | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"value": value, "error": found, "accuracy": None}
    return {"value": value, "error": None, "accuracy": accuracy_json(found)}


def accuracy_json(found: Accuracies) -> dict[str, Any]:
    """Accuracies over chips as plain values."""
    spread = float(np.std(found.arrays, ddof=1)) if len(found.arrays) > 1 else None
    return {"mean": float(np.mean(found.arrays)), "std": spread, "per_seed": found.arrays}
