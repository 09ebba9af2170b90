"""The free part of one array as its maximal free rectangles.

J. Jylanki, "A thousand ways to pack the bin", 2010, section 2.4 (MAXRECTS).
"""

from __future__ import annotations

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
        for part in parts:
            rivals = [*kept, *parts]
            if not any(other != part and _contains(other, part) for other in rivals):
                kept.append(part)
        self.rectangles = list(dict.fromkeys(kept))


def _contains(outer: Rectangle, inner: Rectangle) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]
