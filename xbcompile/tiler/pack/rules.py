"""Which tiles may share an array, and what of the array each of them takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackingRules:
    """The array and what its device allows.

    Two tiles of an image never use a common cell. Where a device cannot keep rows of another tile from adding to a column
    that it reads, tiles must not share columns; where it cannot drive rows for one tile alone, they must not share rows.

    Args:
        rows: rows of an array.
        columns: columns of an array.
        fixed_rows: tiles stay at the rows where they are; else they may move.
        share_rows: two tiles of an image may use a common row.
        share_columns: two tiles of an image may use a common column. Without both, tiles lie on a diagonal.
    """

    rows: int
    columns: int
    fixed_rows: bool = False
    share_rows: bool = True
    share_columns: bool = True

    @property
    def diagonal(self) -> bool:
        """Neither rows nor columns may be shared."""
        return not (self.share_rows or self.share_columns)

    @property
    def cells(self) -> int:
        """Cells of an array."""
        return self.rows * self.columns

    def footprints(self, tiles: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
        """What each tile takes of its array, as a rectangle that no other tile may meet.

        Without shared columns a tile takes its columns from top to bottom, without shared rows its rows from left to
        right; on a diagonal both, which no rectangle states: then the tile itself.

        Args:
            tiles: TILE table; the rows are read where they are fixed.
            height: int [tiles], rows of each tile.
            width: int [tiles], columns of each tile.

        Returns:
            int64 [tiles, 3]: row (-1 where it is free), height, width.
        """
        full_height = self.share_rows and not self.share_columns
        full_width = self.share_columns and not self.share_rows
        row = tiles["row"] if self.fixed_rows and not full_height else np.full(len(tiles), -1)
        high = np.full(len(tiles), self.rows) if full_height else height
        wide = np.full(len(tiles), self.columns) if full_width else width
        return np.stack([row, high, wide], axis=1).astype(np.int64)

    def alone(self, height: np.ndarray, width: np.ndarray) -> np.ndarray:
        """Tiles that no other tile can join, bool [tiles]."""
        all_rows, all_columns = height == self.rows, width == self.columns
        if self.share_rows and self.share_columns:
            return np.logical_and(all_rows, all_columns)
        if self.diagonal:
            return np.logical_or(all_rows, all_columns)
        return np.asarray(all_rows if self.share_columns else all_columns)
