"""What every target and every device promises.

`check_target` is what a package that brings a target calls in its own tests; `check_device` checks one kind of chip, also one
that is no target's, such as an adapter of a bench. Devices with the batched path must give there what they give event by event.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline
from xbcompile.targets import BatchedDevice, Device, Read, ReadBlock, Target, Write, WrittenImages
from xbcompile.targets.contract import HasDefectMap
from xbcompile.targets.error_sources import DEVICE_SOURCES
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.targets.loaded_images import LoadedImages
from xbcompile.targets.tile_routing import TileRouting

IMAGES, VECTORS, SLICES, FIRST_VECTOR = 3, 6, 3, 5
ARRAYS, TILES, NUMBERS = np.array([2, 0, 2]), np.array([7, 1, 30]), np.array([0, 0, 1])
# What a read gives correlates with the exact sum at least so much, whatever the errors.
LEAST_CORRELATION = 0.5
# Without its errors a device reads exact sums but for rounding of the arithmetic, relative to the largest sum.
EXACT_TOLERANCE = 1e-5

Floats = npt.NDArray[np.floating[Any]]


def check_target(target: Target, seed: int = 3) -> None:
    """Check all that a target promises: its description, its array, each of its devices, and its sources of error.

    Args:
        target: the target, see `load_target`.
        seed: which chip is checked.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    for key in ("name", "summary", "paper"):
        assert getattr(target, key).strip(), f"target {target.name!r}: its description has no {key}"
    again = Target.from_table(json.loads(target.to_json()), "the description as a program holds it")
    assert again == target, f"target {target.name!r} is another one after to_json and from_table"
    pipeline = parse_pipeline(target.pipeline)
    assert parse_pipeline(print_pipeline(pipeline)) == pipeline, f"target {target.name!r}: pipeline {target.pipeline!r}"
    check_array(target)
    for name in target.device_names:
        check_device(lambda chip, name=name: target.device(name, chip), target.array_spec, name, seed)  # type: ignore[misc]
        check_error_sources(target, name, seed)


def check_array(target: Target) -> None:
    """Check that the array's row weights are normalised and its levels have names; the rest `ArraySpec` checks itself.

    Args:
        target: the target.
    """
    spec, names = target.array_spec, target.parameters.state_names()
    mean = float(spec.row_weight.mean())
    assert abs(mean - 1) < 1e-9, f"target {target.name!r}: row weights have mean {mean:g}, and not 1"
    levels = 0 if spec.levels is None else len(spec.levels)
    assert len(names) == levels, f"target {target.name!r}: {len(names)} names of {levels} levels"


