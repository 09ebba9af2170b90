"""Costs of a pattern: energy by hand from what is written and driven, time from the schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xbcompile.data.datasets import load_data
from xbcompile.experiments import array_costs as costs
from xbcompile.experiments.figure import Effort
from xbcompile.experiments.memristor_errors import accuracy_cost
from xbcompile.experiments.systems import EXPERIMENTS
from xbcompile.targets.families.differential_memristor import MemristorArray

MODELS = Path(__file__).parents[2] / "models"
EFFORT = Effort(MODELS, seeds=2)
LETTERS = next(each for each in EXPERIMENTS if each.name == "memristor20-letters-oblivious")


def test_experiments_run_on_the_arrays_of_their_papers() -> None:
    """Two crossbars, one array per layer: no weight is written again, from pattern to pattern."""
    for each in EXPERIMENTS:
        if each.target in ("memristor20", "multicell"):
            assert each.options["arrays"] == 0
    program = costs.program_of(LETTERS, EFFORT)
    assert (program.schedule.arrays, program.schedule.stationary) == (2, True)
    assert costs.total(EFFORT, LETTERS, "e_write_per_inference_j").value == 0
    assert costs.total(EFFORT, LETTERS, "makespan_s", 1e6).value == pytest.approx(2 * 1.67)
    assert costs.patterns_per_second(EFFORT, LETTERS).value == pytest.approx(1 / (2 * 1.67e-6))
    assert costs.total(EFFORT, LETTERS, "e_per_inference_j").value == pytest.approx(
        2 * 400 * 0.2**2 * 32.5e-6 * 1.67e-6
    )


def test_energy_is_that_of_the_cells_and_drives() -> None:
    """Layer 1 by hand: devices as a perfect chip writes them, all pixels at +-0.2 V; layer 2's drives are tanh of its sums."""
    program = costs.program_of(LETTERS, EFFORT)
    p = replace(program.target.parameters, tuning_tolerance=0.0, stuck_fraction=0.0)
    layers, expected, drive = program.network.layers, 0.0, np.ones((500, 16))
    for layer in layers:
        codes = layer.weight_code.codes[0]
        cells = np.zeros((20, 10), np.float32)
        cells[: codes.shape[0], : codes.shape[1]] = codes
        plus, minus = MemristorArray(p).conductances(0, np.array([0]), cells)
        used = (plus + minus)[: codes.shape[0], : codes.shape[1]].sum(axis=1)
        expected += 1.67e-6 * 0.04 * float(np.square(drive).mean(axis=0) @ used)
        if layer is layers[0]:
            data = load_data("letters:test:500", program.network.inputs, program.network.samples)
            drive = np.tanh(data.inputs["input"] @ layer.weight_code.dequantized()[0] + layer.bias)
    assert costs.used_energy(EFFORT, LETTERS, 1.0, full_drive=False).value == pytest.approx(expected, rel=1e-4)
    full = costs.used_energy(EFFORT, LETTERS, 1e-9, full_drive=True).value
    assert 1e9 * expected < full < 1e9 * costs.total(EFFORT, LETTERS, "e_per_inference_j").value


def test_errors_cost_what_they_do_alone() -> None:
    """Contacts are the same on every chip; without any source nothing is lost."""
    assert accuracy_cost(EFFORT, LETTERS, ()).value == 0
    found = accuracy_cost(EFFORT, LETTERS, ("r_row_contact_ohm", "r_column_contact_ohm"))
    assert found.spread == 0
    assert found.value > accuracy_cost(EFFORT, LETTERS, ("r_row_segment_ohm", "r_column_segment_ohm")).value
