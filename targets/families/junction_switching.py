"""Switching of serial junctions: R(V) loops, write voltages of the states, and what open-loop programming leaves.

Source: Rzeszut et al., Sci. Rep. 12, 7178 (2022): "Mulltibit-cell based artificial synapse" (two threshold points per junction,
spreads of all parameters, Figs. 1 and 3) and "Programming of the synapse" (all cells in as many cycles as there are states).
Table 1 is not in the text: one mean threshold for both directions, normal, independent spreads (assumed).

Junctions in series carry one current. A parallel junction switches where its own voltage v = I (r + slope v) reaches its
threshold, at the current I = v_t / (r + slope v_t), whatever the others do; so junctions switch in the order of these currents.
A junction that becomes antiparallel takes more of the voltage, the others less, hence a higher voltage for the next: N write
voltages. The other way round, junctions that become parallel leave more for the rest: one voltage erases all.

Programming: erase, then for each state one pulse on the cells that want it (N + 1 cycles). Its amplitude lies half-way between
the medians of the write voltages of this state and the next, for all cells the same; a cell whose own voltages lie elsewhere
ends in another state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xbcompile.targets.counter_random import key_of, standard_normal

PARALLEL, ANTIPARALLEL = 0, 1
# Thresholds and resistances stay above this part of their means.
_LEAST = 0.05
_POPULATION = 2000  # cells of which medians of write voltages are taken
_NEWTON_STEPS = 5


class JunctionNumbers(Protocol):
    """What a description says of junctions: see `serial_junctions.SerialJunctionParameters`."""

    @property
    def junctions(self) -> int:
        """In a cell."""
        ...

    @property
    def r_parallel_ohm(self) -> float:
        """At 0 V."""
        ...

    @property
    def r_antiparallel_ohm(self) -> float:
        """At 0 V."""
        ...

    @property
    def resistance_sigma(self) -> float:
        """Relative spread of both."""
        ...

    @property
    def slope_parallel_ohm_per_volt(self) -> float:
        """Change with voltage."""
        ...

    @property
    def slope_antiparallel_ohm_per_volt(self) -> float:
        """Change with voltage."""
        ...

    @property
    def slope_sigma(self) -> float:
        """Relative spread of both."""
        ...

    @property
    def v_switch_volt(self) -> float:
        """Mean threshold, either way."""
        ...

    @property
    def v_switch_sigma_volt(self) -> float:
        """Its spread."""
        ...


def current_at(ohm: np.ndarray, slope: np.ndarray, volt: float | np.ndarray) -> np.ndarray:
    """Current of series junctions at a voltage over all of them, by Newton's method, in ampere.

    Args:
        ohm: float64 [junctions, ...], resistances at 0 V.
        slope: the same shape, Ohm per volt on the junction.
        volt: of the shape of the result, or one for all, at least 0.

    Returns:
        float64 [...].
    """
    current = volt / ohm.sum(axis=0)
    for _ in range(_NEWTON_STEPS):
        damped = 1 / (1 - current * slope)
        held = ohm * damped
        current = current - (current * held.sum(axis=0) - volt) / (held * damped).sum(axis=0)
    return np.asarray(current)


@dataclass(frozen=True)
class SwitchingCells:
    """Serial junctions of any number of cells.

    Args:
        ohm: float64 [2, junctions, ...], resistances at 0 V, parallel and antiparallel.
        slope: the same shape, Ohm per volt on the junction.
        threshold_volt: the same shape: out of the parallel state (positive voltages), out of the antiparallel one (negative).
    """

    ohm: np.ndarray
    slope: np.ndarray
    threshold_volt: np.ndarray

    @classmethod
    def nominal(cls, p: JunctionNumbers) -> SwitchingCells:
        """One cell without spread.

        Args:
            p: the description's numbers.
        """
        return cls.sampled(p, np.zeros((3, 2, p.junctions)))

    @classmethod
    def of_chip(cls, p: JunctionNumbers, seed: int, cells: int) -> SwitchingCells:
        """Cells that are not part of an array, for statistics.

        Args:
            p: the description's numbers.
            seed: of the sample.
            cells: how many.
        """
        return cls.sampled(
            p, standard_normal(key_of("test cells", seed), (3, 2, p.junctions, cells)).astype(np.float64)
        )

    @classmethod
    def sampled(cls, p: JunctionNumbers, z: np.ndarray) -> SwitchingCells:
        """From unit normal deviates of resistances, slopes and thresholds.

        Args:
            p: the description's numbers.
            z: float64 [3, 2, junctions, ...].
        """
        column = (2, *([1] * (z.ndim - 2)))
        ohm = np.array([p.r_parallel_ohm, p.r_antiparallel_ohm]).reshape(column)
        slope = np.array([p.slope_parallel_ohm_per_volt, p.slope_antiparallel_ohm_per_volt]).reshape(column)
        threshold = p.v_switch_volt + p.v_switch_sigma_volt * z[2]
        return cls(
            ohm * np.maximum(1 + p.resistance_sigma * z[0], _LEAST),
            slope * (1 + p.slope_sigma * z[1]),
            np.maximum(threshold, _LEAST * p.v_switch_volt),
        )

    def switching_current(self, state: int) -> np.ndarray:
        """At which each junction leaves a state: float64 [junctions, ...], ampere, magnitudes.

        Args:
            state: PARALLEL or ANTIPARALLEL.
        """
        volt = self.threshold_volt[state]
        return np.asarray(volt / (self.ohm[state] + self.slope[state] * volt))

    def order(self) -> np.ndarray:
        """Rank of each junction among those that become antiparallel: int [junctions, ...], 0 for the first."""
        return np.argsort(np.argsort(self.switching_current(PARALLEL), axis=0), axis=0)

    def write_volts(self) -> np.ndarray:
        """Voltage over the cell at which junction after junction becomes antiparallel: float64 [junctions, ...], rising."""
        currents, rank = np.sort(self.switching_current(PARALLEL), axis=0), self.order()
        found = [self.cell_volt(current, rank < number) for number, current in enumerate(currents)]
        return np.stack(found)

    def erase_volt(self) -> np.ndarray:
        """Magnitude of the voltage at which a cell of antiparallel junctions becomes parallel altogether: float64 [...]."""
        currents = self.switching_current(ANTIPARALLEL)
        rank = np.argsort(np.argsort(currents, axis=0), axis=0)
        found = [self.cell_volt(current, rank >= number) for number, current in enumerate(np.sort(currents, axis=0))]
        return np.asarray(np.max(found, axis=0))

    def cell_volt(self, current: np.ndarray, antiparallel: np.ndarray) -> np.ndarray:
        """Voltage over cells that carry a current: the sum of I r / (1 - I slope).

        Args:
            current: float64 [...], ampere.
            antiparallel: bool [junctions, ...].
        """
        ohm, slope = self.in_states(antiparallel)
        return np.asarray((current * ohm / (1 - current * slope)).sum(axis=0))

    def in_states(self, antiparallel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resistances and slopes of junctions in these states, each float64 [junctions, ...].

        Args:
            antiparallel: bool [junctions, ...].
        """
        return (
            np.where(antiparallel, self.ohm[ANTIPARALLEL], self.ohm[PARALLEL]),
            np.where(antiparallel, self.slope[ANTIPARALLEL], self.slope[PARALLEL]),
        )

    def loop(self, volts: np.ndarray) -> np.ndarray:
        """Resistance along a sweep, slow against switching, from all parallel: float64 [sweep, ...], ohm.

        At each voltage junctions switch one by one, the one first whose voltage exceeds its threshold most.

        Args:
            volts: float64 [sweep], of either sign, none 0.
        """
        antiparallel = np.zeros(self.ohm.shape[1:], bool)
        found = []
        for volt in volts:
            leaving = PARALLEL if volt > 0 else ANTIPARALLEL
            for _ in range(len(antiparallel) + 1):
                ohm, slope = self.in_states(antiparallel)
                current = current_at(ohm, slope, abs(volt))
                excess = current * ohm / (1 - current * slope) - self.threshold_volt[leaving]
                excess = np.where(antiparallel == (leaving == ANTIPARALLEL), excess, -np.inf)
                first = np.arange(len(excess)).reshape(-1, *[1] * (excess.ndim - 1)) == excess.argmax(axis=0)
                switches = (excess >= 0) & first
                if not switches.any():
                    break
                antiparallel = antiparallel ^ switches
            found.append(abs(volt) / current)
        return np.stack(found)


def programming_volts(p: JunctionNumbers) -> np.ndarray:
    """Amplitudes of the cycles, by wanted number of antiparallel junctions: float64 [junctions + 1], the first 0; see the module.

    Args:
        p: the description's numbers.
    """
    medians = np.median(SwitchingCells.of_chip(p, 0, _POPULATION).write_volts(), axis=1)
    steps = np.diff(medians, append=2 * medians[-1] - medians[-2] if len(medians) > 1 else 1.5 * medians[-1])
    return np.append(0.0, medians + steps / 2)
