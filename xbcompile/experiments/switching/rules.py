"""What a proposed update does to a device that holds -1 or +1: the rules that Liu et al. compare (Fig. 3f).

Adam proposes a change of each weight, here in units of its learning rate (`adam_updates`). A rule turns it into a new state:

    pulses on devices   voltage = bias + gain |change|; switches to the change's sign with the probability of the device's curve
    ideal stochastic    switches to the change's sign with probability |change| / 2, so that the mean change is the proposed one
                        (Hirtzlin et al., IEEE Access 7, 76394 (2019), as the paper cites it; the factor is derived)
    deterministic       takes the sign of weight + change (paper)
    sigmoidal           becomes +1 with probability 1 / (1 + exp(-(weight + change) / width)) (paper), else -1

The paper drives devices through lookup tables of their curves and names bias voltages (Fig. 3g), no gain: that voltages rise in
proportion is assumed. Random numbers belong to seed, array, step, row and column (docs/noise.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.counter_random import (
    ReadCounter,
    fill_read_words,
    fill_row_of_normals,
    key_of,
    quantile_pieces,
    read_counter,
)
from xbcompile.targets.families.switching import SwitchingCurves

float32, uint32 = np.float32, np.uint32  # numba's own names, without loading it

_UNIT = np.float32(2.0**-32)


class Step(NamedTuple):
    """One step of a training, at one array.

    Attributes:
        seed: the chip.
        array: running number of the array, here of the layer.
        number: of the step, from 0 on.
    """

    seed: int
    array: int
    number: int


class Rule(Protocol):
    """Turns proposed changes into states."""

    def apply(self, states: np.ndarray, changes: np.ndarray, step: Step, pulses: np.ndarray) -> int:
        """Change states in place.

        Args:
            states: -1 or +1, float32 [rows, columns].
            changes: that Adam proposes, in units of its learning rate, float32 of the same shape.
            step: for what random numbers are drawn.
            pulses: write pulses that each device has had, uint32 of the same shape; counted on.

        Returns:
            How many devices are in another state afterwards.
        """
        ...


def _counter(purpose: str, step: Step, shape: tuple[int, int]) -> ReadCounter:
    """The counter of a step's random numbers; row i has those of vector i."""
    rows, columns = shape
    return read_counter(key_of(purpose, step.seed, step.array), step.number * rows, 0, (rows, 1, columns))


@njit(cache=True, error_model="numpy")
def adam_updates(gradient, mean, square, changes, beta1, beta2, step):  # type: ignore[no-untyped-def]  # numba infers
    """Adam's step (Kingma and Ba, arXiv 1412.6980, algorithm 1) in units of the learning rate, into `changes`; all float32 [n].

    Args:
        gradient: of the loss.
        mean: first moment, goes on in place.
        square: second moment, likewise.
        changes: what is filled.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        step: from 1 on.
    """
    b1, b2 = float32(beta1), float32(beta2)
    scale1, scale2 = float32(1 / (1 - beta1**step)), float32(1 / (1 - beta2**step))
    for i in range(gradient.size):
        g = gradient[i]
        mean[i] = b1 * mean[i] + (float32(1) - b1) * g
        square[i] = b2 * square[i] + (float32(1) - b2) * g * g
        changes[i] = -scale1 * mean[i] / (np.sqrt(scale2 * square[i]) + float32(1e-8))


