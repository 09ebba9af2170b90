"""The binary network's gradients against finite differences, and its accuracy sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.experiments.switching.network import accuracy, forward, gradients, loss, random_weights, sign

SIZES = (6, 5, 4, 3)


def case(samples: int = 12) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(7)
    weights = [each.astype(np.float64) for each in random_weights(1, SIZES)]
    return rng.normal(size=(samples, SIZES[0])), rng.integers(0, SIZES[-1], samples), weights


def test_gradients_are_finite_differences() -> None:
    """Straight through the sign from -1 to 1 is the gradient of a network that clips there instead."""
    images, labels, weights = case()

    def clip(values: np.ndarray) -> np.ndarray:
        return np.clip(values, -1, 1)

    found = gradients(images, labels, weights, clip)
    for matrix, slopes in zip(weights, found, strict=True):
        for place in np.ndindex(matrix.shape):
            kept, losses = matrix[place], []
            for shift in (-1e-6, 1e-6):
                matrix[place] = kept + shift
                losses.append(loss(forward(images, weights, clip)[-1].normalized, labels))
            matrix[place] = kept
            assert slopes[place] == pytest.approx((losses[1] - losses[0]) / 2e-6, abs=1e-7)


def test_hidden_outputs_are_signs_of_sums_behind_the_batchs_mean() -> None:
    images, _, weights = case()
    first, second, _ = forward(images, weights)
    np.testing.assert_array_equal(second.inputs, np.where(images @ weights[0] >= (images @ weights[0]).mean(0), 1, -1))
    np.testing.assert_allclose(first.normalized.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(first.normalized.std(axis=0), 1, rtol=1e-4)


def test_accuracy_sample_by_sample() -> None:
    """Thresholds of the hidden columns are means over the calibration images, whatever is looked at."""
    images, labels, weights = case(30)
    calibration, looked_at, wanted = images[:20], images[20:], labels[20:]
    value = calibration
    rows = [row.copy() for row in looked_at]
    for index, matrix in enumerate(weights):
        sums = value @ matrix
        mean, deviation = sums.mean(axis=0), np.sqrt(sums.var(axis=0) + 1e-5)
        last = index == len(weights) - 1
        rows = [(row @ matrix - mean) / deviation if last else sign(row @ matrix - mean) for row in rows]
        value = sign(sums - mean)
    expected = np.mean([row.argmax() == label for row, label in zip(rows, wanted, strict=True)])
    assert accuracy(looked_at, wanted, weights, calibration) == pytest.approx(100 * expected)


def test_first_states_are_evenly_drawn() -> None:
    first, other = random_weights(0), random_weights(1)
    assert [each.shape for each in first] == [(784, 200), (200, 200), (200, 10)]
    assert set(np.unique(first[0])) == {-1, 1}
    assert abs(first[0].mean()) < 5 / np.sqrt(first[0].size)
    assert abs(np.mean(first[0] * other[0])) < 5 / np.sqrt(first[0].size)
