"""The memristor array: currents by hand, tuning errors, stuck devices and what their partners make good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.support.device_kit import read_images, reads_of, written
from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.differential_memristor import MemristorArray, MemristorParameters

P: MemristorParameters = load_target("memristor20").parameters
PERFECT_LINES = replace(
    P, r_row_segment_ohm=0.0, r_column_segment_ohm=0.0, r_row_contact_ohm=0.0, r_column_contact_ohm=0.0
)
WHOLE = replace(PERFECT_LINES, stuck_fraction=0.0)
EXACT = replace(WHOLE, tuning_tolerance=0.0)
FIRST = np.array([0])  # number of an array's first write


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def cell_values(device: MemristorArray, cells: np.ndarray, array: int = 0, number: int = 0) -> np.ndarray:
    """What each cell holds in level units, read out one row at a time."""
    rows = device.parameters.rows
    drives = np.eye(rows, dtype=np.float32)[None, :, None]
    return device.load(written(array, cells, number)).read(drives, reads_of(0))[0, :, 0]


def test_one_of_the_pair_stays_at_the_lowest_conductance() -> None:
    plus, minus = MemristorArray(EXACT).conductances(
        0, FIRST, np.array([[0.5, -1.0, 0.0]] * 20).repeat(4, axis=1)[:, :10]
    )
    np.testing.assert_allclose(plus[0, [0, 4, 8]], [55e-6, 10e-6, 10e-6])
    np.testing.assert_allclose(minus[0, [0, 4, 8]], [10e-6, 100e-6, 10e-6])


def test_a_reading_is_the_amplifiers_voltage_in_dot_product_units() -> None:
    """Equation 1 without its tanh: V = 1e6 (I+ - I-), over 1e6 * 0.2 V * 90 uS for one whole weight at full drive."""
    device = MemristorArray(replace(PERFECT_LINES, stuck_fraction=0.1), seed=3)
    cells, drive = weights(20, 10), weights(1, 1, 1, 20, seed=1)
    plus, minus = device.conductances(2, np.array([7]), cells)
    volt = 1e6 * 0.2 * drive[0, 0, 0].astype(np.float64) @ (plus - minus)
    reading = device.load(written(2, cells, 7)).read(drive, reads_of(0))[0, 0, 0]
    np.testing.assert_allclose(reading, volt / (1e6 * 0.2 * 90e-6), atol=1e-6)


def test_without_errors_sums_are_exact() -> None:
    cells, drives = weights(20, 10), weights(1, 50, 1, 20, seed=1)
    reading = read_images(MemristorArray(EXACT), 0, 0, cells, drives)
    np.testing.assert_allclose(reading[0, :, 0], drives[0, :, 0].astype(np.float64) @ cells, rtol=0, atol=1e-6)


def test_tuned_devices_end_uniformly_within_the_tolerance_and_differ_from_write_to_write() -> None:
    p = replace(WHOLE, rows=100, columns=50)
    cells = np.full((100, 50), 0.6, np.float32)
    device = MemristorArray(p, seed=1)
    plus, minus = device.conductances(0, FIRST, cells)
    relative = (plus - 10e-6) / (0.6 * 90e-6) - 1
    assert stats.kstest(relative.ravel(), stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-4
    np.testing.assert_allclose(minus, 10e-6)  # at the lowest conductance nothing is left to be wrong
    again = device.conductances(0, FIRST, cells)[0]
    assert np.array_equal(plus, again)
    for array, number in ((0, 1), (1, 0)):
        other = (device.conductances(array, np.array([number]), cells)[0] - 10e-6) / (0.6 * 90e-6) - 1
        assert abs(np.corrcoef(relative.ravel(), other.ravel())[0, 1]) < 0.06


def test_stuck_devices_are_the_chips_and_log_uniform() -> None:
    p = replace(P, rows=200, columns=100, stuck_fraction=0.1)
    device = MemristorArray(p, seed=1)
    stuck = device.stuck(4)
    defect = ~np.isnan(stuck)
    assert defect.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / defect.size))
    siemens = 10e-6 + 90e-6 * stuck[defect]
    assert stats.kstest(np.log10(siemens / 1e-5), stats.uniform(0, 1).cdf).pvalue > 1e-4
    assert not np.array_equal(defect, ~np.isnan(device.stuck(3)))
    assert np.array_equal(stuck, MemristorArray(p, seed=1).stuck(4), equal_nan=True)
    for number in (0, 1):  # whatever is written
        plus, minus = device.conductances(4, np.array([number]), weights(200, 100, seed=number))
        np.testing.assert_allclose(np.stack([plus, minus])[defect], siemens)
    assert MemristorArray(WHOLE).cell_limits(0) is None
    assert MemristorArray(P.without("systematic")).cell_limits(0) is None


def test_known_defects_are_made_good_by_the_partner_within_the_cells_limits() -> None:
    """Exact tuning: a cell holds what is wanted, clipped to its limits; that is the nearest it can be (brute force)."""
    p = replace(EXACT, stuck_fraction=0.4)
    device = MemristorArray(p, seed=6)
    limits = device.cell_limits(0)
    assert limits is not None
    stuck, wanted = device.stuck(0), weights(20, 10)
    pair = np.isnan(stuck).sum(axis=0)
    assert set(pair.ravel()) == {0, 1, 2}
    free = np.linspace(0, 1, 2001)
    for row, column in np.ndindex(20, 10):
        plus = free if np.isnan(stuck[0, row, column]) else stuck[:1, row, column]
        minus = free if np.isnan(stuck[1, row, column]) else stuck[1:, row, column]
        values = np.subtract.outer(plus, minus)
        np.testing.assert_allclose(limits[:, row, column], [values.min(), values.max()], atol=1e-12)
    oblivious = cell_values(device, wanted)
    aware = cell_values(device.with_known_defects(), wanted)
    assert np.array_equal(cell_values(device, wanted), oblivious)  # the device itself stays as it is
    np.testing.assert_allclose(aware, np.clip(wanted, *limits), rtol=0, atol=1e-6)
    np.testing.assert_allclose(aware[pair == 2], wanted[pair == 2], rtol=0, atol=1e-6)
    assert np.abs(oblivious - wanted)[pair == 1].mean() > 1.5 * np.abs(aware - wanted)[pair == 1].mean()  # 1.9 of many


def test_knowing_the_defects_changes_whole_cells_not_at_all() -> None:
    device = MemristorArray(replace(P, stuck_fraction=0.2), seed=6)
    wanted, whole = weights(20, 10), np.isnan(device.stuck(0)).all(axis=0)
    before = np.stack(device.conductances(0, FIRST, wanted))
    assert np.array_equal(
        np.stack(device.with_known_defects().conductances(0, FIRST, wanted))[:, whole], before[:, whole]
    )


def test_the_two_lines_of_a_pair_are_neighbours() -> None:
    """Line resistance acts on the 20 lines plus, minus, plus, ... as on any array."""
    device = MemristorArray(P, seed=2)
    cells = weights(20, 10)
    lines = np.empty((1, 20, 20))
    lines[0, :, 0::2], lines[0, :, 1::2] = device.conductances(0, FIRST, cells)
    seen = P.lines.effective(lines)[0]
    np.testing.assert_allclose(cell_values(device, cells), (seen[:, 0::2] - seen[:, 1::2]) / 90e-6, rtol=0, atol=1e-6)
    assert P.lines.row_contact_ohm + P.lines.column_contact_ohm + 20 * 3.0 == 800.0  # pad to pad


def test_the_amplifier_saturates_where_it_is_told_to() -> None:
    """At 1e6 Ohm, 0.2 V and 90 uS one weight makes 18 V: 9 V is half a weight. The shipped limit clips no sum of 20."""
    p = replace(EXACT, v_amplifier_max_volt=9.0)
    cells, drives = weights(20, 10), weights(1, 50, 1, 20, seed=1)
    exact = drives[0, :, 0].astype(np.float64) @ cells
    reading = read_images(MemristorArray(p), 0, 0, cells, drives)[0, :, 0]
    np.testing.assert_allclose(reading, np.clip(exact, -0.5, 0.5), rtol=0, atol=1e-6)
    assert MemristorArray(p).reading_limits == pytest.approx((-0.5, 0.5))
    assert MemristorArray(p).lsb is None
    assert P.amplifier_limit_dot > P.rows


def test_costs_and_spec() -> None:
    """45 pulses of 0.6 ms for each of 20 devices of a row; a read takes half of 1 / 300,000 s."""
    spec = P.array_spec()
    assert (spec.rows, spec.columns, spec.cell_limit, spec.levels) == (20, 10, 1.0, None)
    assert spec.t_write_row_s == pytest.approx(20 * 45 * 0.6e-3)
    assert 2 * spec.t_read_s == pytest.approx(1 / 300_000, rel=0.01)
    assert spec.e_read_j == pytest.approx(400 * 0.2**2 * 32.5e-6 * 1.67e-6)
    pulses = replace(P, pulses_per_device=7, v_write_volt=2.0, t_write_pulse_s=3e-4, t_verify_pulse_s=1e-4).array_spec()
    assert pulses.e_write_row_j == pytest.approx(20 * 7 * 2.0**2 * 32.5e-6 * 3e-4)  # V^2 G t of every pulse that writes
    assert pulses.t_write_row_s == pytest.approx(20 * 7 * 4e-4)
    with pytest.raises(TargetError, match=r"g_min_siemens = 0\.0001 is not below g_max_siemens = 0\.0001"):
        replace(P, g_min_siemens=100e-6)
