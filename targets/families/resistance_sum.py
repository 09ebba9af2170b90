"""Resistance-sum MRAM array with time-to-digital readout, path by path.

Source: Jung et al., "A crossbar array of magnetoresistive memory devices for in-memory computing", Nature 601, 211
    (2022). A cell holds a weight and its complement in two MTJ-transistor paths; the input selects one, so the cell's
    resistance is R_H where weight and input agree and R_L where they differ. A column's cells are in series; its delay
    (equation 3, Elmore) tau = C_P sum_k sum_{j<=k} R_j + C_L sum_k R_k
weighs row j by C_P (N - j + 1) + C_L; dividing by the effective capacitance C = (N + 1) C_P / 2 + C_L (equation 5)
makes the mean weight 1. A time-to-digital converter codes the delay; out-of-range delays saturate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.deferred import njit
from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import LoadedImages, ReadBlock, SimulatedDevice, WrittenImages
from xbcompile.targets.counter_random import fill_read_normals, key_of, quantile_pieces, read_counter, standard_normal
from xbcompile.targets.fixed_point import round_to_exact
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import FEWEST_CODES, MOST_CODES, quantity


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
    f_clock_hertz: float = quantity("Hz", 1, 1e12, "clock; one read per cycle")
    write_cycles_per_row: int = quantity("1", 1, 1024, "clock cycles to write one row")
    p_read_watt: float = quantity("W", 0, 1e3, "power of array and converters while reading")
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
    def e_write_array_j(self) -> float:
        """Energy to write the whole array: both paths of every cell, one clock cycle each."""
        paths = 2 * self.rows * self.columns
        return paths * self.v_write_volt * self.i_write_ampere / self.f_clock_hertz

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
            e_read_j=self.p_read_watt * t_cycle_s,
        )

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports."""
        return [f"R_L {self.r_low_ohm:g} Ohm", f"R_H {self.r_high_ohm:g} Ohm"]

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
        highest = parameters.dot_of_lowest_code + parameters.lsb_dot * (parameters.tdc_codes - 1)
        self.reading_limits = (parameters.dot_of_lowest_code, highest) if parameters.saturates else None
        self._paths: dict[int, np.ndarray] = {}

    def paths(self, array: int) -> np.ndarray:
        """Sampled resistances, float64 [path, state, rows, columns] in Ohm: left and right path, low and high state.

        The two states of one path vary independently (assumed: the paper gives the spreads only).
        """
        if array not in self._paths:
            p = self.parameters
            z = standard_normal(key_of("paths", self.seed, array), (2, 2, p.rows, p.columns)).astype(np.float64)
            mean = np.array([p.r_low_ohm, p.r_high_ohm])[None, :, None, None]
            sigma = np.array([p.r_low_sigma_ohm, p.r_high_sigma_ohm])[None, :, None, None]
            self._paths[array] = np.maximum(mean + sigma * z, 0.0)
        return self._paths[array]

    def load(self, written: WrittenImages) -> ResistanceSumImages:
        """See BatchedDevice: the delay is linear in the drives, so an image becomes one matrix and one constant."""
        p, arrays, cells = self.parameters, written.arrays, written.cells
        middle, half = (p.r_high_ohm + p.r_low_ohm) / 2, (p.r_high_ohm - p.r_low_ohm) / 2
        matrices = np.empty((len(arrays), p.rows, p.columns), np.float32)
        constants = np.empty((len(arrays), p.columns), np.float32)
        for i, (array, image) in enumerate(zip(arrays, cells, strict=True)):
            high = image.astype(bool)
            left, right = self.paths(int(array))
            selected = np.where(high, left[1], left[0])  # drive +1 selects the weight
            complement = np.where(high, right[0], right[1])  # drive -1 selects its complement
            scale = p.row_weight[:, None] / half
            plus, minus = scale * (selected - middle), scale * (complement - middle)
            matrix, constant = (plus - minus) / 2, (plus + minus).sum(axis=0) / 2
            largest = float(np.max(np.abs(matrix).sum(axis=0) + np.abs(constant)))
            matrices[i] = round_to_exact(matrix, largest, 24)
            constants[i] = round_to_exact(constant, largest, 24)
        return ResistanceSumImages(self, arrays, matrices, constants)


@dataclass(frozen=True, eq=False)
class ResistanceSumImages(LoadedImages):
    """Written images as matrices: weighted dot product = drive @ matrix + constant, exact in float32."""

    device: ResistanceSumArray
    arrays: np.ndarray
    matrices: np.ndarray
    constants: np.ndarray

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages."""
        p = self.device.parameters
        images, vectors, slices, rows = drives.shape
        sums = drives.reshape(images, vectors * slices, rows) @ self.matrices
        sums = sums.reshape(images, vectors, slices, -1)
        for i in range(images):
            _convert(
                sums[i],
                self.constants[i],
                np.float32(p.tdc_jitter_dot),
                np.float32(p.tdc_lowest_dot - 1),
                np.float32(p.lsb_dot),
                p.tdc_codes,
                p.saturates,
                p.rounds,
                np.float32(p.dot_of_lowest_code),
                quantile_pieces(),
                read_counter(
                    key_of("jitter", self.device.seed, self.arrays[i], reads.tiles[i]),
                    reads.first_vector,
                    reads.first_slice,
                    sums[i].shape,
                ),
            )
        return sums


@njit(cache=True, nogil=True, error_model="numpy")
def _convert(  # type: ignore[no-untyped-def]  # numba types its arguments
    sums,
    constant,
    jitter,
    lowest,
    lsb,
    codes,
    saturates,
    rounds,
    middle,
    pieces,
    counter,
):
    """Turn weighted sums [vectors, slices, columns] into decoded converter readings in place."""
    vectors, slices, columns = sums.shape
    bottom, top, per_lsb = np.float32(0), np.float32(codes - 1), np.float32(1) / lsb
    if not saturates:
        bottom, top = np.float32(-np.inf), np.float32(np.inf)
    words = np.empty(4 * ((columns + 3) // 4), np.uint32)
    error = np.empty(words.size, np.float32)
    for v in range(vectors):
        for t in range(slices):
            fill_read_normals(error, words, counter, v, t, pieces)
            for m in range(columns):
                dot = sums[v, t, m] + constant[m] + jitter * error[m]
                code = (dot - lowest) * per_lsb
                code = np.floor(code) if rounds else code - np.float32(0.5)  # code 0 stands for its middle
                sums[v, t, m] = middle + lsb * min(max(code, bottom), top)
