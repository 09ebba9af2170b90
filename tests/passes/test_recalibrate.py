"""recalibrate's fit against numpy.polyfit and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.errors import PassError
from xbcompile.ir.network_pass import OutputsPass
from xbcompile.passes.recalibrate import Recalibrate


def test_equals_polyfit():
    rng = np.random.default_rng(1)
    measured = rng.normal(size=(40, 5)) * [1, 10, 0.1, 3, 2] + [0, 5, -2, 100, 1]
    reference = measured * [1, -2, 3, 0.5, 0] + [1, 2, 3, 4, 5] + 0.1 * rng.normal(size=(40, 5))
    gain, offset = Recalibrate().fit(measured, reference)
    for m in range(5):
        slope, intercept = np.polyfit(measured[:, m], reference[:, m], 1)
        assert gain[m] == pytest.approx(slope, rel=1e-9, abs=1e-9)
        assert offset[m] == pytest.approx(intercept, rel=1e-8, abs=1e-8)


def test_by_hand():
    """Readings 0, 2, 4 for 1, 2, 3: half the gain, 1 more."""
    gain, offset = Recalibrate().fit(np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [3.0]]))
    assert (gain.item(), offset.item()) == pytest.approx((0.5, 1.0))


def test_output_that_does_not_vary():
    """A dead column says nothing about the gain: only its mean is corrected, however large it is."""
    for value in (0.0, 3.0, 1e6, -1e-6):
        gain, offset = Recalibrate().fit(np.full((4, 1), value), np.array([[1.0], [2.0], [3.0], [6.0]]))
        assert gain.item() == 1.0
        assert offset.item() == pytest.approx(3.0 - value)


def test_single_vector():
    gain, offset = Recalibrate().fit(np.array([[2.0, 3.0]]), np.array([[5.0, 3.0]]))
    assert gain.tolist() == [1, 1]
    assert offset.tolist() == [3, 0]


def test_contract():
    each = Recalibrate(samples=10)
    assert isinstance(each, OutputsPass)
    assert (each.needs_calibration, str(each)) == (True, "recalibrate{samples=10}")
    assert str(Recalibrate()) == "recalibrate"
    for wrong in (1, 0, -5):
        with pytest.raises(PassError, match=rf"samples={wrong} is out of range; allowed: 2 or more"):
            Recalibrate(samples=wrong)
