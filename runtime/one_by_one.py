"""Any device behind the batched interface, one write and one read at a time: real benches, and the literal reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.targets import BatchedDevice, Device, LoadedImages, ReadStamp


class OneByOne:
    """Adapter that executes exactly what a schedule says: write an image, read it vector by vector and slice by slice."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.lsb = device.lsb
        self.reading_limits = device.reading_limits

    def write(self, array: int, cells: np.ndarray) -> None:
        """See Device."""
        self.device.write(array, cells)

    def read(self, array: int, drive: np.ndarray, stamp: ReadStamp) -> np.ndarray:
        """See Device."""
        return self.device.read(array, drive, stamp)

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        """See BatchedDevice; nothing is written before it is read, as several images may share an array."""
        return _Pending(self.device, arrays, tiles, cells)


@dataclass(frozen=True, eq=False)
class _Pending:
    device: Device
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
                    readings[i, v, t] = self.device.read(int(self.arrays[i]), drives[i, v, t], stamp)
        return readings


def batched(device: Device) -> BatchedDevice:
    """The device itself where it has the batched path, else its adapter."""
    return device if isinstance(device, BatchedDevice) else OneByOne(device)
