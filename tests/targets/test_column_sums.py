"""What goes column by column, for tiles of few columns or for patches, adds up what readings say, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.device_kit import reads_of, written
from xbcompile.targets import BatchedDevice, load_target
from xbcompile.targets.patch_values import PatchValues
from xbcompile.targets.tile_routing import TileRouting

TILES, VECTORS, FIRST = 4, 560, 2**40 - 70


def narrow_tiles(rows: int, columns: int, width: int, scheme: str, signs: bool) -> TileRouting:
    """Tiles of `width` columns and fewer, two after each other into the same outputs, of used rows from none to all."""
    rng = np.random.default_rng(width)
    idle = np.arange(rows) >= np.array([9, 0, rows, min(5, rows)])[:, None]
    coefficients = {"analogue": [1.0], "thermometer": [1.0] * 3, "bitserial": [0.5, 1.0, 2.0]}[scheme]
    return TileRouting(
        tile=np.array([3, 5, 7, 9]),
        group=np.array([0, 0, 1, 1]),
        output=np.array([1, 1, 0, width]),
        width=np.array([width, width, max(1, width - 1), width]),
        source=np.where(idle, 0, rng.integers(0, 20, (TILES, rows))),
        idle=idle,
        idle_drive=np.ones(rows, np.float32) if signs else np.zeros(rows, np.float32),
        row_sign=rng.choice(np.array([-1, 1], np.float32), (TILES, rows)) if signs else None,
        columns=np.stack([rng.permutation(columns)[:width] for _ in range(TILES)]),
        subtract=rng.normal(size=(TILES, width)),
        factor=rng.choice([1.0, -0.75], (TILES, width)),
        scheme=scheme,
        both_signs=signs,
        coefficients=np.array(coefficients),
    )


def narrow_case(
    name: str, width: int, scheme: str
) -> tuple[BatchedDevice, TileRouting, np.ndarray, np.random.Generator]:
    """A target's device, with noise where it has any, tiles of few columns, and random cells of their images."""
    target = load_target(name.removesuffix("-emulator"))
    if "read_noise" in target.quantities:
        target = target.with_quantities("test", read_noise=0.01)
    spec, device = target.array_spec, target.device("emulator" if "emulator" in name else None, 2)
    assert isinstance(device, BatchedDevice)
    rng = np.random.default_rng(1)
    levels = 2 if spec.levels is None else len(spec.levels)
    cells = rng.integers(0, levels, (TILES, spec.rows, spec.columns)).astype(np.uint8)
    routing = narrow_tiles(spec.rows, spec.columns, width, scheme, spec.drives_both_signs)
    return device, routing, cells, rng


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("mram64", 1, "thermometer"),
        ("mram64", 4, "bitserial"),
        ("mram64-emulator", 3, "bitserial"),
        ("sot", 1, "analogue"),
        ("sot", 3, "analogue"),
        ("m2tj4", 4, "analogue"),
        ("memristor20", 2, "analogue"),
    ],
)
def test_few_columns_give_the_sums_of_their_readings(name: str, width: int, scheme: str) -> None:
    """All at once by columns; from a vector on, as few that they go by rows; and the generic path by readings."""
    device, routing, cells, rng = narrow_case(name, width, scheme)
    values = (rng.random((2, VECTORS, 20)) if scheme == "analogue" else rng.integers(0, 8, (2, VECTORS, 20))).astype(
        np.float32
    )
    loaded, reads = device.load(written([0, 1, 0, 1], cells)), reads_of(routing.tile, FIRST)
    start = rng.normal(size=(2, VECTORS, 2 * width + 1))
    expected = start.copy()
    routing.add(routing.totals(loaded.read(routing.drives(values), reads)), expected)
    tiles = loaded.tiles(routing)
    for first in (0, 1, VECTORS - 1):
        sums = start[:, first:].copy()
        tiles.add(values[:, first:], reads.after(first, VECTORS - first), sums)
        assert np.array_equal(sums, expected[:, first:]), first


@pytest.mark.parametrize(
    ("name", "width", "scheme", "stride"),
    [
        ("mram64", 20, "thermometer", 1),
        ("mram64-emulator", 3, "bitserial", 1),
        ("sot", 6, "analogue", 1),
        ("sot", 40, "analogue", 2),
        ("memristor20", 9, "analogue", 1),
        ("m2tj4", 4, "analogue", 3),
    ],
)
def test_patches_give_the_sums_of_their_vectors(name: str, width: int, scheme: str, stride: int) -> None:
    """Values gathered where they lie, in runs of neighbours or one by one, from a patch within a sample on, into outputs by
    vectors: as gathered before, by numpy's indices, and read by the generic path."""
    device, routing, cells, rng = narrow_case(name, width, scheme)
    channels, height, breadth = 5, 13, 17  # and kernels of 2x2: 20 inputs of each of two groups
    samples = rng.random((6, 2 * channels, height, breadth), np.float32)
    samples = samples if scheme == "analogue" else np.floor(8 * samples)
    places = np.arange(height * breadth, dtype=np.uint32).reshape(height, breadth)
    starts = places[: height - 1 : stride, : breadth - 1 : stride].ravel()
    taps = (np.arange(channels, dtype=np.uint32)[:, None, None] * height * breadth + places[:2, :2]).ravel()
    size, first = samples[0].size, len(starts) // 3
    count = min(VECTORS, 6 * len(starts) - first - 1)
    patches = PatchValues(samples.ravel(), size, size // 2, 2, starts, taps, first, count)
    every = samples.reshape(6, 2, -1)[:, :, starts[:, None] + taps]  # [samples, groups, patches, inputs]
    vectors = every.transpose(1, 0, 2, 3).reshape(2, -1, len(taps))[:, first : first + count]
    assert np.array_equal(patches.vectors(), vectors)
    loaded, reads = device.load(written([0, 1, 0, 1], cells)), reads_of(routing.tile, FIRST)
    sums = rng.normal(size=(2, 2 * width + 1, count + 3))
    expected = sums.copy()
    by_vector = expected[:, :, 2 : 2 + count].transpose(0, 2, 1)
    routing.add(routing.totals(loaded.read(routing.drives(vectors), reads)), by_vector)
    loaded.tiles(routing).add_patches(patches, reads, sums, 2)
    assert np.array_equal(sums, expected)
