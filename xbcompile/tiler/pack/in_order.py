"""Packings that follow execution, carried out: from the steps of the search to tiles in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xbcompile.tiler.effort import Allowance
from xbcompile.tiler.pack.bands import Bin
from xbcompile.tiler.pack.bounds import bound_kinds
from xbcompile.tiler.pack.contents import Content, PackingOracle, RelaxedOracle, join
from xbcompile.tiler.pack.dense import Packing, Residuals
from xbcompile.tiler.pack.order_search import LayerTiles, OrderSearch, Step
from xbcompile.tiler.pack.rules import PackingRules

_MOST_BOUND_LAYERS = 5_000  # assumed: of more, the order is left out of the bound


class OrderedPacker:
    """Packs the tiles of one TILE table in order of execution, better with every effort.

    Args:
        tiles: TILE table; only the row of a tile is read from its place, and only with fixed rows.
        rules: array and sharing.
        layers: number of layers; they are executed in order of their index.
    """

    def __init__(self, tiles: np.ndarray, rules: PackingRules, layers: int) -> None:
        self.tiles, self.rules = tiles, rules
        self.residuals = Residuals.of(tiles, rules)
        kinds = self.residuals.kinds
        self.layers = _layer_tiles(tiles, self.residuals, layers)
        self.full = len(tiles) - len(self.residuals.index)
        self.best: Packing | None = None
        if not len(kinds):
            return
        relaxed = RelaxedOracle(kinds, rules)
        self.bound = bound_kinds(kinds, self.residuals.counts, rules)
        if layers <= _MOST_BOUND_LAYERS:
            self.bound = max(self.bound, OrderSearch(self.layers, relaxed, relax=True).run()[0])
        self.oracle = PackingOracle(kinds, rules, relaxed)

    def improve(self, effort: float) -> Packing:
        """Spend this deterministic time of the solver on a better packing; returns the best so far."""
        if not len(self.residuals.kinds):
            return Packing(number_in_order(self.tiles), self.full, self.full)
        self.oracle.allowance = Allowance(effort)
        self.oracle.in_doubt = False
        search = OrderSearch(self.layers, self.oracle, relax=False)
        images, steps = search.run()
        if not (search.narrowed or self.oracle.in_doubt):
            self.bound = images  # every answer was exact
        limited = self.oracle.allowance.ran_out and images > self.bound
        if self.best is None or self.full + images < self.best.images:
            placed = number_in_order(self._place(steps))
            self.best = Packing(placed, int(placed["image"].max()) + 1, 0)
        return replace(self.best, lower_bound=self.full + self.bound, limited=limited)

    def _place(self, steps: Sequence[Step]) -> np.ndarray:
        """The TILE table with every tile in its image; images are not numbered in order yet."""
        placed = self.tiles.copy()
        placed["column"] = 0
        if not self.rules.fixed_rows:
            placed["row"] = 0
        placed["image"] = np.arange(len(placed))  # full tiles keep these
        waiting = _Waiting(placed, self.residuals)
        first = len(placed)
        for step in steps:
            layer = self.layers[step.layer]
            alone, parts = layer.content(step.alone), [(step.layer, layer.content(step.head))]
            first = self._put([(step.layer, alone)], alone, waiting, first)
            parts += [(i, self.layers[i].content(self.layers[i].counts)) for i in range(step.layer + 1, step.end)]
            if step.end < len(self.layers):
                parts.append((step.end, self.layers[step.end].content(step.tail)))
            content: Content = ()
            for _, part in parts:
                content = join(content, part)
            first = self._put(parts, content, waiting, first)
        return placed

    def _put(self, parts: Sequence[tuple[int, Content]], content: Content, waiting: _Waiting, first: int) -> int:
        """Pack tiles of layers into images from `first` on; return the next free number."""
        chosen = {
            kind: [tile for layer, part in parts for k, n in part if k == kind for tile in waiting.take(layer, kind, n)]
            for kind, _ in content
        }
        for b in self.oracle.pack(content):
            waiting.place(b, [chosen[kind] for kind, _ in content], first, self.rules)
            first += b.copies
        return first


class _Waiting:
    """Tiles that have no place yet, by layer and kind."""

    def __init__(self, placed: np.ndarray, residuals: Residuals) -> None:
        self._placed = placed
        self._tiles: dict[tuple[int, int], list[int]] = {}
        layer = placed["layer"][residuals.index].tolist()
        for index, of, kind in zip(residuals.index.tolist(), layer, residuals.kind.tolist(), strict=True):
            self._tiles.setdefault((of, kind), []).append(index)
        for tiles in self._tiles.values():
            tiles.reverse()

    def take(self, layer: int, kind: int, count: int) -> list[int]:
        """The first tiles of this kind that wait in a layer."""
        tiles = self._tiles[layer, kind]
        return [tiles.pop() for _ in range(count)]

    def place(self, b: Bin, tiles: Sequence[list[int]], first: int, rules: PackingRules) -> None:
        """Fill the arrays of one bin with the tiles of each kind."""
        for kind, row, column in b.placed:
            for image in range(first, first + b.copies):
                tile = tiles[kind].pop(0)
                self._placed["image"][tile], self._placed["column"][tile] = image, column
                if not rules.fixed_rows:
                    self._placed["row"][tile] = row


def _layer_tiles(tiles: np.ndarray, residuals: Residuals, layers: int) -> list[LayerTiles]:
    """Residual tiles of each layer by kind."""
    of = tiles["layer"][residuals.index].astype(np.int64)
    has_full = np.bincount(tiles["layer"], minlength=layers) > np.bincount(of, minlength=layers)
    kinds = max(1, len(residuals.kinds))
    keys, counts = np.unique(of * kinds + residuals.kind, return_counts=True)
    edges = np.searchsorted(keys, np.arange(layers + 1) * kinds)
    return [
        LayerTiles(tuple((keys[a:b] % kinds).tolist()), tuple(counts[a:b].tolist()), bool(full))
        for a, b, full in zip(edges[:-1], edges[1:], has_full, strict=True)
    ]


def number_in_order(tiles: np.ndarray) -> np.ndarray:
    """Number images 0, 1, ... in order of execution: by their first layer, then their last, then their first tile."""
    tiles = tiles.copy()
    _, first, index = np.unique(tiles["image"], return_index=True, return_inverse=True)
    index = index.reshape(-1)
    last = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(last, index, tiles["layer"])
    number = np.empty(len(first), dtype=np.int32)
    number[np.lexsort((first, last, tiles["layer"][first]))] = np.arange(len(first))
    tiles["image"] = number[index]
    return tiles
