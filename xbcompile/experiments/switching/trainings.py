"""The trainings that Liu et al. show in Fig. 3f and g, and ours that take back what the spread of thresholds costs.

Every number that the text leaves open was chosen on the last 5,000 training images, from a few tries each (docs/reproduction.md).
Devices are those of `sot-single`; gradients are computed with exact weights, as conductances are not part of Fig. 3.

Published: "single", where all devices have one curve; "multiple", where thresholds spread; the ideal stochastic, the
deterministic and the sigmoidal rule, all at one learning rate. Ours:

    per array       the bias voltage, and what the voltage rises by, are searched for each chip
    short pulses    2 ns instead of 10: a wider window hides the spread; one bias for all chips
    per device      the threshold of each device is measured first, its bias moved by what it differs from the mean
    own rate        the deterministic rule at a learning rate of its own: then it flips a weight where Adam's mean gradient is
                    as large as its root mean square, close to what Helwegen et al. propose (arXiv 1906.02107); and the
                    sigmoidal one likewise
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from xbcompile.experiments.figure import Effort
from xbcompile.experiments.shared import shared
from xbcompile.experiments.switching.network import SIZES, TrainingData, load_training_data
from xbcompile.experiments.switching.rules import Deterministic, DevicePulses, IdealStochastic, Rule, Sigmoidal
from xbcompile.experiments.switching.training import ChipWeights, Recipe, Trained, train
from xbcompile.targets import load_target
from xbcompile.targets.families.spin_orbit import SpinOrbitParameters
from xbcompile.targets.families.switching import SwitchingCurves, estimated_thresholds

TARGET = "sot-single"
HELD_OUT = 5000

SINGLE_BIAS_V = 0.23  # both directions; a window below the mean threshold
BIAS_V = 0.19  # of chips whose thresholds spread: within the text's 0.17 to 0.2 V
GAIN_V = 0.03  # a change of one learning rate
LEARNING_RATE = 0.01  # of the rules that have no voltages
SIGMOID_WIDTH = 0.15
OWN_LEARNING_RATE = 1.0  # of the deterministic and the sigmoidal rule, where each has its own
SHORT_BIAS_V, SHORT_GAIN_V = 0.2, 0.3
SEARCHED_BIAS_V = (0.12, 0.15, 0.18)
SEARCHED_GAIN_V = (0.03, 0.1)
SEARCH_IMAGES = 20_000
MEASURED_STEP_V, MEASURED_PULSES = 0.01, 10


@dataclass(frozen=True)
class Size:
    """How large trainings are.

    Args:
        epochs: passes through the images.
        images: the first so many; None: all.
        chips: on how many they are repeated.
        test_images: whether to look at test images; otherwise at those held out.
    """

    epochs: int
    images: int | None
    chips: int
    test_images: bool = True


REPEATED = ("single", "multiple", "per array", "short pulses", "per device")


def size_for(effort: Effort, rule: str = "single") -> Size:
    """Size that an effort allows: REPEATED on several chips, and with all images even if quick, as goals rest on them.

    All images once take 2.5 s on an idle processor.
    """
    repeated = rule in REPEATED
    if effort.quick:
        return Size(2, None, 1) if repeated else Size(1, 20_000, 1)
    return Size(5, None, min(effort.seeds, 3) if repeated else 1)


def parameters() -> SpinOrbitParameters:
    """Numbers of the target."""
    found = load_target(TARGET).parameters
    assert isinstance(found, SpinOrbitParameters)
    return found


def thresholds(curves: SwitchingCurves, seed: int) -> list[np.ndarray]:
    """Thresholds of a chip's devices, [rows, columns] of each layer."""
    return [curves.thresholds(seed, array, shape) for array, shape in enumerate(pairwise(SIZES))]


def spread_rule(bias_v: tuple[float, float], gain_v: float, seed: int) -> DevicePulses:
    """Pulses on a chip whose thresholds spread."""
    curves = parameters().curves()
    return DevicePulses(curves, thresholds(curves, seed), bias_v, gain_v)


def _single(seed: int) -> Rule:
    del seed
    return DevicePulses(parameters().curves(), None, (SINGLE_BIAS_V, SINGLE_BIAS_V), GAIN_V)


