"""The resistance-sum array against equation 3, cell by cell, and its converter against its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.device_kit import read_image, read_images, write_image
from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters

P: ResistanceSumParameters = load_target("mram64").parameters
NOMINAL = replace(P, r_high_sigma_ohm=0.0, r_low_sigma_ohm=0.0, tdc_jitter_dot=0.0)
EVEN_ROWS = replace(NOMINAL, c_cell_farad=0.0)  # all capacitance at the column's end: every row counts alike


def elmore_s(resistances_ohm: np.ndarray) -> float:
    """Equation 3 as it is written: tau = C_P sum_k sum_{j<=k} R_j + C_L sum_k R_k, over the cells of one column."""
    tau = 0.0
    for k in range(len(resistances_ohm)):
        for j in range(k + 1):
            tau += P.c_cell_farad * resistances_ohm[j]
        tau += P.c_load_farad * resistances_ohm[k]
    return tau


def test_row_weights_are_the_published_ones() -> None:
    """(C_P (64 - i) + C_L) / (65 C_P / 2 + C_L) with 2.1 fF and 33 fF: 167.4 / 101.25 to 35.1 / 101.25, linear."""
    weight = P.row_weight
    assert weight[0] == pytest.approx(167.4 / 101.25)
    assert weight[0] == pytest.approx(1.653, abs=5e-4)
    assert weight[-1] == pytest.approx(35.1 / 101.25)
    assert weight[-1] == pytest.approx(0.347, abs=5e-4)
    assert weight.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.diff(weight), weight[1] - weight[0])


def test_row_weights_are_the_delays_of_single_cells() -> None:
    """Making cell j alone 1 kOhm larger delays the column by its weight in equation 3."""
    cells = np.full(64, P.r_low_ohm)
    base = elmore_s(cells)
    change = []
    for j in range(64):
        cells[j] += 1000
        change.append(elmore_s(cells) - base)
        cells[j] -= 1000
    np.testing.assert_allclose(np.array(change) / np.mean(change), P.row_weight, rtol=1e-6)


def test_the_delay_of_a_dot_product_is_equation_3() -> None:
    """For cells in any order, tau depends on the row-weighted dot product alone."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        signs = rng.choice([-1, 1], 64)
        tau = elmore_s(np.where(signs > 0, P.r_high_ohm, P.r_low_ohm))
        assert P.delay_s(float(P.row_weight @ signs)) == pytest.approx(P.delay_per_time_constant * tau, rel=1e-12)


