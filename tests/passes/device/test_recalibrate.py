"""recalibrate's fit against numpy.polyfit and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.errors import PassError
from xbcompile.passes.contract import OutputsPass, Stage
from xbcompile.passes.device.recalibrate import Recalibrate, gain_and_shift, tile_gain


def each_its_own(vectors: int) -> np.ndarray:
    return np.arange(vectors)


def test_equals_polyfit():
    """Errors that a line explains wholly hold on samples left out, so all of the least-squares line is kept."""
    rng = np.random.default_rng(1)
    measured = rng.normal(size=(40, 5)) * [1, 10, 0.1, 3, 2] + [0, 5, -2, 100, 1]
    reference = measured * [1, -2, 3, 0.5, 0] + [1, 2, 3, 4, 5]
    gain, offset = gain_and_shift(measured, reference, each_its_own(40))
    for m in range(5):
        slope, intercept = np.polyfit(measured[:, m], reference[:, m], 1)
        assert gain[m] == pytest.approx(slope, rel=1e-9, abs=1e-9)
        assert offset[m] == pytest.approx(intercept, rel=1e-8, abs=1e-8)


def test_by_hand():
    """Readings 0, 2, 4, 6 for 1, 2, 3, 4: half the gain, 1 more."""
    gain, offset = gain_and_shift(np.c_[[0.0, 2, 4, 6]], np.c_[[1.0, 2, 3, 4]], each_its_own(4))
    assert (gain.item(), offset.item()) == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6, -1e-6])
def test_output_that_does_not_vary(value):
    """A dead column says nothing about the gain: only its mean is corrected, however large it is."""
    gain, offset = gain_and_shift(np.full((4, 1), value), np.full((4, 1), 3.0), each_its_own(4))
    assert gain.item() == 1.0
    assert offset.item() == pytest.approx(3.0 - value)


def test_one_sample_corrects_nothing():
    """However many vectors it has."""
    rng = np.random.default_rng(5)
    measured, reference = rng.normal(size=(2, 50, 3)) + np.array([0.0, 9.0])[:, None, None]
    gain, offset = gain_and_shift(measured, reference, np.zeros(50, np.intp))
    assert (gain.tolist(), offset.tolist()) == ([1] * 3, [0] * 3)


def test_two_samples_of_one_vector_give_no_gain():
    """A line through two points fits them whatever they are."""
    gain, _ = gain_and_shift(np.c_[[0.0, 1.0]], np.c_[[5.0, 5.1]], each_its_own(2))
    assert gain.item() == 1


def left_out(measured, reference, sample):
    """Predictions of each vector's error by its layer's mean error and by its slope, from the other samples alone."""
    shift, slope = np.zeros_like(measured), np.zeros_like(measured)
    for i, m in np.ndindex(measured.shape):
        rest = sample != sample[i]
        x, e = measured[rest, m], (reference - measured)[rest, m]
        shift[i, m], slope[i, m] = e.mean(), np.polyfit(x, e, 1)[0] * (measured[i, m] - x.mean())
    return shift, slope


def test_shares_are_those_of_the_errors_left_out():
    """Against fits made anew without each sample in turn, and least squares of the errors on their predictions."""
    rng = np.random.default_rng(2)
    sample = np.array([0, 2, 1, 1, 2, 3, 0, 3, 3, 1, 4, 4, 0, 2])  # in any order, of any size
    measured = rng.normal(size=(14, 6)) + 3
    reference = measured * 0.7 + 0.9 + 0.3 * rng.normal(size=(14, 6))
    predictions = [each.ravel() for each in left_out(measured, reference, sample)]
    error = (reference - measured).ravel()
    wanted = np.linalg.lstsq(np.stack(predictions, axis=1), error, rcond=None)[0]
    found = []
    for own, other in ((0, 1), (1, 0)):
        rest, own_part = error - wanted[other] * predictions[other], predictions[own]
        misfit = np.bincount(np.repeat(sample, 6), own_part * (rest - wanted[own] * own_part))
        found.append(wanted[own] - np.sqrt(np.square(misfit).sum() * 5 / 4) / np.square(own_part).sum())
    assert all(0 < share < 1 for share in found)
    gain, offset = gain_and_shift(measured, reference, sample)
    for m in range(6):
        slope, intercept = np.polyfit(measured[:, m], (reference - measured)[:, m], 1)
        mean = measured[:, m].mean()
        assert gain[m] - 1 == pytest.approx(found[1] * slope, rel=1e-6)
        at_mean = found[0] * (intercept + slope * mean)
        assert offset[m] + (gain[m] - 1) * mean == pytest.approx(at_mean, rel=1e-6)


@pytest.mark.parametrize("samples", [2, 3, 5, 10])
@pytest.mark.parametrize("outputs", [1, 4, 32])
def test_errors_that_do_not_repeat_are_left(samples, outputs):
    """Independent errors of power 1: a mean of n adds 1 / n and a slope as much again; a part of that is left."""
    rng = np.random.default_rng(samples)
    excess = []
    for _ in range(100):
        measured, error = rng.normal(size=(2, samples, outputs))
        gain, offset = gain_and_shift(measured, measured + error, each_its_own(samples))
        excess.append(np.mean((gain - 1) ** 2 + offset**2))  # on other vectors of the same kind
    assert np.mean(excess) < {1: 0.7, 4: 0.25, 32: 0.06}[outputs] / samples


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 10, 500])
def test_errors_that_repeat_are_taken_away(samples):
    """A shift of 1 and a gain of 0.7 under noise of 0.3, seen on other samples: never worse than no correction."""
    rng = np.random.default_rng(samples)
    left = []
    for _ in range(20):
        measured = rng.normal(size=(samples + 1000, 10))
        reference = 0.7 * measured + 1 + 0.3 * rng.normal(size=measured.shape)
        gain, offset = gain_and_shift(measured[:samples], reference[:samples], each_its_own(samples))
        left.append(np.mean((gain * measured + offset - reference)[samples:] ** 2))
    none, least = 0.3**2 + 1 + 0.09, 0.09
    bounds = {1: none * 1.02, 2: 0.75 * none, 3: 0.5 * none, 5: 0.3 * none, 10: 1.5 * least, 500: 1.02 * least}
    assert np.mean(left) < bounds[samples]


def test_contract():
    each = Recalibrate(samples=10)
    assert isinstance(each, OutputsPass)
    assert (each.stage, each.removes) == (Stage.OUTPUTS, "output means")
    assert (each.needs_calibration, str(each)) == (True, "recalibrate{samples=10}")
    assert str(Recalibrate()) == "recalibrate"
    for wrong in (0, -5):
        with pytest.raises(PassError, match=rf"samples={wrong} is out of range; allowed: 1 or more"):
            Recalibrate(samples=wrong)


def test_gains_of_tiles_equal_ordinary_least_squares():
    """With many vectors the pull to 1 is weak: numpy's least squares with a free constant says the same."""
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(20_000, 3, 2)) + np.array([1.0, -5, 2])[:, None]
    reference = np.einsum("vtm,tm->vm", parts, [[1.2, 0.5], [0.8, 1.5], [1, 2]]) + 7 + rng.normal(size=(20_000, 2))
    gain = tile_gain(parts, reference, each_its_own(20_000))
    for m in range(2):
        columns = np.column_stack([parts[:, :, m], np.ones(len(parts))])
        expected = np.linalg.lstsq(columns, reference[:, m], rcond=None)[0][:3]
        np.testing.assert_allclose(gain[:, m], expected, atol=5e-3)


