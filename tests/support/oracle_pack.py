"""Fewest images by exhaustive search: written from the definitions alone, so that it shares no thought with the tiler.

Only for tiny instances. A tile is a rectangle that may not be turned; where a rule forbids that tiles of one image share rows
(columns), a tile takes its rows (columns) for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol


class Matrices(Protocol):
    """The shape of a layer: `groups` independent matrices of `inputs` rows and `outputs` columns."""

    groups: int
    inputs: int
    outputs: int


@dataclass(frozen=True, order=True)
class Piece:
    """One tile: its size, its layer, and its first row where that is given."""

    height: int
    width: int
    layer: int
    row: int | None = None


def cut_lengths(length: int, size: int, cuts: str) -> list[int]:
    """Lengths of the fewest pieces: full ones and a rest ("greedy"), or such that differ by at most one ("balanced")."""
    count = -(-length // size)
    if cuts == "balanced":
        return [length // count + (i < length % count) for i in range(count)]
    return [size] * (length // size) + ([length % size] if length % size else [])


def cut(shapes: Sequence[Matrices], rows: int, columns: int, cuts: str) -> list[Piece]:
    """The tiles of all matrices, at any row."""
    return [
        Piece(height, width, layer)
        for layer, shape in enumerate(shapes)
        for _ in range(shape.groups)
        for height in cut_lengths(shape.inputs, rows, cuts)
        for width in cut_lengths(shape.outputs, columns, cuts)
    ]


def _masks(piece: Piece, row: int, column: int, rows: int, columns: int) -> int:
    """The piece's cells as bits: cell (r, c) is bit r * columns + c."""
    line = ((1 << piece.width) - 1) << column
    return sum(line << (r * columns) for r in range(row, row + piece.height))


def _reserved(piece: Piece, row: int, column: int, rows: int, columns: int, share: tuple[bool, bool]) -> int:
    """Cells that no later piece may take: its own, all of its rows, all of its columns, as the rules say."""
    mask = _masks(piece, row, column, rows, columns)
    if not share[0]:
        mask |= _masks(Piece(piece.height, columns, 0), row, 0, rows, columns)
    if not share[1]:
        mask |= _masks(Piece(rows, piece.width, 0), 0, column, rows, columns)
    return mask


def fits(pieces: Sequence[Piece], rows: int, columns: int, share: tuple[bool, bool] = (True, True)) -> bool:
    """Whether all pieces have a place in one image: every position of every piece is tried."""
    if sum(p.height * p.width for p in pieces) > rows * columns:
        return False
    ordered = sorted(pieces, key=lambda p: (-p.height * p.width, p.height, p.width, p.row is None))

    @cache
    def place(index: int, taken: int) -> bool:
        if index == len(ordered):
            return True
        piece = ordered[index]
        for row in range(rows - piece.height + 1) if piece.row is None else (piece.row,):
            for column in range(columns - piece.width + 1):
                if not _masks(piece, row, column, rows, columns) & taken:
                    more = _reserved(piece, row, column, rows, columns, share)
                    if place(index + 1, taken | more):
                        return True
        return False

    return place(0, 0)


def fewest_images(
    pieces: Sequence[Piece],
    rows: int,
    columns: int,
    *,
    share: tuple[bool, bool] = (True, True),
    in_order: bool = False,
) -> int:
    """Fewest images that hold all pieces: every set of pieces is tried as the next image.

    In order, a set of layers up to b may be the next image only where no later piece is of a layer before b: then image j
    holds layers a_j..b_j with b_j <= a_(j+1).
    """
    pieces = sorted(pieces)
    everything = (1 << len(pieces)) - 1
    known: dict[tuple[Piece, ...], bool] = {}

    def feasible(chosen: int) -> bool:
        key = tuple(p for i, p in enumerate(pieces) if chosen >> i & 1)
        if key not in known:
            known[key] = fits(key, rows, columns, share)
        return known[key]

    def legal(chosen: int, rest: int) -> bool:
        if not in_order or not rest:
            return True
        last = max(p.layer for i, p in enumerate(pieces) if chosen >> i & 1)
        return last <= min(p.layer for i, p in enumerate(pieces) if rest >> i & 1)

    @cache
    def fewest(left: int) -> int:
        if not left:
            return 0
        best, chosen = len(pieces), left
        while chosen:
            if legal(chosen, left ^ chosen) and feasible(chosen):
                best = min(best, 1 + fewest(left ^ chosen))
            chosen = (chosen - 1) & left
        return best

    return fewest(everything)


def fewest_images_of_any_cut(
    shapes: Sequence[Matrices], rows: int, columns: int, share: tuple[bool, bool] = (True, True)
) -> int:
    """Fewest images over all cuts, in any order and in order of execution.

    Tiles of one cell each, taken in order of execution, fill image after image: the area bound is reached. Where columns are
    not shared, a column of an image holds at most one piece of one column of a matrix, of at most `rows` weights: a matrix
    column takes ceil(inputs / rows) columns of images at least, and tiles of one column reach that, in any order. Rows alike.
    Where neither is shared there is no such formula.
    """
    if share == (True, True):
        cells = sum(s.groups * s.inputs * s.outputs for s in shapes)
        return -(-cells // (rows * columns))
    if share == (True, False):
        return -(-sum(s.groups * s.outputs * -(-s.inputs // rows) for s in shapes) // columns)
    if share == (False, True):
        return -(-sum(s.groups * s.inputs * -(-s.outputs // columns) for s in shapes) // rows)
    raise ValueError("tiles on a diagonal: no formula")
