"""Rules of updates against plain loops and against the probabilities that they are made of."""

from __future__ import annotations

from math import erf, exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.experiments.switching.rules import (
    Deterministic,
    DevicePulses,
    IdealStochastic,
    Rule,
    Sigmoidal,
    Step,
    adam_updates,
)
from xbcompile.targets.counter_random import fill_row_of_normals, key_of, quantile_pieces, read_counter
from xbcompile.targets.families.switching import SwitchingCurves

CURVES = SwitchingCurves(0.25, 0.05, 0.1)
LARGE = (300, 200)  # devices of which shares are counted


def shares(rule: Rule, state: float, change: float) -> tuple[float, float]:
    """Parts of many devices, all in one state, that are +1 and that have had a pulse after one step."""
    states, pulses = np.full(LARGE, state, np.float32), np.zeros(LARGE, np.uint32)
    switched = rule.apply(states, np.full(LARGE, change, np.float32), Step(0, 0, 3), pulses)
    assert switched == (states != state).sum()
    assert set(np.unique(states)) <= {-1, 1}
    return float((states > 0).mean()), float(pulses.mean())


def error(probability: float) -> float:
    """Five standard errors of a share."""
    return 5 * sqrt(probability * (1 - probability) / np.prod(LARGE)) + 1e-9


@pytest.mark.parametrize("state", [-1.0, 1.0])
@pytest.mark.parametrize("change", [-1.0, -0.3, 0.3, 1.0])
@pytest.mark.parametrize("useful", [False, True])
def test_a_pulse_switches_by_the_curve_and_to_its_own_side_only(state: float, change: float, useful: bool) -> None:
    """Voltages: 0.22 (towards +1) or 0.23 V and 0.03 V more for a change of 1; a pulse counts, whether it switches or not."""
    rule = DevicePulses(CURVES, None, (0.22, 0.23), 0.03, useful)
    plus, pulsed = shares(rule, state, change)
    voltage = (0.22 if change > 0 else 0.23) + 0.03 * abs(change)
    expected = (1 + erf((voltage - 0.25) / CURVES.sigma_v / sqrt(2))) / 2
    if state == np.sign(change):  # the other state is out of reach
        assert plus == (state > 0)
        assert pulsed == (0 if useful else 1)
    else:
        assert plus == pytest.approx(expected if change > 0 else 1 - expected, abs=error(expected))
        assert pulsed == 1


def test_no_change_no_pulse() -> None:
    assert shares(DevicePulses(CURVES, None, (1.0, 1.0), 1.0), 1.0, 0.0) == (1.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.booleans())
def test_pulses_are_those_of_a_plain_loop(rows: int, columns: int, seed: int, useful: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = rows, columns
    states = np.where(rng.random(shape) < 0.5, -1, 1).astype(np.float32)
    changes = (rng.normal(size=shape) * (rng.random(shape) < 0.8)).astype(np.float32)
    thresholds, pulses = CURVES.thresholds(seed, 2, shape), rng.integers(0, 5, shape).astype(np.uint32)
    expected, counted, switched = states.copy(), pulses.copy(), 0
    counter = read_counter(key_of("switching pulses", seed, 2), 0, 0, (rows, 1, columns))
    for row in range(rows):
        normals = np.empty(12, np.float32)[: (columns + 3) // 4 * 4]
        fill_row_of_normals(normals, np.empty(normals.size, np.uint32), counter, 7 * rows + row, 0, quantile_pieces())
        for column in range(columns):
            change, wanted = changes[row, column], np.sign(changes[row, column])
            if change == 0 or (useful and wanted == states[row, column]):
                continue
            counted[row, column] += 1
            volts = np.float32(0.2) + np.float32(0.05) * abs(change)
            threshold = np.float32(thresholds[row, column]) + np.float32(CURVES.sigma_v) * normals[column]
            if volts > threshold and expected[row, column] != wanted:
                expected[row, column] = wanted
                switched += 1
    rule = DevicePulses(CURVES, [np.empty(0), np.empty(0), thresholds], (0.2, 0.2), 0.05, useful)
    assert rule.apply(states, changes, Step(seed, 2, 7), pulses) == switched
    np.testing.assert_array_equal(states, expected)
    np.testing.assert_array_equal(pulses, counted)


@pytest.mark.parametrize("state", [-1.0, 1.0])
@pytest.mark.parametrize("change", [-1.5, -0.4, 0.4, 1.5])
def test_the_ideal_rule_changes_by_the_proposal_on_average(state: float, change: float) -> None:
    """Clipped to what -1 and +1 can hold."""
    plus, _ = shares(IdealStochastic(0.5), state, change)
    expected = min(max(state + 0.5 * change, -1), 1)
    assert 2 * plus - 1 == pytest.approx(expected, abs=2 * error((expected + 1) / 2))


@pytest.mark.parametrize("state", [-1.0, 1.0])
@pytest.mark.parametrize("change", [-1.0, 0.0, 0.7])
def test_the_sigmoidal_rule_is_the_papers_formula(state: float, change: float) -> None:
    """Also without a change, a device may leave its state."""
    plus, _ = shares(Sigmoidal(0.5, 0.4), state, change)
    expected = 1 / (1 + exp(-(state + 0.5 * change) / 0.4))
    assert plus == pytest.approx(expected, abs=error(expected))


@pytest.mark.parametrize(
    ("state", "change", "expected"), [(-1, 1.9, -1), (-1, 2.1, 1), (1, -1.9, 1), (1, -2.1, -1), (1, 3, 1), (-1, -3, -1)]
)
def test_the_deterministic_rule_loses_small_changes(state: float, change: float, expected: float) -> None:
    """At a learning rate of 0.5, a change of two learning rates takes a weight to 0."""
    assert shares(Deterministic(0.5), state, change) == ((expected > 0), float(state != expected))


def test_random_numbers_belong_to_the_step_the_array_and_the_chip() -> None:
    """Each alike for itself; two others agree on a share 1 - 2 p (1 - p) of the devices."""
    found = []
    for seed, array, number in ((0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        states = np.full(LARGE, -1, np.float32)
        IdealStochastic(1.0).apply(
            states, np.ones(LARGE, np.float32), Step(seed, array, number), states.astype(np.uint32)
        )
        found.append(states)
    alike = [float((found[0] == each).mean()) for each in found]
    assert alike[:2] == [1, 1]
    assert alike[2:] == pytest.approx([0.5] * 3, abs=error(0.5))


def test_adam_is_adam() -> None:
    """Against its definition in float64."""
    rng = np.random.default_rng(0)
    mean, square, changes = np.zeros((3, 7), np.float32)
    m, v = np.zeros(7), np.zeros(7)
    for step in range(1, 6):
        gradient = rng.normal(size=7).astype(np.float32)
        adam_updates(gradient, mean, square, changes, 0.9, 0.999, step)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.astype(np.float64) ** 2
        expected = -(m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(changes, expected, rtol=1e-4)
