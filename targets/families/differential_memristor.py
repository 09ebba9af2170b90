"""Passive crossbar of analogue memristors: a weight is a pair of devices, one of them at the lowest conductance.

Source: Merrikh Bayat et al., "Implementation of multilayer perceptron network with highly uniform passive memristive
    crossbar circuits", Nat. Commun. 9, 2331 (2018). A neuron's voltage is R_f (I+ - I-) (equation 1, R_f = 1e6 Ohm); the
amplifier saturates. A cell value w in -1..1 stands for G+ = G_min + max(w, 0) (G_max - G_min) and
G- = G_min + max(-w, 0) (G_max - G_min).

Writing is tuning by write and verify until a device is within a tolerance, here of its distance from G_min: uniform in
G - G_min = target (1 +- tolerance), the published model of import errors (Supplementary Fig. 5, there of a pair's weight).
The devices do not stop at G_max (assumed). The devices that could not be formed are stuck at some conductance
"comparable to the range" (published), log-uniform over the range (assumed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.counter_random import key_of, uniform
from xbcompile.targets.families.conductance_array import ConductanceArray, ConductanceArrayParameters
from xbcompile.targets.families.line_resistance import LineResistance
from xbcompile.targets.quantity import quantity


@dataclass(frozen=True, kw_only=True)
class MemristorParameters(ConductanceArrayParameters):
    """Numbers of a `differential_memristor` description; `columns` counts pairs of lines."""

    devices: ClassVar[Mapping[str, str]] = {
        "physics": "xbcompile.targets.families.differential_memristor:MemristorArray"
    }
    g_min_siemens: float = quantity("S", 1e-12, 1e3, "lowest conductance of a device")
    g_max_siemens: float = quantity("S", 1e-12, 1e3, "highest conductance of a device")
    tuning_tolerance: float = quantity("1", 0, 1, "largest error of a tuned device, relative to its G - g_min")
    stuck_fraction: float = quantity("1", 0, 1, "probability that a device is stuck")
    r_row_segment_ohm: float = quantity("Ohm", 0, 1e6, "row line between neighbouring devices")
    r_column_segment_ohm: float = quantity("Ohm", 0, 1e6, "column line between neighbouring devices")
    r_row_contact_ohm: float = quantity("Ohm", 0, 1e6, "contact of a row line at its driven end")
    r_column_contact_ohm: float = quantity("Ohm", 0, 1e6, "contact of a column line at its amplifier")
    r_feedback_ohm: float = quantity("Ohm", 1e-3, 1e12, "volts of a neuron's amplifier per ampere")
    v_amplifier_max_volt: float = quantity("V", 1e-6, 1e9, "largest output of the amplifier, either sign")
    pulses_per_device: int = quantity("1", 1, 100000, "write and verify pulses to tune one device")
    t_write_pulse_s: float = quantity("s", 0, 1e3, "length of a write pulse")
    t_verify_pulse_s: float = quantity("s", 0, 1e3, "length of a verifying read")
    v_write_volt: float = quantity("V", 0, 100, "write voltage")
    v_set_threshold_volt: float = quantity("V", 1e-3, 100, "mean threshold of switching towards g_max")
    v_set_threshold_sigma_volt: float = quantity("V", 0, 100, "its standard deviation from device to device")
    v_reset_threshold_volt: float = quantity("V", 1e-3, 100, "mean threshold of switching towards g_min, magnitude")
    v_reset_threshold_sigma_volt: float = quantity("V", 0, 100, "its standard deviation from device to device")
    v_switch_scale_volt: float = quantity("V", 1e-6, 100, "amplitude that makes switching e times as fast")
    threshold_change: float = quantity(
        "1", 1e-9, 1, "part of what is left to the range's end by which a pulse at the threshold switches"
    )
    v_set_max_volt: float = quantity("V", 0, 100, "largest amplitude of a pulse towards g_max")
    v_reset_max_volt: float = quantity("V", 0, 100, "largest amplitude of a pulse towards g_min")

    def __post_init__(self) -> None:
        if self.g_min_siemens >= self.g_max_siemens:
            raise TargetError(
                f"g_min_siemens = {self.g_min_siemens:g} is not below g_max_siemens = {self.g_max_siemens:g}"
            )

    @property
    def level_siemens(self) -> float:
        """See the base: the conductance range."""
        return self.g_max_siemens - self.g_min_siemens

    @property
    def lines(self) -> LineResistance:
        """See the base."""
        return LineResistance(
            self.r_row_segment_ohm, self.r_column_segment_ohm, self.r_row_contact_ohm, self.r_column_contact_ohm
        )

    @property
    def amplifier_limit_dot(self) -> float:
        """See the base."""
        return self.v_amplifier_max_volt / (self.r_feedback_ohm * self.v_read_volt * self.level_siemens)

    @property
    def mean_siemens(self) -> float:
        """Mean conductance of a device over uniformly distributed weights: half of all devices are at g_min."""
        return self.g_min_siemens + self.level_siemens / 4

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; devices are tuned one after another.

        Energies are V^2 G t of all devices: a read at full drive (an upper estimate), a write pulse at mean conductance.
        """
        devices = 2 * self.columns
        pulse_j = self.v_write_volt**2 * self.mean_siemens * self.t_write_pulse_s
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=None,
            drive="signed",
            t_write_row_s=devices * self.pulses_per_device * (self.t_write_pulse_s + self.t_verify_pulse_s),
            t_read_s=self.t_read_s,
            e_write_row_j=devices * self.pulses_per_device * pulse_j,
            e_read_j=self.rows * devices * self.v_read_volt**2 * self.mean_siemens * self.t_read_s,
            cell_limit=1.0,
        )

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """See the base: one device of a pair is at the lowest conductance."""
        value = np.clip(cells.astype(np.float64), -1.0, 1.0)
        plus, minus = (self.g_min_siemens + self.level_siemens * np.maximum(each, 0.0) for each in (value, -value))
        return {"plus_siemens": plus, "minus_siemens": minus}

    def state_names(self) -> list[str]:
        """Cells are continuous and have no named states."""
        return []