def check_device(make: Callable[[int], Device], spec: ArraySpec, name: str = "device", seed: int = 3) -> None:
    """Check all that a device promises, on random images and drives.

    Args:
        make: makes a chip from a seed.
        spec: the array that it is.
        name: what to call it in messages.
        seed: which chip is checked.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    case = Case.random(spec, name, exact=type(make(seed)) is IdealArray)
    for method in ("write", "read"):
        assert callable(getattr(make(seed), method, None)), f"{name} has no method {method}"
    chip, twin = make(seed), make(seed)
    _check_arguments_are_left_alone(case, chip)
    expected = case.one_by_one(twin)
    _check_readings(case, twin, expected)
    _check_events_alone_decide(case, chip, make(seed), expected)
    _check_images_are_copied(case, chip)
    if isinstance(chip, BatchedDevice):
        _check_batched_path(case, chip, expected)
        _check_rows_written_alone(case, twin, chip)
        _check_tiles(case, chip)
        _check_writes_that_do_not_differ(case, chip)
    _check_defect_map(case, chip, expected)


def check_error_sources(target: Target, name: str | None = None, seed: int = 3) -> None:
    """Check that a device without its sources of error reads exact sums, and that sources it does not have change nothing.

    A family or a device whose errors cannot be told apart says so with TargetError; then there is nothing to check.

    Args:
        target: the target.
        name: of the device; None: the default.
        seed: which chip is checked.
    """
    try:
        present = target.error_sources(name)
    except TargetError:
        return
    spec, label = target.array_spec, name or target.device_names[0]
    case = Case.random(spec, label, exact=type(target.device(name, seed)) is IdealArray)
    exact = case.one_by_one(target.device("ideal", seed))
    scale = float(np.abs(exact).max())
    for off in (present, DEVICE_SOURCES):
        found = case.one_by_one(target.device(name, seed, without=off))
        error = float(np.abs(found - exact).max())
        assert error <= EXACT_TOLERANCE * scale, f"{label} without {', '.join(off)} is off by {error:g}, of {scale:g}"
    absent = tuple(source for source in DEVICE_SOURCES if source not in present)
    own = case.one_by_one(target.device(name, seed))
    case.assert_same(case.one_by_one(target.device(name, seed, without=absent)), own, f"changes without {absent}")


@dataclass(frozen=True, eq=False)
class Case:
    """Three images, two of them written into the same array one after the other, and their reads.

    Args:
        spec: the array.
        name: of the device, for messages.
        exact: it is the exact array, whose float64 sums may differ in their last bits.
        cells: [images, rows, columns], level indices or values.
        drives: float32 [images, vectors, slices, rows].
        written_s: float64 [images], when each image is written.
        at_s: float64 [images, vectors, slices], when each read starts.
    """

    spec: ArraySpec
    name: str
    exact: bool
    cells: np.ndarray
    drives: np.ndarray
    written_s: np.ndarray
    at_s: np.ndarray

    @classmethod
    def random(cls, spec: ArraySpec, name: str, exact: bool) -> Case:
        """Random cells and drives that the array takes; each write is followed by the reads of its image.

        Args:
            spec: the array.
            name: of the device, for messages.
            exact: it is the exact array.
        """
        rng = np.random.default_rng(8)
        order = np.arange(IMAGES * (1 + VECTORS * SLICES)).reshape(IMAGES, -1) * 1e-3
        at_s = order[:, 1:].reshape(IMAGES, VECTORS, SLICES)
        return cls(spec, name, exact, random_cells(spec, IMAGES, rng), random_drives(spec, rng), order[:, 0], at_s)

    @property
    def all_rows(self) -> npt.NDArray[np.intp]:
        """What a write of the whole array writes."""
        return np.arange(self.spec.rows)

    def write_event(self, image: int) -> Write:
        """The write of an image.

        Args:
            image: which of the three.
        """
        array, number, at_s = int(ARRAYS[image]), int(NUMBERS[image]), float(self.written_s[image])
        return Write(array, image, self.all_rows, number, at_s)

    def read_event(self, image: int, vector: int, slice_: int) -> Read:
        """One read of an image.

        Args:
            image: which of the three.
            vector: which input vector of the case.
            slice_: which slice of it.
        """
        array, number, tile = int(ARRAYS[image]), int(NUMBERS[image]), int(TILES[image])
        return Read(array, number, tile, 0, FIRST_VECTOR + vector, slice_, float(self.at_s[image, vector, slice_]))

    def one_by_one(self, device: Device, backwards: bool = False) -> np.ndarray:
        """All readings, [images, vectors, slices, columns], event by event; an image's reads may be in another order.

        Args:
            device: the device.
            backwards: the reads of an image come in reverse order.
        """
        found = np.empty((IMAGES, VECTORS, SLICES, self.spec.columns))
        for image in range(IMAGES):
            device.write(self.write_event(image), self.cells[image])
            reads = [(vector, slice_) for vector in range(VECTORS) for slice_ in range(SLICES)]
            for vector, slice_ in reversed(reads) if backwards else reads:
                reading = device.read(self.read_event(image, vector, slice_), self.drives[image, vector, slice_])
                shape = np.shape(reading)
                assert shape == (self.spec.columns,), f"{self.name} gave a reading of shape {shape}"
                found[image, vector, slice_] = reading
        return found

    def reads(self, images: slice = slice(None)) -> ReadBlock:
        """The reads as one block.

        Args:
            images: which of the three.
        """
        return ReadBlock(TILES[images], FIRST_VECTOR, times=lambda: self.at_s[images])

    def load(self, device: BatchedDevice, images: slice = slice(None)) -> LoadedImages:
        """Images as their writes left them.

        Args:
            device: the device.
            images: which of the three.
        """
        numbers, written_s = NUMBERS[images, None], self.written_s[images, None]
        places = np.arange(IMAGES)[images]
        return device.load(WrittenImages(ARRAYS[images], places, self.cells[images], numbers, written_s))

    def assert_same(self, found: np.ndarray, expected: np.ndarray, text: str) -> None:
        """Bit for bit; the exact device's sums of any real numbers round with the order of summation.

        Args:
            found: readings.
            expected: what they should be.
            text: what is wrong where they are not.
        """
        tolerance = 1e-14 * np.abs(expected).max(initial=1) * self.spec.rows if self.exact else 0
        assert found.shape == expected.shape, f"{self.name} {text}: shapes are {found.shape} and {expected.shape}"
        worst = float(np.abs(np.asarray(found, np.float64) - expected).max(initial=0))
        assert worst <= tolerance, f"{self.name} {text}: readings differ by {worst:g}"


def random_cells(spec: ArraySpec, images: int, rng: np.random.Generator) -> np.ndarray:
    """Cells [images, rows, columns] that the array can hold.

    Args:
        spec: the array.
        images: how many.
        rng: what draws them.
    """
    shape = (images, spec.rows, spec.columns)
    if spec.levels is not None:
        return rng.integers(0, len(spec.levels), shape, np.uint8)
    limit = spec.cell_limit or 3.0
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def random_drives(spec: ArraySpec, rng: np.random.Generator) -> np.ndarray:
    """Drives float32 [images, vectors, slices, rows] that the array takes; binary ones are high more or less often by vector.

    Args:
        spec: the array.
        rng: what draws them.
    """
    shape = (IMAGES, VECTORS, SLICES, spec.rows)
    drives = rng.random(shape, dtype=np.float32)
    if spec.drive in ("bipolar", "unipolar"):
        drives = (drives < rng.random((IMAGES, VECTORS, 1, 1))).astype(np.float32)
    if spec.drives_both_signs:
        return 2 * drives - 1
    return drives * 5 if spec.drive == "unbounded" else drives


def _check_readings(case: Case, device: Device, readings: np.ndarray) -> None:
    """Readings are finite, within the limits that the device states, and follow the row-weighted sums."""
    spec = case.spec
    assert np.isfinite(readings).all(), f"{case.name} gave readings that are not finite"
    limits = getattr(device, "reading_limits", None)
    if limits is not None:
        low, high = float(readings.min()), float(readings.max())
        inside = limits[0] <= low and high <= limits[1]
        assert inside, f"{case.name} gave readings from {low:g} to {high:g}, outside of its limits {limits}"
    values = (case.cells if spec.levels is None else spec.levels[case.cells]).astype(np.float64)
    exact = np.einsum("ivtr,irc->ivtc", case.drives.astype(np.float64), values * spec.row_weight[:, None])
    if case.exact:
        case.assert_same(readings, exact, "is not exact")
    correlation = float(np.corrcoef(readings.ravel(), exact.ravel())[0, 1])
    assert correlation > LEAST_CORRELATION, (
        f"readings of {case.name} correlate with exact sums by {correlation:.3f} only"
    )


def _check_arguments_are_left_alone(case: Case, device: Device) -> None:
    """Neither cells nor drives are changed."""
    image, drive = case.cells[0].copy(), case.drives[0, 0, 0].copy()
    device.write(case.write_event(0), image)
    device.read(case.read_event(0, 0, 0), drive)
    assert np.array_equal(image, case.cells[0]), f"{case.name} changes the cells that it is given"
    assert np.array_equal(drive, case.drives[0, 0, 0]), f"{case.name} changes the drive that it is given"


def _check_events_alone_decide(case: Case, chip: Device, fresh: Device, expected: np.ndarray) -> None:
    """A seed gives the same bits; the order of reads, what else was read, and what the array held before change nothing."""
    case.assert_same(
        case.one_by_one(chip), expected, "is another chip with the same seed, or remembers what came before"
    )
    case.assert_same(case.one_by_one(chip), expected, "gives something else when the same events come again")
    case.assert_same(case.one_by_one(chip, backwards=True), expected, "depends on the order of reads")
    last = IMAGES - 1
    fresh.write(case.write_event(last), case.cells[last])
    for vector in range(VECTORS):
        reading = np.asarray(fresh.read(case.read_event(last, vector, 0), case.drives[last, vector, 0]))
        case.assert_same(reading, expected[last, vector, 0], "depends on what its array held before a write")


def _check_images_are_copied(case: Case, device: Device) -> None:
    """What an array holds does not change with the caller's cells."""
    image, drive = case.cells[0].copy(), case.drives[0, 0, 0].copy()
    device.write(case.write_event(0), image)
    before = np.array(device.read(case.read_event(0, 0, 0), drive))
    image[:] = 0
    found = np.asarray(device.read(case.read_event(0, 0, 0), drive))
    case.assert_same(found, before, "reads the caller's cells in place of its own")


