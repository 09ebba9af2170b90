"""Switching by pulses: the rate equation integrated, amplitudes inverted, voltages of half-selected devices, tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from xbcompile.targets import load_target
from xbcompile.targets.families.differential_memristor import MemristorParameters
from xbcompile.targets.families.memristor_pulses import (
    Biasing,
    Thresholds,
    WriteAndVerify,
    after_pulse,
    pulse_amplitudes,
    pulse_volts,
    relative_error,
)

P: MemristorParameters = load_target("memristor20").parameters
NOMINAL = Thresholds.nominal(P)


@pytest.mark.parametrize("volt", [1.3, 0.9, -1.3, -1.7])
def test_a_pulse_is_the_integral_of_the_rate(volt: float) -> None:
    """dx/dt = (1 - x) k / t, or -x k / t, by a general integrator; k is 1 % at 1 V and at -1.45 V, and e times that 0.1 V on."""
    rate = 0.01 * np.exp((volt - 1.0) / 0.1 if volt > 0 else (-volt - 1.45) / 0.1)
    solved = integrate.solve_ivp(lambda _, x: rate * ((1 - x) if volt > 0 else -x), (0, 1), [0.3], rtol=1e-10)
    found = after_pulse(P, np.array([0.3]), np.array([volt]), NOMINAL)
    np.testing.assert_allclose(found, solved.y[:, -1], rtol=1e-7)


@given(state=st.floats(0.02, 0.98), share=st.floats(-0.9, 0.9), off=st.floats(-0.3, 0.3))
def test_an_amplitude_makes_the_change_that_it_is_for(state: float, share: float, off: float) -> None:
    """Between 0 V and the limit, and for the thresholds that are assumed; the sign is the change's."""
    thresholds = Thresholds(np.array(1.0 + off), np.array(1.45 + off))
    change = np.array(share * (1 - state) if share > 0 else share * state)
    volt = pulse_amplitudes(P, np.array(state), change, thresholds, np.array(10.0))
    assert (volt == 0) == (change == 0) or abs(share) < 1e-3  # a change that 0 V would make is not made
    if volt > 0:
        found = after_pulse(P, np.array(state), np.sign(change) * volt, thresholds) - state
        np.testing.assert_allclose(found, change, rtol=1e-9, atol=1e-12)


def test_amplitudes_end_at_the_limit() -> None:
    state, change = np.array([0.2, 0.9, 1.0, 0.5]), np.array([0.9, 0.1, 0.1, -1e-12])
    volt = pulse_amplitudes(P, state, change, NOMINAL, np.array(1.3))
    np.testing.assert_allclose(volt, [1.3, 1.3, 1.3, 0.0])


@pytest.mark.parametrize("biasing", ["V/2", "V/3"])
def test_voltages_are_differences_of_the_lines(biasing: Biasing) -> None:
    """Kirchhoff: volts[i, j] = row[i] - line[j]; the selected devices get theirs, others as the scheme says."""
    amplitude = np.array([1.2, 0.0, 0.8, 0.6, 0.0])
    volts = pulse_volts(amplitude, 2, 4, biasing)
    assert volts.shape == (4, 5)
    np.testing.assert_allclose(volts - volts[:1] - volts[:, :1] + volts[0, 0], 0, atol=1e-12)  # rank one in sums
    np.testing.assert_allclose(volts[2, [0, 2, 3]], [1.2, 0.8, 0.6])  # from half of the largest on
    others = np.delete(volts, 2, axis=0)
    if biasing == "V/2":
        np.testing.assert_allclose(volts[2, [1, 4]], 0.6)
        np.testing.assert_allclose(others, np.tile([0.6, 0, 0.2, 0, 0], (3, 1)), atol=1e-12)
    else:
        np.testing.assert_allclose(volts[2, [1, 4]], 0.4)
        np.testing.assert_allclose(others, np.tile([0.4, -0.4, 0.0, -0.2, -0.4], (3, 1)), atol=1e-12)
        assert np.abs(others).max() <= 1.2 / 3 + 1e-12


def test_thresholds_are_each_chip_s_and_device_s_own() -> None:
    found = Thresholds.of_chips(replace(P, rows=60, columns=40), range(3, 5), 1)
    assert found.set_volt.shape == (2, 60, 80)
    for volt, mean, sigma in ((found.set_volt, 1.0, 0.15), (found.reset_volt, 1.45, 0.225)):
        assert stats.kstest(volt.ravel(), stats.norm(mean, sigma).cdf).pvalue > 1e-4
        assert abs(np.corrcoef(volt[0].ravel(), volt[1].ravel())[0, 1]) < 0.06
    assert abs(np.corrcoef(found.set_volt.ravel(), found.reset_volt.ravel())[0, 1]) < 0.05
    again = Thresholds.of_chips(replace(P, rows=60, columns=40), range(4, 5), 1)
    np.testing.assert_array_equal(again.set_volt[0], found.set_volt[1])
    assert np.array_equal(found.part(3, 2).set_volt, found.set_volt[:, :3, :2])
    assert Thresholds.of_chips(replace(P, v_set_threshold_sigma_volt=10.0), range(1), 0).set_volt.min() == 0.05


def test_tuning_ends_within_the_tolerance_and_disturbs_what_shares_a_line() -> None:
    """With thresholds far above every half amplitude nothing drifts, and the array is as each device was left."""
    p = replace(P, rows=5, columns=3)
    rng = np.random.default_rng(0)
    wanted, thresholds = rng.uniform(0.1, 0.9, (5, 6)), Thresholds.of_chips(p, range(2), 0)
    start = np.full((2, 5, 6), 0.02)
    found = WriteAndVerify(0.05, 300).tune(p, start, wanted, thresholds)
    assert np.abs(relative_error(p, found.tuned, wanted)).max() <= 0.05
    assert np.all((found.pulses > 0) & (found.pulses < 300))
    assert np.abs(found.state - found.tuned).max() > 1e-3
    np.testing.assert_array_equal(start, 0.02)
    narrow = replace(p, v_switch_scale_volt=0.02)
    same = Thresholds(np.full((2, 5, 6), 1.0), np.full((2, 5, 6), 1.45))
    still = WriteAndVerify(0.05, 300, step_volt=0.005).tune(narrow, start, wanted, same)
    assert np.abs(relative_error(p, still.tuned, wanted)).max() <= 0.05
    np.testing.assert_allclose(still.state, still.tuned, atol=1e-4)


def test_tuning_stops_at_its_most_pulses() -> None:
    p = replace(P, rows=2, columns=1)
    found = WriteAndVerify(0.01, 7).tune(
        p, np.zeros((1, 2, 2)), np.full((2, 2), 0.9), Thresholds.of_chips(p, range(1), 0)
    )
    assert np.all(found.pulses == 7)


def test_the_tuning_error_is_that_of_the_conductance() -> None:
    """From 55 uS wanted to 66 uS: 20 %."""
    np.testing.assert_allclose(relative_error(P, np.array(56 / 90), np.array(45 / 90)), 0.2)
