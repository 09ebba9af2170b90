"""Array of spin-orbit-torque junctions with two states: pairs for ternary weights, or single devices for binary ones.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications". Two devices per weight
    (Fig. 2): +1 is (low, high) resistance, -1 (high, low), 0 (high, high). One device per weight (Fig. 3b): low resistance is
+1, high is -1, read against a shared reference column, here of devices of the same kind: per row one in each state, the two
conductances averaged (assumed), and averaged again over `reference_columns`; its deviations are common to all columns.

Conductances spread from device to device in proportion to their means (Fig. 2c), each device having its own fixed value in
each state. Its two deviations have the correlation `state_correlation` (assumed: the paper gives the spread of each state
alone), as area and barrier of a junction move both states together. A write adds noise in proportion. A reading sees one state of
each device, so a network does not depend on the correlation as long as no device is written otherwise; the on/off ratios do.

Writes of compiled programs always succeed. Pulses that switch with a probability, for training on the array and for sampling,
are those of `switching` (`SpinOrbitParameters.curves`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.ir import ArraySpec
from xbcompile.targets.counter_random import Key, key_of, standard_normal
from xbcompile.targets.families.conductance_array import ConductanceArray, ConductanceArrayParameters
from xbcompile.targets.families.line_resistance import LineResistance
from xbcompile.targets.families.switching import PulseLengths, SwitchingCurves
from xbcompile.targets.quantity import quantity


@dataclass(frozen=True, kw_only=True)
class SpinOrbitParameters(ConductanceArrayParameters):
    """Numbers of a `spin_orbit` description."""

    devices: ClassVar[Mapping[str, str]] = {"physics": "xbcompile.targets.families.spin_orbit:SpinOrbitArray"}
    devices_per_weight: int = quantity("1", 1, 2, "2: pairs, ternary; 1: single devices against a reference, binary")
    r_low_ohm: float = quantity("Ohm", 1e-3, 1e12, "mean resistance of the low-resistance state, 1 / conductance")
    tmr: float = quantity("1", 1e-6, 1e4, "tunnel magnetoresistance: r_high / r_low - 1")
    low_sigma: float = quantity("1", 0, 1, "relative spread of conductances in the low-resistance state")
    high_sigma: float = quantity("1", 0, 1, "relative spread of conductances in the high-resistance state")
    state_correlation: float = quantity("1", -1, 1, "correlation of a device's deviations in its two states")
    write_noise: float = quantity("1", 0, 1, "relative standard deviation of a conductance from write to write")
    reference_columns: int = quantity("1", 1, 4096, "reference columns averaged; used with single devices")
    r_row_segment_ohm: float = quantity("Ohm", 0, 1e6, "row line between neighbouring devices")
    r_column_segment_ohm: float = quantity("Ohm", 0, 1e6, "column line between neighbouring devices")
    r_row_contact_ohm: float = quantity("Ohm", 0, 1e6, "contact of a row line at its driven end")
    r_column_contact_ohm: float = quantity("Ohm", 0, 1e6, "contact of a column line at its end")
    t_write_pulse_s: float = quantity("s", 0, 1, "length of a write pulse")
    write_pulses_per_row: int = quantity("1", 1, 1024, "write pulses in time to write one row")
    e_write_device_j: float = quantity("J", 0, 1, "energy to write one device")
    endurance_writes: float = quantity("1", 1, 1e18, "write pulses that a device stands")
    switching_threshold_volt: float = quantity("V", 1e-6, 1e3, "mean voltage at which half of the write pulses switch")
    switching_window_volt: float = quantity("V", 1e-9, 1e3, "between the voltages at which 1 % and 99 % of them switch")
    switching_threshold_sigma: float = quantity("1", 0, 1, "relative spread of the devices' switching thresholds")
    t_short_pulse_s: float = quantity("s", 1e-15, 1, "length of a short pulse, whose curves are known too")
    short_pulse_threshold_volt: float = quantity("V", 1e-6, 1e3, "as switching_threshold_volt, for short pulses")
    short_pulse_window_volt: float = quantity("V", 1e-9, 1e3, "as switching_window_volt, for short pulses")

    @property
    def state_siemens(self) -> tuple[float, float]:
        """Mean conductance of the high- and the low-resistance state."""
        return 1 / (self.r_low_ohm * (1 + self.tmr)), 1 / self.r_low_ohm

    @property
    def level_siemens(self) -> float:
        """See the base: a pair spans twice what a single device does against its reference."""
        high_resistance, low_resistance = self.state_siemens
        return (low_resistance - high_resistance) * self.devices_per_weight / 2

    @property
    def lines(self) -> LineResistance:
        """See the base."""
        return LineResistance(
            self.r_row_segment_ohm, self.r_column_segment_ohm, self.r_row_contact_ohm, self.r_column_contact_ohm
        )

    def curves(self, pulse_s: float | None = None) -> SwitchingCurves:
        """Probability of switching against voltage.

        Args:
            pulse_s: length of the pulses, from `t_short_pulse_s` to `t_write_pulse_s`; None: the latter.

        Raises:
            TargetError: another length.
        """
        spread = self.switching_threshold_sigma
        lengths = PulseLengths(
            self.t_write_pulse_s,
            self.t_short_pulse_s,
            SwitchingCurves(self.switching_threshold_volt, self.switching_window_volt, spread),
            SwitchingCurves(self.short_pulse_threshold_volt, self.short_pulse_window_volt, spread),
        )
        return lengths.at(self.t_write_pulse_s if pulse_s is None else pulse_s)

    @property
    def levels(self) -> np.ndarray:
        """Cell levels, float32: ternary for pairs, binary for single devices."""
        return np.array([-1, 0, 1] if self.devices_per_weight == 2 else [-1, 1], np.float32)

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; a read's energy is V^2 G t at full drive and mean conductance, an upper estimate.

        Reference columns are written once and for all and count in reads only.
        """
        devices = self.devices_per_weight * self.columns
        read = devices + (2 * self.reference_columns if self.devices_per_weight == 1 else 0)
        mean_siemens = sum(self.state_siemens) / 2
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=self.levels,
            drive="signed",
            t_write_row_s=self.write_pulses_per_row * self.t_write_pulse_s,
            t_read_s=self.t_read_s,
            e_write_row_j=devices * self.e_write_device_j,
            e_read_j=self.rows * read * self.v_read_volt**2 * mean_siemens * self.t_read_s,
        )

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """See the base: nominal conductances of a pair, or of a single device."""
        value, siemens = self.levels[cells], np.array(self.state_siemens)
        if self.devices_per_weight == 1:
            return {"conductance_siemens": siemens[(value > 0).astype(int)]}
        return {"plus_siemens": siemens[(value > 0).astype(int)], "minus_siemens": siemens[(value < 0).astype(int)]}

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports."""
        if self.devices_per_weight == 2:
            return ["high/low resistance", "high/high resistance", "low/high resistance"]
        return [
            f"high resistance {self.r_low_ohm * (1 + self.tmr):.0f} Ohm",
            f"low resistance {self.r_low_ohm:.0f} Ohm",
        ]


def correlated_states(normals: np.ndarray, correlation: float) -> np.ndarray:
    """Deviations of the two states of devices, unit normal with this correlation: float64 [side, state, rows, columns].

    z_low = r z_high + sqrt(1 - r^2) z, with the two given variates for z_high and z: those of the high-resistance state do not
    depend on the correlation.

    Args:
        normals: independent unit normals of the same shape; state 0 is that of high resistance.
        correlation: r, from -1 to 1.
    """
    high = normals[:, 0].astype(np.float64)
    return np.stack([high, correlation * high + np.sqrt(1 - correlation**2) * normals[:, 1]], axis=1)


class SpinOrbitArray(ConductanceArray):
    """A chip of two-state devices, each with its own conductance in each state, and a little different after each write."""

    def __init__(self, parameters: SpinOrbitParameters, seed: int = 0) -> None:
        super().__init__(parameters, parameters.levels, seed)
        self.parameters = parameters
        self.writes_differ = parameters.cells_deviate and parameters.write_noise > 0

    def device_siemens(self, array: int) -> np.ndarray:
        """What a chip keeps: float64 [side, state, rows, columns], high- then low-resistance state, at least 0."""
        p = self.parameters
        shape = p.devices_per_weight, 2, p.rows, p.columns
        key = key_of("devices", self.seed, array)
        return self.memory.get(array, lambda: self._sample(key, shape, p.state_correlation))

    def reference_siemens(self, array: int) -> np.ndarray:
        """Conductance of the reference in each row, float64 [rows]: both states and all reference columns averaged.

        The two states are those of two devices, whose deviations are independent.
        """
        p = self.parameters
        key = key_of("reference columns", self.seed, array)
        return self._sample(key, (1, 2, p.rows, p.reference_columns), 0.0)[0].mean(axis=(0, 2))

    def _sample(self, key: Key, shape: tuple[int, int, int, int], correlation: float) -> np.ndarray:
        p = self.parameters
        deviation = correlated_states(standard_normal(key, shape), correlation)
        relative = 1 + np.array([p.high_sigma, p.low_sigma])[:, None, None] * deviation
        return np.maximum(np.array(p.state_siemens)[:, None, None] * relative, 0.0)

    def conductances(self, array: int, numbers: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See the base."""
        p = self.parameters
        value = p.levels[cells]
        states = self.device_siemens(array)
        low_resistance = [value > 0, value < 0][: p.devices_per_weight]
        written = np.stack([np.where(low, side[1], side[0]) for low, side in zip(low_resistance, states, strict=True)])
        if p.write_noise:
            noise = self.drawn(array, numbers, lambda key: standard_normal(key, written.shape))
            written = np.maximum(written * (1 + p.write_noise * noise), 0.0)
        if p.devices_per_weight == 2:
            return written[0], written[1]
        return written[0], self.reference_siemens(array)[:, None]