def test_the_paths_have_the_published_spread() -> None:
    """8,192 paths of each state: the mean within 4 standard errors sigma / sqrt(8192), sigma within 4 / sqrt(2 8192)."""
    paths = ResistanceSumArray(P, seed=3).paths(0)
    assert paths.shape == (2, 2, 64, 64)
    for state, mean, sigma in ((0, 13e3, 1.6e3), (1, 26e3, 2.0e3)):
        sampled = paths[:, state].ravel()
        assert sampled.size == 8192
        assert sampled.mean() == pytest.approx(mean, abs=4 * sigma / np.sqrt(8192))
        assert sampled.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * 8192))
    flat = paths.reshape(4, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.06  # four independent draws of 4,096 cells


def test_chips_and_arrays_differ_and_a_seed_repeats() -> None:
    first = ResistanceSumArray(P, seed=1)
    assert np.array_equal(first.paths(2), ResistanceSumArray(P, seed=1).paths(2))
    for other in (first.paths(3), ResistanceSumArray(P, seed=2).paths(2)):
        assert np.abs(np.corrcoef(first.paths(2).ravel() - 19500, other.ravel() - 19500)[0, 1]) < 1
        assert np.mean(first.paths(2) == other) < 0.01


def literal_reading(device: ResistanceSumArray, array: int, cells: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Cell by cell: the input selects a path, the stored weight its state; equation 3; the converter's table.

    The left path holds the weight (high for +1), the right one its complement. Returns the delay in units of codes above
    the converter's lower edge, [columns].
    """
    p = device.parameters
    paths = device.paths(array)
    position = []
    for column in range(p.columns):
        resistance_sum = tau = 0.0
        for row in range(p.rows):
            weight = int(cells[row, column])
            if drive[row] > 0:
                resistance_sum += paths[0, weight, row, column]
            else:
                resistance_sum += paths[1, 1 - weight, row, column]
            tau += p.c_cell_farad * resistance_sum
        tau += p.c_load_farad * resistance_sum
        delay = p.delay_per_time_constant * tau
        low, high = p.delay_s(p.tdc_lowest_dot - 1), p.delay_s(p.tdc_lowest_dot - 1 + 2 * p.tdc_dots_per_code)
        position.append((delay - low) / (high - low))
    return np.array(position)


def test_readings_equal_a_literal_simulation() -> None:
    """Random cells and drives over the whole range of dot products, all spreads on, jitter off."""
    p = replace(P, tdc_jitter_dot=0.0)
    device = ResistanceSumArray(p, seed=11)
    rng = np.random.default_rng(1)
    compared = 0
    for read in range(24):
        cells = rng.integers(0, 2, (64, 64), np.uint8)
        agreement = rng.random()
        drive = np.where(rng.random(64) < agreement, 2.0 * cells[:, read] - 1, 1 - 2.0 * cells[:, read]).astype("f")
        write_image(device, read % 3, cells)
        reading = read_image(device, read % 3, drive, vector=read)
        position = literal_reading(device, read % 3, cells, drive)
        clear = np.abs(position - np.rint(position)) > 1e-4  # float32 may put the rest on either side of an edge
        code = np.clip(np.floor(position), 0, 15)
        assert np.array_equal(reading[clear], (p.dot_of_lowest_code + p.lsb_dot * code)[clear])
        compared += int(clear.sum())
    assert compared > 0.99 * 24 * 64


def test_each_code_spans_three_dot_products() -> None:
    """-46, -44, -42 are code 0 (decoded as -44), 44, 46, 48 code 15; smaller and larger ones saturate."""
    device = ResistanceSumArray(EVEN_ROWS)
    write_image(device, 0, np.ones((64, 64), np.uint8))
    codes = {}
    for dot in range(-64, 65, 2):
        drive = np.ones(64, np.float32)
        drive[: (64 - dot) // 2] = -1
        assert drive.sum() == dot
        reading = read_image(device, 0, drive)
        assert len(np.unique(reading)) == 1
        codes[dot] = (reading[0] + 44) / 6
    for dot, code in codes.items():
        assert code == min(max((dot + 46) // 6, 0), 15)
    covered = [code for dot, code in codes.items() if -46 <= dot <= 48]
    assert covered == sorted([*range(16)] * 3)
    assert {codes[dot] for dot in range(-64, -46, 2)} == {0}
    assert {codes[dot] for dot in range(50, 65, 2)} == {15}
    assert device.reading_limits == (-44, 46)
    assert device.lsb == 6


def test_jitter_has_its_standard_deviation() -> None:
    """A dithered converter's mean over many reads is the exact value, its variance jitter^2 plus that of rounding."""
    p = replace(EVEN_ROWS, tdc_jitter_dot=12.0)
    device = ResistanceSumArray(p)
    drive = np.ones((1, 2000, 1, 64), np.float32)
    drive[..., :31] = -1  # dot product 2
    reading = read_images(device, 0, 0, np.ones((64, 64), np.uint8), drive).astype(np.float64)
    assert reading.mean() == pytest.approx(2, abs=4 * 12.2 / np.sqrt(reading.size))
    assert reading.var() == pytest.approx(12.0**2 + 6**2 / 12, rel=0.02)
    repeated = reading[0, :, 0]
    assert np.abs(np.corrcoef(repeated.T) - np.eye(64)).max() < 0.12  # columns draw independently


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_low_ohm": 26e3}, "r_low_ohm = 26000 is not below r_high_ohm = 26000; a cell needs two states"),
        ({"c_cell_farad": 0.0, "c_load_farad": 0.0}, "are both 0; a column without capacitance has no delay"),
    ],
)
def test_impossible_arrays_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        replace(P, **change)


