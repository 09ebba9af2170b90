"""recalibrate's fit against numpy.polyfit and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.errors import PassError
from xbcompile.passes.contract import OutputsPass, Stage
from xbcompile.passes.device.recalibrate import Recalibrate, gain_and_shift, tile_gain


def test_equals_polyfit():
    rng = np.random.default_rng(1)
    measured = rng.normal(size=(40, 5)) * [1, 10, 0.1, 3, 2] + [0, 5, -2, 100, 1]
    reference = measured * [1, -2, 3, 0.5, 0] + [1, 2, 3, 4, 5] + 0.1 * rng.normal(size=(40, 5))
    gain, offset = gain_and_shift(measured, reference)
    for m in range(5):
        slope, intercept = np.polyfit(measured[:, m], reference[:, m], 1)
        assert gain[m] == pytest.approx(slope, rel=1e-9, abs=1e-9)
        assert offset[m] == pytest.approx(intercept, rel=1e-8, abs=1e-8)


def test_by_hand():
    """Readings 0, 2, 4 for 1, 2, 3: half the gain, 1 more."""
    gain, offset = gain_and_shift(np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [3.0]]))
    assert (gain.item(), offset.item()) == pytest.approx((0.5, 1.0))


def test_output_that_does_not_vary():
    """A dead column says nothing about the gain: only its mean is corrected, however large it is."""
    for value in (0.0, 3.0, 1e6, -1e-6):
        gain, offset = gain_and_shift(np.full((4, 1), value), np.array([[1.0], [2.0], [3.0], [6.0]]))
        assert gain.item() == 1.0
        assert offset.item() == pytest.approx(3.0 - value)


def test_single_vector():
    gain, offset = gain_and_shift(np.array([[2.0, 3.0]]), np.array([[5.0, 3.0]]))
    assert gain.tolist() == [1, 1]
    assert offset.tolist() == [3, 0]


def test_contract():
    each = Recalibrate(samples=10)
    assert isinstance(each, OutputsPass)
    assert (each.stage, each.removes) == (Stage.OUTPUTS, "output means")
    assert (each.needs_calibration, str(each)) == (True, "recalibrate{samples=10}")
    assert str(Recalibrate()) == "recalibrate"
    for wrong in (1, 0, -5):
        with pytest.raises(PassError, match=rf"samples={wrong} is out of range; allowed: 2 or more"):
            Recalibrate(samples=wrong)


def test_gains_of_tiles_equal_ordinary_least_squares():
    """With many vectors the pull to 1 is weak: numpy's least squares with a free constant says the same."""
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(20_000, 3, 2)) + np.array([1.0, -5, 2])[:, None]
    reference = np.einsum("vtm,tm->vm", parts, [[1.2, 0.5], [0.8, 1.5], [1, 2]]) + 7 + rng.normal(size=(20_000, 2))
    gain = tile_gain(parts, reference)
    for m in range(2):
        columns = np.column_stack([parts[:, :, m], np.ones(len(parts))])
        expected = np.linalg.lstsq(columns, reference[:, m], rcond=None)[0][:3]
        np.testing.assert_allclose(gain[:, m], expected, atol=1e-3)


def test_gains_of_tiles_that_say_nothing_are_1():
    rng = np.random.default_rng(2)
    parts = np.stack([rng.normal(size=(50, 1)), np.full((50, 1), 3.0)], axis=1)
    gain = tile_gain(parts, 2 * parts[:, 0])
    assert gain[1, 0] == pytest.approx(1)
    assert gain[0, 0] == pytest.approx(2, abs=0.1)
    assert tile_gain(np.zeros((5, 2, 3)), np.ones((5, 3))).tolist() == [[1] * 3] * 2


def test_scope():
    assert str(Recalibrate(samples=9, per="tile")) == "recalibrate{samples=9 per=tile}"
    assert Recalibrate().per == "output"
    with pytest.raises(PassError, match="per=column is unknown; allowed: output, tile"):
        Recalibrate(per="column")
