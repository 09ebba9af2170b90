"""Trainings: what is learnt, what is counted, what a chip's conductances weigh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xbcompile.experiments.switching.network import TrainingData, random_weights
from xbcompile.experiments.switching.rules import DevicePulses, IdealStochastic
from xbcompile.experiments.switching.training import ChipWeights, Recipe, train
from xbcompile.targets import load_target
from xbcompile.targets.families.spin_orbit import SpinOrbitArray
from xbcompile.targets.families.switching import SwitchingCurves

SIZES = (16, 12, 4)
SINGLE = load_target("sot-single").parameters


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Four random patterns, with noise."""
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (4, SIZES[0]))
    labels = rng.integers(0, 4, 1000)
    images = (patterns[labels] + rng.normal(size=(1000, SIZES[0]))).astype(np.float32)
    return TrainingData(images[:800], labels[:800], images[800:], labels[800:], calibration=200)


def test_devices_learn_and_pulses_are_counted(data: TrainingData) -> None:
    """Every step proposes a change of every weight, as no input is always 0: one pulse for each device and step."""
    curves = SwitchingCurves(0.25, 0.05)
    found = train(data, DevicePulses(curves, None, (0.2, 0.2), 0.04), Recipe(5, batch=40), 0, sizes=SIZES)
    assert found.best > 90
    assert found.steps == 100
    assert found.devices == 16 * 12 + 12 * 4
    assert found.total_pulses == found.devices * 100
    assert found.most_pulses == 100
    assert (found.switches, found.accuracy) == (
        train(data, DevicePulses(curves, None, (0.2, 0.2), 0.04), Recipe(5, batch=40), 0, sizes=SIZES).switches,
        found.accuracy,
    )
    fewer = train(data, DevicePulses(curves, None, (0.2, 0.2), 0.04, useful=True), Recipe(5, batch=40), 0, sizes=SIZES)
    assert fewer.accuracy == found.accuracy  # the pulses left out could not switch
    assert fewer.switches < fewer.total_pulses < found.total_pulses


def test_pulses_too_low_change_nothing(data: TrainingData) -> None:
    found = train(data, DevicePulses(SwitchingCurves(0.25, 0.05), None, (0, 0), 1e-3), Recipe(1), 3, sizes=SIZES)
    assert found.switches == 0
    for states, first in zip(found.states, random_weights(3, SIZES), strict=True):
        np.testing.assert_array_equal(states, first)


def test_exact_conductances_weigh_minus_and_plus_one(data: TrainingData) -> None:
    exact = ChipWeights(replace(SINGLE, low_sigma=0.0, high_sigma=0.0), 0, SIZES)
    states = random_weights(0, SIZES)
    for found, state in zip(exact(states), states, strict=True):
        np.testing.assert_allclose(found, state, rtol=1e-6)
    rule, recipe = IdealStochastic(0.03), Recipe(2)
    assert train(data, rule, recipe, 0, exact, SIZES).best == pytest.approx(
        train(data, rule, recipe, 0, None, SIZES).best, abs=5
    )


def test_a_chips_weights_are_its_devices_against_their_reference() -> None:
    states = random_weights(0, SIZES)
    chip = SpinOrbitArray(SINGLE, 4)
    for array, (found, state) in enumerate(zip(ChipWeights(SINGLE, 4, SIZES)(states), states, strict=True)):
        row, column = 3, 2
        siemens = chip.device_siemens(array)[0, int(state[row, column] > 0), row, column]
        expected = (siemens - chip.reference_siemens(array)[row]) / SINGLE.level_siemens
        assert found[row, column] == pytest.approx(expected, rel=1e-6)
