"""Reading many tiles in one go: codes become drives, sums, readings and a layer's sums without leaving the cache.

Every sum over rows is exact (see `fixed_point`), so that a library's matrix product gives the same bits whatever the number of
vectors; what follows is done number by number in a fixed order: noise, range and code in float32, the sum over slices and
tiles in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.counter_random import COARSE, TAIL, choose_pieces, philox, refine

uint32, uint64 = np.uint32, np.uint64  # numba's own names, without loading it

SCHEMES = {"thermometer": 0, "bitserial": 1, "analogue": 2}


class Readout(NamedTuple):
    """How exact sums become readings: `middle + lsb * code` with code = floor((sum + noise - lowest) / lsb) in its range.

    Attributes:
        noise_dot: standard deviation of the random error, dot-product units; 0: none.
        lowest_dot: lower end of code 0.
        lsb_dot: distance of two codes.
        lowest_code: smallest code, or smallest reading where there are no codes; minus infinity: it does not saturate.
        highest_code: largest.
        middle_dot: what code 0 stands for.
        rounds: whether there are codes; else sums are clipped to the range alone.
        converts: whether any of this happens; else readings are the sums.
    """

    noise_dot: np.float32
    lowest_dot: np.float32
    lsb_dot: np.float32
    lowest_code: np.float32
    highest_code: np.float32
    middle_dot: np.float32
    rounds: bool
    converts: bool

    @classmethod
    def none(cls) -> Readout:
        """Readings are the sums."""
        return cls.clipping(0.0, -np.inf, np.inf)

    @classmethod
    def clipping(cls, noise_dot: float, lowest_dot: float, highest_dot: float) -> Readout:
        """Noise, and a range of readings; either may be none.

        Args:
            noise_dot: standard deviation of the random error.
            lowest_dot: smallest reading.
            highest_dot: largest reading.
        """
        converts = noise_dot > 0 or bool(np.isfinite([lowest_dot, highest_dot]).any())
        limits = np.float32(lowest_dot), np.float32(highest_dot)
        return cls(np.float32(noise_dot), np.float32(0), np.float32(1), *limits, np.float32(0), False, converts)

    @classmethod
    def rounding(
        cls, noise_dot: float, first_dot: float, lsb_dot: float, lowest_code: float, highest_code: float
    ) -> Readout:
        """Noise, and a converter.

        Args:
            noise_dot: standard deviation of the random error.
            first_dot: what code 0 stands for.
            lsb_dot: distance of two codes.
            lowest_code: smallest code.
            highest_code: largest code.
        """
        codes = np.float32(lowest_code), np.float32(highest_code)
        lowest = np.float32(first_dot - lsb_dot / 2)
        return cls(np.float32(noise_dot), lowest, np.float32(lsb_dot), *codes, np.float32(first_dot), True, True)


class Tables(NamedTuple):
    """What the kernel knows of n tiles, those of the same outputs one after another, and of p patterns that drive their rows.

    Attributes:
        pattern_group: int64 [p], which matrix's vectors.
        pattern_start: int64 [p + 1], places in `source` and `sign`.
        source: int32, the input that drives each used row.
        sign: float32, the sign of its drive.
        group: int64 [n], of each tile.
        output: int64 [n], first output column.
        width: int64 [n], number of output columns.
        pattern: int64 [n].
        matrix_start: int64 [n], places in `matrix`, where [terms * rows, width] of used rows and columns follow.
        matrix: float32 or float64.
        constant: of the same type, [n, widest], added to the sums.
        first_block: int64 [n], first block of random words that a used column needs.
        blocks: int64 [n], how many.
        word: int32 [n, widest], the place of each column's word.
        keys: uint32 [n, 2], of their random errors.
        subtract: float64 [n, widest], see `TileRouting`.
        factor: float64 [n, widest].
        corrects: bool [n], whether either does anything.
    """

    pattern_group: np.ndarray
    pattern_start: np.ndarray
    source: np.ndarray
    sign: np.ndarray
    group: np.ndarray
    output: np.ndarray
    width: np.ndarray
    pattern: np.ndarray
    matrix_start: np.ndarray
    matrix: np.ndarray
    constant: np.ndarray
    first_block: np.ndarray
    blocks: np.ndarray
    word: np.ndarray
    keys: np.ndarray
    subtract: np.ndarray
    factor: np.ndarray
    corrects: np.ndarray


_njit = njit(cache=True, nogil=True, error_model="numpy")


@_njit
def _expand(drives, values, sources, signs, scheme, slices, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Drives of -1, 0 and 1, or analogue ones in steps of 2**-24: [vectors * slices, rows or more] of codes [vectors, inputs]."""
    rows = len(sources)
    for v in range(len(values)):
        value = values[v]
        for t in range(slices):
            out = drives[v * slices + t]
            if scheme == 0:
                edge = np.float32(t + 1)
                for r in range(rows):
                    out[r] = value[sources[r]] >= edge
            elif scheme == 1:
                for r in range(rows):
                    out[r] = (np.int32(value[sources[r]]) >> t) & 1
            else:
                for r in range(rows):
                    out[r] = value[sources[r]]
            if both_signs:
                for r in range(rows):
                    out[r] = np.float32(out[r] + out[r] - np.float32(1)) * signs[r]


