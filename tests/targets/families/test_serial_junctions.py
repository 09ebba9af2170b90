"""Serial junctions: series sums, levels, the current of a cell against a root finder, statistics of sampled chips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, optimize

from tests.support.device_kit import read_images, written
from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.serial_junctions import SerialJunctionArray, SerialJunctionParameters, fit_current

P: SerialJunctionParameters = load_target("multicell").parameters
LINEAR = replace(P, slope_parallel_ohm_per_volt=0.0, slope_antiparallel_ohm_per_volt=0.0)
FIT_ERROR = {1: 5e-5, 2: 6e-6, 4: 7e-7, 7: 2e-7}  # of the current, as the module states


def exact_current(ohm: np.ndarray, slope: np.ndarray, volt: float) -> float:
    """Junctions in series, each r + slope |v|: the current at which their voltages add up."""

    def missing(current: float) -> float:
        pairs = zip(ohm, slope, strict=True)
        held = [optimize.brentq(lambda v, r=r, s=s: v - current * (r + s * v), 0, 2 * current * r) for r, s in pairs]
        return float(sum(held)) - volt

    return float(optimize.brentq(missing, 0, volt / ohm.sum() * 1.3, xtol=1e-16, rtol=1e-12))


@pytest.mark.parametrize("junctions", sorted(FIT_ERROR))
def test_the_fitted_current_is_that_of_the_root_finder(junctions: int) -> None:
    for antiparallel in {0, 1, junctions}:
        is_antiparallel = np.arange(junctions) < antiparallel
        ohm = np.where(is_antiparallel, P.r_antiparallel_ohm, P.r_parallel_ohm)
        slope = np.where(is_antiparallel, P.slope_antiparallel_ohm_per_volt, P.slope_parallel_ohm_per_volt)
        terms = fit_current(ohm, slope, 0.2)
        for u in (0.03, 0.3, 0.6, 1.0):
            fitted = terms[0] * u + terms[1] * u * u + terms[2] * u**3
            assert fitted == pytest.approx(exact_current(ohm, slope, 0.2 * u), rel=FIT_ERROR[junctions])


@pytest.mark.parametrize("junctions", range(1, 8))
def test_states_are_equidistant_in_resistance_and_levels_are_differences(junctions: int) -> None:
    """N + 1 resistances; their conductances' (N + 1)^2 differences have N (N + 1) + 1 distinct values."""
    p = replace(LINEAR, junctions=junctions)
    ohm = 1 / p.cell_siemens
    expected = (junctions - np.arange(junctions + 1)) * 850.0 + np.arange(junctions + 1) * 850.0 * 2.1
    np.testing.assert_allclose(ohm, expected, rtol=1e-12)
    difference = np.unique(
        np.round(np.subtract.outer(1 / expected, 1 / expected) / (1 / expected[0] - 1 / expected[-1]), 9)
    )
    np.testing.assert_allclose(p.levels, difference, atol=1e-6)
    assert len(p.levels) == junctions * (junctions + 1) + 1
    assert tuple(p.pairs[len(p.levels) // 2]) == (junctions, junctions)  # zero: both at the lowest conductance
    spec = p.array_spec()
    assert np.all(spec.neutral_level == len(p.levels) // 2)


def test_levels_of_voltage_dependent_junctions_are_least_squares_slopes() -> None:
    """Over uniform drives, integral of u I(u) over integral of u^2, here integrated with the root finder's currents."""
    for antiparallel in (0, 3):
        is_antiparallel = np.arange(4) < antiparallel
        ohm = np.where(is_antiparallel, P.r_antiparallel_ohm, P.r_parallel_ohm)
        slope = np.where(is_antiparallel, P.slope_antiparallel_ohm_per_volt, P.slope_parallel_ohm_per_volt)
        nodes = np.linspace(0, 1, 21)
        current = np.array([0.0] + [exact_current(ohm, slope, 0.2 * u) for u in nodes[1:]])
        expected = integrate.simpson(nodes * current, x=nodes) * 3 / 0.2
        assert P.cell_siemens[antiparallel] == pytest.approx(expected, rel=1e-5)


def test_a_reading_is_the_sum_of_currents_cell_by_cell() -> None:
    """Each sampled cell's current by the root finder, their difference over V (G_max - G_min)."""
    p = replace(P, rows=5, columns=2)
    device = SerialJunctionArray(p, seed=3)
    rng = np.random.default_rng(0)
    cells = rng.integers(0, len(p.levels), (5, 2), np.uint8)
    drive = rng.uniform(-1, 1, 5).astype(np.float32)
    ohm, slope = device.junctions(6)
    expected = np.zeros(2)
    for row in range(5):
        for column in range(2):
            for side, sign in ((0, 1), (1, -1)):
                state = (np.arange(4) < p.pairs[cells[row, column], side]).astype(int)
                own_ohm = ohm[side, np.arange(4), state, row, column]
                own_slope = slope[side, np.arange(4), state, row, column]
                current = exact_current(own_ohm, own_slope, 0.2 * abs(float(drive[row])))
                expected[column] += sign * np.sign(drive[row]) * current / (0.2 * p.level_siemens)
    found = read_images(device, 6, 0, cells, drive[None, None, None])[0, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_sampled_junctions_have_the_described_spread_and_belong_to_the_chip() -> None:
    p = replace(P, rows=60, columns=50, resistance_sigma=0.05, slope_sigma=0.1)
    device = SerialJunctionArray(p, seed=2)
    ohm, slope = device.junctions(1)
    for state, (mean_ohm, mean_slope) in enumerate(((850.0, 0.0), (850.0 * 2.1, -935.0))):
        relative = ohm[:, :, state] / mean_ohm - 1
        assert abs(relative.mean()) < 5 * 0.05 / np.sqrt(relative.size)
        assert relative.std() == pytest.approx(0.05, rel=0.03)
        if mean_slope:
            assert (slope[:, :, state] / mean_slope).std() == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(ohm[:, :, 0].ravel(), ohm[:, :, 1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(ohm[:, :, 1].ravel(), slope[:, :, 1].ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(SerialJunctionArray(p, seed=2).junctions(1)[0], ohm)
    assert not np.array_equal(device.junctions(0)[0], ohm)
    # Series: N junctions of spread s have a cell spread of s / sqrt(N) while all are in one state.
    assert ohm[0, :, 0].sum(axis=0).std() / (4 * 850) == pytest.approx(0.05 / 2, rel=0.1)


@pytest.mark.parametrize("base", [P, LINEAR])
def test_without_spread_a_nominal_cell_reads_its_level(base: SerialJunctionParameters) -> None:
    """Exactly for constant resistances; within the nonlinearity of the current, 1 %, otherwise."""
    p = replace(base, rows=21, columns=1, resistance_sigma=0.0, slope_sigma=0.0)
    cells = np.arange(21, dtype=np.uint8)[:, None]
    device = SerialJunctionArray(p)
    for u in (-1.0, -0.25, 0.5):
        drives = (u * np.eye(21, dtype=np.float32))[None, :, None]
        found = read_images(device, 0, 0, cells, drives)[0, :, 0, 0]
        np.testing.assert_allclose(found, u * p.levels, rtol=0, atol=1e-6 if base is LINEAR else 0.01)


def test_all_parallel_cells_can_be_written() -> None:
    """Their slopes are all 0 while their partners' are not: both sides keep three terms."""
    p = replace(P, rows=3, columns=2)
    top = np.full((1, 3, 2), len(p.levels) - 1, np.uint8)
    device = SerialJunctionArray(p)
    assert device.matrices(written(0, top)).shape == (1, 3, 3, 2)


def test_costs_follow_the_paper() -> None:
    """N + 1 cycles for the whole array; a read is V^2 G t of all cells."""
    p = replace(LINEAR, junctions=7)
    spec = p.array_spec()
    assert spec.t_write_s == pytest.approx(8 * p.t_write_cycle_s)
    mean_siemens = np.mean([1 / (850 * (7 - n) + 850 * 2.1 * n) for n in range(8)])
    assert spec.e_read_j == pytest.approx(400 * 200 * 0.04 * mean_siemens * 1e-6)
    assert p.junctions * p.v_write_per_junction_volt == pytest.approx(3.25, abs=0.01)
    write_volt = 7 * p.v_write_per_junction_volt
    assert spec.e_write_row_j == pytest.approx(200 * write_volt**2 * mean_siemens * p.t_write_cycle_s)
    assert len(p.state_names()) == 57
    assert p.state_names()[28] == "12495/12495 Ohm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"junctions": 1, "v_read_volt": 0.33}, r"puts 0\.33 V on one junction, above 0\.249 V.*reads would disturb"),
        ({"v_read_volt": 1.2, "slope_antiparallel_ohm_per_volt": 0.0}, r"v_read_volt = 1\.2 V puts 0\.494 V on one"),
        (
            {"slope_antiparallel_ohm_per_volt": -6000.0},
            "slope_antiparallel_ohm_per_volt = -6000 changes 1785 Ohm by more",
        ),
        ({"junctions": 16}, "junctions = 16 gives more than 256 levels"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        replace(P, **change)
