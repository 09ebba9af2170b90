"""Any device behind the batched interface, one write and one read at a time, and counting of what commissioning asks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xbcompile.data.arrays import as_array
from xbcompile.data.shaping import kind_of
from xbcompile.errors import DataError, TargetError, XbcompileError, plain, quoted
from xbcompile.ir.corrections import Effort
from xbcompile.targets import BatchedDevice, Device, LoadedImages, Read, ReadBlock, Write, WrittenImages


def checked(device: Device) -> Device:
    """The device.

    Raises:
        TargetError: it lacks write or read, or what it says of its converter is no number.
    """
    if isinstance(device, type):
        raise TargetError(f"device {device.__name__} is a class; give a device of that class, {device.__name__}(...)")
    for method in ("write", "read"):
        if not callable(getattr(device, method, None)):
            raise TargetError(f"device {type(device).__name__} has no method {method}; it needs write and read")
    lsb, limits = getattr(device, "lsb", None), getattr(device, "reading_limits", None)
    if lsb is not None and not 0 < _number(lsb) < math.inf:
        raise TargetError(f"device {type(device).__name__} has lsb {quoted(lsb)}; it must be None or a number above 0")
    if limits is not None:
        lowest, highest = map(_number, limits) if isinstance(limits, tuple | list) and len(limits) == 2 else (1, 0)
        if not lowest < highest:
            raise TargetError(
                f"device {type(device).__name__} has reading_limits {quoted(limits)}; they must be None or (lowest, highest)"
            )
    return device


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def write_once(device: Device, event: Write, cells: np.ndarray) -> None:
    """Write rows of an array.

    Raises:
        TargetError: the device fails.
    """
    cells = cells.view()
    cells.flags.writeable = False  # others look at them, too
    try:
        device.write(event, cells)
    except XbcompileError:
        raise
    except Exception as error:  # anybody's code in front of an instrument, which fails in ways of its own
        raise _failed(device, f"write image {event.image} into array {event.array}", error) from error


def read_once(device: Device, event: Read, drive: np.ndarray, columns: int) -> np.ndarray:
    """One reading, [columns].

    Raises:
        TargetError: the device fails, or gives something else than so many finite numbers.
    """
    try:
        given = device.read(event, drive)
    except XbcompileError:
        raise
    except Exception as error:  # as above
        raise _failed(device, f"read tile {event.tile} in array {event.array}", error) from error
    try:
        reading = as_array(given, "they")
        if kind_of(reading.dtype) not in ("b", "i", "u", "f"):
            raise DataError(f"they are of type {plain(str(reading.dtype))}")
    except DataError as error:
        raise TargetError(
            f"device gave readings that are no numbers for tile {event.tile} in array {event.array}: {error}; "
            f"wanted {columns} finite numbers"
        ) from None
    if reading.shape != (columns,) or not np.isfinite(reading).all():
        raise TargetError(
            f"device gave readings of shape {reading.shape}, {int(np.sum(~np.isfinite(reading)))} of them not finite, for tile "
            f"{event.tile} in array {event.array}; wanted {columns} finite numbers"
        )
    return np.asarray(reading)


def _failed(device: Device, doing: str, error: Exception) -> TargetError:
    reason = quoted(" ".join(str(error).split()))
    return TargetError(f"device {type(device).__name__} failed to {doing}: {type(error).__name__}: {reason}")


class HeldImages:
    """What arrays hold: an image is written where its array holds another one, other cells of it, or one of another write."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, int, np.ndarray]] = {}

    def write(self, array: int, image: int, number: int, cells: np.ndarray) -> bool:
        """Write an image unless it is there; whether it was not."""
        held = self._held.get(array)
        if held is not None and held[:2] == (image, number) and np.array_equal(held[2], cells):
            return False
        self._held[array] = image, number, cells
        return True


class OneByOne:
    """Adapter that measures layer by layer, as commissioning does: an image is written where it is not held, see `HeldImages`,
    and read vector by vector and slice by slice. A schedule is executed by `player` instead.
    """

    writes_differ = True

    def __init__(self, device: Device) -> None:
        self.device = checked(device)
        self.lsb = getattr(device, "lsb", None)
        self.reading_limits = getattr(device, "reading_limits", None)
        self._held = HeldImages()

    def write(self, event: Write, cells: np.ndarray) -> None:
        """See Device."""
        if self._held.write(event.array, event.image, event.number, cells):
            write_once(self.device, event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        """See Device."""
        return self.device.read(event, drive)

    def load(self, written: WrittenImages) -> LoadedImages:
        """See BatchedDevice; nothing is written before it is read, as several images may share an array."""
        return _Pending(self, written)


class _Pending(LoadedImages):
    def __init__(self, device: OneByOne, written: WrittenImages) -> None:
        self.device, self.written = device, written

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages."""
        written = self.written
        images, vectors, slices, rows = drives.shape
        columns = written.cells.shape[2]
        readings = np.empty((images, vectors, slices, columns))
        at_s = np.broadcast_to(reads.at_s, (images, vectors, slices))
        drives = drives.view()
        drives.flags.writeable = False  # the device is handed views
        for i in range(images):
            array, number = int(written.arrays[i]), int(written.numbers[i].max())
            write = Write(array, int(written.images[i]), np.arange(rows), number, float(written.written_s[i].max()))
            self.device.write(write, written.cells[i])
            for v in range(vectors):
                for t in range(slices):
                    event = Read(
                        array,
                        number,
                        int(reads.tiles[i]),
                        reads.use,
                        reads.first_vector + v,
                        reads.first_slice + t,
                        float(at_s[i, v, t]),
                    )
                    readings[i, v, t] = read_once(self.device.device, event, drives[i, v, t], columns)
        return readings


def batched(device: Device) -> BatchedDevice:
    """The device itself where it has the batched path, else its adapter."""
    return device if isinstance(device, BatchedDevice) else OneByOne(device)


class EffortCounter:
    """Counts what commissioning asks of a chip, event by event, however many are evaluated together."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.weight_updates = self.reads = 0
        self._held = HeldImages()

    @property
    def effort(self) -> Effort:
        """Events so far."""
        return Effort(self.weight_updates, self.weight_updates * self.rows, self.reads)

    def note(self, written: WrittenImages, reads: int) -> None:
        """Images are read in turn, each so many times."""
        for array, image, numbers, cells in zip(
            written.arrays.tolist(), written.images.tolist(), written.numbers, written.cells, strict=True
        ):
            self.weight_updates += self._held.write(array, image, int(numbers.max()), cells)
        self.reads += len(written.arrays) * reads

    def note_batches(self, first: WrittenImages, last: WrittenImages, batches: np.ndarray) -> None:
        """Images are written in turn, each for every batch from a first to a last one.

        Args:
            first: as the first batch finds them.
            last: as the last one does.
            batches: int [n], for how many batches each image is written anew; 1: it stays.
        """
        for i, (array, image) in enumerate(zip(first.arrays.tolist(), first.images.tolist(), strict=True)):
            cells = first.cells[i]
            self.weight_updates += self._held.write(array, image, int(first.numbers[i].max()), cells)
            self.weight_updates += int(batches[i]) - 1
            self._held.write(array, image, int(last.numbers[i].max()), cells)
