"""A training on the simulated array: gradients are computed on what the devices hold, and pulses change it.

Weights have no copy in memory: the state of its device is all that is left of a weight from step to step. Adam's moments are
digital.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xbcompile.experiments.switching.network import SIZES, TrainingData, gradients, random_weights
from xbcompile.experiments.switching.rules import Rule, Step, adam_updates
from xbcompile.targets.families.spin_orbit import SpinOrbitArray, SpinOrbitParameters


@dataclass(frozen=True)
class Recipe:
    """How to train; the paper names Adam alone, so all numbers are assumed.

    Args:
        epochs: passes through the images.
        batch: images of one step.
        beta1: Adam's decay of the mean gradient.
        beta2: of the mean square.
    """

    epochs: int = 10
    batch: int = 100
    beta1: float = 0.9
    beta2: float = 0.999


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training leaves.

    Args:
        accuracy: on the images to look at, in per cent, after every epoch.
        states: -1 or +1, float32 [rows, columns] of each layer.
        pulses: write pulses of every device, uint32 of the same shapes.
        switches: state changes of all devices.
        steps: of the training.
    """

    accuracy: list[float]
    states: list[np.ndarray]
    pulses: list[np.ndarray]
    switches: int
    steps: int

    @property
    def best(self) -> float:
        """Highest accuracy of all epochs: the paper's curves are read at their maximum."""
        return max(self.accuracy)

    @property
    def devices(self) -> int:
        """How many there are."""
        return sum(each.size for each in self.pulses)

    @property
    def total_pulses(self) -> int:
        """Write pulses of all devices."""
        return sum(int(each.sum(dtype=np.int64)) for each in self.pulses)

    @property
    def most_pulses(self) -> int:
        """Write pulses of the device with most."""
        return max(int(each.max()) for each in self.pulses)


class ChipWeights:
    """What states weigh on a chip whose conductances spread: (G - G_reference) / half of the distance between the states.

    Args:
        parameters: of a target with single devices, at least as large as each layer.
        seed: the chip.
        sizes: of the network.
    """

    def __init__(self, parameters: SpinOrbitParameters, seed: int, sizes: Sequence[int] = SIZES) -> None:
        chip = SpinOrbitArray(parameters, seed)
        self._pairs = []
        for array, (rows, columns) in enumerate(pairwise(sizes)):
            siemens = chip.device_siemens(array)[0, :, :rows, :columns]
            relative = (siemens - chip.reference_siemens(array)[:rows, None]) / parameters.level_siemens
            self._pairs.append(relative.astype(np.float32))

    def __call__(self, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Weights of each layer for these states."""
        return [np.where(state > 0, high, low) for state, (low, high) in zip(states, self._pairs, strict=True)]


def train(
    data: TrainingData,
    rule: Rule,
    recipe: Recipe,
    seed: int,
    weights: ChipWeights | None = None,
    sizes: Sequence[int] = SIZES,
) -> Trained:
    """Train from random states.

    Args:
        data: images.
        rule: what proposed changes do.
        recipe: how to train.
        seed: of the chip, the first states and the order of the images.
        weights: what states weigh; None: -1 and +1.
        sizes: of the network.
    """
    states = random_weights(seed, sizes)
    pulses = [np.zeros(each.shape, np.uint32) for each in states]
    moments = [(np.zeros(each.size, np.float32), np.zeros(each.size, np.float32)) for each in states]
    changes = [np.empty(each.shape, np.float32) for each in states]
    order = np.random.default_rng((seed, 1))
    step, switches, accuracies = 0, 0, []
    for _ in range(recipe.epochs):
        shuffled = order.permutation(len(data.images))
        for start in range(0, len(shuffled) - recipe.batch + 1, recipe.batch):
            chosen = shuffled[start : start + recipe.batch]
            held = states if weights is None else weights(states)
            slopes = gradients(data.images[chosen], data.labels[chosen], held)
            for array, slope in enumerate(slopes):
                proposed = changes[array]
                adam_updates(slope.ravel(), *moments[array], proposed.ravel(), recipe.beta1, recipe.beta2, step + 1)
                switches += rule.apply(states[array], proposed, Step(seed, array, step), pulses[array])
            step += 1
        accuracies.append(data.accuracy(states if weights is None else weights(states)))
    return Trained(accuracies, states, pulses, switches, step)
