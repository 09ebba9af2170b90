"""A device whose every read is compared with the exact one: errors by tile and physical column."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.program.program import Program
from xbcompile.runtime.one_by_one import EffortCounter
from xbcompile.targets import BatchedDevice, LoadedImages, Read, ReadBlock, Write, WrittenImages
from xbcompile.targets.families.ideal import IdealArray


class ErrorRecorder:
    """Reads exactly, and adds up what the device's readings would have been off.

    An image that several arrays hold is read in each of them.

    Attributes:
        shares: float64 [slices], what the slices of the layer that is run count; their sum is 1.
        count: float64 [tiles], vectors seen of each tile.
        total: float64 [tiles, columns], sums of errors (mean over slices) by physical column.
        square: the same of their squares.
    """

    def __init__(self, device: BatchedDevice, program: Program, counter: EffortCounter) -> None:
        self.counter = counter
        self.device, self.ideal = device, IdealArray(program.spec)
        self.lsb, self.reading_limits, self.writes_differ = device.lsb, device.reading_limits, device.writes_differ
        self.schedule = program.schedule
        self.shares = np.ones(1)
        shape = (len(program.schedule.tiles), program.spec.columns)
        self.count = np.zeros(shape[0])
        self.total, self.square = np.zeros(shape), np.zeros(shape)

    def write(self, event: Write, cells: np.ndarray) -> None:
        """See Device."""
        self.device.write(event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        """See Device."""
        raise TypeError("a recorder is read in blocks")

    def load(self, written: WrittenImages) -> LoadedImages:
        """See BatchedDevice."""
        copies = self.schedule.arrays_of(written.images)
        each = [replace(written, arrays=held) for held in copies.T]
        return _Recorded(self, each, [self.device.load(copy) for copy in each], self.ideal.load(written))


@dataclass(frozen=True, eq=False)
class _Recorded(LoadedImages):
    recorder: ErrorRecorder
    written: list[WrittenImages]
    loaded: list[LoadedImages]
    exact: LoadedImages

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages."""
        exact = self.exact.read(drives, reads)
        for written, each in zip(self.written, self.loaded, strict=True):
            self.recorder.counter.note(written, drives.shape[1] * drives.shape[2])
            readings = each.read(drives, reads)
            error = np.einsum("t,ivtc->ivc", self.recorder.shares, readings - exact, dtype=np.float64)
            np.add.at(self.recorder.total, reads.tiles, error.sum(axis=1))
            np.add.at(self.recorder.square, reads.tiles, np.square(error).sum(axis=1))
            np.add.at(self.recorder.count, reads.tiles, error.shape[1])
        return exact
