"""Layouts: which piece of which matrix sits where in which weight image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.tiler.cuts import CUTS
from xbcompile.tiler.cuts.blocks import cut_balanced, cut_greedy
from xbcompile.tiler.cuts.free import cut_free
from xbcompile.tiler.cuts.free_in_order import OrderedFiller
from xbcompile.tiler.effort import DEFAULT_EFFORT, FIRST_EFFORT
from xbcompile.tiler.pack.bounds import area_bound
from xbcompile.tiler.pack.dense import Packer, Packing, bound_tiles, number_images
from xbcompile.tiler.pack.in_order import OrderedPacker
from xbcompile.tiler.pack.regroup import regroup
from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.shapes import MatrixShape, check_array, check_shapes, reads_of

_NEXT_EFFORT = 4  # efforts are tried from the first on, each so many times the one before;
_MANY_LAYERS = 400  # with more layers, from 1 on


@dataclass(frozen=True, eq=False)
class Layout(ContentEqual):
    """Tiles and their places; depends on the shapes of the matrices alone.

    Args:
        rows: rows of an array.
        columns: columns of an array.
        tiles: TILE table ordered by layer, group, m0, k0; every weight is in exactly one tile.
        images: number of weight images.
        images_lower_bound: no packing under the same rules (cuts, fixed rows, order, sharing) has fewer images.
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
    in_order: bool = False,
    share_rows: bool = True,
    share_columns: bool = True,
) -> Layout:
    """Cut matrices into tiles and tiles into images.

    Args:
        shapes: shape of each layer's matrices.
        rows: rows of an array.
        columns: columns of an array, at most 65,535.
        pack: let residual tiles share images; False gives every tile its own.
        cuts: "greedy" cuts every `rows` and `columns`; "balanced" into as many blocks of nearly equal size; "free" also
            cuts residual strips elsewhere where that saves images.
        fixed_rows: with greedy and balanced cuts, tiles stay at the rows that the cut gives them, as targets need whose
            rows carry different weights; free cuts choose the rows in any case.
        effort: work allowed to the searches, in the solver's deterministic time (one unit takes some seconds); 0 for
            heuristics alone. Searches run with efforts 1/64, 1/16, 1/4, ... up to this one, and the best result stands: more
            effort never gives more images, nor more reads of as many images.
        in_order: packing follows execution: layers are executed in order of their index, and image i holds tiles of
            layers up to at most the first of image i + 1, so that one array takes the images in turn, each once.
        share_rows: tiles of one image may use common rows.
        share_columns: tiles of one image may use common columns; False where the device cannot keep rows of other
            tiles from adding to a column.

    Returns:
        The layout; equal arguments give equal layouts. Images are numbered in the order of their first tile; in order,
        as they are executed.

    Raises:
        ScheduleError: an impossible array, an empty matrix, or contradicting options.
    """
    check_array(rows, columns)
    check_shapes(shapes)
    if cuts not in CUTS:
        raise ScheduleError(f"cuts={cuts!r} is unknown: use one of {', '.join(CUTS)}")
    if cuts == "free" and not pack:
        raise ScheduleError("cuts='free' chooses cuts while packing: use it with pack=True, or use cuts='greedy'")
    if effort < 0:
        raise ScheduleError(f"effort={effort:g}: it must be at least 0; 0 uses heuristics alone")
    rules = PackingRules(rows, columns, fixed_rows and cuts != "free", share_rows, share_columns)
    tiles = (cut_balanced if cuts == "balanced" else cut_greedy)(shapes, rows, columns)
    area = area_bound(shapes, rows, columns)
    if not pack:
        bound = max(area, bound_tiles(tiles, rules))
        return Layout(rows, columns, tiles, len(tiles), bound, area, "unpacked")
    search = (_InOrder if in_order else _AnyOrder)(tiles, shapes, rules, cuts)
    fewest = reads_of(tiles, shapes)
    packing = _best_packing(search, fewest, FIRST_EFFORT if len(shapes) <= _MANY_LAYERS else 1.0, effort)
    bound = max(area, packing.lower_bound)
    status = "optimal" if packing.images == bound else "feasible"
    return Layout(rows, columns, search.number(packing), packing.images, bound, area, status)


class _AnyOrder:
    """Packings of a network whose tiles may meet in any image."""

    def __init__(self, tiles: np.ndarray, shapes: Sequence[MatrixShape], rules: PackingRules, cuts: str) -> None:
        self.shapes, self.rules, self.free = shapes, rules, cuts == "free"
        self.packer = Packer(tiles, rules)

    def improve(self, effort: float) -> Packing:
        """The packing that this effort finds; called with rising efforts."""
        packing = self.packer.improve(effort)
        return cut_free(packing, self.shapes, self.rules, effort=effort) if self.free else packing

    def number(self, packing: Packing) -> np.ndarray:
        """The TILE table with few layers per image, images in the order of their first tile."""
        tiles = regroup(packing.tiles, self.rules)
        tiles["image"] = number_images(tiles["image"])
        return tiles


class _InOrder:
    """Packings that follow execution."""

    def __init__(self, tiles: np.ndarray, shapes: Sequence[MatrixShape], rules: PackingRules, cuts: str) -> None:
        self.shapes, self.rules, self.free = shapes, rules, cuts == "free"
        self.packer = OrderedPacker(tiles, rules, len(shapes))
        self.filler = OrderedFiller(shapes, rules)

    def improve(self, effort: float) -> Packing:
        """The packing that this effort finds; called with rising efforts."""
        packing = self.packer.improve(effort)
        return self.filler.improve(packing, effort) if self.free else packing

    def number(self, packing: Packing) -> np.ndarray:
        """The TILE table with images in order of execution."""
        return packing.tiles


def _best_packing(search: _AnyOrder | _InOrder, fewest: int, first: float, effort: float) -> Packing:
    """The best packing of effort 0 and of efforts from `first` to `effort`: fewest images, then reads; the best bound."""

    def reads(packing: Packing) -> int:
        return reads_of(packing.tiles, search.shapes)

    best = search.improve(0.0)
    step, limited = first, best.limited
    while limited and step <= effort and (best.images > best.lower_bound or reads(best) > fewest):
        found = search.improve(step)
        bound = max(best.lower_bound, found.lower_bound)
        best = replace(min(best, found, key=lambda p: (p.images, reads(p))), lower_bound=bound)
        limited = found.limited
        step *= _NEXT_EFFORT
    return best
