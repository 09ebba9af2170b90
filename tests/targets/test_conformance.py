"""What every device of every shipped target promises; a new target is tested by being shipped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xbcompile.ir.array_spec import DRIVES, ArraySpec
from xbcompile.targets import BatchedDevice, Device, ReadStamp, Target, load_target, target_names

DEVICES = [(name, device) for name in target_names() for device in load_target(name).device_names]
each_device = pytest.mark.parametrize(("name", "device"), DEVICES)
IMAGES, VECTORS, SLICES = 3, 6, 3


def random_cells(spec: ArraySpec, rng: np.random.Generator) -> np.ndarray:
    shape = (IMAGES, spec.rows, spec.columns)
    if spec.levels is None:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, len(spec.levels), shape, np.uint8)


def random_drives(spec: ArraySpec, rng: np.random.Generator) -> np.ndarray:
    shape = (IMAGES, VECTORS, SLICES, spec.rows)
    if spec.drive == "bipolar":
        return rng.choice(np.array([-1, 1], np.float32), shape)
    if spec.drive == "unipolar":
        return rng.integers(0, 2, shape).astype(np.float32)
    if spec.drive == "signed":
        return rng.uniform(-1, 1, shape).astype(np.float32)
    return rng.random(shape, dtype=np.float32) * (5 if spec.drive == "unbounded" else 1)


def assert_same(found: np.ndarray, expected: np.ndarray, device: str) -> None:
    """Bit for bit; the exact device's float64 sums of any real numbers round with the order of summation."""
    if device == "ideal":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max() * 64)
    else:
        assert np.array_equal(found, expected)


ARRAYS, TILES = np.array([2, 0, 2]), np.array([7, 1, 30])


def case(name: str) -> tuple[Target, np.ndarray, np.ndarray]:
    target = load_target(name)
    rng = np.random.default_rng(8)
    return target, random_cells(target.array_spec, rng), random_drives(target.array_spec, rng)


def read_all(device: Device, cells: np.ndarray, drives: np.ndarray, first_vector: int = 5) -> np.ndarray:
    assert isinstance(device, BatchedDevice)
    return device.load(ARRAYS, TILES, cells).read(drives, first_vector)


@each_device
def test_write_and_read_equal_the_batched_path(name: str, device: str) -> None:
    target, cells, drives = case(name)
    expected = read_all(target.device(device, 3), cells, drives)
    assert expected.shape == (IMAGES, VECTORS, SLICES, target.array_spec.columns)
    single = target.device(device, 3)
    for i in range(IMAGES):
        single.write(int(ARRAYS[i]), cells[i])
        for v in range(VECTORS):
            for t in range(SLICES):
                reading = single.read(int(ARRAYS[i]), drives[i, v, t], ReadStamp(int(TILES[i]), 5 + v, t))
                assert_same(reading, expected[i, v, t], device)


@each_device
def test_a_seed_gives_the_same_bits_and_leaves_its_arguments_alone(name: str, device: str) -> None:
    target, cells, drives = case(name)
    before = cells.copy(), drives.copy()
    chip = target.device(device, 3)
    first = read_all(chip, cells, drives)
    assert np.array_equal(read_all(chip, cells, drives), first)
    assert np.array_equal(read_all(target.device(device, 3), cells, drives), first)
    assert np.array_equal(cells, before[0])
    assert np.array_equal(drives, before[1])


@each_device
def test_readings_do_not_depend_on_how_vectors_and_images_are_split(name: str, device: str) -> None:
    target, cells, drives = case(name)
    chip = target.device(device, 3)
    assert isinstance(chip, BatchedDevice)
    whole = read_all(chip, cells, drives)
    loaded = chip.load(ARRAYS, TILES, cells)
    for place in range(1, VECTORS):
        parts = loaded.read(drives[:, :place], 5), loaded.read(drives[:, place:], 5 + place)
        assert_same(np.concatenate(parts, axis=1), whole, device)
    for i in range(IMAGES):
        alone = chip.load(ARRAYS[i : i + 1], TILES[i : i + 1], cells[i : i + 1]).read(drives[i : i + 1], 5)
        assert_same(alone[0], whole[i], device)


