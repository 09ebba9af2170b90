"""Every shipped target and device keeps what the kit checks; and the kit finds each broken promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xbcompile.targets import (
    BatchedDevice,
    Device,
    LoadedImages,
    Read,
    ReadBlock,
    Write,
    WrittenImages,
    load_target,
    target_names,
)
from xbcompile.targets.families import error_histograms
from xbcompile.targets.families.error_histograms import ErrorHistogramArray
from xbcompile.targets.families.ideal import IdealArray, IdealImages
from xbcompile.targets.loaded_images import LoadedTiles
from xbcompile.targets.tile_routing import TileRouting
from xbcompile.testing.targets import Case, check_device, check_target

SPREAD = {"m2tj4": {"sigma_nl_ohm": 20.0, "sigma_perp_ohm": 20.0}, "sot": {"write_noise": 0.1, "read_noise": 0.01}}
SPREAD |= {"sot-single": {"write_noise": 0.1}, "memristor20": {"read_noise": 0.01, "converter_codes": 255}}


@pytest.mark.parametrize("name", target_names())
def test_shipped_targets(name: str) -> None:
    check_target(load_target(name))


@pytest.mark.parametrize("name", SPREAD)
def test_shipped_targets_with_more_errors(name: str) -> None:
    check_target(load_target(name).with_quantities("test", **SPREAD[name]))


def test_chips_of_other_seeds_differ_where_devices_have_spread() -> None:
    for name in target_names():
        target = load_target(name)
        if name in (
            "ideal",
            "m2tj4",
            "mram64-0v8",
        ):  # the published m2tj4 has none, and mram64-0v8 is mram64 with more noise
            continue
        for device in target.device_names[:-1]:
            case = Case.random(target.array_spec, device, exact=False)
            readings = [case.one_by_one(target.device(device, seed)) for seed in (0, 1, 1 << 40)]
            assert not np.array_equal(readings[0], readings[1])
            assert not np.array_equal(readings[0], readings[2])


@pytest.mark.parametrize("device", ["mram64", "mram64-emulator", "sot"])
def test_every_part_of_a_read_s_place_changes_what_it_draws(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays alike but for their noise: seed, array, tile, vector and slice, each alone changes most readings."""
    target = load_target(device.partition("-")[0])
    if target.name == "sot":
        target = target.with_quantities("test", read_noise=0.1)
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_IMAGES", 2)
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_VECTORS", 50)
    of_first = ErrorHistogramArray(target.parameters, 0).histograms(0) if "emulator" in device else None
    monkeypatch.setattr(ErrorHistogramArray, "histograms", lambda self, array: of_first)
    spec = target.array_spec
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 2, (1, spec.rows, spec.columns), np.uint8)
    drives = rng.choice(np.array([-1, 1], np.float32), (1, 1, 1, spec.rows))

    def read(seed: int = 0, array: int = 1, tile: int = 2, vector: int = 3, part: int = 4) -> np.ndarray:
        off = () if of_first else ("systematic", "saturation", "rounding")
        chip = target.device(device, seed, without=off)
        assert isinstance(chip, BatchedDevice)
        loaded = chip.load(WrittenImages.once(np.array([array]), cells))
        return loaded.read(drives, ReadBlock(np.array([tile]), vector, part))[0, 0, 0]

    expected = read()
    assert np.array_equal(read(), expected)
    changes = [
        {"seed": 1 << 32},
        {"array": 3},
        {"tile": 3},
        {"vector": 3 + (1 << 32)},
        {"vector": 3 + (1 << 64)},
        {"part": 5},
    ]
    for change in changes:
        assert np.mean(read(**change) != expected) > 0.5, change


@pytest.mark.parametrize("name", target_names())
def test_an_unwritten_array_cannot_be_read(name: str) -> None:
    target = load_target(name)
    for device in target.device_names:
        with pytest.raises(RuntimeError, match="array 4 is read before it is written"):
            target.device(device).read(Read(4, 0, 0, 0, 0, 0, 0.0), np.ones(target.array_spec.rows, np.float32))


# --- devices that break one promise each

SPEC = load_target("m2tj4").with_quantities("test", rows=6).array_spec


