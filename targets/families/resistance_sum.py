"""Resistance-sum MRAM array with time-to-digital readout, path by path.

Source: Jung et al., "A crossbar array of magnetoresistive memory devices for in-memory computing", Nature 601, 211
    (2022). A cell holds a weight and its complement in two MTJ-transistor paths; the input selects one, so the cell's
    resistance is R_H where weight and input agree and R_L where they differ. A column's cells are in series; its delay
    (equation 3, Elmore) tau = C_P sum_k sum_{j<=k} R_j + C_L sum_k R_k
weighs row j by C_P (N - j + 1) + C_L; dividing by the effective capacitance C = (N + 1) C_P / 2 + C_L (equation 5)
makes the mean weight 1. A time-to-digital converter codes the delay; out-of-range delays saturate.
    Clock (Methods "Operating frequency", Extended Data Fig. 5b): half a period is for the delay, the other half for the
    reset, so that 29 ns allow 17.2 MHz in principle; what the control takes is lost too. Longer delays are cut off: the
    counter stands where it was when the half period ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import SimulatedDevice, WrittenImages
from xbcompile.targets.counter_random import Key, key_of, standard_normal
from xbcompile.targets.linear_images import LinearImages, exact_matrix
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import FEWEST_CODES, MOST_CODES, quantity
from xbcompile.targets.tile_sums import Readout


@dataclass(frozen=True)
class ResistanceSumParameters(ArrayParameters):
    """Numbers of a `resistance_sum` description; a description cannot switch off what the converter does, `without` can."""

    devices: ClassVar[Mapping[str, str]] = {
        "physics": "xbcompile.targets.families.resistance_sum:ResistanceSumArray",
        "emulator": "xbcompile.targets.families.error_histograms:ErrorHistogramArray",
    }
    rows: int = quantity("1", 2, 1024, "cells in series in a column")
    columns: int = quantity("1", 1, 65535, "columns of the array")
    r_high_ohm: float = quantity("Ohm", 1, 1e9, "mean resistance of a path in the high state, transistor included")
    r_high_sigma_ohm: float = quantity("Ohm", 0, 1e9, "its standard deviation from path to path")
    r_low_ohm: float = quantity("Ohm", 1, 1e9, "mean resistance of a path in the low state, transistor included")
    r_low_sigma_ohm: float = quantity("Ohm", 0, 1e9, "its standard deviation from path to path")
    c_cell_farad: float = quantity("F", 0, 1e-9, "parasitic capacitance of a bit-cell")
    c_load_farad: float = quantity("F", 0, 1e-6, "lumped capacitance at the column end")
    tdc_codes: int = quantity("1", FEWEST_CODES, MOST_CODES, "codes of the time-to-digital converter")
    tdc_lowest_dot: float = quantity("1", -65536, 65536, "smallest dot product that the converter covers")
    tdc_dots_per_code: int = quantity("1", 1, 1024, "neighbouring dot-product values (2 apart) in one code")
    tdc_jitter_dot: float = quantity(
        "1", 0, 1024, "standard deviation of the converter's random error, dot-product units"
    )
    delay_per_time_constant: float = quantity("1", 1e-6, 100, "ln(V / (V - V_REF)): delay to V_REF over tau")
    f_clock_hertz: float = quantity("Hz", 1, 1e12, "clock; one read per cycle, half of which is for the delay")
    t_control_s: float = quantity("s", 0, 1, "part of half a clock period that control takes from the delay")
    write_cycles_per_row: int = quantity("1", 1, 1024, "clock cycles to write one row")
    p_read_watt: float = quantity("W", 0, 1e3, "power of array and converters while reading, at f_power_hertz")
    f_power_hertz: float = quantity("Hz", 1, 1e12, "clock at which p_read_watt was measured")
    v_write_volt: float = quantity("V", 0, 1e3, "write voltage over a path")
    i_write_ampere: float = quantity("A", 0, 1, "write current through a path")
    saturates: bool = True
    rounds: bool = True

    def __post_init__(self) -> None:
        if self.r_low_ohm >= self.r_high_ohm:
            raise TargetError(
                f"r_low_ohm = {self.r_low_ohm:g} is not below r_high_ohm = {self.r_high_ohm:g}; a cell needs two states"
            )
        if self.c_cell_farad == self.c_load_farad == 0:
            raise TargetError("c_cell_farad and c_load_farad are both 0; a column without capacitance has no delay")
        if self.saturates and self.highest_code < 1:
            needed_s = float(self.delay_s(self.dot_of_lowest_code + self.lsb_dot / 2))
            fastest_hertz = 1 / (2 * (needed_s + self.t_control_s))
            raise TargetError(
                f"f_clock_hertz = {self.f_clock_hertz:g} leaves {1e9 * self.t_delay_s:.3g} ns for delays, of which the "
                f"converter's second code needs {1e9 * needed_s:.3g} ns; allowed: below {fastest_hertz:.4g}"
            )

    @property
    def row_weight(self) -> np.ndarray:
        """Weight of each row in the delay, float64 [rows], mean 1; row 0 is at the supply (equations 3 and 5)."""
        position = np.arange(self.rows)
        weight = self.c_cell_farad * (self.rows - position) + self.c_load_farad
        return weight / ((self.rows + 1) * self.c_cell_farad / 2 + self.c_load_farad)

    @property
    def lsb_dot(self) -> float:
        """One converter code in dot-product units (values are 2 apart)."""
        return 2.0 * self.tdc_dots_per_code

    @property
    def dot_of_lowest_code(self) -> float:
        """Dot product in the middle of code 0."""
        return self.tdc_lowest_dot + self.tdc_dots_per_code - 1

    @property
    def t_delay_s(self) -> float:
        """What a clock cycle leaves for the delay: half a period less what the control takes; longer delays are cut off."""
        return 0.5 / self.f_clock_hertz - self.t_control_s

    @property
    def highest_code(self) -> int:
        """The largest code that the converter can give: its last one, or that of the longest delay that the clock leaves."""
        shortest_s, step_s = self.delay_s(0.0), self.delay_s(1.0) - self.delay_s(0.0)
        longest_dot = (self.t_delay_s - shortest_s) / step_s
        reached = np.floor((longest_dot - self.dot_of_lowest_code) / self.lsb_dot + 0.5)
        return int(np.clip(reached, 0, self.tdc_codes - 1))

    @property
    def e_read_j(self) -> float:
        """Energy of a read; the same at every clock, as what it charges and counts is (assumed: no power flows between reads)."""
        return self.p_read_watt / self.f_power_hertz

    @property
    def e_write_array_j(self) -> float:
        """Energy to write the whole array: both paths of every cell, one clock cycle each."""
        paths = 2 * self.rows * self.columns
        return paths * self.v_write_volt * self.i_write_ampere / self.f_clock_hertz

    @property
    def readout(self) -> Readout:
        """How weighted sums become readings."""
        low, high = (0, self.highest_code) if self.saturates else (-np.inf, np.inf)
        first, lsb = self.dot_of_lowest_code, self.lsb_dot
        if self.rounds:
            return Readout.rounding(self.tdc_jitter_dot, first, lsb, low, high)
        return Readout.clipping(self.tdc_jitter_dot, first + lsb * low, first + lsb * high)

    def delay_s(self, dot: np.ndarray | float) -> np.ndarray | float:
        """Delay to V_REF of a column of nominal devices at a (weighted) dot product."""
        middle, half = (self.r_high_ohm + self.r_low_ohm) / 2, (self.r_high_ohm - self.r_low_ohm) / 2
        effective_farad = (self.rows + 1) * self.c_cell_farad / 2 + self.c_load_farad
        return self.delay_per_time_constant * effective_farad * (self.rows * middle + half * np.asarray(dot))

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; unused cells alternate, so that undriven rows nearly cancel."""
        rows, t_cycle_s = self.rows, 1 / self.f_clock_hertz
        return ArraySpec(
            rows=rows,
            columns=self.columns,
            levels=np.array([-1, 1], np.float32),
            drive="bipolar",
            row_weight=self.row_weight,
            idle_drive=np.ones(rows, np.float32),
            neutral_level=(np.arange(rows) % 2).astype(np.uint8),
            t_write_row_s=self.write_cycles_per_row * t_cycle_s,
            t_read_s=t_cycle_s,
            e_write_row_j=self.e_write_array_j / rows,
            e_read_j=self.e_read_j,
        )

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports."""
        return [f"R_L {self.r_low_ohm:g} Ohm", f"R_H {self.r_high_ohm:g} Ohm"]

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """See the base: the left path holds the weight, the right one its complement."""
        ohm = np.array([self.r_low_ohm, self.r_high_ohm])
        return {"left_ohm": ohm[cells], "right_ohm": ohm[1 - cells]}

    def row_signals(self, drives: np.ndarray) -> dict[str, np.ndarray]:
        """See the base: an input of 1 selects the left path, 0 the right one."""
        return {"input_bit": np.asarray(drives > 0, np.uint8)}

    def without(self, source: str) -> ResistanceSumParameters:
        """See `error_sources`: the spread of paths is systematic, the converter saturates and rounds, its jitter is random.

        The weights of rows are no error: they are known, and part of what an exact read gives.
        """
        off: dict[str, dict[str, float | bool]] = {
            "systematic": {"r_high_sigma_ohm": 0.0, "r_low_sigma_ohm": 0.0},
            "saturation": {"saturates": False},
            "rounding": {"rounds": False},
            "random": {"tdc_jitter_dot": 0.0},
        }
        return replace(self, **off[source])  # type: ignore[arg-type]  # each value is its field's


class ResistanceSumArray(SimulatedDevice):
    """The physics: two paths per cell, two resistances per path, all sampled; delay; converter with jitter.

    Args:
        parameters: the description's numbers.
        seed: which chip; every array of it (key `array`) has its own devices.
    """

    writes_differ = False

    def __init__(self, parameters: ResistanceSumParameters, seed: int = 0) -> None:
        super().__init__()
        self.parameters = parameters
        self.seed = seed
        self.lsb = parameters.lsb_dot if parameters.rounds else None
        highest = parameters.dot_of_lowest_code + parameters.lsb_dot * parameters.highest_code
        self.reading_limits = (parameters.dot_of_lowest_code, highest) if parameters.saturates else None

    def paths(self, array: int) -> np.ndarray:
        """Sampled resistances, float64 [path, state, rows, columns] in Ohm: left and right path, low and high state.

        The two states of one path vary independently (assumed: the paper gives the spreads only).
        """
        p = self.parameters

        def draw() -> np.ndarray:
            z = standard_normal(key_of("paths", self.seed, array), (2, 2, p.rows, p.columns)).astype(np.float64)
            mean = np.array([p.r_low_ohm, p.r_high_ohm])[None, :, None, None]
            sigma = np.array([p.r_low_sigma_ohm, p.r_high_sigma_ohm])[None, :, None, None]
            return np.maximum(mean + sigma * z, 0.0)

        return self.memory.get(array, draw)

    def load(self, written: WrittenImages) -> LinearImages:
        """See BatchedDevice: the delay is linear in the drives, so an image becomes one matrix and one constant."""
        p, arrays, cells = self.parameters, written.arrays, written.cells
        middle, half = (p.r_high_ohm + p.r_low_ohm) / 2, (p.r_high_ohm - p.r_low_ohm) / 2
        matrices, constants = np.empty((len(arrays), 1, p.rows, p.columns)), np.empty((len(arrays), p.columns))
        for i, (array, image) in enumerate(zip(arrays, cells, strict=True)):
            high = image.astype(bool)
            left, right = self.paths(int(array))
            selected = np.where(high, left[1], left[0])  # drive +1 selects the weight
            complement = np.where(high, right[0], right[1])  # drive -1 selects its complement
            scale = p.row_weight[:, None] / half
            plus, minus = scale * (selected - middle), scale * (complement - middle)
            exact = exact_matrix(np.vstack([(plus - minus) / 2, (plus + minus).sum(axis=0) / 2]), binary=True)
            matrices[i, 0], constants[i] = exact[:-1], exact[-1]

        def key(array: int, tile: int) -> Key:
            return key_of("jitter", self.seed, array, tile)

        return LinearImages(matrices, constants, p.readout, arrays, key, binary=True)