def _check_batched_path(case: Case, device: BatchedDevice, expected: np.ndarray) -> None:
    """Many events together give what they give one by one, however vectors and images are split, on any threads."""
    loaded, reads = case.load(device), case.reads()
    before = case.cells.copy(), case.drives.copy()
    case.assert_same(loaded.read(case.drives, reads), expected, "gives something else together than one by one")
    for place in range(1, VECTORS):
        parts = [case.drives[:, :place], case.drives[:, place:]]
        blocks = [reads.after(0, place), reads.after(place, VECTORS - place)]
        split = np.concatenate([loaded.read(*part) for part in zip(parts, blocks, strict=True)], axis=1)
        case.assert_same(split, expected, "depends on how vectors are split")
    for image in range(IMAGES):
        one = slice(image, image + 1)
        alone = case.load(device, one).read(case.drives[one], case.reads(one))
        case.assert_same(alone, expected[one], "depends on how images are split")
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda v: loaded.read(case.drives[:, v : v + 1], reads.after(v, 1)), range(VECTORS))
        case.assert_same(np.concatenate(list(results), axis=1), expected, "depends on threads")
    unchanged = np.array_equal(case.cells, before[0]) and np.array_equal(case.drives, before[1])
    assert unchanged, f"{case.name} changes what its batched path is given"


