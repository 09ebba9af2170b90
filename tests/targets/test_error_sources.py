"""Switching sources of error off: what is left is exact, and the rest of the chip stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.support.device_kit import reads_of, written
from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets import BatchedDevice, Device, Target, load_target, target_names
from xbcompile.targets.error_sources import DEVICE_SOURCES, without_sources
from xbcompile.targets.parameters import ArrayParameters

ARRAYS, TILES = np.array([1, 0]), np.array([4, 9])
MRAM = load_target("mram64")


def case(spec: ArraySpec) -> tuple[np.ndarray, np.ndarray]:
    """Random cells [2, rows, columns] and drives [2, 40, 2, rows] that the array takes."""
    rng = np.random.default_rng(5)
    shape = (2, spec.rows, spec.columns)
    limit = spec.cell_limit or 1.0
    cells = (
        rng.uniform(-limit, limit, shape).astype("f")
        if spec.levels is None
        else rng.integers(0, len(spec.levels), shape, np.uint8)
    )
    drives = rng.random((2, 40, 2, spec.rows), dtype=np.float32)
    if spec.drive in ("bipolar", "unipolar"):
        drives = (drives < rng.random((2, 40, 2, 1))).astype("f")
    return cells, 2 * drives - 1 if spec.drives_both_signs else drives


def readings(target: Target, without: tuple[str, ...] = (), name: str | None = None) -> np.ndarray:
    """float64 [images, vectors, slices, columns] of chip 2."""
    device: Device = target.device(name, 2, without=without)
    assert isinstance(device, BatchedDevice)
    cells, drives = case(target.array_spec)
    return device.load(written(ARRAYS, cells)).read(drives, reads_of(TILES, 3)).astype(np.float64)


def spread_m2tj4() -> Target:
    target = load_target("m2tj4")
    spread = {"value": 20, "unit": "Ohm", "source": "test"}
    return replace(target, quantities={**target.quantities, "sigma_perp_ohm": spread, "sigma_nl_ohm": spread})


@pytest.mark.parametrize("target", [*map(load_target, target_names()), spread_m2tj4()], ids=lambda target: target.name)
def test_a_device_without_sources_is_exact(target: Target) -> None:
    exact = readings(target, name="ideal")
    tolerance = 1e-5 * np.abs(exact).max()  # mram64 rounds matrices to 24 bits of the largest sum
    np.testing.assert_allclose(readings(target, DEVICE_SOURCES), exact, rtol=0, atol=tolerance)
    present = target.error_sources()
    np.testing.assert_allclose(readings(target, present), exact, rtol=0, atol=tolerance)
    absent = tuple(source for source in DEVICE_SOURCES if source not in present)
    assert np.array_equal(readings(target, absent), readings(target))


def test_the_sources_of_a_target() -> None:
    assert MRAM.error_sources() == DEVICE_SOURCES
    assert MRAM.error_sources("ideal") == ()
    assert load_target("m2tj4").error_sources() == ()  # its spreads are 0
    assert spread_m2tj4().error_sources() == ("systematic",)


def test_what_a_converter_does_to_a_reading() -> None:
    """A 2-bit converter, from the analogue readings of the same chip: code = floor((dot - lower edge) / 6), 0 to 3, read as
    the middle of its span; the edge is one below the smallest dot product that code 0 covers, -10.
    """
    changed = {"tdc_codes": 4, "tdc_lowest_dot": -10}
    quantities = {name: {**MRAM.quantities[name], "value": value} for name, value in changed.items()}
    target = replace(MRAM, quantities=MRAM.quantities | quantities)
    analogue = readings(target, ("saturation", "rounding", "random"))
    position = (analogue + 11) / 6
    clear = np.abs(position - np.rint(position)) > 1e-4  # float32 may put the rest on either side of an edge
    low, high = -8.0, -8.0 + 6 * 3
    assert 0.05 < ((analogue < low) | (analogue > high)).mean() < 0.95
    rounded = -8 + 6 * np.floor(position)
    np.testing.assert_allclose(readings(target, ("saturation", "random"))[clear], rounded[clear], atol=1e-4)
    np.testing.assert_allclose(readings(target, ("rounding", "random")), np.clip(analogue, low, high), atol=1e-4)
    np.testing.assert_allclose(readings(target, ("random",))[clear], np.clip(rounded, low, high)[clear], atol=1e-4)


def test_sources_do_not_change_each_other() -> None:
    """Without a converter devices and noise add: each is the same with and without the other."""
    off = ("saturation", "rounding")
    exact = readings(MRAM, name="ideal")
    noise = readings(MRAM, (*off, "systematic")) - exact
    systematic = readings(MRAM, (*off, "random")) - exact
    np.testing.assert_allclose(readings(MRAM, off), exact + noise + systematic, atol=1e-4)
    assert noise.std() == pytest.approx(MRAM.parameters.tdc_jitter_dot, rel=0.03)
    assert systematic.std() > 1


def test_limits_and_codes_are_gone_with_their_source() -> None:
    whole, unlimited, unrounded = (MRAM.device(without=off) for off in ((), ("saturation",), ("rounding",)))
    assert (whole.lsb, whole.reading_limits) == (6, (-44, 46))
    assert (unlimited.lsb, unlimited.reading_limits) == (6, None)
    assert (unrounded.lsb, unrounded.reading_limits) == (None, (-44, 46))


def test_an_emulator_cannot_be_split() -> None:
    message = "device 'mram64-emulator' cannot be switched off one by one; devices that can: mram64, ideal"
    with pytest.raises(TargetError, match=message):
        MRAM.device("mram64-emulator", without=["random"])
    with pytest.raises(TargetError, match=message):
        MRAM.error_sources("mram64-emulator")
    MRAM.device("mram64-emulator")


def test_parameters_that_do_not_say_how() -> None:
    @dataclass(frozen=True)
    class Mute(ArrayParameters):
        def array_spec(self) -> ArraySpec:
            return MRAM.array_spec

    assert without_sources(Mute(), []) == Mute()
    with pytest.raises(TargetError, match=r"Mute has no method without\(source\)"):
        without_sources(Mute(), ["random"])
    assert Mute().state_names() == ["level -1", "level 1"]
    with pytest.raises(ValueError, match="unknown source 'noise'"):
        without_sources(MRAM.parameters, ["noise"])