class MemristorArray(ConductanceArray):
    """A chip of differential pairs: stuck devices, tuning errors, line resistance, saturating amplifiers."""

    def __init__(self, parameters: MemristorParameters, seed: int = 0) -> None:
        super().__init__(parameters, None, seed)
        self.parameters = parameters
        self.writes_differ = parameters.cells_deviate and parameters.tuning_tolerance > 0

    def stuck(self, array: int) -> np.ndarray:
        """The defect map: float64 [2, rows, columns] of plus and minus devices; NaN where a device can be tuned.

        Values are (G - g_min) / (g_max - g_min), 0 to 1.
        """
        p = self.parameters
        draw = uniform(key_of("stuck devices", self.seed, array), (2, 2, p.rows, p.columns))
        siemens = p.g_min_siemens * (p.g_max_siemens / p.g_min_siemens) ** draw[1]
        return np.where(draw[0] < p.stuck_fraction, (siemens - p.g_min_siemens) / p.level_siemens, np.nan)

    def cell_limits(self, array: int) -> np.ndarray | None:
        """See SimulatedDevice: a pair whose plus device is stuck at s spans s - 1 to s, its partner being tuned."""
        if not self.parameters.cells_deviate:
            return None
        stuck = self.stuck(array)
        if np.all(np.isnan(stuck)):
            return None
        plus, minus = stuck
        lowest = np.where(np.isnan(plus), 0.0, plus) - np.where(np.isnan(minus), 1.0, minus)
        highest = np.where(np.isnan(plus), 1.0, plus) - np.where(np.isnan(minus), 0.0, minus)
        return np.stack([lowest, highest])

    def conductances(self, array: int, numbers: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See the base. Known defects: the partner of a stuck device is tuned for the pair's difference."""
        p = self.parameters
        value = np.clip(cells.astype(np.float64), -1.0, 1.0)
        target = np.stack([np.maximum(value, 0.0), np.maximum(-value, 0.0)])
        stuck = self.stuck(array)
        whole = np.isnan(stuck)
        if self.defects_known:
            partner = np.stack([stuck[1] + value, stuck[0] - value])
            target = np.where(whole & ~whole[::-1], np.clip(partner, 0.0, 1.0), target)
        if p.tuning_tolerance:
            drawn = self.drawn(array, numbers, lambda key: 2 * uniform(key, target.shape) - 1)
            target = target * (1 + p.tuning_tolerance * drawn)
        reached = np.where(whole, target, stuck)
        plus, minus = p.g_min_siemens + p.level_siemens * reached
        return plus, minus
