"""Reading many tiles in one go: codes become drives, sums, readings and a layer's sums without leaving the cache.

Sums over rows are added up in a fixed order (see `ordered_product`), so that they have the same bits whatever the number of
vectors, and so is what follows, number by number: noise, range and code in float32, the sum over slices and tiles in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.ordered_product import ordered_product
from xbcompile.targets.read_noise import BLOCK_COLUMNS, draw_noise

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
        first_block: int64 [n], first block of random words that the columns need, see `wanted_blocks`.
        blocks: int64 [n], how many.
        halves: uint32 [n, widest], see `half_of`.
        order: int32 [n, widest], outputs by the blocks of their columns, for what goes column by column.
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
    halves: np.ndarray
    order: np.ndarray
    keys: np.ndarray
    subtract: np.ndarray
    factor: np.ndarray
    corrects: np.ndarray


_njit = njit(cache=True, nogil=True, error_model="numpy")


@_njit
def _are_neighbours(sources):  # type: ignore[no-untyped-def]  # numba infers
    for r in range(len(sources)):
        if sources[r] != sources[0] + r:
            return False
    return len(sources) > 0


@_njit
def _collect(collected, values, sources):  # type: ignore[no-untyped-def]  # numba infers
    """Values [vectors, inputs] of sources, side by side: [vectors, sources]."""
    for v in range(len(collected)):
        for r in range(len(sources)):
            collected[v, r] = values[v, sources[r]]


@_njit
def _expand(drives, values, v0, r0, signs, scheme, slices, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Drives of -1, 0 and 1: [vectors * slices, rows] of codes, which stand side by side in values from row v0, column r0 on."""
    rows = drives.shape[1]
    for v in range(len(drives) // slices):
        given = values[v0 + v, r0 : r0 + rows]
        for t in range(slices):
            out = drives[v * slices + t]
            if scheme == 0:
                edge = np.float32(t + 1)
                for r in range(rows):
                    out[r] = given[r] >= edge
            else:
                for r in range(rows):
                    out[r] = (np.int32(given[r]) >> t) & 1
            if both_signs:
                for r in range(rows):
                    out[r] = np.float32(out[r] + out[r] - np.float32(1)) * signs[r]


@_njit
def _expand_analogue(drives, values, v0, r0, signs, both_signs, terms):  # type: ignore[no-untyped-def]  # numba infers
    """Analogue drives u, and behind them u|u| and u^3: [vectors, terms * rows]; values as of `_expand`.

    In float64 they are in steps of 2**-24, see `fixed_point`; in float32 there is one term.
    """
    rows, exact = len(signs), drives.itemsize == 8
    for v in range(len(drives)):
        given, out = values[v0 + v, r0 : r0 + rows], drives[v]
        if both_signs:
            for r in range(rows):
                out[r] = np.float32(given[r] + given[r] - np.float32(1)) * signs[r]
        else:
            for r in range(rows):
                out[r] = given[r]
        if exact:
            for r in range(rows):
                out[r] = np.rint(out[r] * 16777216.0)
        for term in range(1, terms):
            before, after = (term - 1) * rows, term * rows
            for r in range(rows):
                out[after + r] = np.rint(out[before + r] * (abs(out[r]) / 16777216.0))


@njit(cache=True, inline="always")
def middle_of_code(dot, lowest, per_lsb, lsb, low, high, middle):  # type: ignore[no-untyped-def]  # numba infers float32
    """The reading of a sum with its error by a converter."""
    code = np.floor((dot - lowest) * per_lsb)
    code = low if code < low else code
    code = high if code > high else code
    return middle + lsb * code


@_njit
def convert(readings, sums, constant, noise, readout):  # type: ignore[no-untyped-def]  # numba infers
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
                out[m] = middle_of_code(dot, lowest, per_lsb, lsb, low, high, middle)
        else:
            for m in range(readings.shape[1]):  # of the type of sums, as exact ones stay exact
                dot = given[m] + constant[m] + sigma * error[m]
                dot = low if dot < low else dot
                out[m] = high if dot > high else dot


@_njit
def sum_slices(total, readings, constant, coefficients):  # type: ignore[no-untyped-def]  # numba infers
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
def _finish(  # type: ignore[no-untyped-def]  # numba infers
    out, sums, constant, noise, readout, coefficient, subtract, factor, corrects
):
    """`convert`, `sum_slices` and `_accumulate` of reads of one slice, in one go."""
    sigma, lowest, lsb, low, high, middle = (
        readout.noise_dot, readout.lowest_dot, readout.lsb_dot, readout.lowest_code, readout.highest_code, readout.middle_dot
    )  # fmt: skip
    per_lsb = np.float32(1) / lsb
    for v in range(len(out)):
        into, given, error = out[v], sums[v], noise[v]
        if not readout.converts:
            for m in range(len(into)):
                total = coefficient * np.float64(given[m] + constant[m])
                into[m] += (total - subtract[m]) * factor[m] if corrects else total
        elif readout.rounds:
            for m in range(len(into)):
                dot = np.float32(given[m] + constant[m]) + sigma * error[m]
                total = coefficient * np.float64(middle_of_code(dot, lowest, per_lsb, lsb, low, high, middle))
                into[m] += (total - subtract[m]) * factor[m] if corrects else total
        else:
            for m in range(len(into)):
                dot = given[m] + constant[m] + sigma * error[m]
                dot = low if dot < low else dot
                total = coefficient * np.float64(high if dot > high else dot)
                into[m] += (total - subtract[m]) * factor[m] if corrects else total


@_njit
def _same_outputs(tables, i, j):  # type: ignore[no-untyped-def]  # numba infers
    return (
        tables.group[i] == tables.group[j]
        and tables.output[i] == tables.output[j]
        and tables.width[i] == tables.width[j]
    )


@_njit
def _accumulate(out, total, subtract, factor, corrects):  # type: ignore[no-untyped-def]  # numba infers
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
def read_out(sums, readout, halves, quantiles, pieces, counter):  # type: ignore[no-untyped-def]  # numba infers
    """Turn sums of all columns, float32 or float64 [vectors, slices, columns], into readings in place."""
    vectors, slices, columns = sums.shape
    flat = sums.reshape((vectors * slices, columns))
    noise = np.zeros(flat.shape, np.float32)
    if readout.noise_dot > 0:
        blocks = -(-columns // BLOCK_COLUMNS)
        words = np.empty((len(flat), 4 * blocks), np.uint32)
        draw_noise(
            noise, words, counter, counter.key_low, counter.key_high, 0, slices, 0, blocks, halves, quantiles, pieces
        )  # fmt: skip
    convert(flat, flat, np.zeros(columns, sums.dtype), noise, readout)


@_njit
def _expand_patterns(  # type: ignore[no-untyped-def]  # numba infers
    drives_room, collected_room, values, tables, terms, scheme, both_signs, start, stop, slices
):
    """Fill drives of all patterns, one behind the other, with those of vectors from start to stop."""
    count = (stop - start) * slices
    for p in range(len(tables.pattern_group)):
        a, b = tables.pattern_start[p], tables.pattern_start[p + 1]
        drives = drives_room[a * terms * count : b * terms * count].reshape((count, (b - a) * terms))
        group, source, sign = values[tables.pattern_group[p]], tables.source[a:b], tables.sign[a:b]
        given, v0, r0 = group, start, source[0] if b > a else 0
        if not _are_neighbours(source):
            given, v0, r0 = collected_room[: (stop - start) * (b - a)].reshape((stop - start, b - a)), 0, 0
            _collect(given, group[start:stop], source)
        if scheme == 2:
            _expand_analogue(drives, given, v0, r0, sign, both_signs, terms)
        else:
            _expand(drives, given, v0, r0, sign, scheme, slices, both_signs)


@_njit
def add_tiles(  # type: ignore[no-untyped-def]  # numba infers
    values, tables, terms, scheme, both_signs, coefficients, readout, blocks, quantiles, pieces, counter, sums, step
):
    """Add to sums, float64 [groups, vectors, outputs], what tiles read of coded vectors, float32 [groups, vectors, inputs]."""
    vectors, tiles, slices = values.shape[1], len(tables.group), len(coefficients)
    widest, rows_total = tables.constant.shape[1], tables.pattern_start[-1]
    most = min(step, max(vectors, 1)) * slices
    drives_room = np.empty(most * max(rows_total, 1) * terms, tables.matrix.dtype)
    sums_room = np.empty(most * widest, tables.matrix.dtype)
    readings_room, noise_room = np.zeros_like(sums_room), np.zeros(most * widest, np.float32)
    total_room, out_room = np.zeros(most * widest), np.zeros(most * widest)
    words = np.empty((most, 4 * blocks), np.uint32)
    nothing = np.zeros(widest, sums_room.dtype)
    values, collected_room = np.ascontiguousarray(values), np.empty(most // slices * rows_total, np.float32)
    for start in range(0, vectors, step):
        stop = min(start + step, vectors)
        count = (stop - start) * slices
        _expand_patterns(drives_room, collected_room, values, tables, terms, scheme, both_signs, start, stop, slices)
        for i in range(tiles):
            width, p = tables.width[i], tables.pattern[i]
            a, b = tables.pattern_start[p], tables.pattern_start[p + 1]
            rows, at = (b - a) * terms, tables.matrix_start[i]
            drives = drives_room[a * terms * count : b * terms * count].reshape((count, rows))
            product = sums_room[: count * width].reshape((count, width))
            ordered_product(drives, tables.matrix[at : at + rows * width].reshape((rows, width)), product)
            total = total_room[: (stop - start) * width].reshape((stop - start, width))
            out = out_room[: (stop - start) * width].reshape((stop - start, width))
            first = i == 0 or not _same_outputs(tables, i - 1, i)
            into = sums[tables.group[i], start:stop, tables.output[i] : tables.output[i] + width]
            if first:
                out[:] = into
            noise = noise_room[: count * width].reshape((count, width))
            if readout.noise_dot > 0:
                draw_noise(
                    noise, words, counter, tables.keys[i, 0], tables.keys[i, 1], start, slices, tables.first_block[i],
                    tables.blocks[i], tables.halves[i, :width], quantiles, pieces,
                )  # fmt: skip
            subtract, factor, constant = tables.subtract[i], tables.factor[i], tables.constant[i]
            if slices == 1:
                _finish(out, product, constant, noise, readout, coefficients[0], subtract, factor, tables.corrects[i])
            else:
                if readout.converts:
                    readings = readings_room[: count * width].reshape((count, width))
                    convert(readings, product, constant, noise, readout)
                    sum_slices(total, readings, nothing, coefficients)
                else:
                    sum_slices(total, product, constant, coefficients)
                _accumulate(out, total, subtract, factor, tables.corrects[i])
            if i == tiles - 1 or not _same_outputs(tables, i, i + 1):
                into[:] = out
