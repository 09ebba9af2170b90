"""Devices in tests: images that are written once, single writes and reads, and devices that keep the events they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbcompile.passes.contract import DevicePass
from xbcompile.program.program import Program
from xbcompile.runtime.chip_view import ProgramOnChip
from xbcompile.runtime.dataflow import Digital
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.one_by_one import EffortCounter
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import BatchedDevice, Device, Read, ReadBlock, Write, WrittenImages


def written(arrays: int | Sequence[int], cells: np.ndarray, number: int = 0) -> WrittenImages:
    """Cells [n, rows, columns] in arrays, or [rows, columns] in one, each by one write of this number."""
    held = np.atleast_1d(np.asarray(arrays))
    return WrittenImages.once(held, cells if cells.ndim == 3 else cells[None], number)


def reads_of(tiles: int | Sequence[int], first_vector: int = 0, first_slice: int = 0) -> ReadBlock:
    """Reads for tiles, or for one."""
    return ReadBlock(np.atleast_1d(np.asarray(tiles)), first_vector, first_slice)


def read_images(
    device: BatchedDevice, array: int, tile: int, cells: np.ndarray, drives: np.ndarray, first_vector: int = 0
) -> np.ndarray:
    """Readings [1, vectors, slices, columns] of one image on the batched path."""
    return device.load(written(array, cells)).read(drives, reads_of(tile, first_vector))


def write_image(device: Device, array: int, cells: np.ndarray, number: int = 0, image: int = 0) -> None:
    """Write a whole image."""
    device.write(Write(array, image, np.arange(len(cells)), number, 0.0), cells)


def read_image(
    device: Device, array: int, drive: np.ndarray, tile: int = 0, vector: int = 0, slice: int = 0, write: int = 0
) -> np.ndarray:
    """One reading [columns]."""
    return device.read(Read(array, write, tile, 0, vector, slice, 0.0), drive)


@dataclass
class Bench:
    """Nothing but the two methods of the contract, around a device; it keeps the events."""

    device: Device
    events: list[Write | Read] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lsb, self.reading_limits = self.device.lsb, self.device.reading_limits

    def write(self, event: Write, cells: np.ndarray) -> None:
        self.events.append(event)
        self.device.write(event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        self.events.append(event)
        return self.device.read(event, drive)

    @property
    def writes(self) -> list[Write]:
        return [event for event in self.events if isinstance(event, Write)]

    @property
    def reads(self) -> list[Read]:
        return [event for event in self.events if isinstance(event, Read)]


def chip_view(program: Program, chip: BatchedDevice, later: tuple[DevicePass, ...] = ()) -> ProgramOnChip:
    """What a device pass sees of a chip, as `commission` makes it."""

    def executor(placed: PlacedProgram, index: int, on: BatchedDevice, counter: EffortCounter) -> LayerExecutor:
        return LayerExecutor(placed, index, on, counter=counter)

    counter = EffortCounter(program.spec.rows)
    return ProgramOnChip(
        PreparedProgram(program), lambda _: chip, chip, later, Digital(program.network), executor, counter
    )


@dataclass
class Gives:
    """A bench that gives one thing for every reading."""

    given: Any
    lsb: float | None = None
    reading_limits: tuple[float, float] | None = None

    def write(self, event: Write, cells: np.ndarray) -> None: ...

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        return self.given
