"""The binary network that Liu et al. train on the array (Fig. 3a): 784-200-200-10, weights and hidden outputs -1 and +1.

The paper names sizes, activations and Adam. Assumed: pixels less their mean as inputs; each sum normalized over the batch,
without learned scale or shift (Ioffe and Szegedy, arXiv 1502.03167), which for a hidden output is the threshold of its column's
comparator; the last sums, normalized too, as logits of a softmax with cross entropy; the sign's gradient that of the identity
from -1 to 1 (Courbariaux et al., arXiv 1602.02830).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from xbcompile.data.datasets import load_set

SIZES = (784, 200, 200, 10)
_VARIANCE_FLOOR = 1e-5

Activation = Callable[[np.ndarray], np.ndarray]


def sign(values: np.ndarray) -> np.ndarray:
    """+1 from 0 on, else -1, float32: a comparator."""
    return np.where(values >= 0, np.float32(1), np.float32(-1))


class Layer(NamedTuple):
    """What the way back needs of one layer.

    Attributes:
        inputs: [samples, rows].
        normalized: sums less their mean over the batch, in standard deviations, [samples, columns].
        deviation: these standard deviations, [columns].
    """

    inputs: np.ndarray
    normalized: np.ndarray
    deviation: np.ndarray


def forward(images: np.ndarray, weights: Sequence[np.ndarray], activation: Activation = sign) -> list[Layer]:
    """Every layer's inputs and normalized sums; logits are the last layer's.

    Args:
        images: centred pixels, [samples, rows].
        weights: of each layer, [rows, columns], as its devices hold them.
        activation: of the hidden outputs.
    """
    layers: list[Layer] = []
    for matrix in weights:
        inputs = activation(layers[-1].normalized) if layers else images
        sums = inputs @ matrix
        deviation = np.sqrt(sums.var(axis=0) + sums.dtype.type(_VARIANCE_FLOOR))
        layers.append(Layer(inputs, (sums - sums.mean(axis=0)) / deviation, deviation))
    return layers


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy of the softmax."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - right))


def gradients(
    images: np.ndarray, labels: np.ndarray, weights: Sequence[np.ndarray], activation: Activation = sign
) -> list[np.ndarray]:
    """Gradient of `loss` for every weight, [rows, columns] of each layer, straight through the activation from -1 to 1.

    Args:
        images: as in `forward`.
        labels: whole numbers, [samples].
        weights: as in `forward`.
        activation: as in `forward`.
    """
    layers = forward(images, weights, activation)
    logits = layers[-1].normalized
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    back = shares / shares.sum(axis=1, keepdims=True)
    back[np.arange(len(labels)), labels] -= 1
    back /= back.dtype.type(len(labels))
    found = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if index < len(layers) - 1:
            back = back * (np.abs(layer.normalized) <= 1)
        along = (back * layer.normalized).mean(axis=0)
        back = (back - back.mean(axis=0) - layer.normalized * along) / layer.deviation
        found.append(layer.inputs.T @ back)
        back = back @ weights[index].T
    return found[::-1]


def accuracy(images: np.ndarray, labels: np.ndarray, weights: Sequence[np.ndarray], calibration: np.ndarray) -> float:
    """Part of the images that are classified rightly, in per cent; comparators are set on other images.

    Args:
        images: as in `forward`.
        labels: whole numbers, [samples].
        weights: as in `forward`.
        calibration: images whose sums' mean and variance the normalization takes.
    """
    value = images
    logits = images
    for layer, matrix in zip(forward(calibration, weights), weights, strict=True):
        mean = (layer.inputs @ matrix).mean(axis=0)
        logits = (value @ matrix - mean) / layer.deviation
        value = sign(logits)
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def random_weights(seed: int, sizes: Sequence[int] = SIZES) -> list[np.ndarray]:
    """States that devices start from, -1 or +1 with probability 1/2, float32 [rows, columns] of each layer."""
    rng = np.random.default_rng(seed)
    return [sign(rng.random(shape) - 0.5) for shape in pairwise(sizes)]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Fashion-MNIST: images to train on, and images to look at afterwards.

    Args:
        images: centred pixels, float32 [samples, 784].
        labels: int64 [samples].
        test_images: likewise.
        test_labels: likewise.
        calibration: how many of the training images set the comparators (assumed).
    """

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    calibration: int = 2000

    def accuracy(self, weights: Sequence[np.ndarray]) -> float:
        """See `accuracy`."""
        return accuracy(self.test_images, self.test_labels, weights, self.images[: self.calibration])


def load_training_data(held_out: int = 0, images: int | None = None) -> TrainingData:
    """Fashion-MNIST as the paper splits it: 60,000 images to train on, 10,000 to look at.

    Args:
        held_out: so many of the training images, the last ones, are looked at instead, as for every choice of a number.
        images: the first so many to train on; None: all.

    Raises:
        DataError: the files are missing or damaged.
    """
    pixels, labels = load_set("fashion-mnist", "train")
    mean = pixels.mean()
    flat = pixels.reshape(len(pixels), -1) - mean
    kept = len(flat) - held_out
    used = kept if images is None else min(images, kept)
    if held_out:
        return TrainingData(flat[:used], labels[:used], flat[kept:], labels[kept:])
    test_pixels, test_labels = load_set("fashion-mnist", "test")
    return TrainingData(flat[:used], labels[:used], test_pixels.reshape(len(test_pixels), -1) - mean, test_labels)
