"""Array of multistate magnetic tunnel junctions: currents in, voltages summed along the columns.

Source: MultiSpin.AI deliverable D4.2, "Standard ML tasks" (2026), section 2.3. Inputs are currents I = a_I x + b_I,
    weights resistances R = a_R A + b_R, a column's voltage is V = sum_n R_n I_n. Expanding, with N rows, V = a_R a_I
    sum(A x) + b_R a_I sum(x) + a_R b_I sum(A) + N b_R b_I,
so that  sum(A x) = (V - b_R a_I sum(x) - a_R b_I sum(A) - N b_R b_I) / (a_R a_I).
(The report's vector form drops one term: it folds b_R a_I sum(x) + N b_R b_I into b_R sum(I), which is right, since
sum(I) = a_I sum(x) + N b_I.) Here the drive v in 0..1 is itself the scaled input, I = i_max v, so b_I is 0 on the
array and the input's own offset is handled where all input codes are; levels A are normalised to -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import SimulatedDevice, WrittenImages
from xbcompile.targets.counter_random import key_of, standard_normal
from xbcompile.targets.linear_images import LinearImages, exact_matrix
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import quantity
from xbcompile.targets.tile_sums import Readout


@dataclass(frozen=True)
class MultistateParameters(ArrayParameters):
    """Numbers of a `multistate` description."""

    devices: ClassVar[Mapping[str, str]] = {"physics": "xbcompile.targets.families.multistate:MultistateArray"}
    rows: int = quantity("1", 1, 4096, "rows (current inputs)")
    columns: int = quantity("1", 1, 4096, "columns (voltage outputs)")
    states: int = quantity("1", 2, 256, "equidistant resistance states of a cell")
    r_lowest_ohm: float = quantity("Ohm", 1e-3, 1e12, "resistance of the lowest state")
    r_highest_ohm: float = quantity("Ohm", 1e-3, 1e12, "resistance of the highest state")
    i_max_ampere: float = quantity("A", 1e-15, 1e3, "current of an input of full scale")
    sigma_nl_ohm: float = quantity("Ohm", 0, 1e12, "standard deviation of the level offsets that all cells share")
    sigma_perp_ohm: float = quantity("Ohm", 0, 1e12, "standard deviation of each cell's own level offsets")
    t_write_row_s: float = quantity("s", 0, 1e3, "time to write one row")
    t_read_s: float = quantity("s", 0, 1e3, "time of one read")
    e_write_row_j: float = quantity("J", 0, 1e3, "energy to write one row")

    def __post_init__(self) -> None:
        if self.r_lowest_ohm >= self.r_highest_ohm:
            raise TargetError(
                f"r_lowest_ohm = {self.r_lowest_ohm:g} is not below r_highest_ohm = {self.r_highest_ohm:g}"
            )

    @property
    def resistances_ohm(self) -> np.ndarray:
        """Nominal resistance of each state, float64 [states]."""
        return np.linspace(self.r_lowest_ohm, self.r_highest_ohm, self.states)

    @property
    def e_read_j(self) -> float:
        """Energy of one read at full current through every cell of middle resistance: an upper estimate."""
        middle_ohm = (self.r_lowest_ohm + self.r_highest_ohm) / 2
        return self.rows * self.columns * self.i_max_ampere**2 * middle_ohm * self.t_read_s

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; an undriven row carries no current and adds nothing."""
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=np.linspace(-1, 1, self.states).astype(np.float32),
            drive="analogue",
            t_write_row_s=self.t_write_row_s,
            t_read_s=self.t_read_s,
            e_write_row_j=self.e_write_row_j,
            e_read_j=self.e_read_j,
        )

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports."""
        return [f"{ohm:.0f} Ohm" for ohm in self.resistances_ohm]

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """See the base."""
        return {"resistance_ohm": self.resistances_ohm[cells]}

    def row_signals(self, drives: np.ndarray) -> dict[str, np.ndarray]:
        """See the base."""
        return {"current_ampere": np.asarray(drives * self.i_max_ampere)}

    def without(self, source: str) -> MultistateParameters:
        """See `error_sources`: the offsets of levels are systematic; the array has no converter and no noise."""
        return replace(self, sigma_nl_ohm=0.0, sigma_perp_ohm=0.0) if source == "systematic" else self


class MultistateArray(SimulatedDevice):
    """Equidistant states with shared (sigma_NL) and cell-specific (sigma_perp) offsets, sections 4.2 and 4.3."""

    writes_differ = False

    def __init__(self, parameters: MultistateParameters, seed: int = 0) -> None:
        super().__init__()
        self.parameters = parameters
        self.seed = seed

    def cell_resistances_ohm(self, array: int) -> np.ndarray:
        """Resistance of every state of every cell of one array, float64 [states, rows, columns]."""
        p = self.parameters

        def draw() -> np.ndarray:
            shared = p.sigma_nl_ohm * standard_normal(key_of("levels", self.seed), (p.states,)).astype(np.float64)
            own = standard_normal(key_of("cells", self.seed, array), (p.states, p.rows, p.columns)).astype(np.float64)
            resistances: np.ndarray = (p.resistances_ohm + shared)[:, None, None] + p.sigma_perp_ohm * own
            return resistances

        return self.memory.get(array, draw)

    def load(self, written: WrittenImages) -> LinearImages:
        """See BatchedDevice: each cell's resistance as (R - middle) / half of the range.

        A column's voltage is V = i_max (half sum(deviation v) + middle sum(v)). The recovery subtracts the second term, 37 times
        the first on `m2tj4`; it is left out before rounding, or it would take the digits that the first one needs.
        """
        p, cells = self.parameters, written.cells
        row, column = np.indices((p.rows, p.columns))
        unique, which = np.unique(written.arrays, return_inverse=True)
        tables = np.stack([self.cell_resistances_ohm(int(array)) for array in unique])
        r_ohm = tables[which[:, None, None], cells, row, column]
        half_ohm, middle_ohm = (p.r_highest_ohm - p.r_lowest_ohm) / 2, (p.r_highest_ohm + p.r_lowest_ohm) / 2
        deviation = (r_ohm - middle_ohm) / half_ohm
        # The array's own largest deviation bounds its sums, whatever the image: rounding must not depend on what else is loaded.
        largest = np.abs((tables - middle_ohm) / half_ohm).max(axis=(1, 2, 3)) * p.rows
        for image, array in zip(deviation, which, strict=True):
            image[:] = exact_matrix(image, largest=float(largest[array]))
        constants = np.zeros((len(deviation), p.columns))
        return LinearImages(deviation[:, None], constants, Readout.none(), written.arrays)
