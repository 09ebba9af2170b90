"""Tanh networks: their outputs are onnxruntime's, their slopes those of differences, and Adam's rate ends at 0."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from xbcompile.experiments.tanh_network import Adam, TanhNetwork, gradients


def test_the_model_is_the_network() -> None:
    network = TanhNetwork.random((5, 4, 3, 2), seed=1)
    for bias in network.biases:
        bias += np.float32(0.25)
    inputs = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(network.model().SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        network.outputs(inputs, network.weights)[-1], session.run(None, {"input": inputs})[0], atol=1e-6
    )


def test_slopes_are_those_of_the_cross_entropy() -> None:
    """Central differences in float64, for two sets of seen weights side by side."""
    rng = np.random.default_rng(3)
    network = TanhNetwork((np.zeros((3, 4)), np.zeros((4, 2))), (rng.normal(size=4), rng.normal(size=2)))
    inputs, labels = rng.normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0])
    seen = [rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 2))]

    def losses() -> np.ndarray:
        logits = network.outputs(inputs, seen)[-1]
        right = np.take_along_axis(logits, np.broadcast_to(labels[:, None], (2, 6, 1)), axis=-1)[..., 0]
        return np.asarray((np.log(np.exp(logits).sum(axis=-1)) - right).mean(axis=-1))

    of_weights, of_biases = gradients(network.outputs(inputs, seen), labels, seen)
    step = 1e-6
    for array, slopes, shared in (
        *((each, found, False) for each, found in zip(seen, of_weights, strict=True)),
        *((each, found, True) for each, found in zip(network.biases, of_biases, strict=True)),
    ):
        for place in np.ndindex(array.shape if shared else array.shape[1:]):
            where = place if shared else (slice(None), *place)
            array[where] += step
            above = losses()
            array[where] -= 2 * step
            below = losses()
            array[where] += step
            np.testing.assert_allclose(slopes[(slice(None), *place)], (above - below) / (2 * step), atol=1e-7)


def test_adam_takes_whole_steps_at_first_and_none_at_the_end() -> None:
    """With slopes that never change, every change is the rate, which falls as a cosine: 1/2, 1/4 and 0 of steps in between."""
    array = np.zeros(3, np.float32)
    adam, found = Adam([array], 0.5, 2), []
    for _ in range(3):
        before = array.copy()
        adam.step([np.array([2.0, -3.0, 0.0], np.float32)])
        found.append(array - before)
    np.testing.assert_allclose(found, [[-0.5, 0.5, 0], [-0.25, 0.25, 0], [0, 0, 0]], atol=1e-5)


def test_first_weights_are_uniform() -> None:
    first, second = TanhNetwork.random((300, 100, 10), seed=0).weights
    for weights, limit in ((first, (6 / 400) ** 0.5), (second, (6 / 110) ** 0.5)):
        assert np.abs(weights).max() <= limit
        assert weights.std() == pytest.approx(limit / 3**0.5, rel=0.05)
