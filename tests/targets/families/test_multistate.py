"""The multistate array: the report's example, exact recovery, and how its two kinds of error add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.device_kit import read_image, write_image
from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.multistate import MultistateArray, MultistateParameters

P: MultistateParameters = load_target("m2tj4").parameters


def test_resistances_are_those_of_the_reports_example() -> None:
    """R = 150.59 A + 8110.40 for the levels 8.58, 9.72, 10.87, 12.01 (section 3.1.2): 9402 and 9919 Ohm at the ends."""
    levels = np.array([8.58, 9.72, 10.87, 12.01])
    np.testing.assert_allclose(P.resistances_ohm, 150.59 * levels + 8110.40, atol=1.0)
    assert round(P.resistances_ohm[0]) == 9402
    assert round(P.resistances_ohm[-1]) == 9919
    assert P.i_max_ampere == 0.0005


def test_states_are_equidistant_and_named() -> None:
    np.testing.assert_allclose(np.diff(P.resistances_ohm), P.resistances_ohm[1] - P.resistances_ohm[0])
    spec = P.array_spec()
    assert spec.levels is not None
    np.testing.assert_allclose(spec.levels, [-1, -1 / 3, 1 / 3, 1], rtol=1e-6)
    assert P.state_names() == ["9402 Ohm", "9575 Ohm", "9747 Ohm", "9919 Ohm"]


@pytest.mark.parametrize("rows", [1, 4, 64, 1000])
def test_the_product_is_recovered_exactly_without_spread(rows: int) -> None:
    """V = sum R I; with R = middle + half A and I = i_max v: sum(A v) = (V / i_max - middle sum(v)) / half."""
    p = replace(P, rows=rows, columns=7)
    rng = np.random.default_rng(rows)
    cells = rng.integers(0, 4, (rows, 7), np.uint8)
    device = MultistateArray(p)
    write_image(device, 0, cells)
    drive = rng.random(rows, dtype=np.float32)
    levels = np.linspace(-1, 1, 4)
    expected = drive.astype(np.float64) @ levels[cells]
    # Voltages are rounded to 2**-29 of the largest sum, middle / half is 37: 1e-6 of the largest sum.
    np.testing.assert_allclose(read_image(device, 0, drive), expected, rtol=0, atol=1e-6 * rows)


def test_a_reading_is_ohms_law_cell_by_cell() -> None:
    p = replace(P, sigma_nl_ohm=50.0, sigma_perp_ohm=30.0)
    device = MultistateArray(p, seed=4)
    resistance = device.cell_resistances_ohm(2)
    rng = np.random.default_rng(0)
    cells, drive = rng.integers(0, 4, (4, 4), np.uint8), rng.random(4, dtype=np.float32)
    write_image(device, 2, cells)
    reading = read_image(device, 2, drive)
    for column in range(4):
        volt = sum(resistance[cells[row, column], row, column] * 0.0005 * float(drive[row]) for row in range(4))
        middle, half = (9402.4622 + 9918.9859) / 2, (9918.9859 - 9402.4622) / 2
        expected = (volt / 0.0005 - middle * float(drive.sum(dtype=np.float64))) / half
        assert reading[column] == pytest.approx(expected, abs=1e-5)


def test_sigma_nl_is_shared_by_all_cells_and_arrays() -> None:
    device = MultistateArray(replace(P, sigma_nl_ohm=50.0), seed=1)
    for array in (0, 5):
        offset = device.cell_resistances_ohm(array) - P.resistances_ohm[:, None, None]
        assert np.ptp(offset, axis=(1, 2)).max() < 1e-9
        np.testing.assert_array_equal(offset, device.cell_resistances_ohm(0) - P.resistances_ohm[:, None, None])
    offsets = [
        MultistateArray(replace(P, sigma_nl_ohm=50.0), seed).cell_resistances_ohm(0)[:, 0, 0] - P.resistances_ohm
        for seed in range(500)
    ]
    assert np.std(offsets) == pytest.approx(50, rel=4 / np.sqrt(2 * 2000))
    assert abs(np.corrcoef(np.array(offsets).T) - np.eye(4)).max() < 0.2  # each level has its own


def test_sigma_perp_is_each_cells_own() -> None:
    p = replace(P, rows=40, columns=40, sigma_perp_ohm=30.0)
    device = MultistateArray(p, seed=1)
    own = device.cell_resistances_ohm(0) - p.resistances_ohm[:, None, None]
    assert own.std() == pytest.approx(30, rel=4 / np.sqrt(2 * own.size))
    assert abs(own.mean()) < 4 * 30 / np.sqrt(own.size)
    assert np.abs(own.mean(axis=(1, 2))).max() < 5 * 30 / 40
    assert np.mean(own == device.cell_resistances_ohm(1) - p.resistances_ohm[:, None, None]) < 0.01


def rmse(rows: int, **sigma_ohm: float) -> float:
    """Root mean square error of column sums in Ohm at full current, all inputs at 1, over many chips."""
    p = replace(P, rows=rows, columns=4, **sigma_ohm)
    errors = []
    for seed in range(200):
        device = MultistateArray(p, seed)
        cells = np.full((rows, 4), seed % 4, np.uint8)
        write_image(device, 0, cells)
        reading = read_image(device, 0, np.ones(rows, np.float32))
        errors.append(reading - rows * np.linspace(-1, 1, 4)[seed % 4])
    return float(np.sqrt(np.mean(np.square(errors)))) * (P.r_highest_ohm - P.r_lowest_ohm) / 2


def test_shared_errors_add_up_and_own_errors_average() -> None:
    """N equal cells: shared offsets give N sigma_NL, own offsets sqrt(N) sigma_perp (section 4.3)."""
    for rows in (4, 64):
        assert rmse(rows, sigma_nl_ohm=20.0) == pytest.approx(rows * 20, rel=0.15)
        assert rmse(rows, sigma_perp_ohm=20.0) == pytest.approx(np.sqrt(rows) * 20, rel=0.15)


def test_energy_of_a_read_is_that_of_all_cells_at_full_current() -> None:
    middle_ohm = (9402.4622 + 9918.9859) / 2
    assert P.e_read_j == pytest.approx(16 * 0.0005**2 * middle_ohm * 1e-6)


def test_states_must_be_in_order() -> None:
    with pytest.raises(TargetError, match=r"r_lowest_ohm = 9919 is not below r_highest_ohm = 9918\.99"):
        replace(P, r_lowest_ohm=9919.0)
