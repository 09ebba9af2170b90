"""Tiles of few columns: what goes column by column adds up what readings say, to the bit, as what goes row by row does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.device_kit import reads_of, written
from xbcompile.targets import BatchedDevice, load_target
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
    target = load_target(name.removesuffix("-emulator"))
    if "read_noise" in target.quantities:
        target = target.with_quantities("test", read_noise=0.01)
    spec, device = target.array_spec, target.device("emulator" if "emulator" in name else None, 2)
    assert isinstance(device, BatchedDevice)
    rng = np.random.default_rng(1)
    levels = 2 if spec.levels is None else len(spec.levels)
    cells = rng.integers(0, levels, (TILES, spec.rows, spec.columns)).astype(np.uint8)
    routing = narrow_tiles(spec.rows, spec.columns, width, scheme, spec.drives_both_signs)
    values = (rng.random((2, VECTORS, 20)) if scheme == "analogue" else rng.integers(0, 8, (2, VECTORS, 20))).astype(
        np.float32
    )
    assert isinstance(device, BatchedDevice)
    loaded, reads = device.load(written([0, 1, 0, 1], cells)), reads_of(routing.tile, FIRST)
    start = rng.normal(size=(2, VECTORS, 2 * width + 1))
    expected = start.copy()
    routing.add(routing.totals(loaded.read(routing.drives(values), reads)), expected)
    tiles = loaded.tiles(routing)
    for first in (0, 1, VECTORS - 1):
        sums = start[:, first:].copy()
        tiles.add(values[:, first:], reads.after(first, VECTORS - first), sums)
        assert np.array_equal(sums, expected[:, first:]), first
