"""What errors of memristors cost the letters' network: single sources, import errors, retraining around known defects.

Source of what is published: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), "Pattern classification" and Supplementary Fig. 5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbcompile.data.datasets import load_data
from xbcompile.experiments.figure import Effort
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.memristor_switching import chips_of, parameters
from xbcompile.experiments.reproduction import Experiment, chip_accuracies

_SOURCES = (
    "tuning_tolerance",
    "stuck_fraction",
    "r_row_segment_ohm",
    "r_column_segment_ohm",
    "r_row_contact_ohm",
    "r_column_contact_ohm",
)


def accuracy_cost(effort: Effort, experiment: Experiment, switched_on: tuple[str, ...]) -> Measured:
    """Points of test accuracy between arrays without any of these errors and with some, over chips.

    Args:
        effort: what it may cost.
        experiment: which network, how mapped.
        switched_on: quantities of the target that keep their numbers; the other sources of errors are 0.
    """
    assert set(switched_on) <= set(_SOURCES)
    p, chips = parameters(), chips_of(effort)
    none = dict.fromkeys(_SOURCES, 0.0)
    found = []
    for quantities in (none, {**none, **{name: getattr(p, name) for name in switched_on}}):
        program = replace(experiment, quantities=quantities).compiled(effort.models, quantities)
        data = load_data(experiment.data, program.network.inputs, program.network.samples)
        found.append(np.array(chip_accuracies(program, data, experiment.device, chips, effort.threads)))
    cost = found[0] - found[1]
    spread = float(np.std(cost, ddof=1)) if chips > 1 else None
    return Measured(float(cost.mean()), spread, chips, f"from {found[0].mean():.2f} %")
