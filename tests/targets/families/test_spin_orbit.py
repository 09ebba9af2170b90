"""Spin-orbit arrays: states of pairs and single devices, spreads, write noise, and the common error of a reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.device_kit import read_images
from xbcompile.targets import load_target
from xbcompile.targets.families.spin_orbit import SpinOrbitArray, SpinOrbitParameters

PAIR: SpinOrbitParameters = load_target("sot").parameters
SINGLE: SpinOrbitParameters = load_target("sot-single").parameters
NO_SPREAD = {"low_sigma": 0.0, "high_sigma": 0.0, "write_noise": 0.0}
G_LOW, G_HIGH = 1 / 738.0, 1 / (738.0 * 2.66)  # conductances of the low- and the high-resistance state


def case(p: SpinOrbitParameters, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, len(p.levels), (p.rows, p.columns), np.uint8)
    return cells, rng.uniform(-1, 1, (1, 20, 1, p.rows)).astype(np.float32)


def read(device: SpinOrbitArray, cells: np.ndarray, drives: np.ndarray, array: int = 0) -> np.ndarray:
    return read_images(device, array, 0, cells, drives)[0, :, 0]


def test_the_published_numbers() -> None:
    """10 Ohm um^2 over an ellipse of 75 nm x 230 nm; 166 %; ternary pairs and binary single devices."""
    assert PAIR.r_low_ohm == pytest.approx(10 / (np.pi / 4 * 0.075 * 0.230), rel=1e-3)
    np.testing.assert_allclose(PAIR.state_siemens, (G_HIGH, G_LOW))
    assert PAIR.levels.tolist() == [-1, 0, 1]
    assert SINGLE.levels.tolist() == [-1, 1]
    assert PAIR.array_spec().e_write_row_j == pytest.approx(2 * 64 * 350e-15)
    assert SINGLE.array_spec().e_write_row_j == pytest.approx(200 * 350e-15)
    assert PAIR.array_spec().t_write_row_s == pytest.approx(2 * 10e-9)  # a pulse per polarity
    assert replace(PAIR, write_pulses_per_row=5).array_spec().t_write_row_s == pytest.approx(5 * 10e-9)
    assert PAIR.array_spec().e_read_j == pytest.approx(64 * 128 * 0.01 * (G_LOW + G_HIGH) / 2 * 10e-9)
    assert SINGLE.array_spec().e_read_j == pytest.approx(784 * 202 * 0.01 * (G_LOW + G_HIGH) / 2 * 10e-9)
    assert PAIR.state_names() == ["high/low resistance", "high/high resistance", "low/high resistance"]
    assert SINGLE.state_names() == ["high resistance 1963 Ohm", "low resistance 738 Ohm"]


def test_states_of_a_pair() -> None:
    p = replace(PAIR, rows=1, columns=3, **NO_SPREAD)
    plus, minus = SpinOrbitArray(p).conductances(0, np.array([0]), np.array([[0, 1, 2]], np.uint8))
    np.testing.assert_allclose(plus[0], [G_HIGH, G_HIGH, G_LOW])
    np.testing.assert_allclose(minus[0], [G_LOW, G_HIGH, G_HIGH])


def test_a_single_device_is_read_against_the_middle() -> None:
    p = replace(SINGLE, rows=1, columns=2, **NO_SPREAD)
    plus, minus = SpinOrbitArray(p).conductances(0, np.array([0]), np.array([[0, 1]], np.uint8))
    np.testing.assert_allclose(plus[0], [G_HIGH, G_LOW])
    np.testing.assert_allclose(minus, [[(G_HIGH + G_LOW) / 2]])


@pytest.mark.parametrize("base", [PAIR, SINGLE])
def test_without_spread_sums_are_exact(base: SpinOrbitParameters) -> None:
    p = replace(base, rows=50, columns=8, **NO_SPREAD)
    cells, drives = case(p)
    expected = drives[0, :, 0].astype(np.float64) @ p.levels[cells].astype(np.float64)
    sizes = np.abs(drives[0, :, 0]).astype(np.float64) @ np.abs(p.levels[cells]).astype(np.float64)
    found = read(SpinOrbitArray(p), cells, drives)
    assert np.all(np.abs(found - expected) <= (p.rows + 2) * 2.0**-24 * sizes)  # single precision, weights rounded, too


@pytest.mark.parametrize("base", [PAIR, SINGLE])
def test_a_reading_is_ohms_law_device_by_device(base: SpinOrbitParameters) -> None:
    p = replace(base, rows=6, columns=3, write_noise=0.0)
    device = SpinOrbitArray(p, seed=5)
    cells, drives = case(p)
    states, expected = device.device_siemens(2), np.zeros(3)
    for row in range(6):
        for column in range(3):
            value = p.levels[cells[row, column]]
            current = states[0, int(value > 0), row, column]
            other = states[1, int(value < 0), row, column] if base is PAIR else device.reference_siemens(2)[row]
            expected[column] += float(drives[0, 4, 0, row]) * (current - other)
    expected /= (G_LOW - G_HIGH) if base is PAIR else (G_LOW - G_HIGH) / 2
    np.testing.assert_allclose(read(device, cells, drives, array=2)[4], expected, rtol=0, atol=1e-6)


def test_devices_have_the_described_spread_in_each_state() -> None:
    p = replace(PAIR, rows=120, columns=100)
    device = SpinOrbitArray(p, seed=1)
    states = device.device_siemens(0)
    for state, (mean, sigma) in enumerate(((G_HIGH, 0.094), (G_LOW, 0.102))):
        relative = states[:, state] / mean - 1
        assert abs(relative.mean()) < 5 * sigma / np.sqrt(relative.size)
        assert relative.std() == pytest.approx(sigma, rel=0.03)
    assert not np.array_equal(states, device.device_siemens(1))
    np.testing.assert_array_equal(states, SpinOrbitArray(p, seed=1).device_siemens(0))


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.8, 1.0])
def test_states_of_a_device_are_correlated_and_its_tmr_follows(correlation: float) -> None:
    """TMR + 1 = G_low / G_high: relative variance s_l^2 + s_h^2 - 2 r s_l s_h to first order; both spreads stay as they are."""
    states = SpinOrbitArray(replace(PAIR, rows=200, columns=100, state_correlation=correlation), 1).device_siemens(0)
    high, low = (states[:, state].ravel() / mean - 1 for state, mean in enumerate((G_HIGH, G_LOW)))
    assert np.corrcoef(high, low)[0, 1] == pytest.approx(correlation, abs=0.02)
    assert (high.std(), low.std()) == pytest.approx((0.094, 0.102), rel=0.02)
    tmr = states[:, 1] / states[:, 0] - 1
    expected = 2.66 * np.sqrt(0.102**2 + 0.094**2 - 2 * correlation * 0.102 * 0.094)
    assert tmr.std() == pytest.approx(expected, rel=0.08)  # the quotient has higher terms, of 5 % at r = -0.5


def test_two_sides_of_a_pair_and_the_devices_of_a_reference_are_not_correlated() -> None:
    states = SpinOrbitArray(replace(PAIR, rows=200, columns=100), 1).device_siemens(0)
    for one, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert abs(np.corrcoef(states[0, one].ravel(), states[1, other].ravel())[0, 1]) < 0.04
    references = [
        SpinOrbitArray(replace(SINGLE, state_correlation=r), 3).reference_siemens(0) for r in (0.0, 0.8)
    ]  # one device in each state: two devices
    np.testing.assert_array_equal(*references)


@pytest.mark.parametrize("base", [PAIR, SINGLE])
def test_write_noise_is_drawn_anew_per_write_and_leaves_the_reference_alone(base: SpinOrbitParameters) -> None:
    p = replace(base, rows=120, columns=100)
    device, quiet = SpinOrbitArray(p, seed=1), SpinOrbitArray(replace(p, write_noise=0.0), seed=1)
    cells, _ = case(p)
    first = device.conductances(0, np.array([0]), cells)[0] / quiet.conductances(0, np.array([0]), cells)[0] - 1
    second = device.conductances(0, np.array([1]), cells)[0] / quiet.conductances(0, np.array([1]), cells)[0] - 1
    assert first.std() == pytest.approx(0.00107, rel=0.03)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(
        device.conductances(0, np.array([0]), cells)[0], device.conductances(0, np.array([0]), cells)[0]
    )
    if base is SINGLE:
        np.testing.assert_array_equal(
            device.conductances(0, np.array([0]), cells)[1], device.conductances(0, np.array([1]), cells)[1]
        )


def test_a_references_error_is_common_to_all_columns_and_averages_out() -> None:
    """Only reference devices spread: all columns read the same error; n reference columns make it 1 / sqrt(n)."""
    sigma = np.hypot(0.102 * G_LOW, 0.094 * G_HIGH) / 2  # of the mean of one device in each state
    for count in (1, 16):
        p = replace(SINGLE, rows=400, columns=5, reference_columns=count, write_noise=0.0)
        device = SpinOrbitArray(p, seed=3)
        error = device.reference_siemens(0) - (G_LOW + G_HIGH) / 2
        assert error.std() == pytest.approx(sigma / np.sqrt(count), rel=0.12)
    assert not np.array_equal(device.reference_siemens(1), device.reference_siemens(0))  # each array has its own
    as_many = replace(p, reference_columns=p.columns, devices_per_weight=1)
    device = SpinOrbitArray(as_many, seed=3)  # 400 rows: a correlation of 0.2 is four standard errors
    for array in (0, 1):  # its devices are no weights' devices, of this array or another one
        weights = device.device_siemens(array)[0].mean(axis=(0, 2))
        assert abs(np.corrcoef(device.reference_siemens(0), weights)[0, 1]) < 0.2
    p = replace(p, rows=40)
    nominal = replace(p, **NO_SPREAD)
    cells, drives = case(p)

    class OnlyReference(SpinOrbitArray):
        def device_siemens(self, array: int) -> np.ndarray:
            return SpinOrbitArray(nominal).device_siemens(array)

    difference = read(OnlyReference(p, 3), cells, drives) - read(SpinOrbitArray(nominal), cells, drives)
    rounded = 42 * 2.0**-24 * 40 * 1.5  # sums of 40 rows in single precision; weights of one device reach 1.5
    assert np.ptp(difference, axis=1).max() < 4 * rounded
    assert np.abs(difference).min(axis=1).max() > 100 * rounded


def test_line_resistance_of_a_shared_reference_column() -> None:
    """The reference is one more line, behind all others."""
    p = replace(SINGLE, rows=7, columns=4, r_row_segment_ohm=2.0, r_column_segment_ohm=3.0, r_column_contact_ohm=10.0)
    device = SpinOrbitArray(p, seed=2)
    cells, drives = case(p)
    plus, minus = device.conductances(0, np.array([0]), cells)
    seen = p.lines.effective(np.concatenate([plus, minus], axis=1)[None])[0]
    expected = drives[0, :, 0].astype(np.float64) @ (seen[:, :4] - seen[:, 4:]) / ((G_LOW - G_HIGH) / 2)
    np.testing.assert_allclose(read(device, cells, drives), expected, rtol=0, atol=1e-6)
