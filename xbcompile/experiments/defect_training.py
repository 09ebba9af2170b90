"""Training a network again for one chip, whose stuck devices are known and take part in it.

Source: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), "Pattern classification": in the hardware-aware approach "the software
model utilized additional information about the defective memristors", whose conductances cannot be changed; they are excluded
from tuning. Weights are clipped to the range of the conductances.

A pair holds W / S = x+ - x-, x in 0..1, S the largest weight of the matrix. Where one device is stuck at s the other one is tuned
for the pair: it reaches s - 1 to s (plus device stuck) or -s to 1 - s; weights are clipped to that. A tuned device is off by a
factor within 1 +- tolerance, drawn anew in every step; a stuck one is not. So a weight moves where its pair cannot go, and the
others make up for it.

Assumed: 500 steps of Adam over all training patterns, errors of +-60 % as in the network's first training
(models/train_letters.py), 16 draws a step; biases, which are digital, are trained too. The largest weight of each matrix stays,
and with it S, whatever its pair holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.experiments.tanh_network import Adam, TanhNetwork, gradients
from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.program.program import Program
from xbcompile.targets.families.differential_memristor import MemristorArray, MemristorParameters


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one matrix on one chip.

    Args:
        stuck: float32 [2, inputs, outputs], x of each stuck device, plus and minus; NaN where a device can be tuned.
        scale: S, the weight that stands for 1.
    """

    stuck: np.ndarray
    scale: float

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest weight that each pair can hold, float32 [inputs, outputs]."""
        plus, minus = self.stuck
        low = np.where(np.isnan(plus), 0, plus) - np.where(np.isnan(minus), 1, minus)
        high = np.where(np.isnan(plus), 1, plus) - np.where(np.isnan(minus), 0, minus)
        return np.float32(self.scale) * low.astype(np.float32), np.float32(self.scale) * high.astype(np.float32)

    def seen(self, weights: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What pairs hold that are tuned for weights, and how it moves with them, float32 [..., inputs, outputs] each.

        Args:
            weights: float32 [inputs, outputs]; beyond `limits` pairs stay at their end.
            factors: float32 [..., inputs, outputs], that tuned devices are off by.
        """
        plus, minus = self.stuck
        fixed = np.where(np.isnan(plus), 0, plus) - np.where(np.isnan(minus), 0, minus)
        weights = np.clip(weights, *self.limits)
        tuned = weights - np.float32(self.scale) * fixed.astype(np.float32)
        slope = np.where(np.isnan(plus) | np.isnan(minus), factors, 0).astype(np.float32)
        return weights - tuned + slope * tuned, slope


def pairs_of(program: Program, chip: int) -> list[Pairs]:
    """The pairs on which the weights of each layer sit, on a chip whose arrays hold the whole network.

    Args:
        program: compiled for memristors, one image an array, one tile a layer.
        chip: seed.
    """
    schedule, parameters = program.schedule, program.target.parameters
    assert isinstance(parameters, MemristorParameters)
    device, found = MemristorArray(parameters, chip), []
    for layer in program.network.layers:
        weights = layer.weights[0]
        stuck = np.full((2, *weights.shape), np.nan, np.float32)
        found.append(Pairs(stuck, float(np.abs(weights).max())))
    tiles = schedule.tiles
    for tile, height, width in zip(tiles, tile_rows(tiles), tile_columns(tiles), strict=True):
        array = int(schedule.arrays_of(np.array([tile["image"]]))[0][0])
        columns = schedule.column_permutation[tile["image"], tile["column"] : tile["column"] + width]
        part = device.stuck(array)[:, tile["row"] : tile["row"] + height][:, :, columns]
        found[tile["layer"]].stuck[:, tile["k0"] : tile["k0"] + height, tile["m0"] : tile["m0"] + width] = part
    return found


@dataclass(frozen=True)
class DefectTraining:
    """How a network is trained again; all numbers are assumed.

    Args:
        steps: over all patterns each.
        rate: of the first step.
        draws: of tuning errors in one step.
        tolerance: largest relative tuning error.
    """

    steps: int = 500
    rate: float = 3e-3
    draws: int = 16
    tolerance: float = 0.6

    def train(
        self, network: TanhNetwork, pairs: Sequence[Pairs], inputs: np.ndarray, labels: np.ndarray, seed: int
    ) -> TanhNetwork:
        """The network for these pairs: all of its weights but the largest lie within what they can hold.

        Args:
            network: that is trained already.
            pairs: of each matrix.
            inputs: float32 [samples, inputs].
            labels: int64 [samples].
            seed: of the tuning errors.
        """
        weights, biases = [each.copy() for each in network.weights], [each.copy() for each in network.biases]
        result, rng = TanhNetwork(tuple(weights), tuple(biases)), np.random.default_rng(seed)
        free = [np.abs(each) < np.abs(each).max() for each in network.weights]
        adam = Adam([*weights, *biases], self.rate, self.steps)
        for _ in range(self.steps):
            seen, slopes = [], []
            for matrix, pair in zip(weights, pairs, strict=True):
                drawn = rng.uniform(-1, 1, (self.draws, *matrix.shape)).astype(np.float32)
                held, slope = pair.seen(matrix, 1 + np.float32(self.tolerance) * drawn)
                seen.append(held)
                slopes.append(slope)
            of_weights, of_biases = gradients(result.outputs(inputs, seen), labels, seen)
            moved = [np.mean(slope * each, axis=0) for slope, each in zip(slopes, of_weights, strict=True)]
            moved = [each * part for each, part in zip(moved, free, strict=True)]
            adam.step([*moved, *(each.mean(axis=0) for each in of_biases)])
            for matrix, pair, part in zip(weights, pairs, free, strict=True):
                np.clip(matrix, *pair.limits, out=matrix, where=part)
        return result


def network_of(program: Program) -> TanhNetwork:
    """The program's own network: dense layers with tanh between them.

    Args:
        program: of such a network.
    """
    layers = program.network.layers
    return TanhNetwork(tuple(each.weights[0].copy() for each in layers), tuple(each.bias.copy() for each in layers))