def _multiple(seed: int) -> Rule:
    return spread_rule((BIAS_V, BIAS_V), GAIN_V, seed)


def _short_pulses(seed: int) -> Rule:
    p = parameters()
    curves = p.curves(p.t_short_pulse_s)
    return DevicePulses(curves, thresholds(curves, seed), (SHORT_BIAS_V, SHORT_BIAS_V), SHORT_GAIN_V)


def _per_array(seed: int) -> Rule:
    bias_v, gain_v = searched_bias(seed)
    return spread_rule((bias_v, bias_v), gain_v, seed)


def _per_device(seed: int) -> Rule:
    """A bias moved by what a device's threshold differs is a threshold moved back by as much."""
    curves = parameters().curves()
    true = thresholds(curves, seed)
    moved = [
        each - measured_thresholds(curves, each, seed, array) + curves.threshold_v for array, each in enumerate(true)
    ]
    return DevicePulses(curves, moved, (SINGLE_BIAS_V, SINGLE_BIAS_V), GAIN_V, useful=True)


RULES: dict[str, Callable[[int], Rule]] = {
    "single": _single,
    "multiple": _multiple,
    "ideal": lambda seed: IdealStochastic(LEARNING_RATE),
    "deterministic": lambda seed: Deterministic(LEARNING_RATE),
    "sigmoidal": lambda seed: Sigmoidal(LEARNING_RATE, SIGMOID_WIDTH),
    "per array": _per_array,
    "short pulses": _short_pulses,
    "per device": _per_device,
    "deterministic, own rate": lambda seed: Deterministic(OWN_LEARNING_RATE),
    "sigmoidal, own rate": lambda seed: Sigmoidal(OWN_LEARNING_RATE, SIGMOID_WIDTH),
}


def measured_voltages(curves: SwitchingCurves) -> np.ndarray:
    """Voltages at which devices are measured: from where none switches to where all do."""
    most = curves.threshold_v * (1 + 6 * curves.threshold_sigma) + 6 * curves.sigma_v
    return np.arange(-6 * curves.sigma_v, most + MEASURED_STEP_V, MEASURED_STEP_V)


def measured_thresholds(curves: SwitchingCurves, true: np.ndarray, seed: int, array: int) -> np.ndarray:
    """Thresholds as a measurement of a chip's array tells them."""
    volts = measured_voltages(curves)
    counts = curves.counted_switches(true, volts, MEASURED_PULSES, seed, array)
    return estimated_thresholds(counts, volts, MEASURED_PULSES)


@lru_cache(maxsize=2)
def training_data(held_out: int, images: int | None) -> TrainingData:
    """See `load_training_data`; kept."""
    return load_training_data(held_out, images)


@shared
def searched_bias(seed: int) -> tuple[float, float]:
    """Bias and gain that train a chip best in one pass through a part of the images, looked at with those held out."""
    data = training_data(HELD_OUT, SEARCH_IMAGES)
    tries = [(bias_v, gain_v) for bias_v in SEARCHED_BIAS_V for gain_v in SEARCHED_GAIN_V]
    found = [train(data, spread_rule((b, b), g, seed), Recipe(1), seed).accuracy[-1] for b, g in tries]
    return tries[int(np.argmax(found))]


def trained(rule: str, size: Size, seed: int, conductances: bool = False) -> Trained:
    """One training by the rule of this name in RULES; kept, and not to be changed.

    Args:
        rule: its name.
        size: how large.
        seed: the chip.
        conductances: whether weights are the chip's conductances, with their spread, instead of -1 and +1.
    """
    return _trained(rule, size, seed, conductances)


@shared
def _trained(rule: str, size: Size, seed: int, conductances: bool) -> Trained:
    data = training_data(0 if size.test_images else HELD_OUT, size.images)
    weights = ChipWeights(parameters(), seed) if conductances else None
    return train(data, RULES[rule](seed), Recipe(size.epochs), seed, weights)


def accuracies(rule: str, size: Size, conductances: bool = False) -> np.ndarray:
    """Accuracy in per cent of all chips after each epoch, [chips, epochs]; arguments as of `trained`."""
    return np.array([trained(rule, size, seed, conductances).accuracy for seed in range(size.chips)])
