"""Training of the letters' perceptron on the simulated memristors themselves.

Source: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), "Pattern classification" and Supplementary Fig. 7: inference in
hardware, changes of weights worked out by a computer, all devices updated once per epoch, row by row, each row in two steps
with V/2 biasing. Fixed amplitude: +-1.3 V, so that the sign of a change alone counts (Manhattan rule). Published: 70 % of three
classes. The authors expect more of pulses of variable amplitude.

Rules:
    fixed       every device of a row gets a pulse of the write voltage in the direction of its change.
    variable    the amplitude that would make the wanted change on a nominal device of the same conductance.
    own         the same for the device's own thresholds: what is left to gain once they are known (ours).

Assumed: 60 epochs; outputs aimed at +-0.85; devices start anywhere in the lowest fifth of the range; sets come before
resets; the wanted change is the gradient times a rate that falls by 5 % per epoch; the computer reads conductances exactly. Drawn
by chip: thresholds, stuck devices, starts. The lines' resistance counts in inference. These settings were chosen on the training
patterns, of which the figure is; other ones move it: see figure
`memristor20-in-situ-choices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbcompile.experiments.crossbar_perceptron import Perceptron
from xbcompile.targets.counter_random import key_of, uniform
from xbcompile.targets.families.differential_memristor import MemristorArray, MemristorParameters
from xbcompile.targets.families.memristor_pulses import (
    Biasing,
    Thresholds,
    after_pulse,
    pulse_amplitudes,
    pulse_volts,
)

Rule = Literal["fixed", "variable", "own"]


@dataclass(frozen=True)
class Crossbar:
    """The part of an array that a layer uses, of several chips; `state` changes.

    Args:
        parameters: the description's numbers.
        state: float64 [chips, rows, lines], x of each device, plus and minus line of each neuron side by side.
        thresholds: of the devices.
        stuck: bool, of the same shape.
    """

    parameters: MemristorParameters
    state: np.ndarray
    thresholds: Thresholds
    stuck: np.ndarray

    @classmethod
    def of_chips(
        cls, parameters: MemristorParameters, chips: range, array: int, shape: tuple[int, int], start: float
    ) -> Crossbar:
        """Devices as they are before training.

        Args:
            parameters: the description's numbers.
            chips: seeds.
            array: which array of each chip.
            shape: rows and neurons in use.
            start: devices start uniformly between 0 and this.
        """
        rows, lines = shape[0], 2 * shape[1]
        whole = (parameters.rows, 2 * parameters.columns)
        drawn = np.stack([start * uniform(key_of("in-situ start", chip, array), whole) for chip in chips])
        fixed = np.stack([MemristorArray(parameters, chip).stuck(array) for chip in chips])
        fixed = fixed.transpose(0, 2, 3, 1).reshape(len(chips), *whole)
        state = np.where(np.isnan(fixed), drawn, fixed)[:, :rows, :lines]
        thresholds = Thresholds.of_chips(parameters, chips, array).part(rows, lines)
        return cls(parameters, state, thresholds, ~np.isnan(fixed[:, :rows, :lines]))

    @property
    def weights(self) -> np.ndarray:
        """Of the devices as they are: float64 [chips, rows, neurons]."""
        return np.asarray(self.state[:, :, 0::2] - self.state[:, :, 1::2])

    @property
    def seen(self) -> np.ndarray:
        """The weights as they act, behind the lines' resistance."""
        p = self.parameters
        effective = p.lines.effective(p.g_min_siemens + p.level_siemens * self.state)
        return np.asarray((effective[:, :, 0::2] - effective[:, :, 1::2]) / p.level_siemens)

    def pulse(self, amplitude: np.ndarray, row: int, sign: int, biasing: Biasing) -> None:
        """One pulse on the devices of a row; all others see what their lines have.

        Args:
            amplitude: float64 [chips, lines].
            row: which.
            sign: 1 sets, -1 resets.
            biasing: of the lines.
        """
        volts = sign * pulse_volts(amplitude, row, self.state.shape[1], biasing)
        changed = after_pulse(self.parameters, self.state, volts, self.thresholds)
        np.copyto(self.state, changed, where=~self.stuck)


@dataclass(frozen=True)
class InSituTraining:
    """How the perceptron is trained; see the module for what is assumed.

    Args:
        parameters: the description's numbers.
        rule: of the amplitudes.
        epochs: updates of all devices.
        classes: letters.
        hidden: neurons.
        target: outputs aimed at, plus and minus.
        start: highest x of a device at the start.
        rate: changes are the gradient times this; not for the fixed amplitude.
        rate_decay: factor of the rate per epoch.
        biasing: of the lines.
    """

    parameters: MemristorParameters
    rule: Rule = "fixed"
    epochs: int = 60
    classes: int = 3
    hidden: int = 10
    target: float = 0.85
    start: float = 0.2
    rate: float = 1.0
    rate_decay: float = 0.95
    biasing: Biasing = "V/2"

    def train(self, chips: range) -> np.ndarray:
        """Per cent of the training patterns that are right before each epoch and after the last: float64 [epochs + 1, chips].

        Args:
            chips: seeds.
        """
        p = self.parameters
        gain = p.r_feedback_ohm * p.v_read_volt * p.level_siemens
        task = Perceptron.of_letters("train", self.classes, gain, self.target)
        shapes = ((task.inputs.shape[1], self.hidden), (self.hidden + 1, self.classes))
        crossbars = [Crossbar.of_chips(p, chips, array, shape, self.start) for array, shape in enumerate(shapes)]
        curve = []
        for epoch in range(self.epochs + 1):
            hidden, outputs = task.outputs((crossbars[0].seen, crossbars[1].seen))
            curve.append(task.fidelity(outputs))
            if epoch < self.epochs:
                gradients = task.gradients(hidden, outputs, crossbars[1].weights)
                for crossbar, gradient in zip(crossbars, gradients, strict=True):
                    self._update(crossbar, -self.rate * self.rate_decay**epoch * gradient)
        return np.stack(curve)

    def _update(self, crossbar: Crossbar, change: np.ndarray) -> None:
        """Pulses for wanted changes, float64 [chips, rows, neurons]: of the plus device, and its negative of the minus device."""
        wanted = np.stack([change, -change], axis=3).reshape(*change.shape[:2], -1)
        for row in range(wanted.shape[1]):
            for sign in (1, -1):
                self._pulse_row(crossbar, row, sign, np.where(sign * wanted[:, row] > 0, wanted[:, row], 0.0))

    def _pulse_row(self, crossbar: Crossbar, row: int, sign: int, wanted: np.ndarray) -> None:
        """Pulses of one sign on one row; `wanted` float64 [chips, lines] has no change of the other."""
        p = self.parameters
        largest = p.v_set_max_volt if sign > 0 else p.v_reset_max_volt
        if self.rule == "fixed":
            amplitude = np.where(wanted != 0, p.v_write_volt, 0.0)
        else:
            own = crossbar.thresholds
            thresholds = (
                Thresholds(own.set_volt[:, row], own.reset_volt[:, row])
                if self.rule == "own"
                else Thresholds.nominal(p)
            )
            amplitude = pulse_amplitudes(p, crossbar.state[:, row], wanted, thresholds, np.array(largest))
        crossbar.pulse(amplitude, row, sign, self.biasing)
