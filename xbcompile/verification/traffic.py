"""Traffic between arrays, counted anew from the tables: output by output and row by row, without what the tiler counts.

What is counted, per inference:

- An array that holds tiles of a matrix sends, for each output that they have a part of, one sum per vector that it reads to the
  output's adder: the array of the lowest number among those that hold the tile of the output's first input.
- The adder of an output sends its sums to each array that holds rows of a matrix whose use waits for the output's. Row i
  of a matrix with C rows is fed by output i * P // C of a producer with P outputs (rows and outputs counted through all
  groups). An array needs no more values of an output than it has rows fed by it times vectors that it reads.
- The arrays of one image share the vectors of a use (`share_of`); an array that holds several images of a matrix reads as many
  vectors as the one with the largest part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xbcompile.ir import Use
from xbcompile.ir.schedule import shares_of
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.program.schedule_tables import MatrixSize, Scheduled

Moves = tuple[np.ndarray, np.ndarray, np.ndarray]  # from array, to array, values; int64 each


def hop_values(tiles: np.ndarray, copies: np.ndarray, work: Scheduled, site: np.ndarray, grid: SiteGrid) -> int:
    """Values that move between arrays per inference, times the hops between their sites.

    Args:
        tiles: TILE table that `check_tables` has nothing against.
        copies: COPY table, likewise.
        work: the matrices and their uses.
        site: integer [arrays], the site of each array.
        grid: where the sites are.
    """
    down, across = (place[site] for place in grid.coordinates())
    total = 0
    for source, to, values in moves(tiles, copies, work):
        hops = np.abs(down[source] - down[to]) + np.abs(across[source] - across[to])
        total += int((hops * values).sum())
    return total


def moves(tiles: np.ndarray, copies: np.ndarray, work: Scheduled) -> Iterator[Moves]:
    """All that is sent, also from an array to itself; pairs of arrays may occur many times."""
    held = {
        matrix: _Held.of(tiles, copies, work.layers[matrix], matrix) for matrix in {use.matrix for use in work.uses}
    }
    for (matrix, vectors), times in Counter((use.matrix, use.vectors) for use in work.uses).items():
        source, to, values = held[matrix].partial_sums(vectors)
        yield source, to, values * times
    for (before, after), times in Counter(_links(work.uses)).items():
        source, to, values = held[after[0]].activations(held[before[0]], *after[1:], sent=before[1])
        yield source, to, values * times


def _links(uses: Sequence[Use]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Matrix and vectors of a use that is waited for, and of the use that waits."""
    for use in uses:
        for before in use.waits_for:
            yield (uses[before].matrix, uses[before].vectors), (use.matrix, use.vectors)


@dataclass(frozen=True)
class _Held:
    """One matrix where it is held: an entry per tile and array that holds its image, int64 each.

    `rows` and `outputs` are those of all groups one after another.
    """

    rows: int
    outputs: int
    array: np.ndarray
    part: np.ndarray  # which of the arrays that share the tile's vectors
    parts: np.ndarray  # how many share them
    row: tuple[np.ndarray, np.ndarray]  # first and end
    output: tuple[np.ndarray, np.ndarray]
    first: np.ndarray  # bool: the tile has the first input of its outputs

    @classmethod
    def of(cls, tiles: np.ndarray, copies: np.ndarray, size: MatrixSize, matrix: int) -> _Held:
        """The matrix of this owner. The copies are in order of image, then array."""
        mine = tiles[tiles["layer"] == matrix]
        begin = np.searchsorted(copies["image"], mine["image"])
        parts = np.searchsorted(copies["image"], mine["image"], side="right") - begin
        tile, part = _each(np.zeros(len(mine), np.int64), parts)
        table = mine[tile]
        row, output = table["group"].astype(np.int64) * size.inputs, table["group"].astype(np.int64) * size.outputs
        return cls(
            size.groups * size.inputs,
            size.groups * size.outputs,
            copies["array"][begin[tile] + part].astype(np.int64),
            part,
            parts[tile],
            (row + table["k0"], row + table["k1"]),
            (output + table["m0"], output + table["m1"]),
            table["k0"] == 0,
        )

    def share(self, vectors: int) -> np.ndarray:
        """Vectors that each entry reads of so many."""
        return shares_of(self.part, self.parts, vectors)

    @cached_property
    def adder(self) -> np.ndarray:
        """Array of each output's adder, int64 [outputs]."""
        found = np.full(self.outputs, np.iinfo(np.int64).max)
        entry, output = _each(self.output[0][self.first], self.output[1][self.first])
        np.minimum.at(found, output, self.array[self.first][entry])
        return found

    def partial_sums(self, vectors: int) -> Moves:
        """Arrays -> adders: each array's sums of each output of which it holds a part."""
        entry, output = _each(*self.output)
        pair, which = np.unique(self.array[entry] * self.outputs + output, return_inverse=True)
        values = np.zeros(len(pair), np.int64)
        np.maximum.at(values, which, self.share(vectors)[entry])
        source, output = np.divmod(pair, self.outputs)
        return source, self.adder[output], values

    def activations(self, producer: _Held, vectors: int, *, sent: int) -> Moves:
        """Adders of a producer that is read for `sent` vectors -> arrays that read this matrix for so many."""
        entry, row = _each(*self.row)
        reads = np.zeros(int(self.array.max()) + 1, np.int64)
        np.maximum.at(reads, self.array, self.share(vectors))
        array, row = np.divmod(np.unique(self.array[entry] * self.rows + row), self.rows)
        pair, fed = np.unique(array * producer.outputs + row * producer.outputs // self.rows, return_counts=True)
        to, output = np.divmod(pair, producer.outputs)
        return producer.adder[output], to, np.minimum(sent, reads[to] * fed)


def _each(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every integer of every range [start, end), and which range it is of."""
    count = end - start
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(count) - count - start, count)
