"""The device contract: two methods, write and read, and an optional batched path for simulated arrays."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class ReadStamp(NamedTuple):
    """Which read this is: the counter from which simulated noise is drawn; a real bench ignores it."""

    tile: int
    vector: int
    slice: int


@runtime_checkable
class Device(Protocol):
    """Anything that can write an array and read its columns.

    Attributes:
        lsb: reading difference of one converter code, in dot-product units; None without a converter.
        reading_limits: smallest and largest reading that the converter can give, before digital offsets; None without
            one.
    """

    lsb: float | None
    reading_limits: tuple[float, float] | None

    def write(self, array: int, cells: np.ndarray) -> None:
        """Write `cells`, [rows, columns] level indices (uint8; float32 values on continuous arrays), into an array."""

    def read(self, array: int, drive: np.ndarray, stamp: ReadStamp) -> np.ndarray:
        """Drive the rows ([rows] float32, in the target's drive alphabet) and read every column once.

        Returns:
            float32 [columns], each `sum_k row_weight[k] * level[cell[k, m]] * drive[k]` with the device's errors, in
            normalised dot-product units.
        """


class LoadedImages(Protocol):
    """Several weight images as they sit in their arrays, each ready for many reads of one tile."""

    def read(self, drives: np.ndarray, first_vector: int) -> np.ndarray:
        """Read all images for a block of vectors.

        Args:
            drives: float32 [images, vectors, slices, rows].
            first_vector: index of the block's first vector, the noise counter.

        Returns:
            float32 [images, vectors, slices, columns].
        """


@runtime_checkable
class BatchedDevice(Device, Protocol):
    """A simulated device that evaluates many reads at once; equal to write and read, reading for reading."""

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        """Write the images that hold tiles [n] into arrays [n]; cells is [n, rows, columns]."""


class SimulatedDevice:
    """Base of the simulated devices: write and read stated through the batched path, so the two cannot differ.

    Subclasses give `load`, and a loaded object whose `read` also accepts `first_slice`.

    Attributes:
        defects_known: whether a write may use the chip's defect map, see `cell_limits`.
    """

    lsb: float | None = None
    reading_limits: tuple[float, float] | None = None
    defects_known: bool = False

    def __init__(self) -> None:
        self._cells: dict[int, np.ndarray] = {}
        self._prepared: tuple[tuple[int, int, bool], LoadedImages] | None = None  # the image that was read last

    def cell_limits(self, array: int) -> np.ndarray | None:
        """What each cell of an array can hold where its defects are known and made good as far as they can be.

        Returns:
            float64 [2, rows, columns], lowest and highest cell value in level units; None where every cell is whole.
        """
        return None

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        """See BatchedDevice."""
        raise TypeError(f"{type(self).__name__} must define load")

    def write(self, array: int, cells: np.ndarray) -> None:
        """See Device."""
        self._cells[array] = np.array(cells)
        self._prepared = None

    def read(self, array: int, drive: np.ndarray, stamp: ReadStamp) -> np.ndarray:
        """See Device."""
        if array not in self._cells:
            raise RuntimeError(f"array {array} is read before it is written")
        key = (array, stamp.tile, self.defects_known)
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = key, self.load(np.array([array]), np.array([stamp.tile]), self._cells[array][None])
        drives = np.asarray(drive, np.float32)[None, None, None, :]
        return self._prepared[1].read(drives, stamp.vector, stamp.slice)[0, 0, 0]  # type: ignore[call-arg]  # a simulated one takes the slice
