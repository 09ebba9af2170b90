"""Reading tiles of binary cells with errors drawn from histograms: codes become bits, counts, draws and a layer's sums.

A drive and a cell of the same sign match. The matches of a column's two halves say both its dot product and the histogram that
its error is drawn from; they are counted 32 rows at a time. All goes column by column over many reads (vectors and slices), so
that a column's tables stay in the nearest cache, and loops are long however few columns a tile uses. Readings are whole
numbers, hence the same bits in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.column_words import count_reads, draw_block, room_for_words

int32, uint32 = np.int32, np.uint32  # numba's own names, without loading it

WORD_ROWS = 32


class Histograms(NamedTuple):
    """Alias tables of the errors of some arrays' columns, and of what their outcomes stand for.

    A column has a table for each number of matches in its top half and of cells that do not match in its bottom half.

    Attributes:
        entries: uint32, for each array [columns, rows + 1, cells], see `alias_tables`.
        start: int64 [arrays], where the entries of each array start.
        cells: int64 [arrays], cells of each of its tables.
        lowest_dot: int64 [arrays], the error that outcome 0 stands for, dot-product units.
        step_dot: int64 [arrays], distance of two outcomes.
    """

    entries: np.ndarray
    start: np.ndarray
    cells: np.ndarray
    lowest_dot: np.ndarray
    step_dot: np.ndarray

    @classmethod
    def of(cls, tables: np.ndarray, lowest_dot: int, step_dot: int) -> Histograms:
        """Those of one array.

        Args:
            tables: uint32 [columns, rows + 1, cells].
            lowest_dot: see the class.
            step_dot: likewise.
        """
        numbers = (np.array([each], np.int64) for each in (0, tables.shape[2], lowest_dot, step_dot))
        return cls(tables.ravel(), *numbers)

    @classmethod
    def joined(cls, parts: Sequence[Histograms]) -> Histograms:
        """Those of several arrays, of one each.

        Args:
            parts: in the order of the arrays.
        """
        if len(parts) == 1:
            return parts[0]
        start = np.cumsum([0, *(len(part.entries) for part in parts)])[:-1]
        return cls(*map(np.concatenate, zip(*parts, strict=True)))._replace(start=start)


class HistogramTables(NamedTuple):
    """What the kernel knows of n tiles and of p patterns that drive their rows.

    Attributes:
        rows: of an array.
        pattern_group: int64 [p], which matrix's vectors.
        pattern_start: int64 [p + 1], places in `source` and `place`.
        source: int32, the input that drives each used row.
        place: int32, the bit of that row, see `row_places`.
        fixed: uint32 [p, words], bits of rows that are idle, and of those whose drives are turned round.
        group: int64 [n], of each tile.
        output: int64 [n], first output column.
        pattern: int64 [n].
        array: int64 [n], whose histograms.
        column_start: int64 [n + 1], places in the following four.
        column: int64, used columns of each tile, those of one block of random words together.
        output_of: int64, which of the tile's outputs each adds to.
        block: uint32, its block of random words.
        word: int64, its word there.
        cells: uint32 [used columns, words], bits of cells, each turned round.
        keys: uint32 [n, 2], of their random errors.
        subtract: float64 [n, widest], see `TileRouting`.
        factor: float64 [n, widest].
    """

    rows: int
    pattern_group: np.ndarray
    pattern_start: np.ndarray
    source: np.ndarray
    place: np.ndarray
    fixed: np.ndarray
    group: np.ndarray
    output: np.ndarray
    pattern: np.ndarray
    array: np.ndarray
    column_start: np.ndarray
    column: np.ndarray
    output_of: np.ndarray
    block: np.ndarray
    word: np.ndarray
    cells: np.ndarray
    keys: np.ndarray
    subtract: np.ndarray
    factor: np.ndarray


def row_places(rows: int) -> np.ndarray:
    """The bit of each row, intp [rows]: words of the top half and of the bottom half take turns, from word 0 on."""
    half = rows // 2
    row = np.arange(rows)
    inside = np.where(row < half, row, row - half)
    word = 2 * (inside // WORD_ROWS) + (row >= half)
    return word * WORD_ROWS + inside % WORD_ROWS


def words_of(rows: int) -> int:
    """Words that hold a bit for each row."""
    return 2 * -(-(rows - rows // 2) // WORD_ROWS)


def packed(bits: np.ndarray) -> np.ndarray:
    """Bits of rows, bool [..., rows], as uint32 [..., words]; bits of no row are 0."""
    *shape, rows = bits.shape
    words = words_of(rows)
    spread = np.zeros((*shape, words * WORD_ROWS), np.uint8)
    spread[..., row_places(rows)] = bits
    return np.packbits(spread, axis=-1, bitorder="little").view("<u4").astype(np.uint32, copy=False)


_njit = njit(cache=True, nogil=True, error_model="numpy")


@njit(cache=True, inline="always")
def _ones(x):  # type: ignore[no-untyped-def]  # numba infers uint32
    """How many bits are 1; the compiler knows this form, and makes one instruction of it where there is one."""
    x = uint32(x - uint32(uint32(x >> uint32(1)) & uint32(0x55555555)))
    x = uint32(uint32(x & uint32(0x33333333)) + uint32(uint32(x >> uint32(2)) & uint32(0x33333333)))
    x = uint32(uint32(x + uint32(x >> uint32(4))) & uint32(0x0F0F0F0F))
    return uint32(uint32(x * uint32(0x01010101)) >> uint32(24))


@_njit
def _pack(bits, level, values, sources, places, fixed, scheme):  # type: ignore[no-untyped-def]  # numba infers
    """Bits of drives, uint32 [words, slices, vectors], of codes [vectors, inputs]."""
    words, slices, vectors = bits.shape
    for k in range(words):
        bits[k] = fixed[k]
    for j in range(len(sources)):
        out, shift = bits[places[j] // 32], uint32(places[j] % 32)
        for v in range(vectors):
            level[v] = values[v, sources[j]]
        for t in range(slices):
            row = out[t]
            if scheme == 0:
                edge = np.float32(t + 1)
                for v in range(vectors):
                    row[v] ^= uint32(uint32(level[v] >= edge) << shift)
            else:
                for v in range(vectors):
                    row[v] ^= uint32(uint32((int32(level[v]) >> t) & 1) << shift)


class _Room(NamedTuple):
    """Working memory for what becomes of many reads in one column."""

    group: np.ndarray
    entry: np.ndarray
    readings: np.ndarray


@_njit
def _room(reads):  # type: ignore[no-untyped-def]  # numba infers
    return _Room(np.empty(reads, np.uint32), np.empty(reads, np.uint32), np.empty(reads, np.int32))


@_njit
def _count_matches(readings, group, bits, cells):  # type: ignore[no-untyped-def]  # numba infers
    """Matches of a column, and its group: those of the top half and what does not match of the bottom half."""
    for k in range(0, len(bits), 2):
        top, bottom, top_cells, bottom_cells = bits[k], bits[k + 1], cells[k], cells[k + 1]
        for r in range(len(readings)):
            above, below = _ones(uint32(top[r] ^ top_cells)), _ones(uint32(bottom[r] ^ bottom_cells))
            readings[r] += int32(above + below)
            group[r] = uint32(uint32(group[r] + above) - below)


@_njit
def _read_column(room, bits, cells, words, histograms, array, column, rows):  # type: ignore[no-untyped-def]  # numba infers
    """Readings of one column, int32 [reads]: dot products of bits [words, reads] and cells [words], and what words draw."""
    reads, groups, size = bits.shape[1], rows + 1, histograms.cells[array]
    last = uint32(size - 1)
    readings, group, entry = room.readings[:reads], room.group[:reads], room.entry[:reads]
    for r in range(reads):
        readings[r], group[r] = 0, groups // 2  # the rows of the bottom half
    _count_matches(readings, group, bits, cells)
    for r in range(reads):
        group[r] = uint32(uint32(group[r] * uint32(size)) | uint32(words[r] & last))
    start = histograms.start[array] + column * groups * size
    entries = histograms.entries[start : start + groups * size]
    for r in range(reads):  # a loop of its own, as look-ups keep a loop out of vector registers
        entry[r] = entries[group[r]]
    lowest, step = int32(histograms.lowest_dot[array] - rows), int32(histograms.step_dot[array])
    for r in range(reads):
        own = uint32(words[r] & last)
        outcome = own if words[r] < uint32(entry[r] & uint32(~last)) else uint32(entry[r] & last)
        readings[r] = int32(int32(2) * readings[r] + lowest + step * int32(outcome))
    return readings


@_njit
def read_columns(out, bits, cells, histograms, array, rows, counter):  # type: ignore[no-untyped-def]  # numba infers
    """Readings of all columns of an image, float32 [vectors, slices, columns].

    Args:
        out: what is filled.
        bits: uint32 [words, slices, vectors], of drives.
        cells: uint32 [columns, words], bits of cells, each turned round.
        histograms: of all arrays.
        array: which of them the image sits in.
        rows: of an array.
        counter: of these reads.
    """
    vectors, slices, columns = out.shape
    reads, blocks = vectors * slices, (columns + 3) // 4
    room, drawn, drives = _room(reads), room_for_words(reads), bits.reshape((len(bits), reads))
    count_reads(drawn, counter, 0, slices, vectors)
    for block in range(blocks):
        draw_block(drawn, reads, counter.high, uint32(block), counter.key_low, counter.key_high)
        for m in range(block, columns, blocks):
            readings = _read_column(room, drives, cells[m], drawn.words[m // blocks], histograms, array, m, rows)
            for t in range(slices):
                for v in range(vectors):
                    out[v, t, m] = readings[t * vectors + v]


@_njit
def _sum_slices(total, readings, coefficients):  # type: ignore[no-untyped-def]  # numba infers
    """Add readings [slices * vectors] up in total [vectors], slice after slice."""
    vectors = len(total)
    for v in range(vectors):
        total[v] = coefficients[0] * np.float64(readings[v])
    for t in range(1, len(coefficients)):
        row = readings[t * vectors : (t + 1) * vectors]
        for v in range(vectors):
            total[v] += coefficients[t] * np.float64(row[v])


@_njit
def _add_tile(  # type: ignore[no-untyped-def]  # numba infers
    sums, i, tables, histograms, room, drawn, bits, total, coefficients, high
):
    """Add what the tile i reads of some vectors to sums [vectors, outputs]."""
    reads, k0, k1 = bits.shape[1], tables.keys[i, 0], tables.keys[i, 1]
    for u in range(tables.column_start[i], tables.column_start[i + 1]):
        column, m = tables.column[u], tables.output_of[u]
        if u == tables.column_start[i] or tables.block[u] != tables.block[u - 1]:
            draw_block(drawn, reads, high, tables.block[u], k0, k1)
        cells, words = tables.cells[u], drawn.words[tables.word[u]]
        readings = _read_column(room, bits, cells, words, histograms, tables.array[i], column, tables.rows)
        _sum_slices(total, readings, coefficients)
        subtract, factor = tables.subtract[i, m], tables.factor[i, m]
        at = tables.output[i] + m
        for v in range(len(total)):
            sums[v, at] += (total[v] - subtract) * factor


@_njit
def add_histogram_tiles(  # type: ignore[no-untyped-def]  # numba infers
    values, tables, histograms, scheme, coefficients, counter, sums, step
):
    """Add to sums, float64 [groups, vectors, outputs], what tiles read of coded vectors, float32 [groups, vectors, inputs].

    Args:
        values: coded vectors.
        tables: of the tiles.
        histograms: of all arrays.
        scheme: 0 thermometer, 1 bitserial.
        coefficients: float64 [slices].
        counter: of the first read; its key is not used.
        sums: changed in place.
        step: vectors that go through all tiles together.
    """
    vectors, slices, patterns = values.shape[1], len(coefficients), len(tables.pattern_group)
    most = min(step, vectors)
    words = tables.fixed.shape[1]
    drives = np.empty(patterns * words * slices * most, np.uint32)
    room, drawn = _room(most * slices), room_for_words(most * slices)
    total, level = np.empty(most), np.empty(most, np.float32)
    for start in range(0, vectors, step):
        count = min(step, vectors - start)
        size = words * slices * count
        count_reads(drawn, counter, start, slices, count)
        for p in range(patterns):
            a, b = tables.pattern_start[p], tables.pattern_start[p + 1]
            bits = drives[p * size : (p + 1) * size].reshape((words, slices, count))
            given = values[tables.pattern_group[p], start : start + count]
            _pack(bits, level[:count], given, tables.source[a:b], tables.place[a:b], tables.fixed[p], scheme)
        for i in range(len(tables.group)):
            p = tables.pattern[i]
            bits = drives[p * size : (p + 1) * size].reshape((words, slices * count))
            out = sums[tables.group[i], start : start + count]
            _add_tile(out, i, tables, histograms, room, drawn, bits, total[:count], coefficients, counter.high)
