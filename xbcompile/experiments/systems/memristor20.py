"""`memristor20`: Merrikh Bayat et al., "Implementation of multilayer perceptron network with highly uniform passive memristive
crossbar circuits", Nature Communications 9, 2331 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.data.datasets import load_data
from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, chip_accuracies
from xbcompile.report.summary import summarize
from xbcompile.runtime.accuracy import software_accuracy


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
        arrays = chip_accuracies(stuck, data, self.device, chips, threads)
        row = self.row(100 * software, arrays, summarize(stuck), data.samples)
        row["median_without_stuck"] = float(np.median(chip_accuracies(whole, data, self.device, chips, threads)))
        if self.within is not None and self.training is not None:
            training = load_data(self.training, stuck.network.inputs, stuck.network.samples)
            row["median_training"] = float(np.median(chip_accuracies(stuck, training, self.device, chips, threads)))
            close = row["median_without_stuck"] - row["array_median"] <= self.within + 1e-9
            row["goal"] = f"medians: training set 100, test within {self.within:g} of no stuck device"
            row["met"] = close and row["median_training"] == 100
        return row


# Their papers' arrays hold the whole network: weights are written once, and what writing draws at random stays.
_STAYS = {"arrays": 0}
_LETTERS = "quantize{scheme=continuous per=matrix},analogue"

EXPERIMENTS: tuple[Experiment, ...] = (
    DefectExperiment(
        "memristor20-letters",
        "letters on memristor20, defect map known, recalibrated",
        "letters_mlp",
        "memristor20",
        None,
        (82.34, 81.4),
        f"{_LETTERS},avoid-defects,recalibrate{{samples=40}}",
        "letters:train",
        "letters:test",
        {"stuck_fraction": 0.025, "tuning_tolerance": 0.3},
        training="letters:train",
        within=1.5,
        options=_STAYS,
        weight=60,
    ),
    DefectExperiment(
        "memristor20-letters-plain",
        "the same, not recalibrated",
        "letters_mlp",
        "memristor20",
        None,
        (82.34, 81.4),
        f"{_LETTERS},avoid-defects",
        "letters:train",
        "letters:test",
        {"stuck_fraction": 0.025, "tuning_tolerance": 0.3},
        training="letters:train",
        within=1.5,
        options=_STAYS,
        weight=60,
    ),
    DefectExperiment(
        "memristor20-letters-oblivious",
        "the same, map unknown",
        "letters_mlp",
        "memristor20",
        None,
        (82.34, 79.06),
        _LETTERS,
        "letters:train",
        "letters:test",
        {"stuck_fraction": 0.025, "tuning_tolerance": 0.3},
        options=_STAYS,
        weight=60,
    ),
)

MEASUREMENTS: tuple[Measurement, ...] = ()

FIGURES: tuple[PaperFigure, ...] = ()
