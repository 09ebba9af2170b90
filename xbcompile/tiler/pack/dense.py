"""Pack residual tiles into shared images; full tiles have an image of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.tiler.effort import Allowance
from xbcompile.tiler.pack.bands import Bin, Kind, images_of, pack_bands
from xbcompile.tiler.pack.bounds import bound_kinds
from xbcompile.tiler.pack.diagonal import pack_first_fit, prove_or_improve_diagonal
from xbcompile.tiler.pack.first_fit import pack_fills
from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.pack.solver import SOLVER_TILES, prove_or_improve

FILL_CHECKS = 1_500_000  # rectangle checks allowed to the fills of one packing


@dataclass(frozen=True, eq=False)
class Packing:
    """Tiles with their image, row and column; the number of images, and a lower bound for these tiles.

    `limited` tells that a search ended for lack of effort: more of it might change the result.
    """

    tiles: np.ndarray
    images: int
    lower_bound: int
    limited: bool = False


@dataclass(frozen=True, eq=False)
class Residuals:
    """The tiles that can share images, by kind: their footprint.

    Args:
        index: int64 [residuals], their positions in the TILE table.
        kinds: int64 [kinds, 3]: row (-1 when free to move), height, width.
        kind: int64 [residuals], kind of each.
        counts: int64 [kinds].
    """

    index: np.ndarray
    kinds: np.ndarray
    kind: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, tiles: np.ndarray, rules: PackingRules) -> Residuals:
        """The residual tiles of a TILE table."""
        height, width = tile_rows(tiles).astype(np.int64), tile_columns(tiles).astype(np.int64)
        index = np.flatnonzero(~rules.alone(height, width))
        sizes = rules.footprints(tiles[index], height[index], width[index])
        kinds, kind, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
        return cls(index, kinds, kind.reshape(-1), counts)


class Packer:
    """Packs the residual tiles of one TILE table, better with every effort.

    Args:
        tiles: TILE table; only the row of a tile is read from its place, and only with fixed rows.
        rules: array and sharing.
    """

    def __init__(self, tiles: np.ndarray, rules: PackingRules) -> None:
        self.tiles, self.rules = tiles, rules
        self.residuals = Residuals.of(tiles, rules)
        self.kinds: list[Kind] = [(r, h, w) for r, h, w in self.residuals.kinds.tolist()]
        self.counts: list[int] = self.residuals.counts.tolist()
        self.bound = bound_kinds(self.residuals.kinds, self.residuals.counts, rules) if self.kinds else 0
        self.bins = pack_kinds(self.kinds, self.counts, rules, self.bound, checks=FILL_CHECKS)

    def improve(self, effort: float) -> Packing:
        """Spend this deterministic time of the solver on a better packing, or a better bound; returns the best so far."""
        limited = False
        if images_of(self.bins) > self.bound and sum(self.counts) <= SOLVER_TILES:
            allowance = Allowance(effort)
            self.bins, self.bound = solve_kinds(self.kinds, self.counts, self.rules, self.bins, self.bound, allowance)
            limited = allowance.ran_out
        full = len(self.tiles) - len(self.residuals.index)
        placed = _place(self.tiles, self.residuals, self.bins, self.rules)
        return Packing(placed, full + images_of(self.bins), full + self.bound, limited)


def bound_tiles(tiles: np.ndarray, rules: PackingRules) -> int:
    """Images that any packing of these tiles needs, rows free to choose; no solver."""
    residuals = Residuals.of(tiles, replace(rules, fixed_rows=False))
    full = len(tiles) - len(residuals.index)
    return full + (bound_kinds(residuals.kinds, residuals.counts, rules) if len(residuals.index) else 0)


def pack_kinds(kinds: list[Kind], counts: list[int], rules: PackingRules, bound: int, *, checks: int) -> list[Bin]:
    """The best packing that the heuristics find; `checks` limits the fills, `bound` is what ends them."""
    if not kinds:
        return []
    if rules.diagonal:
        bins = pack_first_fit(kinds, counts, rules)
    else:
        bins = pack_bands(kinds, counts, rules.rows, rules.columns)
        if kinds[0][0] < 0 and images_of(bins) > bound:
            shelves = _transpose(pack_bands([(-1, w, h) for _, h, w in kinds], counts, rules.columns, rules.rows))
            bins = min(bins, shelves, key=images_of)
    if images_of(bins) > bound and checks:
        bins = pack_fills(kinds, counts, rules, best=bins, enough=bound, checks=checks)
    return bins


def solve_kinds(
    kinds: list[Kind], counts: list[int], rules: PackingRules, bins: list[Bin], bound: int, allowance: Allowance
) -> tuple[list[Bin], int]:
    """A packing that is no worse, and a bound that is no weaker, from the solver."""
    if allowance.left <= 0:
        allowance.ran_out = True
        return bins, bound
    solve = prove_or_improve_diagonal if rules.diagonal else prove_or_improve
    return solve(kinds, counts, rules, bins=bins, bound=bound, allowance=allowance)


def _transpose(bins: list[Bin]) -> list[Bin]:
    return [Bin(b.copies, [(kind, column, row) for kind, row, column in b.placed]) for b in bins]


def _place(tiles: np.ndarray, residuals: Residuals, bins: list[Bin], rules: PackingRules) -> np.ndarray:
    """Give each residual tile a place of its kind, in tile order, and number the images by their first tile."""
    placed, kind_of = tiles.copy(), residuals.kind
    placed["column"] = 0
    if not rules.fixed_rows:
        placed["row"] = 0
    placed["image"] = np.arange(len(tiles))  # full tiles keep these; bins are numbered above them
    waiting = residuals.index[np.argsort(kind_of, kind="stable")]
    next_of = np.cumsum(np.bincount(kind_of)) - np.bincount(kind_of)
    first_image = len(tiles)
    for b in bins:
        for kind, row, column in b.placed:
            mine = waiting[next_of[kind] : next_of[kind] + b.copies]
            next_of[kind] += b.copies
            placed["image"][mine] = first_image + np.arange(b.copies)
            placed["column"][mine] = column
            if not rules.fixed_rows:
                placed["row"][mine] = row
        first_image += b.copies
    placed["image"] = number_images(placed["image"])
    return placed


def number_images(image: np.ndarray) -> np.ndarray:
    """Number images 0, 1, ... in the order of their first tile, int32."""
    _, first, index = np.unique(image, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int32)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[index.reshape(-1)]