@each_device
def test_readings_do_not_depend_on_threads(name: str, device: str) -> None:
    """Several threads read one loaded block at a time, as a session does."""
    target, cells, drives = case(name)
    whole = read_all(target.device(device, 3), cells, drives)
    chip = target.device(device, 3)
    assert isinstance(chip, BatchedDevice)
    loaded = chip.load(ARRAYS, TILES, cells)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda v: loaded.read(drives[:, v : v + 1], 5 + v), range(VECTORS)))
    assert_same(np.concatenate(parts, axis=1), whole, device)


@each_device
def test_an_unwritten_array_cannot_be_read(name: str, device: str) -> None:
    target = load_target(name)
    chip = target.device(device)
    drive = np.ones(target.array_spec.rows, np.float32)
    with pytest.raises(RuntimeError, match="array 4 is read before it is written"):
        chip.read(4, drive, ReadStamp(0, 0, 0))


@each_device
def test_a_written_array_keeps_its_own_copy(name: str, device: str) -> None:
    target, cells, drives = case(name)
    chip = target.device(device)
    image = cells[0].copy()
    chip.write(0, image)
    before = chip.read(0, drives[0, 0, 0], ReadStamp(0, 0, 0))
    image[:] = 0
    assert np.array_equal(chip.read(0, drives[0, 0, 0], ReadStamp(0, 0, 0)), before)


@each_device
def test_readings_follow_the_row_weighted_sums(name: str, device: str) -> None:
    """A reading is sum_k row_weight level drive with the device's errors: correlated with it, without error on `ideal`."""
    target, cells, drives = case(name)
    spec = target.array_spec
    values = (cells if spec.levels is None else spec.levels[cells]).astype(np.float64)
    exact = np.einsum("ivtr,irc->ivtc", drives.astype(np.float64), values * spec.row_weight[:, None])
    reading = read_all(target.device(device), cells, drives)
    if device == "ideal":
        np.testing.assert_allclose(reading, exact, rtol=1e-12, atol=1e-12)
    assert np.corrcoef(reading.ravel(), exact.ravel())[0, 1] > 0.5
    limits = target.device(device).reading_limits
    if limits is not None:
        assert reading.min() >= limits[0]
        assert reading.max() <= limits[1]


@pytest.mark.parametrize("name", target_names())
def test_array_specs_are_consistent(name: str) -> None:
    spec = load_target(name).array_spec
    assert spec.drive in DRIVES
    assert spec.row_weight.shape == spec.idle_drive.shape == spec.neutral_level.shape == (spec.rows,)
    assert spec.row_weight.mean() == pytest.approx(1)
    if spec.levels is not None:
        assert np.all(np.diff(spec.levels) > 0)
        assert spec.neutral_level.max() < len(spec.levels)
        assert len(load_target(name).parameters.state_names()) == len(spec.levels)
    costs = (spec.t_write_row_s, spec.t_read_s, spec.e_write_row_j, spec.e_read_j)
    assert all(cost >= 0 for cost in costs)
    assert spec.t_write_s == spec.rows * spec.t_write_row_s
    assert spec.e_write_j == spec.rows * spec.e_write_row_j


def test_chips_of_other_seeds_differ_where_devices_have_spread() -> None:
    for name, device in DEVICES:
        if device == "ideal" or name.startswith("m2tj4"):  # the published m2tj4 has none
            continue
        target, cells, drives = case(name)
        readings = [read_all(target.device(device, seed), cells, drives) for seed in (0, 1, 1 << 40)]
        assert not np.array_equal(readings[0], readings[1])
        assert not np.array_equal(readings[0], readings[2])
