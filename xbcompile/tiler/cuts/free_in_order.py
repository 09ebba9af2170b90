"""Cut strips where it helps to pack them in order of execution: fewest images first, then fewest reads.

Images are filled one after another. An image takes what is left of one layer, then the next layers, and the first layer that
does not fit is cut to the free space: what is left of it goes to the next image. So cuts can make any image full, and each
cut may cost a tile, which is read. A beam search keeps, for each number of images, the states that waste the fewest cells and
those that will need the fewest reads; a state may waste what a given number of images leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xbcompile.ir.schedule import TILE
from xbcompile.tiler.cuts.fill import Piece, cut_piece
from xbcompile.tiler.pack.bounds import strip_bound
from xbcompile.tiler.pack.dense import Packing
from xbcompile.tiler.pack.free_space import FreeSpace
from xbcompile.tiler.pack.in_order import number_in_order
from xbcompile.tiler.pack.rules import PackingRules
from xbcompile.tiler.shapes import MatrixShape, reads_of

_LEAST_FILLS, _FILLS_PER_EFFORT = 1_500, 20_000  # images that may be filled in one search
_TILES_PER_FILL = 6  # an image with more tiles counts as more
_WIDEST = 24  # states of the beam
_VARIANTS = 64  # that `_variants` gives
_KEPT_FILLS = 50_000  # assumed: some tens of MB

Run = tuple[Piece, int]  # equal pieces of so many groups: of the given one and of those behind it
Bulk = tuple[Piece, int]  # a piece that is cut into full tiles, and the first of their images
Placed = tuple[Piece, int, int, int]  # piece, image, row, column
# The layer in work after an image, what is left of it, weights in the image, and its pieces with row and column.
_Filled = tuple[int, tuple[Run, ...], int, tuple[tuple[Piece, int, int], ...]]


@dataclass(frozen=True)
class _Variant:
    """How one image is filled.

    Args:
        key: which size of a piece decides: area, height, width, the larger share of the array.
        waste: free cells, in one rectangle, that are left rather than cut a piece for them.
        fewest_cuts: prefer a cut in one direction to a larger part.
        rows_first: what is left of a piece cut in both directions: its lower rows in one piece, or its right columns.
    """

    key: int
    waste: int
    fewest_cuts: bool
    rows_first: bool


@dataclass(frozen=True)
class _State:
    """What is left after some images: pieces of `layer`, and all later layers.

    Args:
        images: images closed.
        layer: the layer in work.
        pieces: what is left of it.
        placed: weights in the images.
        reads: of the tiles in the images.
        expected: `reads` and the fewest that the rest needs.
        before: state before the last image.
        added: what the last image, or run of full images, holds.
        bulk: the last images are full tiles of this piece.
    """

    images: int
    layer: int
    pieces: tuple[Run, ...]
    placed: int
    reads: int
    expected: int
    before: _State | None = None
    added: tuple[Placed, ...] = ()
    bulk: Bulk | None = None


class OrderedFiller:
    """Fills images in order with pieces of any cut.

    Args:
        shapes: one per layer, in order of execution.
        rules: array and sharing; rows are chosen here.
    """

    def __init__(self, shapes: Sequence[MatrixShape], rules: PackingRules) -> None:
        self.shapes, self.rules = shapes, rules
        self.bound = strip_bound(shapes, rules)
        least = [s.groups * -(-s.inputs // rules.rows) * -(-s.outputs // rules.columns) for s in shapes]
        reads = [s.reads * tiles for s, tiles in zip(shapes, least, strict=True)]
        self._least_from = [*np.cumsum(reads[::-1])[::-1].tolist(), 0]  # reads of a layer and all behind it
        self._weights = sum(shape.weights for shape in shapes)
        full = sum(s.groups * (s.inputs // rules.rows) * (s.outputs // rules.columns) for s in shapes)
        self._partial = max(self.bound - full + len(shapes), (sum(least) - full) // _TILES_PER_FILL)
        self._answers: dict[tuple[int, int, int, int], _State | None] = {}
        self._fills: dict[tuple[int, tuple[Run, ...], _Variant], _Filled] = {}  # searches of more effort begin alike

    def improve(self, packing: Packing, effort: float) -> Packing:
        """A packing with fewer images, or as many and fewer reads, if one is found; else the given one."""
        best = Packing(packing.tiles, packing.images, self.bound, packing.limited)
        now = reads_of(best.tiles, self.shapes)
        if best.images == self.bound and now == self._least_from[0]:
            return best
        per_image = (_LEAST_FILLS + int(_FILLS_PER_EFFORT * effort)) / max(1, self._partial)
        turns = min(_VARIANTS, max(1, int(per_image**0.6)))
        width = min(_WIDEST, max(1, int(per_image / turns)))
        limited = packing.limited or turns < _VARIANTS or width < _WIDEST
        extra = 0
        while self.bound + extra <= best.images:
            images = self.bound + extra
            question = (images, now if images == best.images else 0, turns, width)
            if question not in self._answers:
                self._answers[question] = self._search(*question)
            if (end := self._answers[question]) is not None:
                best = Packing(number_in_order(_tile_table(end, self.rules)), end.images, self.bound)
                break
            extra = max(1, 2 * extra)
        return replace(best, limited=limited)

    def _reads_of(self, run: Run) -> int:
        (layer, _, k0, k1, m0, m1), groups = run
        return (
            self.shapes[layer].reads * groups * -(-(k1 - k0) // self.rules.rows) * -(-(m1 - m0) // self.rules.columns)
        )

    def _whole(self, layer: int) -> tuple[Run, ...]:
        shape = self.shapes[layer]
        return (((layer, 0, 0, shape.inputs, 0, shape.outputs), shape.groups),)

    def _search(self, images: int, fewest: int, turns: int, width: int) -> _State | None:
        """The end state with at most so many images and the fewest reads, fewer than `fewest` unless that is 0.

        Tries `turns` variants from each of `width` states per number of images.
        """
        spare = images * self.rules.cells - self._weights
        variants = list(_variants(spare // images, self.rules.cells))
        first = _State(0, 0, self._whole(0), 0, 0, self._least_from[0])
        levels: dict[int, dict[tuple[int, tuple[Run, ...]], _State]] = {0: {(0, first.pieces): first}}
        best: _State | None = None
        waste_counts = self.rules.share_rows and self.rules.share_columns
        while levels:
            level = min(levels)
            states = list(levels.pop(level).values())
            for state in _choose(states, width):
                for variant in variants[:turns]:
                    after = self._next(state, variant)
                    if after.images > images or 0 < fewest <= after.expected:
                        continue
                    if waste_counts and after.images * self.rules.cells - after.placed > spare:
                        continue
                    if after.layer == len(self.shapes):
                        best, fewest = after, after.reads
                        continue
                    known = levels.setdefault(after.images, {})
                    key = (after.layer, after.pieces)
                    if key not in known or after.expected < known[key].expected:
                        known[key] = after
                    if after.bulk is not None:
                        break  # all variants begin so
        return best

    def _next(self, state: _State, variant: _Variant) -> _State:
        """Fill the next image, or as many as a large piece has full tiles."""
        rows, columns = self.rules.rows, self.rules.columns
        for index, (piece, groups) in enumerate(state.pieces):
            high, wide = (piece[3] - piece[2]) // rows * rows, (piece[5] - piece[4]) // columns * columns
            if high and wide:
                core, rests = _take(piece, groups, high, wide, rows_first=variant.rows_first)
                count = high * wide // self.rules.cells
                pieces = (*state.pieces[:index], *rests, *state.pieces[index + 1 :])
                return self._after(state, count, state.layer, pieces, high * wide, (), (core, state.images))
        key = state.layer, state.pieces, variant
        if key not in self._fills:
            if len(self._fills) >= _KEPT_FILLS:
                self._fills.clear()
            self._fills[key] = self._fill(*key)
        layer, pieces, weights, parts = self._fills[key]
        added = tuple([(part, state.images, row, column) for part, row, column in parts])
        return self._after(state, 1, layer, pieces, weights, added, None)

    def _fill(self, layer: int, left: tuple[Run, ...], variant: _Variant) -> _Filled:
        """Fill one image with what is left of a layer and with those behind it."""
        space = FreeSpace(self.rules.rows, self.rules.columns)
        pieces, parts, weights = list(left), [], 0
        while True:
            if not pieces:
                layer += 1
                if layer == len(self.shapes):
                    break
                pieces = list(self._whole(layer))
            place = self._place(space, pieces, variant)
            if place is None:
                break
            index, row, column, height, width = place
            space.take_tile(row, column, height, width, self.rules)
            part, rests = _take(*pieces[index], height, width, rows_first=variant.rows_first)
            pieces[index : index + 1] = rests
            parts.append((part, row, column))
            weights += height * width
        return layer, tuple(pieces), weights, tuple(parts)

    def _after(
        self,
        state: _State,
        images: int,
        layer: int,
        pieces: tuple[Run, ...],
        weights: int,
        added: tuple[Placed, ...],
        bulk: Bulk | None,
    ) -> _State:
        if not pieces and layer < len(self.shapes):
            layer += 1
            pieces = self._whole(layer) if layer < len(self.shapes) else ()
        full = 0 if bulk is None else images * self.shapes[bulk[0][0]].reads
        reads = state.reads + full + sum(self.shapes[piece[0]].reads for piece, *_ in added)
        behind = self._least_from[min(layer + 1, len(self.shapes))]
        expected = reads + behind + sum(map(self._reads_of, pieces))
        return _State(state.images + images, layer, pieces, state.placed + weights, reads, expected, state, added, bulk)

    def _place(
        self, space: FreeSpace, pieces: Sequence[Run], variant: _Variant
    ) -> tuple[int, int, int, int, int] | None:
        """Piece, row, column, height and width of the next tile: a whole piece, else the best part, else None."""
        rows, columns = self.rules.rows, self.rules.columns
        best: tuple[tuple[float, ...], tuple[int, int, int, int, int]] | None = None
        seen: set[tuple[int, int]] = set()
        for index, (piece, _) in enumerate(pieces):
            height, width = piece[3] - piece[2], piece[5] - piece[4]
            if (height, width) in seen:  # the first of equal ones stands
                continue
            seen.add((height, width))
            size = -_SIZES[variant.key](height, width, self.rules)
            if best is not None and best[0][:2] < (0, size):  # a larger one goes in whole
                continue
            most_high, most_wide = min(height, rows), min(width, columns)
            for top, left, bottom, right in space.rectangles:
                spare_rows, spare_columns = bottom - top - height, right - left - width
                high = height if spare_rows >= 0 else bottom - top
                wide = width if spare_columns >= 0 else right - left
                spare = (spare_rows, spare_columns) if spare_rows < spare_columns else (spare_columns, spare_rows)
                if high == most_high and wide == most_wide:
                    score = (0, size, *spare)
                elif high * wide <= variant.waste or (best is not None and best[0][0] == 0):
                    continue
                else:
                    cuts = (high < most_high) + (wide < most_wide) if variant.fewest_cuts else 1
                    score = (cuts, -high * wide, *spare)
                if best is None or score < best[0]:
                    best = score, (index, top, left, high, wide)
        return None if best is None else best[1]


_SIZES: tuple[Callable[[int, int, PackingRules], int], ...] = (
    lambda height, width, rules: height * width,
    lambda height, width, rules: height * rules.columns,
    lambda height, width, rules: width * rules.rows,
    lambda height, width, rules: max(height * rules.columns, width * rules.rows),
)


def _take(piece: Piece, groups: int, height: int, width: int, *, rows_first: bool) -> tuple[Piece, list[Run]]:
    """The first rows and columns of the first of some equal pieces, and the runs that remain."""
    part, rests = cut_piece(piece, height, width, rows_first=rows_first)
    runs = [(rest, 1) for rest in rests]
    if groups > 1:
        runs.append(((piece[0], piece[1] + 1, *piece[2:]), groups - 1))
    return part, runs


def _variants(spare: int, cells: int) -> Iterator[_Variant]:
    """Ways to fill one image; `spare` cells may be left free in each on the average."""
    for key in (0, 2, 1, 3):
        for fewest_cuts in (True, False):
            for waste in (spare, 0, 4 * spare, cells // 16):
                for rows_first in (True, False):
                    yield _Variant(key, waste, fewest_cuts, rows_first)


def _choose(states: Sequence[_State], width: int) -> list[_State]:
    """The states to go on with: fronts of those that no other beats in weights placed and in expected reads."""
    waiting = sorted(states, key=lambda s: (-s.placed, s.expected, s.layer, s.pieces))
    chosen: list[_State] = []
    while waiting and len(chosen) < width:
        front: list[_State] = []
        rest: list[_State] = []
        for state in waiting:
            (front if not front or state.expected < front[-1].expected else rest).append(state)
        chosen += front
        waiting = rest
    if len(chosen) <= width:
        return chosen
    return [chosen[i] for i in np.linspace(0, len(chosen) - 1, width).astype(np.int64)] if width > 1 else chosen[:1]


def _tile_table(end: _State, rules: PackingRules) -> np.ndarray:
    """All tiles on the way to a state, in the order of a TILE table."""
    tables: list[np.ndarray] = []
    small: list[tuple[int, ...]] = []
    state: _State | None = end
    while state is not None:
        small += [(*piece, image, row, column) for piece, image, row, column in state.added]
        if state.bulk is not None:
            tables.append(_full_tiles(*state.bulk, rules))
        state = state.before
    tiles = np.concatenate([np.array(small, dtype=TILE), *tables])
    return tiles[np.lexsort((tiles["k0"], tiles["m0"], tiles["group"], tiles["layer"]))]


def _full_tiles(piece: Piece, first: int, rules: PackingRules) -> np.ndarray:
    layer, group, k0, k1, m0, m1 = piece
    k, m = (grid.reshape(-1) for grid in np.meshgrid(np.arange(k0, k1, rules.rows), np.arange(m0, m1, rules.columns)))
    tiles = np.zeros(len(k), dtype=TILE)
    tiles["layer"], tiles["group"] = layer, group
    tiles["k0"], tiles["k1"], tiles["m0"], tiles["m1"] = k, k + rules.rows, m, m + rules.columns
    tiles["image"] = first + np.arange(len(k))
    return tiles
