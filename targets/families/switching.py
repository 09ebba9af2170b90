"""Probability of switching against the voltage of a pulse: the p-curves of spin-orbit-torque junctions.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications", Fig. 3c to e. The text gives the
windows between 0 % and 100 % (0.05 V for pulses of 10 ns, about 0.5 V for 2 ns), and says that thresholds spread from device to
device. The shape is assumed: the threshold of each single pulse is normal about that of the device, so that a curve is the normal
distribution function; a window reaches from 1 % to 99 %, what some hundred pulses tell from 0 % and 100 %.

A pulse of positive voltage can only switch to low resistance (+1), one of negative voltage only to high resistance (-1), and
both take the same voltage: field loops are symmetric (paper, Fig. 1c).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from xbcompile.deferred import library
from xbcompile.errors import TargetError
from xbcompile.targets.counter_random import key_of, standard_normal

special = library("scipy.special")

WINDOW_EDGE = 0.01  # probability at which a window begins; it ends at 1 less that
_EDGE_SIGMA = -NormalDist().inv_cdf(WINDOW_EDGE)


@dataclass(frozen=True)
class SwitchingCurves:
    """The curves of an array's devices for pulses of one length.

    Args:
        threshold_v: mean voltage at which half of the pulses switch.
        window_v: between the voltages at which 1 % and 99 % of a device's pulses switch.
        threshold_sigma: standard deviation of the devices' thresholds, as a part of their mean.
    """

    threshold_v: float
    window_v: float
    threshold_sigma: float = 0.0

    @property
    def sigma_v(self) -> float:
        """Standard deviation of a device's threshold from pulse to pulse."""
        return self.window_v / (2 * _EDGE_SIGMA)

    def thresholds(self, seed: int, array: int, shape: tuple[int, ...]) -> np.ndarray:
        """Thresholds of a chip's devices, float64 of this shape, in volts, at least 0; drawn once per chip and array.

        Args:
            seed: the chip.
            array: the array.
            shape: of its devices.
        """
        deviation = standard_normal(key_of("switching thresholds", seed, array), shape).astype(np.float64)
        return np.maximum(self.threshold_v * (1 + self.threshold_sigma * deviation), 0.0)

    def probability(
        self, voltage_v: np.ndarray | float, threshold_v: np.ndarray | float | None = None, to: int = 1
    ) -> np.ndarray:
        """Probability that a pulse leaves a device in state `to` which was in the other one, float64.

        Args:
            voltage_v: signed, of any shape.
            threshold_v: of the devices, to be broadcast with it; None: the mean.
            to: +1: low resistance, which positive voltages switch to; -1: high resistance.

        Raises:
            ValueError: another state.
        """
        if to not in (-1, 1):
            raise ValueError(f"state {to!r} is unknown; allowed: -1, 1")
        threshold = self.threshold_v if threshold_v is None else threshold_v
        return special.ndtr((to * np.asarray(voltage_v, np.float64) - threshold) / self.sigma_v)

    def voltage(
        self, probability: np.ndarray | float, threshold_v: np.ndarray | float | None = None, to: int = 1
    ) -> np.ndarray:
        """The voltage that switches with this probability, the inverse of `probability`; arguments as there.

        Raises:
            ValueError: a probability that is not between 0 and 1, or another state.
        """
        if to not in (-1, 1):
            raise ValueError(f"state {to!r} is unknown; allowed: -1, 1")
        wanted = np.asarray(probability, np.float64)
        if not np.all((wanted > 0) & (wanted < 1)):
            raise ValueError(f"probabilities {probability} must lie between 0 and 1")
        threshold = self.threshold_v if threshold_v is None else threshold_v
        return to * (threshold + self.sigma_v * special.ndtri(wanted))

    def counted_switches(
        self, thresholds_v: np.ndarray, voltages_v: np.ndarray, pulses: int, seed: int, array: int
    ) -> np.ndarray:
        """How many of some pulses switch each device, uint32 [voltages, ...]; before each, the device is set to the other state.

        Args:
            thresholds_v: of the devices, of any shape.
            voltages_v: magnitudes, [voltages].
            pulses: given at each voltage.
            seed: the chip.
            array: the array.
        """
        counts = np.zeros((len(voltages_v), *thresholds_v.shape), np.uint32)
        for index, voltage_v in enumerate(voltages_v):
            normals = standard_normal(key_of("counted switches", seed, array, index), (pulses, *thresholds_v.shape))
            counts[index] = (voltage_v > thresholds_v + self.sigma_v * normals).sum(axis=0)
        return counts


@dataclass(frozen=True)
class PulseLengths:
    """Curves at two lengths of pulses, and between them.

    Between the two, thresholds follow a + b / t, as for currents well above the critical one, where the time to switch is
    inversely proportional to what exceeds it (Sun, Physical Review B 62, 570 (2000)); windows follow a power of t (assumed).

    Args:
        long_s: length of the longer pulses.
        short_s: length of the shorter ones.
        long: curves of the longer pulses.
        short: curves of the shorter ones.
    """

    long_s: float
    short_s: float
    long: SwitchingCurves
    short: SwitchingCurves

    def at(self, pulse_s: float) -> SwitchingCurves:
        """Curves for pulses of this length.

        Raises:
            TargetError: it is not between the two.
        """
        if pulse_s == self.long_s:
            return self.long
        if not self.short_s <= pulse_s <= self.long_s:
            raise TargetError(
                f"pulses of {pulse_s:g} s have no switching curve; allowed: {self.short_s:g} to {self.long_s:g} s"
            )
        share = (1 / pulse_s - 1 / self.long_s) / (1 / self.short_s - 1 / self.long_s)
        power = np.log(pulse_s / self.long_s) / np.log(self.short_s / self.long_s)
        return SwitchingCurves(
            self.long.threshold_v + share * (self.short.threshold_v - self.long.threshold_v),
            float(self.long.window_v * (self.short.window_v / self.long.window_v) ** power),
            self.long.threshold_sigma,
        )


def estimated_thresholds(switched: np.ndarray, voltages_v: np.ndarray, pulses: int) -> np.ndarray:
    """Thresholds of devices from counts of pulses that switched, float64 [...]: the Spearman-Karber estimate.

    It is the mean of the distribution whose values at the voltages are the shares that switched: the highest voltage less the
    area below them, by trapezoids. Lowest and highest voltage must switch none and all.

    Args:
        switched: of `SwitchingCurves.counted_switches`, [voltages, ...].
        voltages_v: float64 [voltages], rising.
        pulses: given at each voltage.
    """
    share = np.asarray(switched, np.float64) / pulses
    step = np.diff(np.asarray(voltages_v, np.float64))
    return voltages_v[-1] - np.tensordot(step, (share[1:] + share[:-1]) / 2, axes=1)
