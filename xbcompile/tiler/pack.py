"""Pack residual tiles into shared images; full tiles have an image of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.tiler.pack_bands import Bin, Kind, images_of, pack_bands
from xbcompile.tiler.pack_bounds import packing_bound
from xbcompile.tiler.pack_fill import pack_fills
from xbcompile.tiler.pack_solver import SOLVER_TILES, prove_or_improve


@dataclass(frozen=True, eq=False)
class Packing:
    """Tiles with their image, row and column; the number of images, and a lower bound for these tiles."""

    tiles: np.ndarray
    images: int
    lower_bound: int


def pack_tiles(tiles: np.ndarray, rows: int, columns: int, *, fixed_rows: bool, effort: float) -> Packing:
    """Pack tiles into as few images as can be found.

    Args:
        tiles: TILE table; only the row of a tile is read from its place, and only with `fixed_rows`.
        rows: rows of an array.
        columns: columns of an array.
        fixed_rows: tiles stay at their rows.
        effort: deterministic time allowed to the solver; 0 for heuristics alone.

    Returns:
        The same tiles placed; images are numbered in the order of their first tile.
    """
    residual, table, kind_of, counts = _kinds(tiles, rows, columns, fixed_rows=fixed_rows)
    full = len(tiles) - len(residual)
    bound = packing_bound(table, counts, rows, columns)
    bins, bound = _pack_kinds([(r, h, w) for r, h, w in table.tolist()], counts.tolist(), rows, columns, bound, effort)
    placed = _place(tiles, residual, kind_of, bins)
    return Packing(placed, full + images_of(bins), full + bound)


def bound_tiles(tiles: np.ndarray, rows: int, columns: int) -> int:
    """Images that any packing of these tiles needs, rows free to choose; no solver."""
    residual, table, _, counts = _kinds(tiles, rows, columns, fixed_rows=False)
    return len(tiles) - len(residual) + packing_bound(table, counts, rows, columns)


def _kinds(
    tiles: np.ndarray, rows: int, columns: int, *, fixed_rows: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the residual tiles; their kinds (row, height, width); the kind of each; the count of each kind."""
    height, width = tile_rows(tiles).astype(np.int64), tile_columns(tiles).astype(np.int64)
    residual = np.flatnonzero((height < rows) | (width < columns))
    row = tiles["row"][residual].astype(np.int64) if fixed_rows else np.full(len(residual), -1)
    sizes = np.stack([row, height[residual], width[residual]], axis=1)
    table, kind_of, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    return residual, table, kind_of.reshape(-1), counts


def _pack_kinds(
    kinds: list[Kind], counts: list[int], rows: int, columns: int, bound: int, effort: float
) -> tuple[list[Bin], int]:
    """The best packing found, and the best lower bound."""
    if not kinds:
        return [], 0
    bins = pack_bands(kinds, counts, rows, columns)
    if kinds[0][0] < 0 and images_of(bins) > bound:
        shelves = _transpose(pack_bands([(-1, w, h) for _, h, w in kinds], counts, columns, rows))
        bins = min(bins, shelves, key=images_of)
    if images_of(bins) > bound:
        bins = pack_fills(kinds, counts, rows, columns, best=bins, enough=bound)
    if images_of(bins) > bound and effort > 0 and sum(counts) <= SOLVER_TILES:
        bins, bound = prove_or_improve(kinds, counts, rows, columns, bins=bins, bound=bound, effort=effort)
    return bins, bound


def _transpose(bins: list[Bin]) -> list[Bin]:
    return [Bin(b.copies, [(kind, column, row) for kind, row, column in b.placed]) for b in bins]


def _place(tiles: np.ndarray, residual: np.ndarray, kind_of: np.ndarray, bins: list[Bin]) -> np.ndarray:
    """Give each residual tile a place of its kind, in tile order, and number the images by their first tile."""
    placed = tiles.copy()
    placed["column"] = 0
    placed["image"] = np.arange(len(tiles))  # full tiles keep these; bins are numbered above them
    waiting = residual[np.argsort(kind_of, kind="stable")]
    next_of = np.cumsum(np.bincount(kind_of)) - np.bincount(kind_of)
    first_image = len(tiles)
    for b in bins:
        for kind, row, column in b.placed:
            mine = waiting[next_of[kind] : next_of[kind] + b.copies]
            next_of[kind] += b.copies
            placed["image"][mine] = first_image + np.arange(b.copies)
            placed["row"][mine], placed["column"][mine] = row, column
        first_image += b.copies
    placed["image"] = number_images(placed["image"])
    return placed


def number_images(image: np.ndarray) -> np.ndarray:
    """Number images 0, 1, ... in the order of their first tile, int32."""
    _, first, index = np.unique(image, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int32)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[index.reshape(-1)]
