"""Tiles of random images of one device, and what they add up."""

from __future__ import annotations

import numpy as np

from tests.support.device_kit import reads_of, written
from xbcompile.ir import ArraySpec
from xbcompile.targets import BatchedDevice
from xbcompile.targets.loaded_images import LoadedTiles
from xbcompile.targets.tile_routing import TileRouting


def plain_routing(
    spec: ArraySpec, tiles: int, width: int, used: int, coefficients: tuple[float, ...], scheme: str | None = None
) -> TileRouting:
    """Tiles of the first rows and columns of an array, each with outputs of its own: sums are readings."""
    binary = spec.drive in ("bipolar", "unipolar")
    row = np.arange(spec.rows)
    return TileRouting(
        tile=np.arange(tiles),
        group=np.zeros(tiles, np.intp),
        output=width * np.arange(tiles),
        width=np.full(tiles, width),
        source=np.where(row < used, row, 0)[None].repeat(tiles, axis=0),
        idle=(row >= used)[None].repeat(tiles, axis=0),
        idle_drive=spec.idle_drive,
        row_sign=None,
        columns=np.arange(width)[None].repeat(tiles, axis=0),
        subtract=np.zeros((tiles, width)),
        factor=np.ones((tiles, width)),
        scheme=scheme or ("thermometer" if binary else "analogue"),
        both_signs=spec.drives_both_signs,
        coefficients=np.array(coefficients),
    )


def load_tiles(device: BatchedDevice, spec: ArraySpec, routing: TileRouting) -> LoadedTiles:
    """Tiles of random images, in arrays 0, 1, ..."""
    levels = 2 if spec.levels is None else len(spec.levels)
    cells = np.random.default_rng(1).integers(0, levels, (routing.tiles, spec.rows, spec.columns)).astype(np.uint8)
    return device.load(written(range(routing.tiles), cells)).tiles(routing)


def added(tiles: LoadedTiles, values: np.ndarray, first_vector: int = 0) -> np.ndarray:
    """What tiles add to sums of 0: float64 [vectors, tiles * width]."""
    routing = tiles.routing
    sums = np.zeros((1, values.shape[1], routing.tiles * int(routing.width[0])))
    tiles.add(values, reads_of(routing.tile, first_vector), sums)
    return sums[0]
