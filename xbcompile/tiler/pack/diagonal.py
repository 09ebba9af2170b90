"""Packing where the tiles of an image share neither rows nor columns: they lie on a diagonal.

Such a packing fits when the widths add up to at most the columns of an array, and the heights to at most its rows; with
fixed rows, when the rows do not meet. Where on the diagonal a tile lies does not matter otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.deferred import library
from xbcompile.tiler.effort import Allowance, solve
from xbcompile.tiler.pack.bands import Bin, Kind, images_of
from xbcompile.tiler.pack.rules import PackingRules

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
else:
    cp_model = library("ortools.sat.python.cp_model")


def pack_first_fit(kinds: Sequence[Kind], counts: Sequence[int], rules: PackingRules) -> list[Bin]:
    """First fit, the kinds that take the largest share of an array's rows or columns first.

    Args:
        kinds: row (-1 when free), height and width of each kind.
        counts: rectangles of each kind.
        rules: the array.

    Returns:
        One bin per array.
    """
    row, height, width = np.array(kinds, dtype=np.int64).T
    share = np.maximum(height / rules.rows, width / rules.columns)
    order = np.lexsort((row, -width, -height, -share))
    total = int(np.sum(counts))
    free_rows, free_columns = np.full(total, rules.rows), np.full(total, rules.columns)
    occupied = np.zeros((total, rules.rows), dtype=bool) if rules.fixed_rows else None
    bins: list[Bin] = []
    for kind in order.tolist():
        high, wide = int(height[kind]), int(width[kind])
        for _ in range(counts[kind]):
            used = slice(0, len(bins))
            fits = (free_rows[used] >= high) & (free_columns[used] >= wide)
            at = -1 if occupied is None else int(row[kind])
            if occupied is not None:
                fits &= ~occupied[used, at : at + high].any(axis=1)
            index = int(fits.argmax()) if fits.any() else len(bins)
            if index == len(bins):
                bins.append(Bin(1))
            if occupied is not None:
                occupied[index, at : at + high] = True
            place = rules.rows - int(free_rows[index]) if at < 0 else at
            bins[index].placed.append((kind, place, rules.columns - int(free_columns[index])))
            free_rows[index] -= high
            free_columns[index] -= wide
    return bins


def prove_or_improve_diagonal(
    kinds: Sequence[Kind],
    counts: Sequence[int],
    rules: PackingRules,
    *,
    bins: list[Bin],
    bound: int,
    allowance: Allowance,
) -> tuple[list[Bin], int]:
    """As `pack_solver.prove_or_improve`: how many of each kind go into each array."""
    for images in range(bound, images_of(bins)):
        model = cp_model.CpModel()
        number = [
            [model.new_int_var(0, count, f"n{kind}_{image}") for image in range(images)]
            for kind, count in enumerate(counts)
        ]
        for kind, count in enumerate(counts):
            model.add(sum(number[kind]) == count)
        for image in range(images):
            inside = [number[kind][image] for kind in range(len(kinds))]
            model.add(sum(n * kind[2] for n, kind in zip(inside, kinds, strict=True)) <= rules.columns)
            model.add(sum(n * kind[1] for n, kind in zip(inside, kinds, strict=True)) <= rules.rows)
            for start in sorted({kind[0] for kind in kinds if kind[0] >= 0}):
                meets = [n for n, (row, high, _) in zip(inside, kinds, strict=True) if row <= start < row + high]
                model.add(sum(meets) <= 1)
        solver = allowance.solver(share=1.0 if images == images_of(bins) - 1 else 0.5)
        status = solve(solver, model)
        allowance.spend(solver, status)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            chosen = [[solver.value(number[kind][image]) for kind in range(len(kinds))] for image in range(images)]
            return [_on_diagonal(kinds, inside) for inside in chosen if any(inside)], bound
        if status == cp_model.INFEASIBLE:
            bound = images + 1
        if allowance.left <= 0:
            break
    return bins, bound


def _on_diagonal(kinds: Sequence[Kind], inside: Sequence[int]) -> Bin:
    """One array with `inside[i]` rectangles of each kind."""
    placed, row, column = Bin(1), 0, 0
    for kind, count in enumerate(inside):
        fixed, height, width = kinds[kind]
        for _ in range(count):
            placed.placed.append((kind, row if fixed < 0 else fixed, column))
            row, column = row + height, column + width
    return placed
