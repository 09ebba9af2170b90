"""What write pulses do to passive memristors: gradual switching with thresholds that spread, half-selected devices, and tuning.

Source: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018): Fig. 2 (spread of set and reset voltages), Supplementary Note 1
(smallest and largest thresholds; V/2 and V/3 biasing), Supplementary Fig. 7 (pulses of 500 us and +-1.3 V), reference 48 there
(write and verify: pulses of rising amplitude). The equations of the paper's "simple device model" are in another paper and in
program text that is not published; the form here is assumed, and its numbers are the description's:

    x = (G - G_min) / (G_max - G_min)
    set (v > 0):    1 - x  falls by the factor exp(-k),  k = c exp((v - V_set) / V_scale)
    reset (v < 0):  x      falls by the factor exp(-k),  k = c exp((-v - V_reset) / V_scale)

for one pulse of `t_write_pulse_s`: the exact solution of dx/dt = (1 - x) k / t, or -x k / t, at constant voltage. So a pulse at
its threshold moves a device by c of what is left, V_scale more by e times as much, and no pulse leaves the range. V_set and
V_reset are each device's own, normal and independent (assumed). Lines are taken as perfect while writing: amplitudes found by
write and verify make up for their drops.

Lines. A pulse on the devices of one row is given by voltages of all lines, from which every device of the array gets its own
(`pulse_volts`); those that share a line with a selected one are half-selected and drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xbcompile.targets.counter_random import key_of, standard_normal
from xbcompile.targets.families.differential_memristor import MemristorParameters

Biasing = Literal["V/2", "V/3"]
# Of its mean: no threshold is at or below 0 V.
_LOWEST_THRESHOLD = 0.05


@dataclass(frozen=True)
class Thresholds:
    """Switching thresholds of devices, both positive.

    Args:
        set_volt: float64 [..., rows, lines], towards G_max.
        reset_volt: the same shape, towards G_min, magnitudes.
    """

    set_volt: np.ndarray
    reset_volt: np.ndarray

    @classmethod
    def of_chips(cls, parameters: MemristorParameters, seeds: range, array: int) -> Thresholds:
        """Those of one array of several chips: float64 [chips, rows, lines], two lines a column.

        Args:
            parameters: the description's numbers.
            seeds: the chips.
            array: which array of each chip.
        """
        p, shape = parameters, (2, parameters.rows, 2 * parameters.columns)
        z = np.stack([standard_normal(key_of("switching", seed, array), shape) for seed in seeds]).astype(np.float64)
        lowest_set, lowest_reset = (
            _LOWEST_THRESHOLD * mean for mean in (p.v_set_threshold_volt, p.v_reset_threshold_volt)
        )
        return cls(
            np.maximum(p.v_set_threshold_volt + p.v_set_threshold_sigma_volt * z[:, 0], lowest_set),
            np.maximum(p.v_reset_threshold_volt + p.v_reset_threshold_sigma_volt * z[:, 1], lowest_reset),
        )

    @classmethod
    def nominal(cls, parameters: MemristorParameters) -> Thresholds:
        """Those of a device without spread, as arrays without dimensions."""
        return cls(np.array(parameters.v_set_threshold_volt), np.array(parameters.v_reset_threshold_volt))

    def part(self, rows: int, lines: int) -> Thresholds:
        """Those of the first rows and lines."""
        return Thresholds(self.set_volt[..., :rows, :lines], self.reset_volt[..., :rows, :lines])


def after_pulse(
    parameters: MemristorParameters, state: np.ndarray, volt: np.ndarray, thresholds: Thresholds
) -> np.ndarray:
    """States after one pulse; see the module.

    Args:
        parameters: the description's numbers.
        state: float64 [..., rows, lines], x in 0..1.
        volt: of the same shape, on each device; positive sets, negative resets, 0 does nothing.
        thresholds: of the devices.

    Returns:
        float64 [..., rows, lines].
    """
    p = parameters
    sets = volt > 0
    above = np.abs(volt) - np.where(sets, thresholds.set_volt, thresholds.reset_volt)
    kept = np.exp(-p.threshold_change * np.exp(np.minimum(above / p.v_switch_scale_volt, 50.0)))
    kept = np.where(volt == 0, 1.0, kept)
    return np.where(sets, 1 - (1 - state) * kept, state * kept)


def pulse_amplitudes(
    parameters: MemristorParameters, state: np.ndarray, change: np.ndarray, thresholds: Thresholds, largest: np.ndarray
) -> np.ndarray:
    """Amplitudes that would change devices with these thresholds as wanted: `after_pulse` solved for |v|.

    Args:
        parameters: the description's numbers.
        state: float64, x in 0..1.
        change: of the same shape, wanted change of x; its sign is that of the pulse.
        thresholds: what the devices are taken to have.
        largest: largest amplitude, volts; changes that would need more, or cannot be reached, get it.

    Returns:
        float64 of the same shape, at least 0; 0 where no change is wanted.
    """
    p = parameters
    room = np.where(change > 0, 1 - state, state)
    own = np.where(change > 0, thresholds.set_volt, thresholds.reset_volt)
    share = np.divide(np.abs(change), room, out=np.ones_like(room), where=room > 0)
    with np.errstate(divide="ignore"):  # no change: minus infinity; all of the room: infinity
        rate = -np.log1p(-np.minimum(share, 1.0))
        volt = own + p.v_switch_scale_volt * np.log(rate / p.threshold_change)
    return np.where(change == 0, 0.0, np.clip(volt, 0.0, largest))


def pulse_volts(amplitude: np.ndarray, row: int, rows: int, biasing: Biasing) -> np.ndarray:
    """Voltages on all devices while the devices of one row get these amplitudes.

    With A the largest amplitude, the row is at A / 2 and the line of a device that gets V at -(V - A / 2), at 0 where that is
    positive: a selected device gets at least A / 2. V/2: all other lines are at 0. V/3: other rows are at -A / 6, lines
    of devices without pulse at A / 6 (Supplementary Note 1), so that no device but the selected ones gets more than A / 3.

    Args:
        amplitude: float64 [..., lines], at least 0; 0: no pulse.
        row: of the selected devices.
        rows: of the array.
        biasing: "V/2" or "V/3".

    Returns:
        float64 [..., rows, lines], for a positive pulse; its negative for the other sign.
    """
    selected = amplitude > 0
    half = amplitude.max(axis=-1, keepdims=True) / 2
    sixth = half / 3 if biasing == "V/3" else np.zeros_like(half)
    lines = np.where(selected, -np.maximum(amplitude - half, 0.0), sixth)
    words = np.repeat(-sixth[..., None, :], rows, axis=-2)
    words[..., row, :] = half
    return np.asarray(words - lines[..., None, :])


@dataclass(frozen=True)
class Tuning:
    """What tuning an array left; chips first.

    Args:
        state: float64 [chips, rows, lines], where all devices were tuned.
        tuned: likewise, what each device had when its own tuning ended.
        pulses: int64 [chips, rows, lines], write pulses that each device took.
    """

    state: np.ndarray
    tuned: np.ndarray
    pulses: np.ndarray


@dataclass(frozen=True)
class WriteAndVerify:
    """Tuning of one device after the other: pulse, read, pulse, ... until its conductance is within the tolerance.

    The amplitude rises from pulse to pulse, and starts anew, with the other sign, once the target has been passed
    (reference 48 of the paper). Reads are exact and disturb nothing.

    Args:
        tolerance: of the conductance, relative.
        most_pulses: write pulses of one device at most; 300 write and read pulses in Supplementary Note 2.
        biasing: of the lines.
        start_volt: first amplitude of a sign (assumed).
        step_volt: by which it rises (assumed).
    """

    tolerance: float
    most_pulses: int = 150
    biasing: Biasing = "V/2"
    start_volt: float = 0.5
    step_volt: float = 0.05

    def tune(
        self, parameters: MemristorParameters, state: np.ndarray, wanted: np.ndarray, thresholds: Thresholds
    ) -> Tuning:
        """Tune all devices once, row by row.

        Args:
            parameters: the description's numbers.
            state: float64 [chips, rows, lines], at the start, x in 0..1.
            wanted: of the same shape, or without chips.
            thresholds: of the devices.
        """
        state = state.copy()
        wanted = np.broadcast_to(wanted, state.shape)
        tuned, pulses = np.empty_like(state), np.zeros(state.shape, np.int64)
        for row, line in np.ndindex(*state.shape[1:]):
            pulses[:, row, line] = self._tune_device(parameters, state, wanted[:, row, line], thresholds, row, line)
            tuned[:, row, line] = state[:, row, line]
        return Tuning(state, tuned, pulses)

    def _tune_device(
        self,
        parameters: MemristorParameters,
        state: np.ndarray,
        wanted: np.ndarray,
        thresholds: Thresholds,
        row: int,
        line: int,
    ) -> np.ndarray:
        """Tune one device of each chip, in `state` itself; how many pulses each took."""
        chips, rows, lines = state.shape
        amplitude, before, taken = np.zeros(chips), np.zeros(chips), np.zeros(chips, np.int64)
        largest = {1: parameters.v_set_max_volt, -1: parameters.v_reset_max_volt}
        for _ in range(self.most_pulses):
            found = state[:, row, line]
            off = relative_error(parameters, found, wanted)
            sign = np.where(np.abs(off) > self.tolerance, -np.sign(off), 0.0)
            if not sign.any():
                break
            limit = np.where(sign > 0, largest[1], largest[-1])
            amplitude = np.where(
                sign == before, np.minimum(amplitude + self.step_volt, limit), np.minimum(self.start_volt, limit)
            )
            before = sign
            given = np.zeros((chips, lines))
            given[:, line] = np.where(sign != 0, amplitude, 0.0)
            volts = sign[:, None, None] * pulse_volts(given, row, rows, self.biasing)
            state[:] = after_pulse(parameters, state, volts, thresholds)
            taken += sign != 0
        return taken


def relative_error(parameters: MemristorParameters, state: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Error of the conductances relative to those wanted: the paper's tuning error.

    Args:
        parameters: the description's numbers.
        state: x of devices.
        wanted: likewise.
    """
    p = parameters
    return np.asarray(p.level_siemens * (state - wanted) / (p.g_min_siemens + p.level_siemens * wanted))
