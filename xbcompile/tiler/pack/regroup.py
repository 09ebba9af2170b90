"""Exchange equal tiles between images, so that an image serves few layers that follow each other.

The number of images stays; with fewer arrays than images, an image that serves two distant layers is written twice.
Example: tiles of equal size of layers (1, 5) and (5, 1) in two images become (1, 1) and (5, 5).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.tiler.pack.rules import PackingRules

_WORK = 2_000_000  # layers of images that may be looked at, in all exchanges together
_TRY = 10  # work of an exchange beside its images' layers
_SWEEPS = 4
_FAR = 8  # layers farther apart than this are equally bad


def regroup(tiles: np.ndarray, rules: PackingRules) -> np.ndarray:
    """Give equal residual tiles other places among themselves; layers count as executed in order of their index.

    Args:
        tiles: TILE table, packed.
        rules: array and sharing; with fixed rows, only tiles at the same row are exchanged.

    Returns:
        The same tiles in the same images, rows and columns as a whole; images keep their numbers.
    """
    height, width = tile_rows(tiles).astype(np.int64), tile_columns(tiles).astype(np.int64)
    shared = np.bincount(tiles["image"], minlength=1)[tiles["image"]] > 1
    movable = np.flatnonzero(shared)
    if not len(movable) or (tiles["layer"][movable] == tiles["layer"][movable[0]]).all():
        return tiles
    row = tiles["row"][movable] if rules.fixed_rows else np.zeros(len(movable), dtype=np.int64)
    sizes = np.stack([height[movable] * width[movable], height[movable], row], axis=1)
    kind = np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)
    exchange = _Exchange(kind.tolist(), tiles["layer"][movable].tolist(), tiles["image"][movable].tolist())
    exchange.start_from_nearest()
    exchange.improve()
    result = tiles.copy()
    for field in ("image", "row", "column"):
        result[field][movable] = tiles[field][movable][exchange.place]
    return result


class _Exchange:
    """Tiles and places, both numbered alike: tile i has kind[i] and layer[i], place i was tile i's."""

    def __init__(self, kind: Sequence[int], layer: Sequence[int], image: Sequence[int]) -> None:
        self.kind, self.layer, self.image = kind, layer, image
        self.place = list(range(len(kind)))  # of each tile

    def start_from_nearest(self) -> None:
        """Fill the images in order: each place takes the tile of its kind whose layer is nearest to the first one."""
        waiting: dict[int, list[tuple[int, int]]] = {}
        for tile in sorted(range(len(self.kind)), key=lambda t: (self.layer[t], t)):
            waiting.setdefault(self.kind[tile], []).append((self.layer[tile], tile))
        anchors: dict[int, int] = {}
        place_of = [0] * len(self.kind)
        # kinds are numbered by area: the largest place of an image is filled first
        for place in sorted(range(len(self.kind)), key=lambda p: (self.image[p], -self.kind[p], p)):
            candidates = waiting[self.kind[place]]
            index = 0
            if (anchor := anchors.get(self.image[place])) is not None:
                index = bisect_left(candidates, (anchor, -1))
                after = index < len(candidates)
                if index and (not after or anchor - candidates[index - 1][0] < candidates[index][0] - anchor):
                    index -= 1
            layer, tile = candidates.pop(index)
            anchors.setdefault(self.image[place], layer)
            place_of[tile] = place
        if self._total(place_of) < self._total(self.place):
            self.place = place_of

    def improve(self) -> None:
        """Exchange pairs while that helps, a bounded number of times."""
        layers_in = self._layers_in(self.place)
        members: dict[int, list[int]] = {}
        for tile, kind in enumerate(self.kind):
            members.setdefault(kind, []).append(tile)
        left = _WORK
        for _ in range(_SWEEPS):
            before = list(self.place)
            for tiles in members.values():
                for position, one in enumerate(tiles):
                    for two in tiles[:position]:
                        left -= self._try(one, two, layers_in)
                        if left < 0:
                            return
            if self.place == before:
                return

    def _try(self, one: int, two: int, layers_in: dict[int, list[int]]) -> int:
        """Exchange two tiles where that helps; return the work done."""
        image_one, image_two = self.image[self.place[one]], self.image[self.place[two]]
        layer_one, layer_two = self.layer[one], self.layer[two]
        if image_one == image_two or layer_one == layer_two:
            return 1
        in_one, in_two = layers_in[image_one], layers_in[image_two]
        new_one, new_two = list(in_one), list(in_two)
        new_one[new_one.index(layer_one)], new_two[new_two.index(layer_two)] = layer_two, layer_one
        if _spread(new_one) + _spread(new_two) < _spread(in_one) + _spread(in_two):
            layers_in[image_one], layers_in[image_two] = new_one, new_two
            self.place[one], self.place[two] = self.place[two], self.place[one]
        return _TRY + len(in_one) + len(in_two)

    def _layers_in(self, place_of: Sequence[int]) -> dict[int, list[int]]:
        layers: dict[int, list[int]] = {}
        for tile, place in enumerate(place_of):
            layers.setdefault(self.image[place], []).append(self.layer[tile])
        return layers

    def _total(self, place_of: Sequence[int]) -> int:
        return sum(map(_spread, self._layers_in(place_of).values()))


def _spread(layers: Sequence[int]) -> int:
    """Cost of an image: every further layer counts, more so the farther it is from the one before."""
    distinct = sorted(set(layers))
    return sum(_FAR + min(two - one, _FAR) for one, two in pairwise(distinct))
