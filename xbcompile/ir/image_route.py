"""Where the rows and columns of weight images go on one chip's arrays, and with which sign.

A row may be driven through any physical row, with its drive and its cells negated; a column may be read from any physical
column, with its cells and its reading negated. The ideal result is the same; what a chip's defects do to it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.ir.content_equality import ContentEqual


@dataclass(frozen=True, eq=False)
class ImageRoute(ContentEqual):
    """Route of one image.

    Args:
        row: intp [rows], physical row of each logical row; a bijection.
        column: intp [columns], physical column of each logical column; a bijection.
        row_sign: float32 [rows], -1 or +1 of each logical row.
        column_sign: float32 [columns], -1 or +1 of each logical column.
    """

    row: np.ndarray
    column: np.ndarray
    row_sign: np.ndarray
    column_sign: np.ndarray


@dataclass(frozen=True, eq=False)
class RoutingProblem(ContentEqual):
    """What a routing pass may know of one image and its array.

    Args:
        cells: float64 [rows, columns], wanted cell values in level units by logical row and column.
        weight: float64 [rows, columns], what a squared error of each cell costs; 0 where no weight is.
        limits: float64 [2, rows, columns], lowest and highest value that each physical cell can have.
        rows_are_free: whether rows may move.
        rows_have_signs: whether a row may be negated.
        columns_have_signs: whether a column may be negated.
    """

    cells: np.ndarray
    weight: np.ndarray
    limits: np.ndarray
    rows_are_free: bool
    rows_have_signs: bool
    columns_have_signs: bool

    def cost(self, route: ImageRoute) -> float:
        """Weighted squared distance of the wanted cell values from what their physical cells can have."""
        wanted = self.cells * route.row_sign[:, None] * route.column_sign
        low, high = self.limits[:, route.row][:, :, route.column]
        return float((self.weight * np.square(wanted - np.clip(wanted, low, high))).sum())
