"""Cut residual strips where it helps to pack them: fewest images first, then fewest tiles.

Strips can be cut anywhere, so with enough cuts the residual weights always fill ceil(weights / cells) arrays. Each fill
places pieces into that number of arrays, the piece that fits best first; what does not fit is cut to the free space.
Fills differ in order and rules, and the one with the fewest tiles stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from xbcompile.ir.schedule import TILE, tile_columns, tile_rows
from xbcompile.tiler.cuts.fill import Filler, Piece, Placed
from xbcompile.tiler.pack.bounds import strip_bound
from xbcompile.tiler.pack.dense import Packing, number_images
from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.shapes import MatrixShape

_SMALL = 300  # residual tiles up to which all strips are laid anew
_CHUNK = 400  # tiles that are taken out of their images at a time otherwise
_CHUNK_ORDERS = 12
_MARGINS = (1.3, 1.1, 1.0)
_LEAST_CHECKS, _CHECKS_PER_EFFORT = 200_000, 4_000_000  # allowance, in checks of a piece against a free rectangle


def cut_free(packing: Packing, shapes: Sequence[MatrixShape], rules: PackingRules, *, effort: float) -> Packing:
    """Improve a packing of greedy cuts by cutting residual strips elsewhere.

    Args:
        packing: greedy cuts, packed; it stands where it has as few images as the weights allow.
        shapes: one per layer.
        rules: array and sharing.
        effort: work to spend on finding fewer tiles.

    Returns:
        A packing with no more images, and the bound that holds for any cuts.
    """
    rows, columns = rules.rows, rules.columns
    bound = strip_bound(shapes, rules)
    best = Packing(packing.tiles, packing.images, bound)
    if packing.images == bound:
        return best
    full = (tile_rows(packing.tiles) == rows) & (tile_columns(packing.tiles) == columns)
    filler = Filler(rules, _LEAST_CHECKS + int(_CHECKS_PER_EFFORT * effort))
    repaired = best
    for margin in _MARGINS:
        images = packing.images + 1
        while bound < repaired.images < images:
            images = repaired.images
            repaired = _repair(repaired, filler, margin)
    if np.count_nonzero(~full) <= _SMALL:
        limit = len(repaired.tiles) - int(full.sum()) if repaired.images == bound else None
        variants = list(_strip_variants(shapes, rows, columns))
        placed = filler.best_of(variants, bound - int(full.sum()), limit)
        repaired = repaired if placed is None else _join(packing.tiles[full], [placed], bound)
    return replace(repaired, limited=filler.checks <= 0)


def _strip_variants(shapes: Sequence[MatrixShape], rows: int, columns: int) -> Iterator[list[Piece]]:
    """Residual strips in one piece each; the corner of each matrix goes to its row strip or to its column strip."""
    for corner_to_rows in (True, False):
        strips: list[Piece] = []
        for layer, shape in enumerate(shapes):
            inner_k, inner_m = shape.inputs // rows * rows, shape.outputs // columns * columns
            end_m = shape.outputs if corner_to_rows else inner_m
            end_k = inner_k if corner_to_rows else shape.inputs
            for group in range(shape.groups):
                if inner_k < shape.inputs and end_m:
                    strips.append((layer, group, inner_k, shape.inputs, 0, end_m))
                if inner_m < shape.outputs and end_k:
                    strips.append((layer, group, 0, end_k, inner_m, shape.outputs))
        yield strips


def _repair(packing: Packing, filler: Filler, margin: float) -> Packing:
    """Empty the least filled images, a chunk at a time, and put their tiles, cut where needed, into fewer.

    A chunk has `margin` times the free cells that it must lose: the more, the fewer cuts.
    """
    tiles, cells = packing.tiles, filler.rows * filler.columns
    area = np.bincount(tiles["image"], weights=tile_rows(tiles).astype(np.int64) * tile_columns(tiles))
    spare = cells - area.astype(np.int64)
    per_image = np.bincount(tiles["image"])
    waiting = np.argsort(-spare, kind="stable")
    emptied = np.zeros(packing.images, dtype=bool)
    refilled: list[list[Placed]] = []
    excess = packing.images - packing.lower_bound
    residual = np.count_nonzero((tile_rows(tiles) < filler.rows) | (tile_columns(tiles) < filler.columns))
    saved_at_once = excess if residual <= _SMALL else 1
    while excess and filler.checks > 0:
        enough = np.searchsorted(np.cumsum(spare[waiting]), int(saved_at_once * cells * margin)) + 1
        chunk = waiting[:enough]
        if enough > len(waiting) or per_image[chunk].sum() > _CHUNK:
            break
        mine = np.flatnonzero(np.isin(tiles["image"], chunk))
        pieces = [tile[:6] for tile in tiles[mine].tolist()]
        placed = filler.best_of([pieces], len(chunk) - saved_at_once, None, orders=_CHUNK_ORDERS)
        if placed is None:
            break
        refilled.append(placed)
        emptied[chunk] = True
        excess -= saved_at_once
        waiting = waiting[enough:]
    return _join(tiles[~emptied[tiles["image"]]], refilled, packing.lower_bound)


def _join(kept: np.ndarray, refilled: Sequence[Sequence[Placed]], bound: int) -> Packing:
    """One packing of tiles that stay in their images and of others in new images."""
    tables = [kept]
    first = int(kept["image"].max(initial=-1)) + 1
    for placed in refilled:
        table = np.array([(*piece, image + first, row, column) for piece, image, row, column in placed], dtype=TILE)
        first = int(table["image"].max()) + 1
        tables.append(table)
    tiles = np.concatenate(tables)
    tiles = tiles[np.lexsort((tiles["k0"], tiles["m0"], tiles["group"], tiles["layer"]))]
    tiles["image"] = number_images(tiles["image"])
    return Packing(tiles, int(tiles["image"].max(initial=-1)) + 1, bound)
