"""calibrate-offsets' fit by hand, and what it leaves of a column's error."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.errors import PassError
from xbcompile.passes.contract import DevicePass, Stage
from xbcompile.passes.device.calibrate_offsets import CalibrateOffsets, column_offset, repeated_error


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
