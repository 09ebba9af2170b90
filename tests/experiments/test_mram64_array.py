"""The array's own figures against derivations from the published spreads, and the network's against hand counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.support.model_kit import MODELS
from tests.support.small_programs import dense_model, images
from xbcompile.experiments import mram64_array, mram64_network
from xbcompile.experiments.figure import Effort
from xbcompile.targets import load_target
from xbcompile.targets.families.characterization import vectors_of_dot
from xbcompile.targets.families.resistance_sum import ResistanceSumArray

QUICK = Effort(MODELS, seeds=2, quick=True)
P = mram64_array.parameters_of("mram64")


def test_dc_resistance_adds_the_currents_of_all_columns() -> None:
    device = ResistanceSumArray(P, 3)
    drives = vectors_of_dot(64, 20, 2, 0)
    paths = device.paths(0)
    for drive, found in zip(drives, mram64_array.dc_resistance_ohm(device, drives), strict=True):
        current = 0.0
        for column in range(64):
            ohm = sum(paths[0, 1, k, column] if drive[k] > 0 else paths[1, 0, k, column] for k in range(64))
            current += 1.0 / ohm
        assert found == pytest.approx(64 / current, rel=1e-12)


def test_dc_spread_follows_from_the_published_spreads() -> None:
    """32 of 64 rows high, at random: variance 64 * 1/4 * 64/63 of what a row adds when it goes high, whose own variance is that
    of the mean over 64 columns of two paths: (2.0^2 + 1.6^2) kOhm^2 / 64. The root is 1.29 kOhm; two chips, 64 rows each: within
    4 standard errors of a standard deviation from 2 x 63 rows.
    """
    expected_ohm = np.sqrt(16 * 64 / 63 * (2.0e3**2 + 1.6e3**2) / 64)
    assert expected_ohm == pytest.approx(1291, abs=1)
    found = mram64_array.dc_spread_ohm(QUICK)
    assert found.value == pytest.approx(expected_ohm, rel=4 / np.sqrt(2 * 2 * 63))


def test_errors_without_jitter_rest_on_published_numbers_alone() -> None:
    """Jitter only adds; the reading over all dot products is smaller, as outliers are right in the outermost code."""
    found = {
        key: mram64_array.mean_error("mram64", *key, QUICK).value
        for key in ((False, False), (False, True), (True, True))
    }
    assert found[False, False] < found[False, True]
    assert found[True, True] < found[False, True]
    assert f"{found[False, True]:.3f} over the covered" in mram64_array.mean_error("mram64", True, True, QUICK).note


def test_errors_rise_sharply_above_15_megahertz() -> None:
    """Extended Data Fig. 5b: as good as at 11.1 MHz up to 15, worse at 18, and worse by far at 22."""
    at = {f: mram64_array._error_at(replace(P, f_clock_hertz=f), 0, QUICK) for f in (11.1e6, 15e6, 18e6, 22e6)}
    assert at[15e6] == pytest.approx(at[11.1e6], rel=0.02)
    assert 1.1 * at[11.1e6] < at[18e6] < 0.5 * at[22e6]


def test_numbers_that_are_arithmetic() -> None:
    """2 * 64 * 64 operations in 347 uW / 11.1 MHz; 8,192 writes of a cycle; half a period for a delay."""
    assert mram64_array.efficiency("mram64", QUICK).value == pytest.approx(8192 * 11.1e6 / 347e-6 / 1e12)
    assert mram64_array.write_energy_nj(QUICK).value == pytest.approx(8192 * 1.5 * 90e-6 / 11.1e6 * 1e9)
    assert mram64_array.fastest_clock_megahertz(QUICK).value == pytest.approx(0.5e-6 / float(P.delay_s(64.0)))


def test_figures_hold_what_they_show() -> None:
    both = mram64_array.figure_2c(QUICK)
    points, ideal = both.panels[0].series
    assert len(points.x) == len(points.y) == 65 * 20
    assert ideal.x == [64 * 13.0, 64 * 26.0]
    assert [each.y for each in both.panels[1].series if each.published] == [[1.4], [4.9]]
    delay = mram64_array.figure_ed3(QUICK).panels[0].series[0]
    assert delay.y[0] == pytest.approx(delay.x[0])  # all cells alike: no error, as equation 5 says
    assert delay.y[-1] == pytest.approx(delay.x[-1])
    columns, dots, every = mram64_array.figure_2d(QUICK, offsets=True).panels
    assert (len(columns.series[0].x), len(dots.series[0].x)) == (64, 65)
    assert sum(every.series[0].y) == pytest.approx(1)


def test_confusion_is_counted() -> None:
    found = mram64_network.confusion(np.array([0, 0, 0, 1, 9]), np.array([0, 0, 3, 1, 0]))
    assert found[0].tolist() == [pytest.approx(200 / 3), 0, 0, pytest.approx(100 / 3), 0, 0, 0, 0, 0, 0]
    assert (found[1, 1], found[9, 0], found[5].sum()) == (100, 100, 0)


PASSES = "fold-batchnorm,quantize{scheme=binary},thermometer{bits=3}"
NOMINAL = {"r_high_sigma_ohm": 0.0, "r_low_sigma_ohm": 0.0, "tdc_jitter_dot": 0.0}


def test_dot_products_of_the_task_are_those_of_the_network() -> None:
    """Nominal cells, all capacitance at the end of the column: every code is right. 80 x 70 weights take 2 x 2 tiles. Over the
    tiles of a column and three slices, dot products add up to 2 w (3 x) - 3 w summed over inputs, as idle rows cancel in pairs.
    """
    model, x = dense_model(80, 70, 5), images(6, 80)
    exact = load_target("mram64").with_quantities("test", c_cell_farad=0.0, **NOMINAL)
    options: dict[str, Any] = {"passes": PASSES, "calibration": {"x": x}, "cuts": "greedy", "packing": "none"}
    program = xbcompile.compile(model, exact, **options)
    first, code = program.network.layers[0], program.network.layers[0].input_code
    assert code is not None
    assert code.low is not None
    assert code.high is not None
    assert first.weight_code is not None
    sums, seen = np.zeros((6, 70)), 0
    for number, dots, error in mram64_network.tile_reads(program, 0, {"x": x}):
        assert not error.any()
        seen += error.size
        tile = program.schedule.tiles[number]
        if tile["layer"] == 0:
            sums[:, tile["m0"] : tile["m1"]] += dots.sum(axis=1)
    assert seen == 6 * 3 * (2 * 70 + 2 * 5)
    steps = np.clip(np.rint((x.astype(np.float64) - code.low) / (code.high - code.low) * 3), 0, 3)
    np.testing.assert_allclose(sums, (2 * steps - 3) @ (2.0 * first.weight_code.codes[0] - 1))
    weighed = load_target("mram64").with_quantities("test", **NOMINAL)
    assert mram64_network.code_errors(xbcompile.compile(model, weighed, **options), 0, {"x": x}).any()
