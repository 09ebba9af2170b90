"""Fill a given number of arrays with pieces of matrices, cutting what does not fit."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.tiler.pack.free_space import FreeSpace
from xbcompile.tiler.pack.rules import PackingRules

Piece = tuple[int, int, int, int, int, int]  # layer, group, k0, k1, m0, m1
Placed = tuple[Piece, int, int, int]  # piece, image, row, column

_ORDERS = 400
# A score is one whole number, which is compared faster than several: cuts, less cells, then what is spare, the less first.
_SIZE_BITS, _AREA_BITS = 31, 64  # as tables are int32
_NO_PLACE = 1 << (2 * _SIZE_BITS + _AREA_BITS + 2)


@dataclass(frozen=True)
class _Order:
    """How one fill goes: which size decides, how much chance, which way pieces are cut first."""

    key: int
    noise: np.ndarray
    rows_first: bool


class Filler:
    """Fills arrays of one size until its allowance of `checks` (piece against free rectangle) is spent."""

    def __init__(self, rules: PackingRules, checks: int) -> None:
        self.rules, self.checks = rules, checks
        self.rows, self.columns = rules.rows, rules.columns

    def best_of(
        self, variants: Sequence[Sequence[Piece]], images: int, limit: int | None, *, orders: int = _ORDERS
    ) -> list[Placed] | None:
        """The fill with the fewest tiles over several orders of each variant.

        Args:
            variants: alternative lists of pieces that hold the same weights, no more than `images` arrays have cells.
            images: arrays to fill.
            limit: only a result with fewer tiles counts.
            orders: fills to try of all variants together.

        Returns:
            The pieces placed, or None when no fill beats `limit` within the allowance.
        """
        best: list[Placed] | None = None
        for turn, order in enumerate(_orders(max(map(len, variants)), orders)):
            placed = self._fill(variants[turn % len(variants)], images, limit, order)
            if placed is not None:
                best, limit = placed, len(placed)
            if self.checks <= 0:
                break
        return best

    def _fill(self, pieces: Sequence[Piece], images: int, limit: int | None, order: _Order) -> list[Placed] | None:
        spaces = [FreeSpace(self.rows, self.columns) for _ in range(images)]
        queue = [(self._key(piece, number, order), number, piece) for number, piece in enumerate(pieces)]
        heapq.heapify(queue)
        placed: list[Placed] = []
        while queue:
            if self.checks <= 0 or (limit is not None and len(placed) + len(queue) >= limit):
                return None
            _, number, piece = heapq.heappop(queue)
            place = self._choose(spaces, piece)
            if place is None:
                return None
            image, row, column, height, width = place
            spaces[image].take_tile(row, column, height, width, self.rules)
            part, rests = cut_piece(piece, height, width, rows_first=order.rows_first)
            placed.append((part, image, row, column))
            for rest in rests:
                heapq.heappush(queue, (self._key(rest, number, order), number, rest))
        return placed

    def _key(self, piece: Piece, number: int, order: _Order) -> float:
        """Pieces with the smallest key are placed first."""
        height, width = min(piece[3] - piece[2], self.rows), min(piece[5] - piece[4], self.columns)
        size = (height * width, height * self.columns, width * self.rows, max(height / self.rows, width / self.columns))
        return -float(size[order.key] * order.noise[number])

    def _choose(self, spaces: Sequence[FreeSpace], piece: Piece) -> tuple[int, int, int, int, int] | None:
        """Image, row, column, height and width of the best place: no cut, else the largest part, else the tightest.

        A cut at the length of the whole array does not count: the piece needs it anyway. None when all arrays are full,
        which happens only where tiles may not share rows or columns: else there are as many cells as weights.
        """
        height, width = piece[3] - piece[2], piece[5] - piece[4]
        rows, columns = min(height, self.rows), min(width, self.columns)
        least, best, seen_empty = _NO_PLACE, None, False
        for image, space in enumerate(spaces):
            rectangles = space.rectangles
            if len(rectangles) == 1 and rectangles[0] == (0, 0, self.rows, self.columns):
                if seen_empty:
                    continue
                seen_empty = True
            self.checks -= len(rectangles) + 1
            for top, left, bottom, right in rectangles:
                high, wide = bottom - top, right - left
                if least < 0 and (high < rows or wide < columns):  # without a cut there is a place already
                    continue
                part_height, part_width = (height if height < high else high), (width if width < wide else wide)
                spare, other = high - part_height, wide - part_width
                if spare > other:
                    spare, other = other, spare
                cuts = (part_height < rows) + (part_width < columns)
                score = (cuts << _AREA_BITS) - part_height * part_width
                score = (((score << _SIZE_BITS) + spare) << _SIZE_BITS) + other
                if score < least:
                    least, best = score, (image, top, left, part_height, part_width)
        return best


def _orders(pieces: int, count: int) -> Iterator[_Order]:
    stream = np.random.Generator(np.random.Philox(key=2))
    for turn in range(count):
        strength = 0.0 if turn < 16 else 1.0 + turn % 3
        noise = 1.0 + strength * stream.random(pieces)
        yield _Order(key=turn // 2 % 4, noise=noise, rows_first=turn // 8 % 2 == 0)


def cut_piece(piece: Piece, height: int, width: int, *, rows_first: bool) -> tuple[Piece, list[Piece]]:
    """The first `height` rows and `width` columns of a piece, and what remains as at most two pieces."""
    layer, group, k0, k1, m0, m1 = piece
    k, m = k0 + height, m0 + width
    part = (layer, group, k0, k, m0, m)
    if rows_first:
        rests = [(layer, group, k, k1, m0, m1), (layer, group, k0, k, m, m1)]
    else:
        rests = [(layer, group, k0, k1, m, m1), (layer, group, k, k1, m0, m)]
    return part, [rest for rest in rests if rest[2] < rest[3] and rest[4] < rest[5]]
