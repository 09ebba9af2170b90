"""Fig. 5c as the paper averages it: networks trained on many random splits of the data, and each on arrays of every size of cell.

Source: Rzeszut et al., Scientific Reports 12, 7178 (2022): "a testing subset that has been drawn randomly from the input data and
has not participated in training. This procedure was repeated 50 times in total, with training and testing subsets being redrawn
each time"; cross entropy, tanh in all layers but the last, softmax there; weights replaced by discrete versions and rescaled
by the amplifiers' gain; tested again on the same subset.

Assumed: 5,000 of MNIST's 70,000 images are tested; 100 hidden neurons a layer (the paper varies them); Adam on batches of 100 for
five passes (the paper: scaled conjugate gradients).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from threadpoolctl import threadpool_limits

from xbcompile.data.datasets import load_set
from xbcompile.experiments.figure import Effort
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.reproduction import Experiment
from xbcompile.experiments.shared import shared
from xbcompile.experiments.tanh_network import Adam, TanhNetwork, gradients
from xbcompile.runtime import Session

SIZES = (400, 100, 100, 10)
SPLITS = 50
_TESTED, _EPOCHS, _BATCH, _RATE = 5_000, 5, 100, 2e-3
_SIDE, _MARGIN = 28, 4  # of an image, and what is cut off on each side of it
_CALIBRATION = 4_000  # training images that set the ranges of inputs, as in the rows of the shipped network


@lru_cache(1)
def all_images() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 70,000 images, the central 20x20 pixels, float32 [70000, 400] in 0..1, and labels int64 [70000].

    Raises:
        DataError: the files are missing or damaged.
    """
    parts = [load_set("mnist", part) for part in ("train", "test")]
    pixels = np.concatenate([images for images, _ in parts])[:, _MARGIN : _SIDE - _MARGIN, _MARGIN : _SIDE - _MARGIN]
    return pixels.reshape(len(pixels), -1), np.concatenate([labels for _, labels in parts])


def split(count: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those to test on, drawn at random.

    Args:
        count: images.
        number: of the split.
    """
    order = np.random.default_rng([number, 0]).permutation(count)
    return order[_TESTED:], order[:_TESTED]


@shared
def trained(number: int) -> TanhNetwork:
    """The network of a split.

    Args:
        number: of the split, and the seed of the network's first weights and of the order of its images.
    """
    images, labels = all_images()
    kept, _ = split(len(images), number)
    network, rng = TanhNetwork.random(SIZES, number), np.random.default_rng([number, 1])
    adam = Adam([*network.weights, *network.biases], _RATE, _EPOCHS * (len(kept) // _BATCH))
    with threadpool_limits(limits=1, user_api="blas"):  # matrices are small, and other processes train other networks
        for _ in range(_EPOCHS):
            shuffled = rng.permutation(kept)
            for start in range(0, len(shuffled) - _BATCH + 1, _BATCH):
                chosen = shuffled[start : start + _BATCH]
                outputs = network.outputs(images[chosen], network.weights)
                of_weights, of_biases = gradients(outputs, labels[chosen], network.weights)
                adam.step([*of_weights, *of_biases])
    return network


def splits_of(effort: Effort) -> int:
    """How many splits: the paper's 50 at ten chips, five for each chip else.

    Args:
        effort: what it may cost.
    """
    return min(effort.seeds, 2) if effort.quick else SPLITS * effort.seeds // 10 or 1


def software_error(effort: Effort) -> Measured:
    """Per cent of the images of the testing subset that are answered wrongly, over splits.

    Args:
        effort: what it may cost.
    """
    return _over_splits(lambda number, images, labels: trained(number).accuracy(images, labels), splits_of(effort), 0)


def array_error(effort: Effort, experiment: Experiment) -> Measured:
    """The same on the array; each split has a chip of its own.

    Args:
        effort: what it may cost.
        experiment: target, quantities, passes and options; its model and data do not matter.
    """
    images, _ = all_images()

    def accuracy(number: int, tested: np.ndarray, labels: np.ndarray) -> float:
        kept, _ = split(len(images), number)
        program = experiment.compiled_model(
            trained(number).model(), experiment.quantities, {"input": images[kept[:_CALIBRATION]]}
        )
        outputs = Session(program, experiment.device, number, threads=effort.threads).run_samples(
            {"input": tested}, observe=False
        )
        return 100 * float(np.mean(outputs["logits"].argmax(axis=1) == labels))

    return _over_splits(accuracy, splits_of(effort), int(experiment.quantities["junctions"]))


def _over_splits(accuracy: Callable[[int, np.ndarray, np.ndarray], float], count: int, first: int) -> Measured:
    """Mean error and its spread over splits; `first` is where to begin, so that processes train other networks first."""
    images, labels = all_images()
    errors = []
    for turn in range(count):
        number = (turn + first * count // 8) % count
        _, tested = split(len(images), number)
        errors.append(100 - accuracy(number, images[tested], labels[tested]))
    spread = float(np.std(errors, ddof=1)) if count > 1 else None
    words = f"{count} random splits, {_TESTED:,} images tested of {len(images):,}"
    return Measured(float(np.mean(errors)), spread, count, words)