def _check_rows_written_alone(case: Case, chip: Device, device: BatchedDevice) -> None:
    """A write of some rows leaves the others as their own last write left them: one by one on `chip` as on `device`."""
    rows = np.arange(0, case.spec.rows, 2)
    chip.write(case.write_event(0), case.cells[0])
    chip.write(case.write_event(2)._replace(rows=rows), case.cells[2])
    cells, numbers = case.cells[0].copy(), np.full((1, case.spec.rows), NUMBERS[0])
    written_s = np.full((1, case.spec.rows), case.written_s[0])
    cells[rows], numbers[0, rows], written_s[0, rows] = case.cells[2][rows], NUMBERS[2], case.written_s[2]
    images = WrittenImages(ARRAYS[2:], np.array([2]), cells[None], numbers, written_s)
    expected = device.load(images).read(case.drives[2:], case.reads(slice(2, 3)))[0]
    for vector in range(VECTORS):
        reading = np.asarray(chip.read(case.read_event(2, vector, 0), case.drives[2, vector, 0]))
        case.assert_same(reading, expected[vector, 0], "changes rows that a write leaves out")


def _check_tiles(case: Case, device: BatchedDevice) -> None:
    """What tiles add up of coded vectors is what their readings say, however vectors are split."""
    loaded, reads = case.load(device), case.reads()
    for routing, values in _routings(case.spec):
        block = replace(reads, times=lambda slices=routing.slices: case.at_s[:, :, :slices])  # type: ignore[misc]
        start = np.random.default_rng(1).normal(size=(2, VECTORS, routing.columns.shape[1] + 2))
        expected = start.copy()
        routing.add(routing.totals(loaded.read(routing.drives(values), block)), expected)
        text, tiles = f"adds up {routing.scheme} codes otherwise than its readings", loaded.tiles(routing)
        plain = replace(routing, subtract=0 * routing.subtract, factor=np.ones_like(routing.factor))
        for each in (tiles, loaded.tiles(plain).corrected(routing)):
            sums = start.copy()
            each.add(values, block, sums)
            case.assert_same(sums, expected, text)
        for place in range(1, VECTORS):
            some = slice(place, VECTORS)
            sums = start[:, some].copy()
            tiles.add(values[:, some], block.after(place, VECTORS - place), sums)
            case.assert_same(sums, expected[:, some], f"{text}, from vector {place} on")


