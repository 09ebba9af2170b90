"""Some tiles of a layer as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.targets.tile_routing import TileRouting


@dataclass(frozen=True, eq=False)
class TileBlock:
    """Some of a layer's tiles, those that add into the same outputs one after another.

    Args:
        first: position of the first tile among the layer's.
        tiles: int [n] indices into the schedule's tile table.
        routing: how they are driven, and what becomes of their readings but for column offsets and tile gains.
        cells: [n, rows, columns], cells of the images that hold the tiles.
        follows: whether it adds into some of the same outputs as blocks before it.
    """

    first: int
    tiles: np.ndarray
    routing: TileRouting
    cells: np.ndarray
    follows: bool
