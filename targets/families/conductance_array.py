"""Base of the arrays whose columns add currents: rows carry voltages, each weight is a difference of conductances.

A column's reading is its current difference over the current of one whole level at full drive,
    sum_k V_k (G+[k, m] - G-[k, m]) / (V_read G_level),
so in dot-product units; gains of the readout that all columns share are digital factors and left out. A cell, as the
compiler sees it, is a whole weight. Subclasses say which conductances stand for a cell (`conductances`), and this base does
the rest: line resistance, amplifier, converter, read noise.

"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from xbcompile.targets.contract import SimulatedDevice, WrittenImages, draws_of_rows
from xbcompile.targets.counter_random import Key, key_of
from xbcompile.targets.families.line_resistance import LineResistance
from xbcompile.targets.linear_images import LinearImages, exact_matrix
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import FEWEST_CODES, MOST_CODES, quantity
from xbcompile.targets.tile_sums import Readout

# Cells whose conductances are held at a time while images are prepared.
_BATCH_CELLS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ConductanceArrayParameters(ArrayParameters):
    """Numbers that every description of this kind gives; `without` switches errors off, a description cannot."""

    rows: int = quantity("1", 1, 4096, "rows (voltage inputs)")
    columns: int = quantity("1", 1, 4096, "columns of weights")
    v_read_volt: float = quantity("V", 1e-6, 100, "voltage of a row at full drive")
    full_scale_dot: float = quantity("1", 1e-6, 1e6, "sum of products at the ends of the readout's range, either sign")
    read_noise: float = quantity("1", 0, 1, "standard deviation of a reading's random error, relative to full scale")
    converter_codes: int = quantity(
        "1", FEWEST_CODES, MOST_CODES, "codes over plus and minus full scale; 0: no converter", none=0
    )
    t_read_s: float = quantity("s", 0, 1e3, "time of one read")
    cells_deviate: bool = True
    saturates: bool = True
    rounds: bool = True

    @property
    def level_siemens(self) -> float:
        """Conductance difference that stands for a cell value of 1."""
        raise TypeError(f"{type(self).__name__} must define level_siemens")

    @property
    def lines(self) -> LineResistance:
        """Resistance of the lines; none unless the family has it."""
        return LineResistance()

    @property
    def amplifier_limit_dot(self) -> float:
        """Reading at which the amplifier saturates, either sign; infinite unless the family has one."""
        return np.inf

    @property
    def limit_dot(self) -> float:
        """Largest reading of either sign; infinite without converter and amplifier limit."""
        if not self.saturates:
            return float(np.inf)
        return min(self.amplifier_limit_dot, self.full_scale_dot if self.converter_codes else np.inf)

    @property
    def lsb_dot(self) -> float | None:
        """Distance of two converter codes in dot-product units; None without a converter."""
        if not self.converter_codes or not self.rounds:
            return None
        return 2 * self.full_scale_dot / (self.converter_codes - 1)

    @property
    def readout(self) -> Readout:
        """How sums become readings: codes have -full_scale_dot and full_scale_dot as their first and last middle."""
        lsb, limit, lowest = self.lsb_dot, self.limit_dot, -self.full_scale_dot
        if lsb is None:
            noise = self.read_noise * self.full_scale_dot
            return Readout.clipping(noise, -limit, limit)
        ends = [np.floor((end - lowest) / lsb + 0.5) for end in (-limit, limit)]
        return Readout.rounding(self.read_noise * self.full_scale_dot, lowest, lsb, *ends)

    def row_signals(self, drives: np.ndarray) -> dict[str, np.ndarray]:
        """See the base."""
        return {"voltage_volt": np.asarray(drives * self.v_read_volt)}

    def without(self, source: str) -> Self:
        """See `error_sources`: cells and lines are systematic; converter and amplifier saturate; the converter rounds."""
        if source == "systematic":
            return replace(self, cells_deviate=False)
        if source == "saturation":
            return replace(self, saturates=False) if np.isfinite(self.limit_dot) else self
        if source == "rounding":
            return replace(self, rounds=False) if self.lsb_dot else self
        return replace(self, read_noise=0.0)


class ConductanceArray(SimulatedDevice):
    """Samples a chip's cells, prepares written images as matrices, and reads them.

    Args:
        parameters: the description's numbers.
        values: float32 [L], the value of each level; None where cells hold the values themselves.
        seed: which chip.
    """

    def __init__(self, parameters: ConductanceArrayParameters, values: np.ndarray | None, seed: int = 0) -> None:
        super().__init__()
        self.shared = parameters
        self.values = values
        self.seed = seed
        self.lsb = parameters.lsb_dot
        limit = parameters.limit_dot
        self.reading_limits = (-limit, limit) if np.isfinite(limit) else None

    def conductances(self, array: int, numbers: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What writing cells [rows, columns] leaves in an array, siemens.

        Args:
            array: which array of the chip.
            numbers: int64 [rows] or [1], the number of the last write of each row: what a write draws depends on it.
            cells: level indices, or float32 cell values.

        Returns:
            Plus, float64 [rows, columns], and minus, the same or [rows, 1] where all columns share it.
        """
        raise TypeError(f"{type(self).__name__} must define conductances")

    def drawn(self, array: int, numbers: np.ndarray, sample: Callable[[Key], np.ndarray]) -> np.ndarray:
        """What writes draw at random, row by row.

        Args:
            array: which array of the chip.
            numbers: see `conductances`.
            sample: [..., rows, columns] from a key, which is the same for the same chip, array and write.
        """
        return draws_of_rows(numbers, lambda number: sample(key_of("writes", self.seed, array, number)))

    def matrices(self, written: WrittenImages) -> np.ndarray:
        """Written images as float64 [images, terms, rows, columns] in level units.

        A drive u adds u M0 + u|u| M1 + u^3 M2 to its columns; a linear array has the first term alone.
        """
        cells = written.cells
        if not self.shared.cells_deviate:
            return self.exact_values(cells)[:, None]
        result = np.empty((len(cells), 1, *cells.shape[1:]))
        size = max(1, _BATCH_CELLS // cells[0].size)
        for first in range(0, len(cells), size):
            part = slice(first, first + size)
            pairs = [
                self.conductances(int(array), numbers, image)
                for array, numbers, image in zip(written.arrays[part], written.numbers[part], cells[part], strict=True)
            ]
            plus, minus = (np.stack(side) for side in zip(*pairs, strict=True))
            result[part, 0] = self.difference(plus, minus) / self.shared.level_siemens
        return result

    def exact_values(self, cells: np.ndarray) -> np.ndarray:
        """Values that cells stand for, float64, of the same shape."""
        return (cells if self.values is None else self.values[cells]).astype(np.float64)

    def difference(self, plus: np.ndarray, minus: np.ndarray) -> np.ndarray:
        """Plus less minus as seen from the ends of the lines, siemens: [images, rows, columns] from conductances.

        The two lines of a pair are neighbours; a shared line lies behind the others.
        """
        lines = self.shared.lines
        if lines.is_zero:
            return plus - minus
        if minus.shape[2] == 1:
            seen = lines.effective(np.concatenate([plus, minus], axis=2))
            return seen[:, :, :-1] - seen[:, :, -1:]
        seen = lines.effective(np.stack([plus, minus], axis=3).reshape(*plus.shape[:2], -1))
        return seen[:, :, 0::2] - seen[:, :, 1::2]

    def load(self, written: WrittenImages) -> LinearImages:
        """See BatchedDevice."""
        matrices = self.matrices(written)
        shared = self.shared
        errs = shared.cells_deviate or shared.read_noise > 0 or shared.lsb_dot is not None
        single = errs and matrices.shape[1] == 1  # else sums stay exact
        if single:
            matrices = matrices.astype(np.float32)
        else:
            for matrix in matrices:
                matrix[:] = exact_matrix(matrix)
        constants = np.zeros((len(matrices), matrices.shape[3]))

        def key(array: int, tile: int) -> Key:
            return key_of("noise", self.seed, array, tile)

        return LinearImages(matrices, constants, shared.readout, written.arrays, key, single=single)
