"""`memristor20`: Merrikh Bayat et al., "Implementation of multilayer perceptron network with highly uniform passive memristive
crossbar circuits", Nature Communications 9, 2331 (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.data.datasets import Data, load_data, load_set
from xbcompile.experiments import array_costs as costs
from xbcompile.experiments import memristor_errors as errors
from xbcompile.experiments import memristor_switching as switching
from xbcompile.experiments.defect_training import DefectTraining, network_of, pairs_of
from xbcompile.experiments.figure import Effort, PaperFigure
from xbcompile.experiments.measurement import Measured, Measurement
from xbcompile.experiments.reproduction import Experiment, chip_accuracies
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize
from xbcompile.runtime import Session
from xbcompile.runtime.accuracy import Classifier, software_accuracy


@dataclass(frozen=True)
class DefectExperiment(Experiment):
    """A network on arrays with stuck devices against the same arrays without: medians over many chips.

    Args:
        training: the training set, which the median array must get right in full; None: not asked for.
        chips: arrays for each seed that is asked for.
        within: largest distance, in points, of the median accuracy from that without stuck devices; None: not asked for.
    """

    training: str | None = None
    chips: int = 5
    within: float | None = None

    def run(self, models: Path, seeds: int, threads: int) -> dict[str, Any]:
        """See Experiment.run."""
        chips = self.chips * seeds
        stuck = self.compiled(models, self.quantities)
        whole = self.compiled(models, {**self.quantities, "stuck_fraction": 0.0})
        data = load_data(self.data, stuck.network.inputs, stuck.network.samples)
        assert data.labels is not None
        software = software_accuracy(stuck, data.inputs, data.labels)
        assert software is not None
        arrays = self.accuracies(stuck, data, chips, threads)
        row = self.row(100 * software, arrays, summarize(stuck), data.samples)
        row["median_without_stuck"] = float(np.median(chip_accuracies(whole, data, self.device, chips, threads)))
        if self.within is not None and self.training is not None:
            training = load_data(self.training, stuck.network.inputs, stuck.network.samples)
            row["median_training"] = float(np.median(self.accuracies(stuck, training, chips, threads)))
            close = row["median_without_stuck"] - row["array_median"] <= self.within + 1e-9
            row["goal"] = f"medians: training set 100, test within {self.within:g} of no stuck device"
            row["met"] = close and row["median_training"] == 100
        return row

    def accuracies(self, program: Program, data: Data, chips: int, threads: int) -> list[float]:
        """Accuracy in per cent on the chips 0 .. chips - 1.

        Args:
            program: on arrays with stuck devices.
            data: with labels.
            chips: how many.
            threads: worker threads.
        """
        return chip_accuracies(program, data, self.device, chips, threads)


@dataclass(frozen=True)
class RetrainedExperiment(DefectExperiment):
    """The same, each chip with the network that was trained again for its stuck devices.

    Args:
        retraining: how.
    """

    retraining: DefectTraining = field(default_factory=DefectTraining)

    def accuracies(self, program: Program, data: Data, chips: int, threads: int) -> list[float]:
        """See DefectExperiment.accuracies."""
        assert data.labels is not None
        output, found = program.network.outputs[0].name, []
        for chip in range(chips):
            own = self._of_chip(program, chip)
            outputs = Session(own, self.device, chip, threads=threads).run_samples(data.inputs, observe=False)
            found.append(100 * Classifier.of(own.network).accuracy(outputs[output], data.labels))
        return found

    def _of_chip(self, program: Program, chip: int) -> Program:
        """The program of the network that is trained again on the program's calibration inputs."""
        inputs, labels = load_set("letters", "train")
        network = self.retraining.train(network_of(program), pairs_of(program, chip), inputs, labels, chip)
        return self.compiled_model(network.model(), self.quantities)


# Their papers' arrays hold the whole network: weights are written once, and what writing draws at random stays.
_STAYS = {"arrays": 0}
_LETTERS = "quantize{scheme=continuous per=matrix},analogue"


def _letters(
    name: str,
    title: str,
    passes: str,
    published: tuple[float, float],
    kind: type[DefectExperiment] = DefectExperiment,
    **fields: Any,
) -> DefectExperiment:
    defaults: dict[str, Any] = {"options": _STAYS, "weight": 60}
    return kind(
        f"memristor20-letters{name}",
        title,
        "letters_mlp",
        "memristor20",
        None,
        published,
        passes,
        "letters:train",
        "letters:test",
        {"stuck_fraction": 0.025, "tuning_tolerance": 0.3},
        **(defaults | fields),
    )


_OBLIVIOUS = _letters(
    "-oblivious", "letters on memristor20, defect map unknown", _LETTERS, (82.34, 79.06), procedure="paper"
)
_GOAL: dict[str, Any] = {"training": "letters:train", "within": 1.5}

EXPERIMENTS: tuple[Experiment, ...] = (
    _OBLIVIOUS,
    _letters(
        "-partners", "the same, map known: partners make up", f"{_LETTERS},avoid-defects{{search=none}}", (82.34, 81.4)
    ),
    _letters(
        "-retrained",
        "the same, each chip's network trained again around its stuck devices",
        f"{_LETTERS},avoid-defects{{search=none}}",
        (82.34, 81.4),
        RetrainedExperiment,
        procedure="paper",
        **_GOAL,
    ),
    _letters("-plain", "the same, routed around defects too", f"{_LETTERS},avoid-defects", (82.34, 81.4), **_GOAL),
    _letters(
        "",
        "letters on memristor20, defect map known, recalibrated",
        f"{_LETTERS},avoid-defects,recalibrate{{samples=40}}",
        (82.34, 81.4),
        **_GOAL,
    ),
    _letters(
        "-retrained-recalibrated",
        "each chip's network trained again around its stuck devices, recalibrated",
        f"{_LETTERS},avoid-defects{{search=none}},recalibrate{{samples=40}}",
        (82.34, 81.4),
        RetrainedExperiment,
        **_GOAL,
    ),
)