@njit(cache=True, error_model="numpy")
def pulse_devices(states, changes, threshold_v, volts, counter, pieces, pulses, useful):  # type: ignore[no-untyped-def]  # as above
    """One pulse at every device with a proposed change; how many switch.

    Args:
        states: -1 or +1, float32 [rows, columns], changed in place.
        changes: proposed, float32 of the same shape.
        threshold_v: of each device, float32 of the same shape.
        volts: bias of pulses towards +1 and towards -1, gain per unit of change, standard deviation of a threshold from pulse
            to pulse, float32 [4].
        counter: of the step's random numbers.
        pieces: of `quantile_pieces`.
        pulses: counted on, uint32 of the same shape.
        useful: whether devices that are in the wanted state already get no pulse.
    """
    rows, columns = states.shape
    words = np.empty((columns + 3) // 4 * 4, uint32)
    normals = np.empty(words.size, float32)
    plus_v, minus_v, gain_v, sigma_v = volts
    switched = 0
    for i in range(rows):
        fill_row_of_normals(normals, words, counter, i, 0, pieces)
        for j in range(columns):
            change = changes[i, j]
            wanted = float32(1) if change > 0 else float32(-1)
            other = states[i, j] != wanted
            pulsed = change != 0 and (other or not useful)
            volt = gain_v * abs(change) + (plus_v if change > 0 else minus_v)
            flips = pulsed and other and volt > threshold_v[i, j] + sigma_v * normals[j]
            pulses[i, j] += uint32(pulsed)
            states[i, j] = wanted if flips else states[i, j]
            switched += flips
    return switched


@njit(cache=True, error_model="numpy")
def draw_states(states, changes, counter, pulses, scale, width):  # type: ignore[no-untyped-def]  # as above
    """New states by the ideal stochastic rule, or by the sigmoidal one; how many are others.

    Args:
        states: -1 or +1, float32 [rows, columns], changed in place.
        changes: proposed, float32 of the same shape.
        counter: of the step's random numbers.
        pulses: counted on where a state changes, uint32 of the same shape.
        scale: what changes are multiplied by.
        width: of the sigmoid; 0: the ideal stochastic rule.
    """
    rows, columns = states.shape
    words = np.empty((columns + 3) // 4 * 4, uint32)
    switched = 0
    for i in range(rows):
        fill_read_words(words, counter, i, 0, uint32(0))
        for j in range(columns):
            change = scale * changes[i, j]
            drawn = (float32(words[j]) + float32(0.5)) * _UNIT
            if width > 0:
                probability = 1 / (1 + np.exp(-(states[i, j] + change) / width))
                state = float32(1) if drawn < probability else float32(-1)
            else:
                state = states[i, j]
                if drawn < abs(change) / 2:
                    state = float32(1) if change > 0 else float32(-1)
            other = state != states[i, j]
            pulses[i, j] += uint32(other)
            states[i, j] = state
            switched += other
    return switched


@dataclass(frozen=True, eq=False)
class DevicePulses:
    """Pulses on devices that switch by their curves.

    Args:
        curves: of the devices.
        thresholds_v: of each array's devices, [rows, columns] each; None: all have the mean curve ("single").
        bias_v: magnitudes of the bias voltages of pulses towards +1 and towards -1.
        gain_v: what the voltage rises by for a change of one learning rate.
        useful: whether only devices in the other state get a pulse, which takes a copy of the states.
    """

    curves: SwitchingCurves
    thresholds_v: list[np.ndarray] | None
    bias_v: tuple[float, float]
    gain_v: float
    useful: bool = False
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def apply(self, states: np.ndarray, changes: np.ndarray, step: Step, pulses: np.ndarray) -> int:
        """See Rule."""
        if step.array not in self._kept:
            given = self.curves.threshold_v if self.thresholds_v is None else self.thresholds_v[step.array]
            self._kept[step.array] = np.ascontiguousarray(np.broadcast_to(given, states.shape), np.float32)
        volts = np.array([*self.bias_v, self.gain_v, self.curves.sigma_v], np.float32)
        counter = _counter("switching pulses", step, states.shape)
        threshold_v = self._kept[step.array]
        return int(pulse_devices(states, changes, threshold_v, volts, counter, quantile_pieces(), pulses, self.useful))


@dataclass(frozen=True)
class IdealStochastic:
    """Switches to the change's sign with half of the change as probability.

    Args:
        learning_rate: of Adam.
    """

    learning_rate: float

    def apply(self, states: np.ndarray, changes: np.ndarray, step: Step, pulses: np.ndarray) -> int:
        """See Rule; devices that switch have had one pulse."""
        counter = _counter("ideal stochastic rule", step, states.shape)
        return int(draw_states(states, changes, counter, pulses, np.float32(self.learning_rate), np.float32(0)))


@dataclass(frozen=True)
class Sigmoidal:
    """Becomes +1 with the sigmoid of the updated weight as probability, else -1.

    Args:
        learning_rate: of Adam.
        width: sigma_s of the paper.
    """

    learning_rate: float
    width: float

    def apply(self, states: np.ndarray, changes: np.ndarray, step: Step, pulses: np.ndarray) -> int:
        """See Rule; devices whose state changes have had one pulse."""
        counter = _counter("sigmoidal rule", step, states.shape)
        scale, width = np.float32(self.learning_rate), np.float32(self.width)
        return int(draw_states(states, changes, counter, pulses, scale, width))


@dataclass(frozen=True)
class Deterministic:
    """Takes the sign of the updated weight; 0 counts as +1.

    Args:
        learning_rate: of Adam.
    """

    learning_rate: float

    def apply(self, states: np.ndarray, changes: np.ndarray, step: Step, pulses: np.ndarray) -> int:
        """See Rule; devices whose state changes have had one pulse."""
        del step
        updated = np.where(states + np.float32(self.learning_rate) * changes >= 0, np.float32(1), np.float32(-1))
        other = updated != states
        pulses += other
        states[:] = updated
        return int(other.sum())
