"""The base of simulated devices: what one read at a time may remember, and rows that keep what an earlier write left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.device_kit import read_image, write_image
from xbcompile.targets import LoadedImages, ReadBlock, Write, WrittenImages, load_target
from xbcompile.targets.contract import SimulatedDevice, draws_of_rows
from xbcompile.targets.tile_routing import TileRouting


class Counting(SimulatedDevice):
    """Reads the sum of its cells, plus 1,000 times the tile and 1,000,000 where defects are known; counts its loads."""

    loads = 0

    def load(self, written: WrittenImages) -> LoadedImages:
        self.loads += 1
        self.last = written
        value = written.cells.sum() + 1_000_000 * self.defects_known

        class Image(LoadedImages):
            def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
                return np.full((*drives.shape[:3], 2), value + 1000 * reads.tiles[0], np.float32)

        return Image()


def test_an_image_is_prepared_once_and_again_after_any_write() -> None:
    device, drive = Counting(), np.ones(3, np.float32)

    def read(array: int, tile: int) -> float:
        return float(read_image(device, array, drive, tile)[0])

    write_image(device, 0, np.full((3, 2), 1))
    write_image(device, 1, np.full((3, 2), 2))
    assert [read(0, 0), read(0, 0), read(0, 0)] == [6, 6, 6]
    assert device.loads == 1
    assert [read(1, 0), read(0, 0), read(0, 7)] == [12, 6, 7006]
    assert device.loads == 2  # what is read draws nothing from the image: other tiles need no other one
    write_image(device, 0, np.full((3, 2), 3), number=1)
    assert read(0, 7) == 7018
    assert device.loads == 3


def test_a_chip_with_known_defects_is_another_object_that_holds_nothing() -> None:
    device, drive = Counting(), np.ones(3, np.float32)
    write_image(device, 0, np.full((3, 2), 1))
    known = device.with_known_defects()
    with pytest.raises(RuntimeError, match="array 0 is read before it is written"):
        read_image(known, 0, drive)
    write_image(known, 0, np.full((3, 2), 2))
    assert read_image(known, 0, drive)[0] == 1_000_012
    assert read_image(device, 0, drive)[0] == 6
    assert (known.defects_known, device.defects_known) == (True, False)


def test_a_device_without_a_defect_map_is_whole() -> None:
    device = load_target("mram64").device()
    assert isinstance(device, SimulatedDevice)
    assert device.cell_limits(0) is None
    assert not device.defects_known


@given(st.lists(st.sets(st.integers(0, 3), min_size=1), max_size=6))
def test_rows_keep_what_their_last_write_left(written: list[set[int]]) -> None:
    """Cells, numbers and times of each row are those of the last write that had the row; the first one writes all."""
    device, drive = Counting(), np.ones(4, np.float32)
    write_image(device, 0, np.zeros((4, 2)))
    cells, numbers, times = np.zeros(4), np.zeros(4), np.zeros(4)
    for number, some in enumerate(written, 1):
        rows = np.array(sorted(some))
        device.write(Write(0, number, rows, number, number / 8), np.full((4, 2), number))
        cells[rows], numbers[rows], times[rows] = number, number, number / 8
    read_image(device, 0, drive)
    found = device.last
    assert np.array_equal(found.cells[0], np.repeat(cells[:, None], 2, axis=1))
    assert np.array_equal(np.broadcast_to(found.numbers, (1, 4))[0], numbers)
    assert np.array_equal(np.broadcast_to(found.written_s, (1, 4))[0], times)


def test_the_first_write_of_an_array_is_whole() -> None:
    with pytest.raises(RuntimeError, match="array 2 is written in part before it is written whole"):
        Counting().write(Write(2, 0, np.array([1]), 0, 0.0), np.zeros((3, 2)))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 9))
def test_draws_of_rows_are_those_of_their_writes(numbers: list[int], seed: int) -> None:
    def draw(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).random((2, len(numbers), 3))

    found = draws_of_rows(np.array(numbers), draw)
    for row, number in enumerate(numbers):
        assert np.array_equal(found[:, row], draw(number)[:, row])


@given(
    scheme=st.sampled_from(["thermometer", "bitserial", "analogue"]),
    both_signs=st.booleans(),
    seed=st.integers(0, 999),
    vectors=st.integers(0, 40),
    images=st.integers(1, 3),
)
def test_drives_of_codes_by_loops(scheme: str, both_signs: bool, seed: int, vectors: int, images: int) -> None:
    """Every drive by the definition of its scheme; sums in float64, slice after slice."""
    rng, rows, slices = np.random.default_rng(seed), 5, 1 if scheme == "analogue" else 3
    top = {"thermometer": 4, "bitserial": 8, "analogue": 1}[scheme]
    values = rng.integers(0, top, (vectors, 7)) if top > 1 else rng.random((vectors, 7))
    group = np.arange(images) % 2
    routing = TileRouting(
        tile=np.arange(images),
        group=group,
        output=rng.integers(0, 3, images),
        width=rng.integers(1, 3, images),
        source=rng.integers(0, 7, (images, rows)),
        idle=rng.random((images, rows)) < 0.3,
        idle_drive=rng.random(rows).astype(np.float32),
        row_sign=rng.choice(np.float32([-1, 1]), (images, rows)) if seed % 2 else None,
        columns=np.array([rng.permutation(4)[:2] for _ in range(images)]),
        subtract=rng.normal(size=(images, 2)),
        factor=rng.choice([1.0, -2.0], (images, 2)),
        scheme=scheme,
        both_signs=both_signs,
        coefficients=rng.choice([1.0, 2.0, 0.5], slices),
    )
    coded = np.stack([values, values[::-1]]).astype(np.float32)
    found = routing.drives(coded)
    assert found.shape == (images, vectors, slices, rows)
    for i, v, t, r in np.ndindex(*found.shape):
        x = float(coded[group[i], v, routing.source[i, r]])
        u = {"thermometer": float(x > t), "bitserial": float(int(x) >> t & 1), "analogue": x}[scheme]
        u = float(np.float32(u) * 2 - 1) if both_signs else u
        u *= 1.0 if routing.row_sign is None else float(routing.row_sign[i, r])
        assert found[i, v, t, r] == np.float32(routing.idle_drive[r] if routing.idle[i, r] else u)
    readings = rng.normal(size=(images, vectors, slices, 4))
    totals = routing.totals(readings)
    sums = np.zeros((2, vectors, 5))
    for i, v, m in np.ndindex(*totals.shape):
        each = [c * readings[i, v, t, routing.columns[i, m]] for t, c in enumerate(routing.coefficients)]
        expected = (sum(each) - routing.subtract[i, m]) * routing.factor[i, m]
        assert totals[i, v, m] == pytest.approx(expected, abs=1e-12)
        if m < routing.width[i]:
            sums[group[i], v, routing.output[i] + m] += expected
    added = np.zeros(sums.shape)
    routing.add(totals, added)
    np.testing.assert_allclose(added, sums, rtol=0, atol=1e-11)
    for i in range(images):
        np.testing.assert_array_equal(routing.of(slice(i, i + 1)).drives(coded)[0], found[i])
