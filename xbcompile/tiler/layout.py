"""Layouts: which piece of which matrix sits where in which weight image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.content import ContentEqual
from xbcompile.tiler.cut import MatrixShape, check_array, check_shapes, cut_greedy
from xbcompile.tiler.cut_free import cut_free
from xbcompile.tiler.pack import bound_tiles, number_images, pack_tiles
from xbcompile.tiler.pack_bounds import area_bound
from xbcompile.tiler.regroup import regroup

CUTS = ("greedy", "free")
DEFAULT_EFFORT = 1.0


@dataclass(frozen=True, eq=False)
class Layout(ContentEqual):
    """Tiles and their places; depends on the shapes of the matrices alone.

    Args:
        rows: rows of an array.
        columns: columns of an array.
        tiles: TILE table ordered by layer, group, m0, k0; every weight is in exactly one tile.
        images: number of weight images.
        images_lower_bound: no packing of tiles cut under the same rules (cuts, fixed rows) has fewer images.
        area_lower_bound: no layout has fewer images, whatever the cuts: ceil(weights / (rows * columns)).
        packing_status: "optimal" (images equals images_lower_bound), "feasible", or "unpacked".
    """

    rows: int
    columns: int
    tiles: np.ndarray
    images: int
    images_lower_bound: int
    area_lower_bound: int
    packing_status: str

    def for_layers(self, layers: Sequence[int]) -> Layout:
        """The same layout, in whose TILE table `layers[i]` stands for matrix i; ascending."""
        tiles = self.tiles.copy()
        tiles["layer"] = np.array(layers, dtype=np.int32)[tiles["layer"]]
        return replace(self, tiles=tiles)


def plan_layout(
    shapes: Sequence[MatrixShape],
    rows: int,
    columns: int,
    *,
    pack: bool = True,
    cuts: str = "greedy",
    fixed_rows: bool = False,
    effort: float = DEFAULT_EFFORT,
) -> Layout:
    """Cut matrices into tiles and tiles into images.

    Args:
        shapes: shape of each layer's matrices.
        rows: rows of an array.
        columns: columns of an array, at most 65,535.
        pack: let residual tiles share images; False gives every tile its own.
        cuts: "greedy" cuts every `rows` and `columns`; "free" also cuts residual strips elsewhere where that saves
            images.
        fixed_rows: with greedy cuts, tiles stay at the rows that `cut_greedy` gives them, as targets need whose rows
            carry different weights; free cuts choose the rows in any case.
        effort: work allowed to the searches, in the solver's deterministic time (one unit takes some seconds); 0 for
            heuristics alone.

    Returns:
        The layout; equal arguments give equal layouts.

    Raises:
        ScheduleError: an impossible array, an empty matrix, or contradicting options.
    """
    check_array(rows, columns)
    check_shapes(shapes)
    if cuts not in CUTS:
        raise ScheduleError(f"cuts={cuts!r} is unknown: use one of {', '.join(CUTS)}")
    if cuts == "free" and not pack:
        raise ScheduleError("cuts='free' chooses cuts while packing: use it with pack=True, or use cuts='greedy'")
    area = area_bound(shapes, rows, columns)
    tiles = cut_greedy(shapes, rows, columns)
    if not pack:
        bound = max(area, bound_tiles(tiles, rows, columns))
        return Layout(rows, columns, tiles, len(tiles), bound, area, "unpacked")
    packing = pack_tiles(tiles, rows, columns, fixed_rows=fixed_rows and cuts == "greedy", effort=effort)
    bound = max(area, packing.lower_bound)
    if cuts == "free":
        packing, bound = cut_free(packing, shapes, rows, columns, effort=effort), area
    tiles = regroup(packing.tiles, rows, columns, fixed_rows=fixed_rows and cuts == "greedy")
    tiles["image"] = number_images(tiles["image"])
    status = "optimal" if packing.images == bound else "feasible"
    return Layout(rows, columns, tiles, packing.images, bound, area, status)
