"""Switching curves: windows, directions, spreads, and thresholds found again from counted pulses."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.spin_orbit import SpinOrbitParameters
from xbcompile.targets.families.switching import SwitchingCurves, estimated_thresholds

SINGLE: SpinOrbitParameters = load_target("sot-single").parameters
CURVES = SINGLE.curves()

voltages = st.floats(-1, 1)
states = st.sampled_from([-1, 1])


@pytest.mark.parametrize(("pulse_s", "window_v"), [(10e-9, 0.05), (2e-9, 0.5)])
def test_published_windows_lie_between_one_and_99_per_cent(pulse_s: float, window_v: float) -> None:
    curves = SINGLE.curves(pulse_s)
    low, high = curves.voltage(np.array([0.01, 0.99]))
    assert high - low == pytest.approx(window_v)
    assert curves.probability((low + high) / 2) == pytest.approx(0.5)


def test_short_pulses_switch_below_one_volt() -> None:
    """The abstract's "fast (2 ns) and low voltage (< 1 V)"."""
    assert SINGLE.curves(2e-9).voltage(0.99) < 1


@given(voltages, voltages, st.floats(0.01, 1), states)
def test_more_voltage_in_its_direction_never_switches_less(one: float, other: float, threshold: float, to: int) -> None:
    low, high = sorted([to * one, to * other])
    assert CURVES.probability(to * low, threshold, to) <= CURVES.probability(to * high, threshold, to)


@given(voltages, states)
def test_a_curve_is_a_normal_distribution_function_and_both_directions_mirror_each_other(
    voltage: float, to: int
) -> None:
    expected = (1 + erf((to * voltage - CURVES.threshold_v) / CURVES.sigma_v / sqrt(2))) / 2
    assert CURVES.probability(voltage, to=to) == pytest.approx(expected, abs=1e-15)
    assert CURVES.probability(-voltage, to=-to) == CURVES.probability(voltage, to=to)


def test_positive_voltages_do_not_switch_to_high_resistance() -> None:
    assert CURVES.probability(np.array([0.0, 0.1, 1.0]), to=-1).max() < 1e-12


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.1, 1), states)
def test_voltage_is_the_inverse(probability: float, threshold: float, to: int) -> None:
    found = CURVES.probability(CURVES.voltage(probability, threshold, to), threshold, to)
    assert found == pytest.approx(probability, rel=1e-6)


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, float("nan")])
def test_certainty_has_no_voltage(wrong: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        CURVES.voltage(wrong)


def test_there_are_two_states() -> None:
    for ask in (CURVES.probability, CURVES.voltage):
        with pytest.raises(ValueError, match="state 0 is unknown"):
            ask(0.5, to=0)


def test_thresholds_spread_as_told_and_are_the_chips_own() -> None:
    """Mean and deviation of 40,000 devices lie within five standard errors."""
    curves = SwitchingCurves(0.3, 0.05, 0.1)
    found = curves.thresholds(3, 1, (200, 200))
    assert found.mean() == pytest.approx(0.3, abs=5 * 0.03 / 200)
    assert found.std() == pytest.approx(0.03, abs=5 * 0.03 / sqrt(2 * 40_000))
    np.testing.assert_array_equal(found, curves.thresholds(3, 1, (200, 200)))
    for other in (curves.thresholds(4, 1, (200, 200)), curves.thresholds(3, 2, (200, 200))):
        assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 5 / 200
    assert SwitchingCurves(0.3, 0.05, 1.0).thresholds(0, 0, (100, 100)).min() == 0
    assert set(SwitchingCurves(0.3, 0.05).thresholds(0, 0, (2, 2)).ravel()) == {0.3}


@given(st.floats(2e-9, 10e-9))
def test_lengths_between_have_curves_between(pulse_s: float) -> None:
    """Threshold a + b / t, window a power of t: both fall as pulses get longer."""
    between, short, long = SINGLE.curves(pulse_s), SINGLE.curves(2e-9), SINGLE.curves(10e-9)
    assert long.threshold_v - 1e-12 <= between.threshold_v <= short.threshold_v + 1e-12
    assert long.window_v * (1 - 1e-9) <= between.window_v <= short.window_v * (1 + 1e-9)
    # The same share of the way, in 1 / t and in log t.
    share = (between.threshold_v - long.threshold_v) / (short.threshold_v - long.threshold_v)
    assert 1 / pulse_s == pytest.approx(1e8 + share * 4e8)
    assert np.log(between.window_v / 0.05) / np.log(10) == pytest.approx(np.log(pulse_s / 1e-8) / np.log(0.2), abs=1e-9)


@pytest.mark.parametrize("pulse_s", [1e-9, 11e-9, 0.0])
def test_other_lengths_are_refused(pulse_s: float) -> None:
    with pytest.raises(TargetError, match="no switching curve; allowed: 2e-09 to 1e-08 s"):
        SINGLE.curves(pulse_s)


@given(st.floats(-0.01, 0.01))
def test_thresholds_are_found_again_from_shares_that_switched(shift: float) -> None:
    """With exact shares, the area below a curve that begins and ends within the voltages tells its mean."""
    true = CURVES.threshold_v * (1 + shift)
    volts = np.linspace(true - 0.06, true + 0.07, 53)
    shares = CURVES.probability(volts, true)
    assert estimated_thresholds(shares * 50, volts, 50) == pytest.approx(true, abs=1e-6)


def test_counted_pulses_follow_the_curve_and_tell_the_thresholds() -> None:
    """The estimate's variance is that of a sum of shares, step^2 sum p (1 - p) / pulses: step sigma / (sqrt(pi) pulses)."""
    curves = SwitchingCurves(0.25, 0.05, 0.05)
    thresholds = curves.thresholds(1, 0, (40, 50))
    volts, pulses = np.arange(0.1, 0.4, 0.01), 20
    counts = curves.counted_switches(thresholds, volts, pulses, 1, 0)
    expected = curves.probability(volts[:, None, None], thresholds)
    assert abs(counts.mean() / pulses - expected.mean()) < 5 * sqrt(
        np.mean(expected * (1 - expected)) / counts.size / pulses
    )
    found = estimated_thresholds(counts, volts, pulses) - thresholds
    sigma = sqrt(0.01 * curves.sigma_v / sqrt(np.pi) / pulses)
    assert abs(found.mean()) < 5 * sigma / sqrt(found.size)
    assert found.std() == pytest.approx(sigma, rel=0.1)
