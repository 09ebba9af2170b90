"""The exact array: any real cell value, any real drive, no error. A target like any other, and the reference of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import SimulatedDevice, WrittenImages
from xbcompile.targets.loaded_images import LoadedImages
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import quantity
from xbcompile.targets.read_block import ReadBlock


@dataclass(frozen=True)
class IdealParameters(ArrayParameters):
    """Numbers of an `ideal` description."""

    rows: int = quantity("1", 1, 65536, "rows of the array")
    columns: int = quantity("1", 1, 65535, "columns of the array")
    t_write_row_s: float = quantity("s", 0, 1e3, "time to write one row")
    t_read_s: float = quantity("s", 0, 1e3, "time of one read")
    e_write_row_j: float = quantity("J", 0, 1e3, "energy to write one row")
    e_read_j: float = quantity("J", 0, 1e3, "energy of one read")

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it."""
        return ArraySpec.uniform(
            rows=self.rows,
            columns=self.columns,
            levels=None,
            drive="unbounded",
            t_write_row_s=self.t_write_row_s,
            t_read_s=self.t_read_s,
            e_write_row_j=self.e_write_row_j,
            e_read_j=self.e_read_j,
        )

    def state_names(self) -> list[str]:
        """A continuous array has no named states."""
        return []

    def without(self, source: str) -> IdealParameters:
        """See `error_sources`: there is nothing to switch off."""
        return self


class IdealArray(SimulatedDevice):
    """Reads exact sums on the array of any target: `sum_k row_weight[k] * level[cell] * drive[k]` in float64."""

    writes_differ = False

    def __init__(self, spec: ArraySpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec

    def load(self, written: WrittenImages) -> IdealImages:
        """See BatchedDevice."""
        cells = written.cells
        values = cells if self.spec.levels is None else self.spec.levels[cells]
        return IdealImages(values.astype(np.float64) * self.spec.row_weight[:, None])


@dataclass(frozen=True, eq=False)
class IdealImages(LoadedImages):
    """Weighted cell values, float64 [images, rows, columns]."""

    weighted: np.ndarray

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages; float64, as nothing converts the sums."""
        images, vectors, slices, rows = drives.shape
        flat = drives.reshape(images, vectors * slices, rows).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity pass through as in any product
            return (flat @ self.weighted).reshape(images, vectors, slices, -1)
