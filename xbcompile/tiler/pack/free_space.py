"""The free part of one array as its maximal free rectangles.

J. Jylanki, "A thousand ways to pack the bin", 2010, section 2.4 (MAXRECTS).
"""

from __future__ import annotations

from xbcompile.tiler.pack.rules import PackingRules

Rectangle = tuple[int, int, int, int]  # row, column, end row, end column

FIRST_COLUMN, FIRST_ROW, TIGHTEST = "first-column", "first-row", "tightest"
RULES = (FIRST_COLUMN, FIRST_ROW, TIGHTEST)


class FreeSpace:
    """Maximal free rectangles of an array of `rows` x `columns`, at first all of it."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rectangles: list[Rectangle] = [(0, 0, rows, columns)]

    def find(self, row: int, height: int, width: int, rule: str) -> tuple[int, int] | None:
        """Row and column for a rectangle, or None. `row` >= 0 fixes the row; -1 leaves it free."""
        best: tuple[tuple[int, int], int, int] | None = None
        for top, left, bottom, right in self.rectangles:
            at = top if row < 0 else row
            if right - left < width or at < top or at + height > bottom:
                continue
            if rule == FIRST_COLUMN:
                score = (left, at)
            elif rule == FIRST_ROW:
                score = (at, left)
            else:
                spare = (right - left - width, bottom - top - height)
                score = (min(spare), max(spare))
            if best is None or (score, at, left) < best:
                best = (score, at, left)
        return None if best is None else best[1:]

    def take_tile(self, row: int, column: int, height: int, width: int, rules: PackingRules) -> None:
        """Occupy what a tile at this place keeps others from using under the rules: its rows or columns too."""
        self.take(row, column, height, width)
        if not rules.share_rows:
            self.take(row, 0, height, rules.columns)
        if not rules.share_columns:
            self.take(0, column, rules.rows, width)

    def take(self, row: int, column: int, height: int, width: int) -> None:
        """Occupy a free rectangle."""
        row_end, column_end = row + height, column + width
        kept: list[Rectangle] = []
        parts: list[Rectangle] = []
        for rectangle in self.rectangles:
            top, left, bottom, right = rectangle
            if row >= bottom or row_end <= top or column >= right or column_end <= left:
                kept.append(rectangle)
                continue
            if row > top:
                parts.append((top, left, row, right))
            if row_end < bottom:
                parts.append((row_end, left, bottom, right))
            if column > left:
                parts.append((top, left, bottom, column))
            if column_end < right:
                parts.append((top, column_end, bottom, right))
        parts = sorted(set(parts))
        others = [*kept, *parts]
        for part in parts:
            top, left, bottom, right = part
            for other in others:
                inside = other[0] <= top and other[1] <= left and other[2] >= bottom and other[3] >= right
                if inside and other != part:
                    break
            else:
                kept.append(part)
        self.rectangles = kept