class Broken(IdealArray):
    """An exact array of other readings; subclasses break a promise."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(SPEC, seed)

    def load(self, written: WrittenImages) -> Any:
        return Altered(super().load(written).weighted, self, written)

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings


class Altered(IdealImages):
    def __init__(self, weighted: np.ndarray, device: Broken, written: WrittenImages) -> None:
        super().__init__(weighted)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "written", written)

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        return self.device.alter(super().read(drives, reads), self.written, reads)  # type: ignore[attr-defined]


class Infinite(Broken):
    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings / 0.0 * np.inf


class Unrelated(Broken):
    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return np.broadcast_to(np.arange(readings.shape[-1]) + 0.001 * readings, readings.shape)


class OutOfLimits(Broken):
    reading_limits = (-0.1, 0.1)


class Drawing(Broken):
    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.rng = np.random.default_rng(seed)

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings + 0.01 * self.rng.normal(size=readings.shape)


class Remembering(Broken):
    """What a write leaves depends on how many writes the object has seen, and not on the event's number."""

    def write(self, event: Write, cells: np.ndarray) -> None:
        self.seen = getattr(self, "seen", 0) + 1
        super().write(event, cells)

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings * (1 + 0.01 * (getattr(self, "seen", 0) % 3))


class ByNumber(Broken):
    """Writes differ, and it says that they do not."""

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings * (1 + 0.01 * written.numbers.mean(axis=1)[:, None, None, None])


class ByBlock(Broken):
    """The noise of a vector depends on its place in the block."""

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings + 0.01 * np.arange(readings.shape[1])[:, None, None]


class ByImage(Broken):
    """Readings depend on what else is read."""

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings + 0.01 * len(readings)


class Ageless(Broken):
    """Ages when it is read one by one, and not when read together."""

    def alter(self, readings: np.ndarray, written: WrittenImages, reads: ReadBlock) -> np.ndarray:
        return readings * (1 - reads.at_s[..., None]) if readings[..., 0].size == 1 else readings


class Summing(Altered):
    def tiles(self, routing: TileRouting) -> LoadedTiles:
        return SummingTiles(self, routing)


class SummingTiles(LoadedTiles):
    def add(self, values: np.ndarray, reads: ReadBlock, sums: np.ndarray) -> None:
        super().add(values, reads, sums)
        sums += 1e-3


class WrongSums(Broken):
    def load(self, written: WrittenImages) -> LoadedImages:  # type: ignore[override]
        return Summing(IdealArray.load(self, written).weighted, self, written)


class Sharing(Broken):
    """Keeps the caller's cells."""

    def write(self, event: Write, cells: np.ndarray) -> None:
        self.mine = cells
        super().write(event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        return self.load(WrittenImages.once(np.array([event.array]), self.mine[None])).read(
            np.asarray(drive)[None, None, None], ReadBlock(np.array([event.tile]), event.vector)
        )[0, 0, 0]


class Scribbling(Broken):
    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        reading = super().read(event, drive)
        drive[:1] += 1
        return reading


class Forgetful(Broken):
    """Writes all rows where some are meant."""

    def write(self, event: Write, cells: np.ndarray) -> None:
        super().write(event._replace(rows=np.arange(SPEC.rows)), cells)


class Narrow(Broken):
    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        return super().read(event, drive)[:-1]


class Confused(Broken):
    def cell_limits(self, array: int) -> np.ndarray:
        return np.stack([np.ones((SPEC.rows, SPEC.columns)), np.zeros((SPEC.rows, SPEC.columns))])


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (Infinite, "gave readings that are not finite"),
        (Unrelated, "correlate with exact sums by"),
        (OutOfLimits, r"outside of its limits \(-0.1, 0.1\)"),
        (Drawing, "is another chip with the same seed, or remembers what came before"),
        (Remembering, "is another chip with the same seed, or remembers what came before"),
        (ByNumber, "says that writes do not differ, and they do"),
        (ByBlock, "gives something else together than one by one"),
        (ByImage, "gives something else together than one by one"),
        (Ageless, "gives something else together than one by one"),
        (WrongSums, "adds up analogue codes otherwise than its readings"),
        (Sharing, "reads the caller's cells in place of its own"),
        (Scribbling, "changes the drive that it is given"),
        (Forgetful, "changes rows that a write leaves out"),
        (Narrow, r"gave a reading of shape \(3,\)"),
        (Confused, "a lowest cell value is above its highest"),
    ],
)
def test_a_broken_promise_is_found(device: Callable[[int], Device], text: str) -> None:
    check_device(Broken, SPEC, "whole")
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=text):
        check_device(device, SPEC, "broken")
