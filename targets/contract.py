"""The device contract: two methods, `write` and `read`, that take the events of a schedule one by one.

A device is anything with these two: a simulated array, a bench, a recording. An event says what happens and when; what a device
draws at random is keyed by the event alone, never by the order of evaluation: what a write draws by (chip, array, number of the
write), what a read draws by (chip, array, tile, vector, slice, column). Events come in order of time.

Simulated devices state both methods through a batched path, which takes many events at once and gives the same readings to the
bit: written images are loaded, and tiles of them add up the readings of coded vectors (see `loaded_images`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from xbcompile.targets.array_memory import ArrayMemory
from xbcompile.targets.loaded_images import LoadedImages
from xbcompile.targets.read_block import ReadBlock


class Write(NamedTuple):
    """An image is written into an array.

    Attributes:
        array: which array of the chip.
        image: which weight image of the program.
        rows: intp [n], the physical rows that are written, ascending; the others keep what they hold.
        number: how many writes this array had before, in its life; what the write draws is keyed by it. A run that goes elsewhere
            in a session's life goes on with the numbers of that place.
        at_s: when the write starts, seconds from the start of the session.
    """

    array: int
    image: int
    rows: npt.NDArray[np.intp]
    number: int
    at_s: float


class Read(NamedTuple):
    """All columns of an array are read once.

    Attributes:
        array: which array of the chip.
        write: number of the write whose image is read.
        tile: which tile of the program the rows are driven for.
        use: which use of the tile's matrix: uses are the program's layers, and the steps of its recurrences.
        vector: running number of the input vector, over all that the tile is read with in the life of the session.
        slice: which slice of the vector's input code.
        at_s: when the read starts, seconds from the start of the session.
    """

    array: int
    write: int
    tile: int
    use: int
    vector: int
    slice: int
    at_s: float


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

    def write(self, event: Write, cells: np.ndarray) -> None:
        """Write the event's rows of `cells`, [rows, columns] level indices (uint8; float32 values on continuous arrays).

        Args:
            event: which array, image and rows, and when.
            cells: [rows, columns] of the whole array: level indices (uint8; float32 values on continuous arrays).
        """

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        """Drive the rows ([rows] float32, in the target's drive alphabet) and read every column once.

        Args:
            event: which array and what for, and when.
            drive: float32 [rows], in the target's drive alphabet.

        Returns:
            float32 or float64 [columns], each `sum_k row_weight[k] * level[cell[k, m]] * drive[k]` with the device's errors,
            in normalised dot-product units.
        """


@runtime_checkable
class HasIdentity(Protocol):
    """What a device that is one certain chip offers beside `write` and `read`.

    Attributes:
        identity: name of the chip, to which corrections are bound; of other devices it is their class's.
    """

    identity: str


@runtime_checkable
class HasDefectMap(Protocol):
    """What a device that knows its defects offers beside `write` and `read`."""

    def cell_limits(self, array: int) -> np.ndarray | None:
        """What each cell of an array can hold where its defects are known and made good as far as they can be.

        Args:
            array: which array of the chip.

        Returns:
            float64 [2, rows, columns], lowest and highest cell value in level units; None where every cell is whole.
        """

    def with_known_defects(self) -> Device:
        """The same chip, whose writes use its defect map: another object, so that this one stays as it is."""


@dataclass(frozen=True, eq=False)
class WrittenImages:
    """Images as writes left them, for the batched path.

    Args:
        arrays: int [n], the array that each sits in.
        images: int [n], which images of the program.
        cells: [n, rows, columns], level indices or values.
        numbers: int64 [n, rows] or [n, 1], the number of the last write of each row.
        written_s: float64 of the same shape, when that write started.
    """

    arrays: np.ndarray
    images: np.ndarray
    cells: np.ndarray
    numbers: np.ndarray
    written_s: np.ndarray

    @classmethod
    def once(cls, arrays: np.ndarray, cells: np.ndarray, number: int = 0) -> WrittenImages:
        """Images that were each written by one write at time 0; arrays int [n], cells [n, rows, columns].

        Args:
            arrays: int [n], the array that each sits in.
            cells: [n, rows, columns], level indices or values.
            number: of each write.
        """
        numbers = np.full((len(arrays), 1), number, np.int64)
        return cls(np.asarray(arrays), np.arange(len(arrays)), cells, numbers, np.zeros(numbers.shape))


@runtime_checkable
class BatchedDevice(Device, Protocol):
    """A device that evaluates many events at once; equal to write and read, reading for reading.

    Attributes:
        writes_differ: whether two writes of the same cells into the same array can leave different things, because a write
            draws at random or its age matters. Where they cannot, one prepared image serves all writes.
    """

    writes_differ: bool

    def load(self, written: WrittenImages) -> LoadedImages:
        """The images as their writes left them.

        Args:
            written: cells, and which writes left them.
        """


class SimulatedDevice:
    """Base of the simulated devices: write and read stated through the batched path, so the two cannot differ.

    Subclasses give `load`, and set `lsb`, `reading_limits` and `writes_differ`.

    Attributes:
        defects_known: whether a write uses the chip's defect map, see `with_known_defects`.
        memory: what its arrays are made of.
        separable: whether the family's `without` switches the sources of error of this device off one by one.
    """

    lsb: float | None = None
    reading_limits: tuple[float, float] | None = None
    writes_differ: bool = True
    defects_known: bool = False
    separable: bool = True

    def __init__(self) -> None:
        self._held: dict[int, WrittenImages] = {}
        self._prepared: dict[int, LoadedImages] = {}
        self.memory = ArrayMemory()

    def cell_limits(self, array: int) -> np.ndarray | None:
        """See HasDefectMap; every cell is whole unless the family says otherwise."""
        return None

    def with_known_defects(self) -> Self:
        """See HasDefectMap; it holds nothing yet."""
        known = copy.copy(self)
        known.defects_known = True
        known._held, known._prepared = {}, {}
        return known

    def load(self, written: WrittenImages) -> LoadedImages:
        """See BatchedDevice."""
        raise TypeError(f"{type(self).__name__} must define load")

    def write(self, event: Write, cells: np.ndarray) -> None:
        """See Device."""
        rows = np.asarray(event.rows)
        held = self._held.get(event.array)
        if held is None and len(rows) < len(cells):
            raise RuntimeError(f"array {event.array} is written in part before it is written whole")
        if held is None:
            held = WrittenImages.once(np.array([event.array]), np.array(cells)[None])
        new = held.cells.copy()
        new[0, rows] = cells[rows]
        numbers, written_s = (
            np.array(np.broadcast_to(each, (1, len(cells)))) for each in (held.numbers, held.written_s)
        )
        numbers[0, rows], written_s[0, rows] = event.number, event.at_s
        if len(rows) == len(cells):
            numbers, written_s = numbers[:, :1], written_s[:, :1]
        self._held[event.array] = WrittenImages(held.arrays, np.array([event.image]), new, numbers, written_s)
        self._prepared.pop(event.array, None)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        """See Device."""
        if event.array not in self._held:
            raise RuntimeError(f"array {event.array} is read before it is written")
        if event.array not in self._prepared:
            self._prepared[event.array] = self.load(self._held[event.array])
        drives = np.asarray(drive, np.float32)[None, None, None, :]
        at_s = np.full((1, 1, 1), event.at_s)
        block = ReadBlock(np.array([event.tile]), event.vector, event.slice, event.use, lambda: at_s)
        return self._prepared[event.array].read(drives, block)[0, 0, 0]


def draws_of_rows(numbers: np.ndarray, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """What the writes of one image drew, row by row.

    Args:
        numbers: int64 [rows] or [1], the number of the last write of each row.
        draw: what a write of this number draws, [..., rows, columns].

    Returns:
        the same shape and type.
    """
    different = np.unique(numbers)
    first = draw(int(different[0]))
    if len(different) == 1:
        return first
    result = np.array(first)
    for number in different[1:].tolist():
        rows = np.flatnonzero(numbers == number)
        result[..., rows, :] = draw(number)[..., rows, :]
    return result
