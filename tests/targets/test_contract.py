"""The base of simulated devices: what one read at a time may remember."""

from __future__ import annotations

import numpy as np

from xbcompile.targets import LoadedImages, ReadStamp, load_target
from xbcompile.targets.contract import SimulatedDevice


class Counting(SimulatedDevice):
    """Reads the sum of its cells, plus 1,000 times the tile and 1,000,000 where defects are known; counts its loads."""

    loads = 0

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        self.loads += 1
        value = cells.sum() + 1000 * tiles[0] + 1_000_000 * self.defects_known

        class Image:
            def read(self, drives: np.ndarray, first_vector: int, first_slice: int = 0) -> np.ndarray:
                return np.full((*drives.shape[:3], 2), value, np.float32)

        return Image()


def test_an_image_is_prepared_once_and_again_after_any_change() -> None:
    device, drive = Counting(), np.ones(3, np.float32)

    def read(array: int, tile: int) -> float:
        return float(device.read(array, drive, ReadStamp(tile, 0, 0))[0])

    device.write(0, np.full((3, 2), 1))
    device.write(1, np.full((3, 2), 2))
    assert [read(0, 0), read(0, 0), read(0, 0)] == [6, 6, 6]
    assert device.loads == 1
    assert [read(1, 0), read(0, 0), read(0, 7)] == [12, 6, 7006]
    device.write(0, np.full((3, 2), 3))
    assert read(0, 7) == 7018
    device.defects_known = True
    assert read(0, 7) == 1_007_018


def test_a_device_without_a_defect_map_is_whole() -> None:
    device = load_target("mram64").device()
    assert isinstance(device, SimulatedDevice)
    assert device.cell_limits(0) is None
    assert not device.defects_known
