"""Line resistance: currents of an array whose lines have segments of some resistance, the solution of the circuit included.

The circuit is the same on both sides: a segment between source and first cell, and between last cell and ground.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.side import relative_error
from xbcompile.targets.families.line_resistance import LineResistance

SEGMENT_OHM = 3.0
VECTORS = {"64": 2_000, "256": 500}


class Circuit:
    """An array of so many rows and columns, and the voltages of its rows."""

    def __init__(self, name: str) -> None:
        size, generator = int(name), np.random.default_rng(0)
        self.resistances_ohm = 1 / generator.uniform(10e-6, 100e-6, (size, size))
        self.voltages = generator.uniform(-0.2, 0.2, (VECTORS[name], size))
        self.facts: dict[str, Any] = {"samples": VECTORS[name]}


class LinesSide(Circuit):
    """One matrix for the array, then a product."""

    def run(self, threads: int) -> None:
        with threadpool_limits(threads, "blas"):
            self.currents()

    def currents(self) -> np.ndarray:
        """Ampere, [vectors, columns]."""
        lines = LineResistance(SEGMENT_OHM, SEGMENT_OHM, SEGMENT_OHM, SEGMENT_OHM)
        found: np.ndarray = self.voltages @ lines.effective(1 / self.resistances_ohm[None])[0]
        return found


class BadcrossbarSide(Circuit):
    """All vectors in one call, which factorises once; currents of the outputs alone."""

    def __init__(self, name: str) -> None:
        import badcrossbar

        super().__init__(name)
        self.compute = badcrossbar.compute
        logging.disable(logging.INFO)
        own = LinesSide(name)
        own.voltages = self.voltages = self.voltages[:2]
        self.facts["error"] = relative_error(self.currents(), own.currents())
        self.voltages = Circuit(name).voltages

    def run(self, threads: int) -> None:
        with threadpool_limits(threads, "blas"):
            self.currents()

    def currents(self) -> np.ndarray:
        """Ampere, [vectors, columns]."""
        wanted = {"node_voltages": False, "all_currents": False}
        found: np.ndarray = self.compute(self.voltages.T, self.resistances_ohm, SEGMENT_OHM, **wanted).currents.output
        return found
