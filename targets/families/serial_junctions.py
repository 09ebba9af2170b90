"""Cells of N magnetic tunnel junctions in series: N + 1 resistances, a weight being a pair of cells.

Source: Rzeszut et al., "Multi-state MRAM cells for hardware neuromorphic computing", Sci. Rep. 12, 7178 (2022). A cell with n
    of N junctions antiparallel has the resistance (N - n) R_P + n R_AP, equidistant; a weight is G_P - G_N with G = 1/R of two
cells; equal cells give zero, here both at the lowest conductance. The published reading V_d = -(1/G_sum) sum V_i (G_iP - G_iN)
has one factor G_sum = m (G_min + G_max) / 2 for all neurons, which digital recombination undoes: readings here are in units of
G_max - G_min at full drive.

R(V) of a junction (Fig. 1a) is one straight line in |V| per state, r + slope |v|, v being the junction's own voltage; intercepts
and slopes spread from junction to junction. At current I a junction holds v = I r / (1 - I slope), so a cell's voltage is the
sum of these, which is solved for I by Newton's method. The current as a function of the drive u in -1..1 is then taken as
u a0 + u|u| a1 + u^3 a2, which interpolates current / u at three Chebyshev nodes. Its largest error, with the shipped numbers,
is 4e-5 of the current for N = 1, 6e-7 for N = 4 and 1e-7 for N = 7 (tests/targets/families/test_serial_junctions.py).

Two things that the paper's theory leaves out can be switched on: `open_loop_writing`, one programming voltage per state, so that
cells end in wrong states (`junction_switching`), and `divider_loads`, each branch's voltage over its own sum of conductances.

Levels belong to nominal junctions and to their effective conductance: the least-squares slope of the current against drives
that are uniform over the amplitude, which makes the mean squared error of a nominal cell's current the least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import WrittenImages
from xbcompile.targets.counter_random import key_of, standard_normal
from xbcompile.targets.families.conductance_array import ConductanceArray, ConductanceArrayParameters
from xbcompile.targets.families.junction_switching import SwitchingCells, current_at, programming_volts
from xbcompile.targets.quantity import quantity

# Standard deviations that a read must stay below the mean switching threshold.
_THRESHOLD_MARGIN = 4
# Chebyshev nodes of 0..1, at which the current is fitted.
_NODES = 0.5 + 0.5 * np.cos(np.pi * (np.arange(3) + 0.5) / 3)
# Levels closer than this are one level: as float32 they could not be told apart.
_LEVEL_STEP = 1e-6


@dataclass(frozen=True, kw_only=True)
class SerialJunctionParameters(ConductanceArrayParameters):
    """Numbers of a `serial_junctions` description; spreads are per junction."""

    devices: ClassVar[Mapping[str, str]] = {
        "physics": "xbcompile.targets.families.serial_junctions:SerialJunctionArray"
    }
    junctions: int = quantity("1", 1, 15, "junctions in series in a cell")
    r_parallel_ohm: float = quantity("Ohm", 1e-3, 1e12, "resistance of a parallel junction at 0 V")
    tmr: float = quantity("1", 1e-6, 100, "tunnel magnetoresistance at 0 V")
    resistance_sigma: float = quantity("1", 0, 1, "relative spread of a junction's resistance in each state")
    slope_parallel_ohm_per_volt: float = quantity("Ohm/V", -1e12, 1e12, "change of a parallel junction with |v|")
    slope_antiparallel_ohm_per_volt: float = quantity(
        "Ohm/V", -1e12, 1e12, "change of an antiparallel junction with |v|"
    )
    slope_sigma: float = quantity("1", 0, 1, "relative spread of a junction's slopes")
    v_switch_volt: float = quantity("V", 1e-6, 100, "mean voltage at which a junction switches, either way")
    v_switch_sigma_volt: float = quantity("V", 0, 100, "its standard deviation")
    open_loop_writing: bool = quantity("1", 0, 1, "whether cells stay as one programming voltage per state leaves them")
    divider_loads: bool = quantity(
        "1", 0, 1, "whether a column's voltage is over its own sums of conductances, not a common one"
    )
    amplifiers_per_neuron: int = quantity("1", 0, 100, "operational amplifiers of a column")
    i_amplifier_ampere: float = quantity("A", 0, 1, "current of one")
    v_supply_volt: float = quantity("V", 0, 100, "supply of the amplifiers")
    v_write_per_junction_volt: float = quantity("V", 0, 100, "write voltage of a cell over its junctions")
    t_write_cycle_s: float = quantity("s", 0, 1e3, "one programming cycle")

    def __post_init__(self) -> None:
        if (self.junctions + 1) * self.junctions + 1 > 256:
            raise TargetError(f"junctions = {self.junctions} gives more than 256 levels; allowed: 1 to 15")
        for name, ohm, slope in (
            ("parallel", self.r_parallel_ohm, self.slope_parallel_ohm_per_volt),
            ("antiparallel", self.r_antiparallel_ohm, self.slope_antiparallel_ohm_per_volt),
        ):
            if ohm + 2 * slope * self.v_read_volt <= 0 or abs(slope) * self.v_read_volt > ohm / 2:
                raise TargetError(
                    f"slope_{name}_ohm_per_volt = {slope:g} changes {ohm:g} Ohm by more than half over v_read_volt = "
                    f"{self.v_read_volt:g} V; R(V) would not be a straight line there"
                )
        largest, limit = self.largest_junction_volt, self.v_switch_volt - _THRESHOLD_MARGIN * self.v_switch_sigma_volt
        if largest > limit:
            raise TargetError(
                f"v_read_volt = {self.v_read_volt:g} V puts {largest:.3g} V on one junction, above {limit:.3g} V, "
                f"v_switch_volt less {_THRESHOLD_MARGIN} v_switch_sigma_volt; reads would disturb cells"
            )

    @property
    def r_antiparallel_ohm(self) -> float:
        """Resistance of an antiparallel junction at 0 V."""
        return self.r_parallel_ohm * (1 + self.tmr)

    @property
    def largest_junction_volt(self) -> float:
        """Largest voltage on one nominal junction at full drive: antiparallel, all others parallel (0 V resistances)."""
        others_ohm = (self.junctions - 1) * self.r_parallel_ohm
        return self.v_read_volt * self.r_antiparallel_ohm / (self.r_antiparallel_ohm + others_ohm)

    @property
    def is_linear(self) -> bool:
        """Whether resistances do not change with voltage."""
        return self.slope_parallel_ohm_per_volt == self.slope_antiparallel_ohm_per_volt == 0

    @cached_property
    def cell_siemens(self) -> np.ndarray:
        """Effective conductance of a nominal cell, float64 [N + 1], by number of antiparallel junctions: falling."""
        antiparallel = np.arange(self.junctions) < np.arange(self.junctions + 1)[:, None]
        ohm = np.where(antiparallel, self.r_antiparallel_ohm, self.r_parallel_ohm)
        slope = np.where(antiparallel, self.slope_antiparallel_ohm_per_volt, self.slope_parallel_ohm_per_volt)
        terms = fit_current(ohm.T, slope.T, self.v_read_volt)
        # Least-squares slope over uniform u: integral of u I(u) over integral of u^2.
        return np.asarray((np.array([1, 3 / 4, 3 / 5]) @ terms) / self.v_read_volt)

    @property
    def level_siemens(self) -> float:
        """See the base: largest less smallest effective conductance."""
        return float(self.cell_siemens[0] - self.cell_siemens[-1])

    @cached_property
    def pairs(self) -> np.ndarray:
        """Antiparallel junctions in the plus and the minus cell of each level, int [levels, 2]; levels rise."""
        states = self.junctions + 1
        plus, minus = np.divmod(np.arange(states**2), states)
        difference = self.cell_siemens[plus] - self.cell_siemens[minus]
        steps = np.rint(difference / self.level_siemens / _LEVEL_STEP).astype(np.int64)
        # Of pairs with the same difference the one with the least conductance, hence the least current.
        order = np.lexsort((-(plus + minus), steps))
        first = np.unique(steps[order], return_index=True)[1]
        return np.stack([plus, minus], axis=1)[order[first]]

    @property
    def levels(self) -> np.ndarray:
        """Cell levels, float32, rising from -1 to 1: N (N + 1) + 1 differences of conductances unless some coincide."""
        g = self.cell_siemens
        return np.asarray((g[self.pairs[:, 0]] - g[self.pairs[:, 1]]) / self.level_siemens, np.float32)

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; all cells are programmed in N + 1 cycles, whatever the array's size.

        Energies are V^2 G t of all cells: a read at full drive (an upper estimate), writing at one cycle per cell.
        """
        cells = 2 * self.columns
        mean_siemens = float(self.cell_siemens.mean())
        write_j = (self.junctions * self.v_write_per_junction_volt) ** 2 * mean_siemens * self.t_write_cycle_s
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=self.levels,
            drive="signed",
            t_write_row_s=(self.junctions + 1) * self.t_write_cycle_s / self.rows,
            t_read_s=self.t_read_s,
            e_write_row_j=cells * write_j,
            e_read_j=self.rows * cells * self.v_read_volt**2 * mean_siemens * self.t_read_s,
        )

    @property
    def pair_ohm(self) -> np.ndarray:
        """Resistances at 0 V of the plus and the minus cell of each level, float64 [levels, 2]."""
        return self.junctions * self.r_parallel_ohm + self.pairs * (self.r_antiparallel_ohm - self.r_parallel_ohm)

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """See the base: how many junctions of the two cells are antiparallel, and their resistances at 0 V."""
        plus, minus = np.moveaxis(self.pairs[cells], -1, 0)
        plus_ohm, minus_ohm = np.moveaxis(self.pair_ohm[cells], -1, 0)
        return {
            "plus_antiparallel_junctions": plus,
            "minus_antiparallel_junctions": minus,
            "plus_ohm": plus_ohm,
            "minus_ohm": minus_ohm,
        }

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports: resistances at 0 V of the plus and the minus cell."""
        return [f"{plus:.0f}/{minus:.0f} Ohm" for plus, minus in self.pair_ohm]


def fit_current(ohm: np.ndarray, slope: np.ndarray, v_full_volt: float) -> np.ndarray:
    """Current of series junctions as a function of the drive u: u a0 + u|u| a1 + u^3 a2, in ampere.

    Args:
        ohm: float64 [junctions, ...], resistances at 0 V.
        slope: the same shape, Ohm per volt on the junction.
        v_full_volt: voltage over all of them at u = 1.

    Returns:
        float64 [3, ...].
    """
    linear = v_full_volt / ohm.sum(axis=0)
    if not np.any(slope):
        return np.stack([linear, np.zeros_like(linear), np.zeros_like(linear)])
    per_drive = [current_at(ohm, slope, u * v_full_volt) / u for u in _NODES]
    inverse = np.linalg.inv(_NODES[:, None] ** np.arange(3))
    return np.tensordot(inverse, np.stack(per_drive), axes=1)


class SerialJunctionArray(ConductanceArray):
    """A chip whose junctions each have their own resistances and slopes; in state n the first n are antiparallel."""

    def __init__(self, parameters: SerialJunctionParameters, seed: int = 0) -> None:
        super().__init__(parameters, parameters.levels, seed)
        self.parameters = parameters
        self.writes_differ = False

    def junctions(self, array: int) -> tuple[np.ndarray, np.ndarray]:
        """Resistances at 0 V and slopes, each float64 [side, junction, state, rows, columns]: parallel, antiparallel.

        All four lines of a junction vary independently (assumed: the paper gives a spread of each).
        """
        p = self.parameters
        shape = (2, 2, p.junctions, 2, p.rows, p.columns)
        z = standard_normal(key_of("junctions", self.seed, array), shape).astype(np.float64)
        ohm = np.array([p.r_parallel_ohm, p.r_antiparallel_ohm])[:, None, None]
        slope = np.array([p.slope_parallel_ohm_per_volt, p.slope_antiparallel_ohm_per_volt])[:, None, None]
        sampled = ohm * np.maximum(1 + p.resistance_sigma * z[0], 0.01)  # a junction is never a short
        return sampled, slope * (1 + p.slope_sigma * z[1])

    def antiparallel(self, array: int, cells: np.ndarray) -> np.ndarray:
        """Which junctions are antiparallel after cells were written: bool [side, junction, rows, columns].

        Written until right: the first n of state n, which are as good as any. In an open loop: those that one programming
        voltage has switched, so some cells end in other states than wanted.
        """
        p = self.parameters
        wanted = np.stack([p.pairs[cells, side] for side in range(2)])
        if not p.open_loop_writing:
            return np.asarray(np.arange(p.junctions)[:, None, None] < wanted[:, None])
        ohm, slope = (np.moveaxis(each, 2, 0) for each in self.junctions(array))
        z = standard_normal(key_of("junction thresholds", self.seed, array), ohm.shape).astype(np.float64)
        threshold = p.v_switch_volt + p.v_switch_sigma_volt * z
        volts = programming_volts(p)
        found = []
        for side in range(2):
            switching = SwitchingCells(ohm[:, side], slope[:, side], np.maximum(threshold[:, side], 0.0))
            reached = (switching.write_volts() <= volts[wanted[side]]).sum(axis=0)
            found.append(switching.order() < reached)
        return np.stack(found)

    def currents(self, array: int, cells: np.ndarray) -> np.ndarray:
        """Terms of each cell's current, plus and minus: float64 [side, terms, rows, columns], ampere at full drive."""
        p = self.parameters
        ohm, slope = self.junctions(array)
        sides = []
        for side, antiparallel in enumerate(self.antiparallel(array, cells)):
            sides.append(
                fit_current(
                    np.where(antiparallel, ohm[side, :, 1], ohm[side, :, 0]),
                    np.where(antiparallel, slope[side, :, 1], slope[side, :, 0]),
                    p.v_read_volt,
                )
            )
        return np.stack(sides)

    def loaded(self, currents: np.ndarray) -> np.ndarray:
        """Currents as the divider's voltages stand for them: times G_sum over the branch's own sum of conductances.

        A branch of Fig. 4a without load is at sum_i G_i V_i / sum_i G_i; the paper takes G_sum = m (G_min + G_max) / 2 for
        the lower sum. All rows of the array load it; conductances are those at small voltages.

        Args:
            currents: of `currents`.
        """
        p = self.parameters
        common = p.rows * (p.cell_siemens[0] + p.cell_siemens[-1]) / 2
        own = currents[:, 0].sum(axis=1) / p.v_read_volt
        return currents * (common / own)[:, None, None, :]

    def matrices(self, written: WrittenImages) -> np.ndarray:
        """See the base: a term per power of the drive; one where resistances do not depend on voltage."""
        p = self.parameters
        if not p.cells_deviate:
            return self.exact_values(written.cells)[:, None]
        images = []
        for array, image in zip(written.arrays, written.cells, strict=True):
            plus, minus = (
                self.loaded(self.currents(int(array), image)) if p.divider_loads else self.currents(int(array), image)
            )
            images.append((plus - minus) / (p.v_read_volt * p.level_siemens))
        return np.stack(images)[:, : 1 if p.is_linear else 3]