def _routings(spec: ArraySpec) -> list[tuple[TileRouting, np.ndarray]]:
    """A tile of each of the three images, for each scheme that the array can be driven with, and random coded vectors."""
    rng, inputs, widest = np.random.default_rng(9), 2 * spec.rows, max(1, spec.columns // 2)
    binary = spec.drive in ("bipolar", "unipolar")
    coefficients = {"thermometer": [1.0, 1.0, 1.0], "bitserial": [1.0, 2.0, 4.0]} if binary else {"analogue": [1.0]}
    idle = rng.random((IMAGES, spec.rows)) < 0.25
    shape = IMAGES, widest
    return [
        (
            TileRouting(
                tile=np.asarray(TILES),
                group=np.array([0, 0, 1]),
                output=np.array([0, 0, 2]),
                width=np.array([widest, max(1, widest - 1), widest]),
                source=np.where(idle, 0, rng.integers(0, inputs, (IMAGES, spec.rows))),
                idle=idle,
                idle_drive=spec.idle_drive,
                row_sign=rng.choice(np.array([-1, 1], np.float32), (IMAGES, spec.rows))
                if spec.drives_both_signs
                else None,
                columns=np.stack([rng.permutation(spec.columns)[:widest] for _ in range(IMAGES)]),
                subtract=rng.normal(size=shape),
                factor=rng.choice([1.0, -1.0, 0.75], shape),
                scheme=scheme,
                both_signs=spec.drives_both_signs,
                coefficients=np.array(each),
            ),
            (
                rng.integers(0, len(each) + 1, (2, VECTORS, inputs)) if binary else rng.random((2, VECTORS, inputs))
            ).astype(np.float32),
        )
        for scheme, each in coefficients.items()
    ]


def _check_writes_that_do_not_differ(case: Case, device: BatchedDevice) -> None:
    """Where a device says that its writes do not differ, another write of the same cells leaves the same."""
    if device.writes_differ:
        return
    written = WrittenImages.once(ARRAYS, case.cells)
    later = replace(written, numbers=written.numbers + 7, written_s=written.written_s + 1.0)
    reads = replace(case.reads(), times=None)
    first, second = (device.load(each).read(case.drives, reads) for each in (written, later))
    case.assert_same(second, first, "says that writes do not differ, and they do")


def _check_defect_map(case: Case, chip: Device, expected: np.ndarray) -> None:
    """The limits of a defect map are ordered, and knowing them makes another object of the same chip."""
    if not isinstance(chip, HasDefectMap):
        return
    limits = chip.cell_limits(0)
    if limits is not None:
        shape = (2, case.spec.rows, case.spec.columns)
        assert limits.shape == shape, f"{case.name}: cell_limits are of shape {limits.shape}, and not {shape}"
        assert (limits[0] <= limits[1]).all(), f"{case.name}: a lowest cell value is above its highest"
    known = chip.with_known_defects()
    assert known is not chip, f"{case.name}.with_known_defects gives the chip itself"
    made_good = case.one_by_one(known)
    assert np.isfinite(made_good).all(), f"{case.name} with known defects gave readings that are not finite"
    case.assert_same(case.one_by_one(chip), expected, "is changed by a copy of it that knows its defects")
