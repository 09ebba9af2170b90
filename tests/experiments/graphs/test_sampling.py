"""Sampling of graphs on simulated crossbars: errors against closed forms and a plain loop over crossbars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xbcompile.errors import DataError
from xbcompile.experiments.graphs.circuits import graph_circuit, paper_graph
from xbcompile.experiments.graphs.figures import device_parameters
from xbcompile.experiments.graphs.sampling import (
    GraphChip,
    Sampling,
    best_thresholds,
    mean_curve,
    nominal_currents_a,
    nominal_window_a,
    sample_graph,
)
from xbcompile.targets.families.switching import SwitchingCurves

QUIET = replace(device_parameters(1.5, 0.0), write_noise=0.0)
CIRCUIT = graph_circuit(paper_graph(), 0, 2)


def test_the_published_threshold_lies_in_the_window_of_the_targets_devices() -> None:
    """738 Ohm and 1845 Ohm: a wrong one of two in series leaves 1/1845 + 1/2583 S, both on 1/1845 + 1/1476 S; 10 mV."""
    lowest, highest = nominal_window_a(CIRCUIT, QUIET, 0.01)
    assert lowest == pytest.approx(0.01 * (1 / 1845 + 1 / 1476))
    assert highest == pytest.approx(0.01 * (1 / 1845 + 1 / 2583))
    assert highest < 11.5e-6 < lowest
    assert nominal_currents_a(CIRCUIT, QUIET, 0.01).max() == pytest.approx(0.01 * (1 / 738 + 1 / 1476))


def test_ideal_devices_give_the_graphs_probability() -> None:
    """20,000 samples: a standard error of 0.0035."""
    samples = sample_graph(paper_graph(), 0, 2, QUIET, Sampling(2000, 10, spread_curves=False))
    assert samples.expectation_error == 0
    assert samples.probability == pytest.approx(0.44, abs=4 * 0.0035)
    assert samples.total_error(0.44) == abs(samples.probability - 0.44)
    assert samples.pulses == 2 * 3 * 20_000


def test_samples_repeat_and_chips_differ() -> None:
    sampling = Sampling(50, 3)
    first, again, other = (
        sample_graph(paper_graph(), 0, 2, device_parameters(1.5), sampling, seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.currents_a, again.currents_a)
    assert not np.array_equal(first.currents_a, other.currents_a)
    assert not np.array_equal(first.connected[0], first.connected[1])
    longer = sample_graph(paper_graph(), 0, 2, device_parameters(1.5), replace(sampling, samples=5), 1)
    np.testing.assert_array_equal(longer.currents_a[:3], first.currents_a)


def test_currents_are_those_of_the_chips_devices_one_by_one() -> None:
    chip = GraphChip(CIRCUIT, replace(device_parameters(1.5), write_noise=0.0), Sampling(20), seed=4)
    states = chip.device.device_siemens(0)[0]
    on = np.random.default_rng(0).random((20, 3)) < 0.5
    for crossbar, current in enumerate(chip.currents_a(on, 0)):
        direct, first, second = (states[int(on[crossbar, edge]), crossbar, edge] for edge in range(3))
        assert current == pytest.approx(0.01 * (direct + 1 / (1 / first + 1 / second)))


def test_pulses_switch_with_the_probability_of_each_devices_own_curve() -> None:
    """Mean threshold looked up: p = Phi(Phi^-1(wanted) + (mean - own) / sigma). Own curve: as wanted. Mean curve: on average."""
    few = {lookup: GraphChip(CIRCUIT, QUIET, Sampling(4000, lookup=lookup)) for lookup in ("own", "mean-curve")}
    np.testing.assert_allclose(few["own"].switching, np.broadcast_to(CIRCUIT.probabilities, (4000, 3)), atol=1e-12)
    np.testing.assert_allclose(few["mean-curve"].switching.mean(axis=0), CIRCUIT.probabilities, atol=0.03)
    skewed = GraphChip(CIRCUIT, QUIET, Sampling(4000)).switching.mean(axis=0)
    assert np.all(np.abs(skewed - 0.5) <= np.abs(CIRCUIT.probabilities - 0.5) + 0.03)
    assert skewed[0] > 0.3  # wanted 0.2: drawn towards a half
    one = GraphChip(CIRCUIT, QUIET, Sampling(5, spread_curves=False)).switching
    np.testing.assert_allclose(one, np.broadcast_to(CIRCUIT.probabilities, (5, 3)), atol=1e-12)


def test_mean_curve_is_the_mean_of_the_curves() -> None:
    curves = SwitchingCurves(0.25, 0.05, 0.1)
    thresholds = curves.thresholds(0, 0, (20_000,))
    voltages = np.linspace(0.2, 0.3, 7)
    mean = curves.probability(voltages[:, None], thresholds).mean(axis=1)
    np.testing.assert_allclose(mean_curve(curves).probability(voltages), mean, atol=0.012)


def test_best_threshold_by_trying_all() -> None:
    rng = np.random.default_rng(1)
    currents, connected, weights = rng.random((30, 7)), rng.random((30, 7)) < 0.5, rng.random((30, 7))
    found = best_thresholds(currents, connected, weights)
    for one in range(30):
        ordered = np.sort(currents[one])
        tried = (ordered[1:] + ordered[:-1]) / 2
        wrong = [((currents[one] > each) != connected[one]) @ weights[one] for each in [*tried, found[one]]]
        assert wrong[-1] == pytest.approx(min(wrong))
    # without an error possible: in the middle of the gap
    assert best_thresholds(np.array([[1.0, 2.0, 5.0, 6.0]]), np.array([[0, 0, 1, 1]], bool), np.ones(4)) == [3.5]


def test_thresholds_of_a_crossbar_read_nothing_wrong_and_those_of_a_chip_less_than_the_published() -> None:
    """At 10 % spread the window of one crossbar is nearly always open; write noise is a hundredth of it."""
    parameters = device_parameters(1.5, 0.1)
    published, chip, crossbar = (
        sample_graph(paper_graph(), 0, 2, parameters, Sampling(500, 4, threshold=each)).expectation_error
        for each in (Sampling().threshold, "chip", "crossbar")
    )
    assert crossbar < 0.002
    assert chip < 0.5 * published
    assert published > 0.01


def test_errors_rise_more_slowly_with_a_larger_tmr() -> None:
    window = Sampling(500, 2, spread_curves=False, threshold="window")
    for spread in (0.15, 0.25):
        low, high = (
            sample_graph(paper_graph(), 0, 2, device_parameters(tmr, spread), window).expectation_error
            for tmr in (1.5, 6.0)
        )
        assert high < 0.4 * low


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(0), "0 crossbars and 1 samples: both must be at least 1"),
        (Sampling(read_volt=0.0), "a read voltage of 0 V gives no current"),
    ],
)
def test_what_is_refused(sampling: Sampling, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample_graph(paper_graph(), 0, 2, QUIET, sampling)