@_njit
def _raise(drives, rows, terms):  # type: ignore[no-untyped-def]
    """Analogue drives in steps of 2**-24, and behind them u|u| and u^3: [drives, terms * rows], in place."""
    for row in range(len(drives)):
        out = drives[row]
        for r in range(rows):
            step = np.rint(out[r] * 16777216.0)
            size, power = abs(step) / 16777216.0, step
            out[r] = step
            for term in range(1, terms):
                power = np.rint(power * size)
                out[term * rows + r] = power


@_njit
def _fill(words, row, counter, k0, k1, start, first_slice, slices, first_block, blocks, tail):  # type: ignore[no-untyped-def]
    """Random words of a row of readings, [4 * blocks]: see `counter_random`."""
    running = counter.vector + uint64(start + row // slices)
    low, middle, high = uint32(running), uint32(running >> uint64(32)), counter.high
    base = uint32(uint32(counter.slice + uint32(first_slice + row % slices)) << uint32(17)) | tail
    for b in range(blocks):
        r0, r1, r2, r3 = philox(low, middle, high, uint32(base | uint32(uint32(first_block) + uint32(b))), k0, k1)
        words[b] = r0
        words[blocks + b] = r1
        words[2 * blocks + b] = r2
        words[3 * blocks + b] = r3


@_njit
def _draw(noise, words, chosen, counter, k0, k1, start, slices, first_block, blocks, word, pieces):  # type: ignore[no-untyped-def]
    """Unit normals [vectors * slices, width] of the columns with these places among the words of a read."""
    width = noise.shape[1]
    for row in range(len(noise)):
        _fill(words[row], row, counter, k0, k1, start, 0, slices, first_block, blocks, uint32(0))
    for row in range(len(noise)):
        given, out = words[row], noise[row]
        for m in range(width):
            chosen[m] = given[word[m]]
        if choose_pieces(out, chosen[:width]) < COARSE:
            _fill(given, row, counter, k0, k1, start, 0, slices, first_block, blocks, TAIL)
            for m in range(width):
                if out[m] < np.float32(COARSE):
                    refine(out, chosen, m, given[word[m]])
        for m in range(width):
            out[m] = pieces[0, chosen[m]] + pieces[1, chosen[m]] * out[m]


@_njit
def _convert(readings, sums, constant, noise, readout):  # type: ignore[no-untyped-def]
    """Readings of sums: the middle of a code each, or what stays within the range."""
    sigma, lowest, lsb, low, high, middle = (
        readout.noise_dot, readout.lowest_dot, readout.lsb_dot, readout.lowest_code, readout.highest_code, readout.middle_dot
    )  # fmt: skip
    per_lsb = np.float32(1) / lsb
    for row in range(len(readings)):
        out, given, error = readings[row], sums[row], noise[row]
        if readout.rounds:
            for m in range(readings.shape[1]):
                dot = np.float32(given[m] + constant[m]) + sigma * error[m]
                code = np.floor((dot - lowest) * per_lsb)
                code = low if code < low else code
                code = high if code > high else code
                out[m] = middle + lsb * code
        else:
            for m in range(readings.shape[1]):  # of the type of sums, as exact ones stay exact
                dot = given[m] + constant[m] + sigma * error[m]
                dot = low if dot < low else dot
                out[m] = high if dot > high else dot


@_njit
def _sum_slices(total, readings, constant, coefficients):  # type: ignore[no-untyped-def]
    """Add readings and constant [vectors * slices, width] up in total [vectors, width], slice after slice."""
    slices = len(coefficients)
    for v in range(len(total)):
        out, first = total[v], readings[v * slices]
        for m in range(total.shape[1]):
            out[m] = coefficients[0] * np.float64(first[m] + constant[m])
        for t in range(1, slices):
            row = readings[v * slices + t]
            for m in range(total.shape[1]):
                out[m] += coefficients[t] * np.float64(row[m] + constant[m])


@_njit
def _same_outputs(tables, i, j):  # type: ignore[no-untyped-def]
    return (
        tables.group[i] == tables.group[j]
        and tables.output[i] == tables.output[j]
        and tables.width[i] == tables.width[j]
    )


@_njit
def _accumulate(out, total, subtract, factor, corrects):  # type: ignore[no-untyped-def]
    """Add a tile's totals, corrected, to what tiles before it gave."""
    for v in range(len(total)):
        into, given = out[v], total[v]
        if corrects:
            for m in range(total.shape[1]):
                into[m] += (given[m] - subtract[m]) * factor[m]
        else:
            for m in range(total.shape[1]):
                into[m] += given[m]


@_njit
def read_out(sums, readout, pieces, counter):  # type: ignore[no-untyped-def]
    """Turn sums of all columns, float64 [vectors, slices, columns], into readings in place."""
    vectors, slices, columns = sums.shape
    flat = sums.reshape((vectors * slices, columns))
    blocks = (columns + 3) // 4
    noise = np.zeros(flat.shape, np.float32)
    if readout.noise_dot > 0:
        words, chosen = np.empty((len(flat), 4 * blocks), np.uint32), np.empty(columns, np.uint32)
        every = np.arange(columns)
        _draw(noise, words, chosen, counter, counter.key_low, counter.key_high, 0, slices, 0, blocks, every, pieces)
    _convert(flat, flat, np.zeros(columns), noise, readout)


@_njit
def add_tiles(  # type: ignore[no-untyped-def]
    values, tables, terms, scheme, both_signs, coefficients, readout, pieces, counter, sums, step
):
    """Add to sums, float64 [groups, vectors, outputs], what tiles read of coded vectors, float32 [groups, vectors, inputs]."""
    vectors, tiles, patterns, slices = values.shape[1], len(tables.group), len(tables.pattern_group), len(coefficients)
    widest, rows_total = tables.constant.shape[1], tables.pattern_start[patterns]
    most = min(step, max(vectors, 1)) * slices
    drives_room = np.empty(most * max(rows_total, 1) * terms, tables.matrix.dtype)
    sums_room = np.empty(most * widest, tables.matrix.dtype)
    readings_room, noise_room = np.zeros_like(sums_room), np.zeros(most * widest, np.float32)
    total_room, out_room = np.zeros(most * widest), np.zeros(most * widest)
    words = np.empty((most, 4 * max(1, tables.blocks.max() if tiles else 1)), np.uint32)
    nothing, chosen = np.zeros(widest, sums_room.dtype), np.empty(widest, np.uint32)
    for start in range(0, vectors, step):
        stop = min(start + step, vectors)
        count = (stop - start) * slices
        for p in range(patterns):
            a, b = tables.pattern_start[p], tables.pattern_start[p + 1]
            drives = drives_room[a * terms * count : b * terms * count].reshape((count, (b - a) * terms))
            _expand(
                drives, values[tables.pattern_group[p], start:stop], tables.source[a:b], tables.sign[a:b], scheme, slices,
                both_signs,
            )  # fmt: skip
            if scheme == 2:
                _raise(drives, b - a, terms)
        for i in range(tiles):
            width, p = tables.width[i], tables.pattern[i]
            a, b = tables.pattern_start[p], tables.pattern_start[p + 1]
            rows, at = (b - a) * terms, tables.matrix_start[i]
            drives = drives_room[a * terms * count : b * terms * count].reshape((count, rows))
            product = sums_room[: count * width].reshape((count, width))
            if rows:
                np.dot(drives, tables.matrix[at : at + rows * width].reshape((rows, width)), product)
            else:
                product[:] = 0
            total = total_room[: (stop - start) * width].reshape((stop - start, width))
            out = out_room[: (stop - start) * width].reshape((stop - start, width))
            first = i == 0 or not _same_outputs(tables, i - 1, i)
            into = sums[tables.group[i], start:stop, tables.output[i] : tables.output[i] + width]
            if first:
                out[:] = into
            if readout.converts:
                readings = readings_room[: count * width].reshape((count, width))
                noise = noise_room[: count * width].reshape((count, width))
                if readout.noise_dot > 0:
                    _draw(
                        noise, words, chosen, counter, tables.keys[i, 0], tables.keys[i, 1], start, slices, tables.first_block[i],
                        tables.blocks[i], tables.word[i], pieces,
                    )  # fmt: skip
                _convert(readings, product, tables.constant[i], noise, readout)
                _sum_slices(total, readings, nothing, coefficients)
            else:
                _sum_slices(total, product, tables.constant[i], coefficients)
            _accumulate(out, total, tables.subtract[i], tables.factor[i], tables.corrects[i])
            if i == tiles - 1 or not _same_outputs(tables, i, i + 1):
                into[:] = out