def _measurement(
    name: str, title: str, measure: Callable[[Effort], Measured], unit: str = "%", **fields: Any
) -> Measurement:
    defaults: dict[str, Any] = {"published": None, "basis": "assumed", "procedure": "paper"}
    return Measurement(f"memristor20-{name}", title, "memristor20", unit, measure=measure, **(defaults | fields))


MEASUREMENTS: tuple[Measurement, ...] = (
    _measurement(
        "in-situ-fixed",
        "training on the array, pulses of fixed amplitude, three classes",
        partial(switching.trained_fidelity, rule="fixed"),
        published=70.0,
        low=55.0,
        high=85.0,
        weight=10,
    ),
    _measurement(
        "in-situ-fixed-no-spread",
        "the same, all devices with the same switching thresholds",
        partial(switching.trained_fidelity, rule="fixed", spread=False),
        weight=10,
    ),
    _measurement(
        "in-situ-variable",
        "the same, amplitudes for the wanted changes of nominal devices, which the authors expect to do better",
        partial(switching.trained_fidelity, rule="variable"),
        weight=10,
    ),
    _measurement(
        "in-situ-variable-gain",
        "variable less fixed amplitude, chip by chip",
        switching.variable_gain,
        "points",
        low=0.0,
        weight=20,
    ),
    _measurement(
        "in-situ-own",
        "the same, amplitudes for each device's own thresholds",
        partial(switching.trained_fidelity, rule="own"),
        procedure="ours",
        weight=10,
    ),
    _measurement(
        "tuning-pulses",
        "write pulses to tune a device to the next of 13 levels within 7.5 % (Supplementary Note 2)",
        switching.tuning_pulses,
        "pulses",
        published=45.0,
        weight=10,
    ),
    _measurement(
        "voltage-drop",
        "worst voltage drop of a line of 70 devices of 10 uS (Supplementary Note 1)",
        switching.voltage_drop,
        published=7.0,
        basis="calibrated",
        low=6.5,
        high=7.5,
        weight=1,
    ),
    _measurement(
        "tuning-cost",
        "test accuracy that tuning to within 30 % costs by itself",
        partial(errors.accuracy_cost, experiment=_OBLIVIOUS, switched_on=("tuning_tolerance",)),
        "points",
        procedure="ours",
        weight=20,
    ),
    _measurement(
        "contact-cost",
        "test accuracy that the contacts of the lines cost by themselves",
        partial(errors.accuracy_cost, experiment=_OBLIVIOUS, switched_on=("r_row_contact_ohm", "r_column_contact_ohm")),
        "points",
        procedure="ours",
        weight=10,
    ),
    _measurement(
        "segment-cost",
        "test accuracy that the lines' own resistance costs by itself",
        partial(errors.accuracy_cost, experiment=_OBLIVIOUS, switched_on=("r_row_segment_ohm", "r_column_segment_ohm")),
        "points",
        procedure="ours",
        weight=10,
    ),
    _measurement(
        "patterns-per-second",
        "patterns a second through both crossbars",
        partial(costs.patterns_per_second, experiment=_OBLIVIOUS),
        "1/s",
        published=300_000.0,
        basis="calibrated",
        weight=5,
    ),
    _measurement(
        "time-per-pattern",
        "time from inputs to outputs",
        partial(costs.total, experiment=_OBLIVIOUS, key="makespan_s", factor=1e6),
        "us",
        published=3.33,
        basis="calibrated",
        weight=5,
    ),
    _measurement(
        "energy-arrays",
        "energy of a pattern, all devices of both arrays at full drive and mean conductance",
        partial(
            costs.total,
            experiment=_OBLIVIOUS,
            key="e_per_inference_j",
            factor=1e9,
            note="without amplifiers and switches",
        ),
        "nJ",
        weight=5,
    ),
    _measurement(
        "energy-used",
        "the same of the devices that hold weights, real patterns",
        partial(costs.used_energy, experiment=_OBLIVIOUS, unit_j=1e-9, full_drive=False),
        "nJ",
        weight=5,
    ),
)

FIGURES: tuple[PaperFigure, ...] = (
    PaperFigure(
        "memristor20-sfig5", "Hidden neurons and import errors (Supplementary Fig. 5)", errors.import_error_figure, 30
    ),
    PaperFigure("memristor20-in-situ", "Training on the array (Supplementary Fig. 7)", switching.training_figure, 30),
    PaperFigure(
        "memristor20-in-situ-choices",
        "Training on the array under other assumptions (ours)",
        switching.choices_figure,
        90,
    ),
    PaperFigure(
        "memristor20-tuning", "Write and verify with half-selected devices (Fig. 5a, b)", switching.tuning_figure, 60
    ),
    PaperFigure("memristor20-fig2", "Set and reset thresholds (Fig. 2)", switching.thresholds_figure, 1),
    PaperFigure(
        "memristor20-sfig8", "Voltage drop along a line (Supplementary Fig. 8)", switching.voltage_drop_figure, 2
    ),
)
