"""Any device behind the batched interface, one write and one read at a time: real benches, and the literal reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.targets import BatchedDevice, Device, LoadedImages, ReadStamp


class OneByOne:
    """Adapter that executes a placement literally: write an image, read it vector by vector and slice by slice.

    An image that its array holds already is not written again. Writes follow the order of execution here, tile by tile for
    all vectors at hand; what a batch costs is the schedule's.

    Raises:
        TargetError: the device lacks write or read.
    """

    def __init__(self, device: Device) -> None:
        for method in ("write", "read"):
            if not callable(getattr(device, method, None)):
                raise TargetError(f"device {type(device).__name__} has no method {method}; it needs write and read")
        self.device = device
        self.lsb = getattr(device, "lsb", None)
        self.reading_limits = getattr(device, "reading_limits", None)
        self.held: dict[int, np.ndarray] = {}

    def write(self, array: int, cells: np.ndarray) -> None:
        """See Device."""
        held = self.held.get(array)
        if held is None or not np.array_equal(held, cells):
            self.device.write(array, cells)
            self.held[array] = cells

    def read(self, array: int, drive: np.ndarray, stamp: ReadStamp) -> np.ndarray:
        """See Device."""
        return self.device.read(array, drive, stamp)

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        """See BatchedDevice; nothing is written before it is read, as several images may share an array."""
        return _Pending(self, arrays, tiles, cells)


@dataclass(frozen=True, eq=False)
class _Pending:
    device: OneByOne
    arrays: np.ndarray
    tiles: np.ndarray
    cells: np.ndarray

    def read(self, drives: np.ndarray, first_vector: int) -> np.ndarray:
        """See LoadedImages."""
        images, vectors, slices, _ = drives.shape
        readings = np.empty((images, vectors, slices, self.cells.shape[2]))
        for i in range(images):
            self.device.write(int(self.arrays[i]), self.cells[i])
            for v in range(vectors):
                for t in range(slices):
                    stamp = ReadStamp(int(self.tiles[i]), first_vector + v, t)
                    reading = np.asarray(self.device.read(int(self.arrays[i]), drives[i, v, t], stamp))
                    if reading.shape != (self.cells.shape[2],) or not np.isfinite(reading).all():
                        raise TargetError(
                            f"device gave readings of shape {reading.shape}, {int(np.sum(~np.isfinite(reading)))} of them "
                            f"not finite, for tile {stamp.tile} in array {int(self.arrays[i])}; "
                            f"wanted {self.cells.shape[2]} finite numbers"
                        )
                    readings[i, v, t] = reading
        return readings


def batched(device: Device) -> BatchedDevice:
    """The device itself where it has the batched path, else its adapter."""
    return device if isinstance(device, BatchedDevice) else OneByOne(device)
