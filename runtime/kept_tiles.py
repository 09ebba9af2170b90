"""Tiles that stay prepared between the calls of a layer, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np

from xbcompile.targets.loaded_images import LoadedTiles

# Cells of tiles that stay prepared, and that are prepared together: at most 8 bytes each and term.
KEPT_CELLS = 1 << 24

# Layer, block of its tiles, and which copies of the images.
Key = tuple[int, int, tuple[int, ...]]


class KeptTiles:
    """Tiles of one chip by layer, block and copies.

    Args:
        cells: cells that are kept at most.
    """

    def __init__(self, cells: int = KEPT_CELLS) -> None:
        self.room = cells
        self._held: dict[Key, tuple[LoadedTiles, np.ndarray | None]] = {}
        self._without_images: set[int] = set()
        self._lock = Lock()

    def get(
        self,
        key: Key,
        cells: int,
        load: Callable[[], LoadedTiles],
        correct: Callable[[LoadedTiles], LoadedTiles],
        gain: np.ndarray | None,
    ) -> LoadedTiles:
        """Tiles, loaded unless they are here.

        Args:
            key: which.
            cells: of their images.
            load: prepares them.
            correct: gives the same tiles with other gains.
            gain: the gains of tiles now; an array that is never changed in place.
        """
        if key in self._held:
            tiles, before = self._held[key]
            if before is not gain:
                tiles = correct(tiles)
                self._held[key] = tiles, gain
            return tiles
        tiles = load()
        if key[0] in self._without_images:
            tiles = tiles.without_images()
        with self._lock:
            if cells <= self.room:
                self.room -= cells
                self._held[key] = tiles, gain
        return tiles

    def drop_images(self, layer: int) -> None:
        """Keep the images of a layer's tiles no longer: nobody looks at single readings any more.

        Args:
            layer: its index.
        """
        if layer not in self._without_images:
            self._without_images.add(layer)
            for key, (tiles, gain) in self._held.items():
                if key[0] == layer:
                    self._held[key] = tiles.without_images(), gain
