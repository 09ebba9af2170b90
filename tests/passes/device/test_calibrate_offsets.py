"""calibrate-offsets' fit by hand, and what it leaves of a column's error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import dense_model
from xbcompile.errors import PassError
from xbcompile.passes.contract import DevicePass, Stage
from xbcompile.passes.device.calibrate_offsets import (
    CalibrateOffsets,
    beyond,
    column_offset,
    random_drives,
    repeated_error,
)
from xbcompile.targets import load_target
from xbcompile.targets.families.resistance_sum import ResistanceSumArray


def test_without_a_converter():
    """The offset is the mean error, with the other sign."""
    error = np.array([[0.0, 1.5], [-2.25, 1e-9]])
    assert np.array_equal(column_offset(error, None), -error)


def test_with_a_converter():
    """A digital offset moves whole codes: with 3 units a code, errors below 1.5 stay."""
    error = np.array([0.0, 1.4, 1.6, -1.6, 4.4, 4.6, -7.0])
    assert column_offset(error, 3.0).tolist() == [0, 0, -3, 3, -3, -6, 6]


def test_what_is_left_is_at_most_half_a_code():
    error = np.random.default_rng(2).normal(size=(3, 64)) * 10
    for lsb in (0.5, 3.0):
        offset = column_offset(error, lsb)
        assert np.abs(error + offset).max() <= lsb / 2
        np.testing.assert_allclose(offset / lsb, np.rint(offset / lsb))


def test_errors_that_hold_from_part_to_part_are_corrected():
    """Errors alike in all parts wholly; what comes in one part alone, and a single part, not at all."""
    count = np.array([[[4.0, 6, 0]], [[8, 2, 0]], [[4, 4, 0]]])
    error = np.array([[3.0, -1, 0]])
    np.testing.assert_allclose(repeated_error(count * error, count), error)
    once = count * error * np.array([1, 0, 0])[:, None, None]
    assert not repeated_error(once, count).any()
    assert not repeated_error((count * error)[:1], count[:1]).any()


def test_contract():
    each = CalibrateOffsets(samples=10)
    assert isinstance(each, DevicePass)
    assert (each.stage, each.removes) == (Stage.READINGS, "column means")
    assert (each.needs_calibration, str(each)) == (True, "calibrate-offsets{samples=10}")
    assert str(CalibrateOffsets()) == "calibrate-offsets"
    with pytest.raises(PassError, match="samples=0 is out of range; allowed: 1 or more"):
        CalibrateOffsets(samples=0)


def test_random_drives_have_every_number_of_high_rows() -> None:
    """66 drives of 10 rows: 0 to 10 high ones, each six times; low ones are -1 or 0, as the rows take."""
    for target, low in (("mram64", -1), ("m2tj4", 0)):
        spec = replace(load_target(target).array_spec, rows=10, **rows_of(10))
        drives = random_drives(spec, 66, array=0)
        assert drives.dtype == np.float32
        assert set(np.unique(drives)) == {low, 1}
        assert np.bincount((drives == 1).sum(axis=1), minlength=11).tolist() == [6] * 11
        assert not np.array_equal(drives, random_drives(spec, 66, array=1))
        assert np.array_equal(drives, random_drives(spec, 66, array=0))


def rows_of(rows: int) -> dict[str, np.ndarray]:
    return {
        "row_weight": np.ones(rows),
        "idle_drive": np.zeros(rows, np.float32),
        "neutral_level": np.zeros(rows, np.uint8),
    }


def test_sums_beyond_the_converter_are_right_in_its_outermost_readings() -> None:
    exact = np.array([-64.0, -44, 0, 46, 64])
    assert beyond(exact, (-44, 46)).tolist() == [-20, 0, 0, 0, 18]
    assert not beyond(exact, None).any()


def test_saturated_sums_draw_a_columns_mean_towards_zero() -> None:
    """By hand, from the device's own resistances, without jitter and rounding, in a converter of -34 to 32: readings and right
    answers are clipped alike, and about half of the drives saturate.
    """
    changes = {"tdc_jitter_dot": 0.0, "tdc_codes": 34, "tdc_dots_per_code": 1, "tdc_lowest_dot": -34.0}
    wide = {"r_high_sigma_ohm": 8e3, "r_low_sigma_ohm": 8e3}
    target = load_target("mram64").with_quantities("test", **changes, **wide, f_clock_hertz=1e6)
    passes = "fold-batchnorm,quantize{scheme=binary},thermometer{bits=8},calibrate-offsets{at=high samples=6500}"
    session = xbcompile.Session(xbcompile.compile(dense_model(8, 6, 3), target, passes=passes), seed=5)
    found = session.corrections.column_offset
    p, drives = target.parameters, random_drives(target.array_spec, 6500, 0).astype(np.float64)
    left, right = ResistanceSumArray(p, 5).paths(0)
    weight, low, high = p.row_weight[:, None] / 6500, -34.0, 32.0
    exact = drives @ p.row_weight
    sums = (drives > 0) @ (weight * (left[1] - 19.5e3)) + (drives < 0) @ (weight * (right[0] - 19.5e3))
    error = (np.clip(sums, low, high) - np.clip(exact, low, high)[:, None]).mean(axis=0)
    unclipped = (sums - exact[:, None]).mean(axis=0)
    assert found is not None
    assert np.abs(found[0] + error).max() <= 1.3  # half a code of 2, and what is not kept
    assert np.abs(unclipped).max() > np.abs(error).max() + 2


def test_offsets_at_high_cells_are_those_of_the_devices() -> None:
    """By hand, from the device's own resistances: without jitter and rounding, the mean error of column m over drives u is that
    of sum_k g_k (R_km(u) - nominal) / half, where R is the left path's high state for u = 1, the right one's low state for -1.
    """
    changes = {"tdc_jitter_dot": 0.0, "tdc_codes": 2**16, "tdc_dots_per_code": 1, "tdc_lowest_dot": -60000.0}
    target = load_target("mram64").with_quantities("test", **changes)
    passes = "fold-batchnorm,quantize{scheme=binary},thermometer{bits=8},calibrate-offsets{at=high samples=2000}"
    program = xbcompile.compile(dense_model(8, 6, 3), target, passes=passes)
    session = xbcompile.Session(program, seed=5)
    found = session.corrections.column_offset
    assert found is not None
    p, drives = target.parameters, random_drives(target.array_spec, 2000, 0).astype(np.float64)
    left, right = ResistanceSumArray(p, 5).paths(0)
    weight = p.row_weight[:, None] / 6500
    error = (drives > 0) @ (weight * (left[1] - 26e3)) + (drives < 0) @ (weight * (right[0] - 13e3))
    error = error.mean(axis=0)
    assert np.abs(found[0] + error).max() <= 1.2  # codes of 2, and what is not kept
    assert np.corrcoef(found[0], -error)[0, 1] > 0.95
    assert np.abs(error).max() > 3


def test_high_cells_need_no_calibration_inputs() -> None:
    each = CalibrateOffsets(at="high")
    assert (each.needs_calibration, str(each)) == (False, "calibrate-offsets{at=high}")
    with pytest.raises(PassError, match="at=low is unknown; allowed: program, high"):
        CalibrateOffsets(at="low")