def test_gains_of_tiles_that_say_nothing_are_1():
    rng = np.random.default_rng(2)
    parts = np.stack([rng.normal(size=(50, 1)), np.full((50, 1), 3.0)], axis=1)
    gain = tile_gain(parts, 2 * parts[:, 0], each_its_own(50))
    assert gain[1, 0] == pytest.approx(1)
    assert gain[0, 0] == pytest.approx(2, abs=0.1)
    assert tile_gain(np.zeros((5, 2, 3)), np.ones((5, 3)), each_its_own(5)).tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 10, 30])
def test_gains_of_tiles_shrink_to_1(samples):
    """Ten tiles of right gain, and errors that do not repeat: least squares would add 0.4 to 1 of their power."""
    rng = np.random.default_rng(samples)
    added = []
    for _ in range(30):
        parts = rng.normal(size=(samples, 10, 4))
        gain = tile_gain(parts, parts.sum(axis=1) + rng.normal(size=(samples, 4)), each_its_own(samples))
        added.append(np.square(gain - 1).sum(axis=0).mean())
    assert np.mean(added) < 0.05


def test_scope():
    assert str(Recalibrate(samples=9, per="tile")) == "recalibrate{samples=9 per=tile}"
    assert Recalibrate().per == "output"
    with pytest.raises(PassError, match="per=column is unknown; allowed: output, tile"):
        Recalibrate(per="column")


def test_outputs_that_are_not_finite():
    for strange in (np.nan, np.inf):
        for measured, reference in (([[strange], [1.0]], [[0.0], [1.0]]), ([[0.0], [1.0]], [[strange], [1.0]])):
            with pytest.raises(PassError, match="outputs of a layer are not finite on the calibration inputs"):
                gain_and_shift(np.array(measured), np.array(reference), np.arange(2))
