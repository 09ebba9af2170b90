"""Training on the simulated memristors: gradients against differences, rules against each other, what a chip keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xbcompile.data.synthetic import letters
from xbcompile.experiments.crossbar_perceptron import Perceptron
from xbcompile.experiments.in_situ import Crossbar, InSituTraining
from xbcompile.targets import load_target
from xbcompile.targets.families.differential_memristor import MemristorArray, MemristorParameters

P: MemristorParameters = load_target("memristor20").parameters


def cross_entropy(task: Perceptron, weights: tuple[np.ndarray, np.ndarray]) -> float:
    """Of outputs tanh(z), taken as 2 p - 1, and targets +-t: its slope over z is tanh(z) - t."""
    outputs = task.outputs(weights)[1]
    wanted = np.where(np.arange(task.classes) == task.labels[:, None], task.target, -task.target)
    parts = [(1 + s * wanted) / 2 * np.log((1 + s * outputs) / 2) for s in (1, -1)]
    return -float(np.sum(parts) / len(task.labels))


def test_gradients_are_the_slopes_of_the_cross_entropy() -> None:
    """Central differences of single weights, over gain^2 and gain."""
    task = Perceptron.of_letters("train", 3, 1.5, 0.85)
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.3, (17, 4)), rng.normal(0, 0.3, (5, 3))
    gradients = task.gradients(*task.outputs(weights), weights[1])
    for matrix, units in ((0, 1.5**2), (1, 1.5)):
        for place in ((0, 0), (2, 1), (-1, -1)):
            moved = []
            for step in (1e-5, -1e-5):
                changed = [each.copy() for each in weights]
                changed[matrix][place] += step
                moved.append(cross_entropy(task, (changed[0], changed[1])))
            assert gradients[matrix][place] * units == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5)


def test_the_task_is_the_first_letters_with_a_bias() -> None:
    patterns, labels = letters("train")
    task = Perceptron.of_letters("train", 3, 18.0, 0.85)
    np.testing.assert_array_equal(task.inputs, np.append(patterns[:30], np.ones((30, 1)), axis=1))
    assert set(task.labels) == set(labels[:30]) == {0, 1, 2}
    outputs = np.zeros((2, 30, 3))
    outputs[1, np.arange(30), task.labels] = 1
    np.testing.assert_allclose(task.fidelity(outputs), [100 / 3, 100])


def test_the_circuit_is_that_of_equations_1_and_2() -> None:
    """In volts and siemens, one pattern: V_H = 0.2 tanh(1e6 (I+ - I-)), V_out = 1e6 (I+ - I-)."""
    task = Perceptron.of_letters("test", 4, 1e6 * 0.2 * 90e-6, 1.0)
    rng = np.random.default_rng(2)
    first, second = rng.uniform(-0.02, 0.02, (17, 10)), rng.uniform(-0.02, 0.02, (11, 4))
    hidden_volt = 0.2 * np.tanh(1e6 * (0.2 * task.inputs[7]) @ (90e-6 * first))
    output_volt = 1e6 * np.append(hidden_volt, 0.2) @ (90e-6 * second)
    np.testing.assert_allclose(task.outputs((first, second))[1][7], np.tanh(output_volt), rtol=1e-12)


def test_a_crossbar_keeps_its_stuck_devices() -> None:
    p = replace(P, stuck_fraction=0.2)
    crossbar = Crossbar.of_chips(p, range(5, 7), 1, (11, 3), 0.2)
    stuck = MemristorArray(p, 6).stuck(1)[:, :11, :3].transpose(1, 2, 0).reshape(11, 6)
    assert 5 < crossbar.stuck[1].sum() < 30
    before = crossbar.state.copy()
    for row in range(11):
        crossbar.pulse(np.full((2, 6), 1.3), row, 1, "V/2")
    np.testing.assert_allclose(crossbar.state[1][crossbar.stuck[1]], stuck[~np.isnan(stuck)])
    assert np.all(crossbar.state[~crossbar.stuck] > before[~crossbar.stuck])
    assert before[~crossbar.stuck].max() <= 0.2
    large = np.abs(crossbar.weights) > 0.1
    assert np.all(crossbar.seen[large] / crossbar.weights[large] < 1)  # the lines take their part
    perfect = replace(
        p, r_row_segment_ohm=0.0, r_column_segment_ohm=0.0, r_row_contact_ohm=0.0, r_column_contact_ohm=0.0
    )
    np.testing.assert_allclose(replace(crossbar, parameters=perfect).seen, crossbar.weights, atol=1e-12)


def test_own_amplitudes_learn_what_fixed_ones_cannot() -> None:
    """A few chips and epochs; with the spread of thresholds off, the fixed amplitude gains most of what it lacked."""
    epochs, chips = 40, range(4)
    fixed, own = (InSituTraining(P, rule, epochs).train(chips) for rule in ("fixed", "own"))
    assert fixed.shape == own.shape == (41, 4)
    np.testing.assert_array_equal(fixed[0], own[0])  # the same chips, not trained yet
    assert own[-5:].mean() > 92 > fixed[-5:].mean() + 5
    alike = replace(P, v_set_threshold_sigma_volt=0.0, v_reset_threshold_sigma_volt=0.0)
    assert InSituTraining(alike, "fixed", epochs).train(chips)[-5:].mean() > fixed[-5:].mean() + 5
    np.testing.assert_array_equal(InSituTraining(P, "fixed", 2).train(range(2, 3))[:, 0], fixed[:3, 2])