def test_costs_are_those_of_cycles() -> None:
    """11.1 MHz; two cycles to write a row, both paths of its 64 cells for one cycle each; 347 uW while reading."""
    spec = P.array_spec()
    assert spec.t_read_s == pytest.approx(1 / 11.1e6)
    assert spec.t_write_row_s == pytest.approx(2 / 11.1e6)
    assert replace(P, write_cycles_per_row=3).array_spec().t_write_row_s == pytest.approx(3 / 11.1e6)
    assert spec.e_write_row_j == pytest.approx(128 * P.v_write_volt * P.i_write_ampere / 11.1e6)
    assert spec.e_read_j == pytest.approx(347e-6 / 11.1e6)


def test_neutral_cells_nearly_cancel() -> None:
    """All rows idle: alternating cells leave half a step of the row weights, (g_63 - g_0) / 64 x 32 = -0.663."""
    spec = P.array_spec()
    assert spec.levels is not None
    idle = (spec.row_weight * spec.idle_drive * spec.levels[spec.neutral_level]).sum()
    assert idle == pytest.approx(-32 * 2.1 / 101.25)
    assert abs(idle) < spec.row_weight[0]


def test_a_fast_clock_cuts_delays_off() -> None:
    """Against the delays themselves: a column gives the code that its own delay gives where it fits into half a period less
    control, else that of the longest delay that fits. At 11.1 MHz all fit (45 - 4.3 = 40.7 ns), at 15 MHz 29 ns as published.
    """
    assert P.t_delay_s == pytest.approx(40.75e-9, abs=1e-11)
    assert replace(P, f_clock_hertz=15e6).t_delay_s == pytest.approx(29e-9, abs=1e-10)
    assert P.highest_code == replace(P, f_clock_hertz=15e6).highest_code == 15
    drive = np.ones((65, 64), np.float32)
    for lows in range(65):
        drive[lows, :lows] = -1
    edges_s = np.array([EVEN_ROWS.delay_s(EVEN_ROWS.tdc_lowest_dot - 1 + 6 * code) for code in range(1, 16)])
    seen = set()
    for f_clock_hertz in (11.1e6, 17.2e6, 20e6, 23e6):
        # Without control, at delays shorter by the same: the capacitance at the end alone makes them a third as long.
        p = replace(
            EVEN_ROWS, delay_per_time_constant=P.delay_per_time_constant * 101.25 / 33, f_clock_hertz=f_clock_hertz
        )
        scale = 101.25 / 33
        readings = read_images(ResistanceSumArray(p), 0, 0, np.ones((64, 64), np.uint8), drive[None, :, None])[
            0, :, 0, 0
        ]
        for reading, dot in zip(readings, drive.sum(axis=1), strict=True):
            counted_s = min(float(p.delay_s(float(dot))), 0.5 / f_clock_hertz - 4.3e-9)
            assert (reading + 44) / 6 == np.count_nonzero(counted_s >= edges_s * scale)
        seen.add(int((readings.max() + 44) / 6))
    assert len(seen) == 4
    assert max(seen) == 15


def test_a_clock_that_leaves_one_code_is_refused() -> None:
    """Half a period of 30 MHz less control is 12.4 ns: shorter than any delay. What the message allows is allowed."""
    with pytest.raises(TargetError, match=r"f_clock_hertz = 3e\+07 leaves 12\.4 ns for delays") as found:
        replace(P, f_clock_hertz=30e6)
    fastest_hertz = float(str(found.value).rsplit(" ", 1)[1])
    assert replace(P, f_clock_hertz=0.999 * fastest_hertz).highest_code == 1
    with pytest.raises(TargetError, match="leaves"):
        replace(P, f_clock_hertz=1.001 * fastest_hertz)
    assert replace(P, f_clock_hertz=30e6, saturates=False).lsb_dot == P.lsb_dot


def test_the_energy_of_a_read_does_not_follow_the_clock() -> None:
    """347 uW / 11.1 MHz, so that no clock gives more operations per joule than the published 262e12."""
    assert replace(P, f_clock_hertz=17.2e6).array_spec().e_read_j == pytest.approx(347e-6 / 11.1e6)
