"""Traffic: how many values move between which arrays during one inference.

An array that holds a tile sends its partial sums to the adder of the tile's outputs, and the adder sends the sums to every
array that holds rows which they feed. Rules:

- The adder of an output sits at the array that holds the tile of its first input (k0 = 0); if several arrays hold that
  tile's image, at the one of the lowest number. What an array holds of one output it adds up before it sends.
- Input row i of a matrix with C inputs (all groups) is fed by output i * P // C of each direct producer with P outputs. That is
  what lowering does where C is a multiple of P: the same index for equal sizes; channel i // (C / P) for a convolution or a
  flattened image, whose rows are channel-major. For other sizes (concatenation, slices) it is a stand-in.
- What lies between two matrices digitally is done at the adder. A value goes once to each array for each use that reads it,
  however many tiles need it there. An array that holds r rows fed by one output and reads V of the consumer's vectors needs
  no more than V * r of that output's values, so the smaller of that and the producer's vectors is counted.
- Arrays that hold the same image share its vectors as `share_of` says.
- Values that enter or leave the network are not counted: they have no array at the other end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.schedule import Use, shares_of


@dataclass(frozen=True, eq=False)
class Traffic(ContentEqual):
    """Values moved per inference between pairs of arrays, both ways together.

    Args:
        array_a: int32 [pairs], the lower number of each pair; pairs are in order and appear once.
        array_b: int32 [pairs], the higher number.
        values: int64 [pairs], values per inference, at least 1; what stays on its array costs nothing and is not counted.
    """

    array_a: np.ndarray
    array_b: np.ndarray
    values: np.ndarray


def array_traffic(tiles: np.ndarray, copy_image: np.ndarray, copy_array: np.ndarray, uses: Sequence[Use]) -> Traffic:
    """Count the values that move between arrays; the module's text gives the rules.

    Args:
        tiles: TILE table of whole matrices.
        copy_image: integer [copies], an image ...
        copy_array: integer [copies], ... and an array that holds it; every image of the table is held somewhere.
        uses: uses of the matrices; `matrix`, `vectors` and `waits_for` count.

    Returns:
        The traffic, both ways together.

    Raises:
        ValueError: an image of the table that no array holds.
    """
    held = _held(tiles, copy_image, copy_array)
    matrices = {matrix: _Matrix.of(tiles, held, matrix) for matrix in sorted({use.matrix for use in uses})}
    sums: Counter[tuple[int, int]] = Counter()
    links: Counter[tuple[int, int, int, int]] = Counter()
    for use in uses:
        sums[use.matrix, use.vectors] += 1
        for before in use.waits_for:
            links[uses[before].matrix, use.matrix, uses[before].vectors, use.vectors] += 1
    to_adders = [_times(_partial_sums(matrices[m], v), times) for (m, v), times in sums.items()]
    from_adders = [
        _times(_activations(matrices[p], matrices[c], sent, read), times) for (p, c, sent, read), times in links.items()
    ]
    return _collect([*to_adders, *from_adders])


Moves = tuple[np.ndarray, np.ndarray, np.ndarray]  # from array, to array, values; int64 each


@dataclass(frozen=True)
class _Held:
    """One row per tile and array that holds it."""

    tile: np.ndarray
    array: np.ndarray
    part: np.ndarray  # which of the arrays that share the tile's vectors
    parts: np.ndarray  # how many share them

    def share(self, vectors: int) -> np.ndarray:
        """Vectors that each row reads of so many."""
        return shares_of(self.part, self.parts, vectors)


def _held(tiles: np.ndarray, copy_image: np.ndarray, copy_array: np.ndarray) -> _Held:
    copies = np.unique(np.stack([copy_image, copy_array], axis=1).astype(np.int64).reshape(-1, 2), axis=0)
    wanted = tiles["image"].astype(np.int64)
    first = np.searchsorted(copies[:, 0], wanted, side="left")
    parts = np.searchsorted(copies[:, 0], wanted, side="right") - first
    if (parts == 0).any():
        raise ValueError(f"no array holds image {int(wanted[parts == 0][0])}")
    tile, part = _expand(parts)
    return _Held(tile, copies[first[tile] + part, 1], part, parts[tile])


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Owner and number within the owner of each of `counts[i]` things of owner i."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


@dataclass(frozen=True)
class _Matrix:
    """The tiles of one matrix where they are held; outputs and inputs are numbered through all groups."""

    inputs: int
    outputs: int
    held: _Held
    row0: np.ndarray  # per row of `held`: first input
    row1: np.ndarray
    cuts: np.ndarray  # outputs between neighbouring cuts are in the same tiles
    segment0: np.ndarray  # per row of `held`: first of those segments
    segment1: np.ndarray
    adder: np.ndarray  # array per segment

    @classmethod
    def of(cls, tiles: np.ndarray, held: _Held, matrix: int) -> _Matrix:
        """The tiles of the matrix with this owner."""
        mine = np.flatnonzero(tiles["layer"][held.tile] == matrix)
        held = _Held(held.tile[mine], held.array[mine], held.part[mine], held.parts[mine])
        table = tiles[held.tile]
        group = table["group"].astype(np.int64)
        groups, inputs, outputs = int(group.max()) + 1, int(table["k1"].max()), int(table["m1"].max())
        column0, column1 = group * outputs + table["m0"], group * outputs + table["m1"]
        cuts = np.unique(np.concatenate([column0, column1]))
        segment0, segment1 = np.searchsorted(cuts, column0), np.searchsorted(cuts, column1)
        first = np.flatnonzero((table["k0"] == 0) & (held.part == 0))
        owner, number = _expand((segment1 - segment0)[first])
        adder = np.zeros(len(cuts) - 1, dtype=np.int64)
        adder[segment0[first][owner] + number] = held.array[first][owner]
        row0, row1 = group * inputs + table["k0"], group * inputs + table["k1"]
        return cls(groups * inputs, groups * outputs, held, row0, row1, cuts, segment0, segment1, adder)


def _partial_sums(matrix: _Matrix, vectors: int) -> Moves:
    """Array that holds a tile -> adder of its outputs."""
    owner, number = _expand(matrix.segment1 - matrix.segment0)
    segment, array = matrix.segment0[owner] + number, matrix.held.array[owner]
    order, starts = _runs(segment * (int(array.max()) + 1) + array)
    share = np.maximum.reduceat(matrix.held.share(vectors)[owner][order], starts)
    segment, array = segment[order][starts], array[order][starts]
    return array, matrix.adder[segment], share * (matrix.cuts[segment + 1] - matrix.cuts[segment])


def _runs(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that sorts the keys, and where each run of equal ones starts in it."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    return order, np.flatnonzero(np.append(True, key[1:] != key[:-1]))


def _activations(producer: _Matrix, consumer: _Matrix, sent: int, read: int) -> Moves:
    """Adder of an output -> arrays that hold rows fed by it, for `sent` and `read` vectors of the two uses."""
    array, row0, row1 = _rows_per_array(consumer)
    share = np.zeros(int(array.max()) + 1, dtype=np.int64)  # an array reads the most that any of its tiles does
    np.maximum.at(share, consumer.held.array, consumer.held.share(read))
    outputs, inputs = producer.outputs, consumer.inputs
    # input i is fed by output i * outputs // inputs, so output o feeds the inputs from ceil(o * inputs / outputs)
    bounds = -(-producer.cuts * inputs // outputs)
    first = np.searchsorted(bounds, row0, side="right") - 1
    owner, number = _expand(np.searchsorted(bounds, row1, side="left") - first)
    segment = first[owner] + number
    start, end = np.maximum(row0[owner], bounds[segment]), np.minimum(row1[owner], bounds[segment + 1])
    some = (end > start) & (share[array[owner]] > 0)
    segment, array, start, end = segment[some], array[owner][some], start[some], end[some]
    if inputs <= outputs:  # every row has an output of its own
        return producer.adder[segment], array, (end - start) * np.minimum(sent, share[array])
    return _several_rows_per_output(producer, inputs, (array, start, end), share, sent)


def _several_rows_per_output(
    producer: _Matrix, inputs: int, rows: tuple[np.ndarray, np.ndarray, np.ndarray], share: np.ndarray, sent: int
) -> Moves:
    """The outputs whose rows an array holds all of, and those of which it holds a part, perhaps in several runs."""
    array, start, end = rows
    outputs = producer.outputs

    def first_row(output: np.ndarray) -> np.ndarray:
        found: np.ndarray = -(-output * inputs // outputs)
        return found

    low, high = start * outputs // inputs, (end - 1) * outputs // inputs  # first and last output of the run
    whole0 = np.where(start == first_row(low), low, low + 1)
    whole1 = np.where(end == first_row(high + 1), high + 1, high)
    fewest = inputs // outputs  # an output feeds so many rows, or one more
    whole = np.flatnonzero(whole1 > whole0)
    count = (whole1 - whole0)[whole]
    with_more = first_row(whole1[whole]) - first_row(whole0[whole]) - count * fewest
    values = (count - with_more) * np.minimum(sent, share[array[whole]] * fewest)
    values += with_more * np.minimum(sent, share[array[whole]] * (fewest + 1))

    head, tail = np.flatnonzero(whole0 > low), np.flatnonzero((whole1 <= high) & ~((low == high) & (whole0 > low)))
    part_array = np.concatenate([array[head], array[tail]])
    part_output = np.concatenate([low[head], high[tail]])
    head_rows = np.minimum(end, first_row(low + 1))[head] - start[head]
    tail_rows = end[tail] - np.maximum(start, first_row(high))[tail]
    part_rows = np.concatenate([head_rows, tail_rows])
    if len(part_rows):
        order, starts = _runs(part_array * outputs + part_output)
        part_rows = np.add.reduceat(part_rows[order], starts)
        part_array, part_output = part_array[order][starts], part_output[order][starts]
    outputs_sent = np.concatenate([whole0[whole], part_output])
    adder = producer.adder[np.searchsorted(producer.cuts, outputs_sent, side="right") - 1]
    part_values = np.minimum(sent, share[part_array] * part_rows)
    return adder, np.concatenate([array[whole], part_array]), np.concatenate([values, part_values])


def _rows_per_array(matrix: _Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Array, first and end row of each run of rows that an array holds, each row of an array once."""
    offset = matrix.held.array * (matrix.inputs + 1)  # runs of different arrays never touch
    order = np.argsort(offset + matrix.row0, kind="stable")
    start, end = (offset + matrix.row0)[order], np.maximum.accumulate((offset + matrix.row1)[order])
    first = np.flatnonzero(np.append(True, start[1:] > end[:-1]))
    last = np.append(first[1:], len(start)) - 1
    array = matrix.held.array[order][first]
    return array, start[first] - array * (matrix.inputs + 1), end[last] - array * (matrix.inputs + 1)


def _times(moves: Moves, times: int) -> Moves:
    return moves[0], moves[1], moves[2] * times


def _collect(moves: list[Moves]) -> Traffic:
    none = np.zeros(0, dtype=np.int64)
    source, to, values = (np.concatenate([none, *(each[i] for each in moves)]) for i in range(3))
    moved = np.flatnonzero((source != to) & (values > 0))
    a, b, values = np.minimum(source, to)[moved], np.maximum(source, to)[moved], values[moved]
    if len(moved):
        order, starts = _runs(a * (int(b.max()) + 1) + b)
        a, b, values = a[order][starts], b[order][starts], np.add.reduceat(values[order], starts)
    return Traffic(a.astype(np.int32), b.astype(np.int32), values)
