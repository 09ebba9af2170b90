"""The published systems as experiments: what is compiled, run and asked for. `xbcompile reproduce` prints them as one table.

Every experiment compiles a shipped, trained network for a target, runs it on several simulated chips over a whole test set, and
compares with the network's own accuracy in onnxruntime. Sources of the published figures: Jung et al. (2022) for `mram64`,
Rzeszut et al. (2022) for `multicell`, Merrikh Bayat et al. (2018) for `memristor20`, Liu et al. for `sot`, MultiSpin.AI
deliverable D4.2 (2026) for `m2tj4`. What each figure assumes is told in docs/reproduction.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from xbcompile.api import compile as compile_model
from xbcompile.data.datasets import Data, load_data
from xbcompile.errors import DataError
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize
from xbcompile.runtime import Session
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import load_target


@dataclass(frozen=True)
class Goal:
    """What an experiment must reach; accuracies in per cent, drops in points. None: not asked for.

    Args:
        drop: largest software accuracy minus mean array accuracy.
        array: smallest mean array accuracy.
        worst: smallest accuracy of any chip.
        software: smallest software accuracy.
        weight_updates: largest number of weight updates.
        reads: largest number of reads per inference.
    """

    drop: float | None = None
    array: float | None = None
    worst: float | None = None
    software: float | None = None
    weight_updates: int | None = None
    reads: int | None = None

    def __str__(self) -> str:
        texts = {
            "drop": "drop <= {:g}",
            "array": "array >= {:g}",
            "worst": "worst >= {:g}",
            "software": "software >= {:g}",
            "weight_updates": "weight updates <= {:,}",
            "reads": "reads <= {:,}",
        }
        asked = {name: getattr(self, name) for name in texts}
        return ", ".join(texts[name].format(value) for name, value in asked.items() if value is not None)

    def met(self, software: float, arrays: Sequence[float], totals: dict[str, Any]) -> bool:
        """Whether these accuracies, in per cent, and the program's totals reach the goal."""
        mean, tiny = float(np.mean(arrays)), 1e-9
        return (
            (self.drop is None or software - mean <= self.drop + tiny)
            and (self.array is None or mean >= self.array - tiny)
            and (self.worst is None or min(arrays) >= self.worst - tiny)
            and (self.software is None or software >= self.software - tiny)
            and (self.weight_updates is None or totals["weight_updates"] <= self.weight_updates)
            and (self.reads is None or totals["reads_per_inference"] <= self.reads)
        )


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Args:
        name: unique; lower case with hyphens.
        title: what it is, in words.
        model: file name in the folder of models, without ending.
        target: name of a shipped target.
        goal: what must be reached; None for rows that stand beside another one.
        published: the paper's software and array accuracy in per cent; None where it has none.
        passes: pipeline; None takes the target's own.
        calibration: calibration inputs.
        data: test data.
        quantities: numbers of the target that differ.
        options: further options of `xbcompile.compile`.
        device: device name; None takes the target's first.
        has_spread: whether chips differ; otherwise one stands for all.
        weight: rough seconds with ten chips: long experiments start first.
        procedure: "paper": as the paper did it; "ours".
        networks: further files of models, trained by the same recipe from other seeds: every chip runs each of them.
        quick_data: test data where a coarse answer will do; None: as otherwise.
    """

    name: str
    title: str
    model: str
    target: str
    goal: Goal | None
    published: tuple[float | None, float | None] = (None, None)
    passes: str | None = None
    calibration: str = "mnist:train:1000"
    data: str = "mnist:test"
    quantities: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    has_spread: bool = True
    weight: float = 10
    procedure: Literal["paper", "ours"] = "ours"
    networks: tuple[str, ...] = ()
    quick_data: str | None = None

    def check(self, models: Path) -> None:
        """Raise DataError when a network is not there."""
        for name in (self.model, *self.networks):
            model_path(models, name)

    def compiled(self, models: Path, quantities: dict[str, float]) -> Program:
        """The program for the target with these of its numbers changed."""
        return self.compiled_model(model_path(models, self.model), quantities)

    def compiled_model(
        self, model: Path | onnx.ModelProto, quantities: dict[str, float], calibration: Mapping[str, Any] | None = None
    ) -> Program:
        """The same of another network.

        Args:
            model: a file, or in memory.
            quantities: of the target, that differ.
            calibration: inputs by name; None: the experiment's.
        """
        target = load_target(self.target)
        if quantities:
            target = target.with_quantities(f"experiment {self.name}", **quantities)
        # One tile per array, as published, and the cuts for whose rows some of the networks were trained.
        options = {"cuts": "greedy", "packing": "none", **self.options}
        given = self.calibration if calibration is None else calibration
        return compile_model(model, target, passes=self.passes, calibration=given, **options)

    def coarse(self) -> Experiment:
        """The same on fewer test data, where it says so."""
        return replace(self, data=self.quick_data or self.data)

    def run(self, models: Path, seeds: int, threads: int) -> dict[str, Any]:
        """Compile and run on `seeds` chips: one entry of the `rows` of `reproduce --json`."""
        found = [replace(self, model=name)._run(models, seeds, threads) for name in (self.model, *self.networks)]
        software = float(np.mean([each["software"] for each in found]))
        arrays = [accuracy for each in found for accuracy in each["array_per_seed"]]
        row = found[0] | self._accuracies(software, arrays, len(found))
        if len(found) > 1:
            row["software_per_network"] = [each["software"] for each in found]
            row["array_per_network"] = [each["array_mean"] for each in found]
            row["network_std"] = float(np.std(row["array_per_network"], ddof=1))
            row["array_std"] = float(np.sqrt(np.mean([each["array_std"] ** 2 for each in found])))
        if self.goal is not None:
            totals = {name: row[name] for name in ("weight_updates", "reads_per_inference")}
            row["met"] = self.goal.met(software, arrays, totals)
        return row

    def _run(self, models: Path, seeds: int, threads: int) -> dict[str, Any]:
        """The row of one network."""
        program = self.compiled(models, self.quantities)
        data = load_data(self.data, program.network.inputs, program.network.samples)
        if data.labels is None:
            raise DataError(f"data {self.data!r} has no labels")
        software = software_accuracy(program, data.inputs, data.labels)
        assert software is not None  # the program holds the model
        arrays = chip_accuracies(program, data, self.device, seeds if self.has_spread else 1, threads)
        return self.row(100 * software, arrays, summarize(program), data.samples)

    def _accuracies(self, software: float, arrays: list[float], networks: int) -> dict[str, Any]:
        """What a row says of accuracies in per cent: over all chips of all networks."""
        return {
            "software": software,
            "array_mean": float(np.mean(arrays)),
            "array_median": float(np.median(arrays)),
            "array_std": float(np.std(arrays, ddof=1)) if len(arrays) > 1 else 0.0,
            "array_worst": float(np.min(arrays)),
            "array_per_seed": arrays,
            "seeds": len(arrays) // networks,
            "networks": networks,
        }

    def row(self, software: float, arrays: list[float], summary: dict[str, Any], samples: int) -> dict[str, Any]:
        """One entry of `rows`, from accuracies in per cent and the program's summary."""
        totals = summary["totals"]
        digital_macs = sum(layer["digital_macs_per_inference"] or 0 for layer in summary["layers"])
        return {
            "experiment": self.name,
            "title": self.title,
            "published_software": self.published[0],
            "published_array": self.published[1],
            "target": self.target,
            "procedure": self.procedure,
            **self._accuracies(software, arrays, 1),
            "samples": samples,
            "weight_updates": totals["weight_updates"],
            "reads_per_inference": totals["reads_per_inference"],
            "digital_macs_per_inference": digital_macs or None,
            "goal": None if self.goal is None else str(self.goal),
            "met": None if self.goal is None else self.goal.met(software, arrays, totals),
        }


def chip_accuracies(program: Program, data: Data, device: str | None, seeds: int, threads: int) -> list[float]:
    """Accuracy in per cent on the chips 0 .. seeds - 1."""
    assert data.labels is not None
    output, accuracies, classifier = program.network.outputs[0].name, [], Classifier.of(program.network)
    prepared = PreparedProgram(program, threads)
    for seed in range(seeds):
        outputs = Session(prepared, device, seed).run_samples(data.inputs, observe=False)
        accuracies.append(100 * classifier.accuracy(outputs[output], data.labels))
    return accuracies


def model_path(models: Path, name: str) -> Path:
    """The file of an example network.

    Raises:
        DataError: it is not there.
    """
    path = models / f"{name}.onnx"
    if not path.is_file():
        raise DataError(
            f"example network {str(path)!r} does not exist; run from a checkout of the repository, or name its models folder "
            "with --models"
        )
    return path
