"""Array of phase-change cells whose conductance fades with time.

Source: G(t) = G(t_0) (t / t_0)**-nu, Joshi et al., Nat. Commun. 11, 2473 (2020), "Accurate deep neural network inference using
    computational phase-change memory": nu is near 0.031 and differs from device to device. t counts from programming, t_0 later.
A weight is a pair of cells read as one (assumed), so a cell of the array holds any of `states` levels from -1 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from xbcompile.ir import ArraySpec
from xbcompile.targets import LoadedImages, ReadBlock, WrittenImages
from xbcompile.targets.contract import SimulatedDevice
from xbcompile.targets.counter_random import key_of, standard_normal
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import quantity


@dataclass(frozen=True)
class DriftingParameters(ArrayParameters):
    """Numbers of a `drifting` description."""

    devices: ClassVar[Mapping[str, str]] = {"physics": "xbcompile_sample.drifting:DriftingArray"}
    rows: int = quantity("1", 1, 1024, "rows (voltage inputs)")
    columns: int = quantity("1", 1, 1024, "columns of weights")
    states: int = quantity("1", 2, 256, "equidistant levels of a cell, -1 to 1")
    drift_exponent: float = quantity("1", 0, 1, "nu in G(t) = G(t_0) (t / t_0)**-nu, mean of all cells")
    drift_sigma: float = quantity("1", 0, 1, "standard deviation of nu from cell to cell")
    t_0_s: float = quantity("s", 1e-9, 1e6, "time after programming at which a cell has its nominal conductance")
    t_write_row_s: float = quantity("s", 0, 1e3, "time to write one row")
    t_read_s: float = quantity("s", 0, 1e3, "time of one read")
    e_write_row_j: float = quantity("J", 0, 1e3, "energy to write one row")
    e_read_j: float = quantity("J", 0, 1e3, "energy of one read")

    @property
    def levels(self) -> np.ndarray:
        """Cell levels, float32 [states]."""
        return np.linspace(-1, 1, self.states).astype(np.float32)

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it."""
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=self.levels,
            drive="signed",
            t_write_row_s=self.t_write_row_s,
            t_read_s=self.t_read_s,
            e_write_row_j=self.e_write_row_j,
            e_read_j=self.e_read_j,
        )

    def without(self, source: str) -> Self:
        """See `error_sources`: drift is systematic, and there is nothing else."""
        return replace(self, drift_exponent=0.0, drift_sigma=0.0) if source == "systematic" else self


class DriftingArray(SimulatedDevice):
    """A chip of drifting cells, each with its own exponent."""

    def __init__(self, parameters: DriftingParameters, seed: int = 0) -> None:
        super().__init__()
        self.parameters = parameters
        self.seed = seed

    def exponents(self, array: int) -> np.ndarray:
        """nu of each cell of an array, float64 [rows, columns], at least 0."""
        p = self.parameters
        spread = standard_normal(key_of("exponents", self.seed, array), (p.rows, p.columns)).astype(np.float64)
        return np.maximum(p.drift_exponent + p.drift_sigma * spread, 0.0)

    def load(self, written: WrittenImages) -> "DriftingImages":
        """See BatchedDevice."""
        p = self.parameters
        exponents = np.stack([self.exponents(int(array)) for array in written.arrays])
        return DriftingImages(p.levels[written.cells].astype(np.float64), exponents, written.written_s, p.t_0_s)


@dataclass(frozen=True, eq=False)
class DriftingImages(LoadedImages):
    """Written images.

    Args:
        values: cell values at t_0, float64 [images, rows, columns].
        exponents: nu of the cells that hold them, the same shape.
        written_s: when each row was written, float64 [images, rows] or [images, 1].
        t_0_s: when cells have their nominal conductance, after they are written.
    """

    values: np.ndarray
    exponents: np.ndarray
    written_s: np.ndarray
    t_0_s: float

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages: each read sees its cells as old as they are then; one sum at a time, in a fixed order."""
        images, vectors, slices, _ = drives.shape
        at_s = np.broadcast_to(reads.at_s, (images, vectors, slices))
        readings = np.empty((images, vectors, slices, self.values.shape[2]))
        for place in np.ndindex(images, vectors, slices):
            readings[place] = (drives[place][:, None] * self.faded(place[0], float(at_s[place]))).sum(axis=0)
        return readings

    def faded(self, image: int, at_s: float) -> np.ndarray:
        """Cell values of an image at a time, float64 [rows, columns]."""
        age = (at_s - self.written_s[image, :, None]) / self.t_0_s
        return self.values[image] * (1 + age) ** -self.exponents[image]
