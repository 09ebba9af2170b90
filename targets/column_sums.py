"""Reading tiles column by column over many reads: the kernel of `tile_sums` for tiles of few columns.

What it gives is the same to the bit: sums over rows are added up in one order, and all that follows is done number by number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.column_words import count_reads, draw_block_of_halves, room_for_words
from xbcompile.targets.counter_random import TAIL
from xbcompile.targets.ordered_product import ordered_product
from xbcompile.targets.patch_values import find_runs, gather_row, room_for_runs
from xbcompile.targets.read_noise import BLOCK_COLUMNS, column_of, in_tail, philox_seven, tail_error
from xbcompile.targets.tile_sums import convert, middle_of_code, sum_slices

int32, uint16, uint32 = np.int32, np.uint16, np.uint32  # numba's own names, without loading it

_njit = njit(cache=True, nogil=True, error_model="numpy")


class _Room(NamedTuple):
    """Working memory: products of many reads in all columns of a tile, and what becomes of them in one column."""

    products: np.ndarray
    constant: np.ndarray
    readings: np.ndarray
    noise: np.ndarray
    total: np.ndarray
    level: np.ndarray


class _Noise(NamedTuple):
    """What errors are drawn with: blocks of a read, word 2 of counters, and the tables of `read_noise`."""

    blocks: int
    high: np.uint32
    quantiles: np.ndarray
    pieces: np.ndarray


@_njit
def _room(reads, vectors, widest, like):  # type: ignore[no-untyped-def]  # numba infers
    dtype = like.dtype
    return _Room(
        np.empty(reads * widest, dtype), np.empty(reads, dtype), np.empty(reads, dtype), np.zeros(reads, np.float32),
        np.empty(vectors), np.empty(vectors, np.float32),
    )  # fmt: skip


@_njit
def _expand(drives, level, sign, scheme, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Drives of -1, 0 and 1 of one row: [slices, vectors] of codes [vectors]."""
    for t in range(len(drives)):
        row = drives[t]
        if scheme == 0:
            edge = np.float32(t + 1)
            for v in range(len(level)):
                row[v] = level[v] >= edge
        else:
            for v in range(len(level)):
                row[v] = (int32(level[v]) >> t) & 1
        if both_signs:
            for v in range(len(level)):
                row[v] = np.float32(row[v] + row[v] - np.float32(1)) * sign


@_njit
def _expand_analogue(drives, level, sign, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Analogue drives of one row as those of `tile_sums`: [terms, vectors] of codes [vectors]."""
    exact = drives.itemsize == 8
    out = drives[0]
    for v in range(len(level)):
        u = level[v]
        drive = np.float32(u + u - np.float32(1)) * sign if both_signs else u
        out[v] = np.rint(drive * 16777216.0) if exact else drive
    for term in range(1, len(drives)):
        before, after = drives[term - 1], drives[term]
        for v in range(len(level)):
            after[v] = np.rint(before[v] * (abs(out[v]) / 16777216.0))


@_njit
def _expand_row(drives, j, level, sign, scheme, both_signs, slices, terms):  # type: ignore[no-untyped-def]  # numba infers
    """Drives of row j, of drives [terms * rows, slices * vectors] of a pattern."""
    rows, vectors = len(drives) // terms, len(level)
    if scheme == 2:
        _expand_analogue(drives.reshape((terms, rows, vectors))[:, j], level, sign, both_signs)
    else:
        _expand(drives[j].reshape((slices, vectors)), level, sign, scheme, both_signs)


@_njit
def _draw(errors, drawn, column, noise, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    """Unit normal errors of one column, of the words of its block."""
    words, shift, tail = drawn.words[column % BLOCK_COLUMNS // 2], uint32(16 * (column % 2)), uint16(0)
    for r in range(len(errors)):
        h = uint16(words[r] >> shift)
        errors[r] = noise.quantiles[h]
        tail |= uint16(in_tail(h))
    if not tail:
        return
    for r in range(len(errors)):
        h = uint16(words[r] >> shift)
        if in_tail(h):
            at = uint32(drawn.base[r] | TAIL | uint32(column // 4))
            further = philox_seven(drawn.low[r], drawn.middle[r], noise.high, at, k0, k1)
            errors[r] = tail_error(h, further[column % 4], noise.pieces)


@_njit
def _read_out(room, product, constant, readout):  # type: ignore[no-untyped-def]  # numba infers
    """Readings of one column in place of its products [reads]."""
    reads = len(product)
    shape = (1, reads)
    room.constant[:reads] = constant
    readings, errors = room.readings[:reads].reshape(shape), room.noise[:reads].reshape(shape)
    convert(readings, product.reshape(shape), room.constant[:reads], errors, readout)
    product[:] = readings[0]


@_njit
def _multiply(room, i, tables, drives):  # type: ignore[no-untyped-def]  # numba infers
    """Sums over rows of the tile i, of drives [terms * rows, reads]: [width, reads]."""
    rows, reads = drives.shape
    width, at = tables.width[i], tables.matrix_start[i]
    products = room.products[: width * reads].reshape((width, reads))
    ordered_product(tables.matrix[at : at + rows * width].reshape((rows, width)).T, drives, products)
    return products


@_njit
def _draw_column(room, i, m, tables, drawn, reads, noise, last_block):  # type: ignore[no-untyped-def]  # numba infers
    """Draw the errors of the tile i in output m; the block of words that is held then."""
    column, k0, k1 = column_of(tables.halves[i, m], noise.blocks), tables.keys[i, 0], tables.keys[i, 1]
    block = column // BLOCK_COLUMNS
    if block != last_block:
        draw_block_of_halves(drawn, reads, noise.high, uint32(block), k0, k1)
    _draw(room.noise[:reads], drawn, column, noise, k0, k1)
    return block


@_njit
def _finish_column(  # type: ignore[no-untyped-def]  # numba infers
    out, room, product, constant, coefficient, subtract, factor, corrects, readout
):
    """Add to out, float64 [vectors], what is read of products [vectors] of one slice and the errors drawn."""
    sigma, lowest, lsb, low, high, middle = (
        readout.noise_dot, readout.lowest_dot, readout.lsb_dot, readout.lowest_code, readout.highest_code, readout.middle_dot
    )  # fmt: skip
    per_lsb = np.float32(1) / lsb
    error = room.noise[: len(product)]
    if not readout.converts:
        for v in range(len(product)):
            total = coefficient * np.float64(product[v] + constant)
            out[v] += (total - subtract) * factor if corrects else total
    elif readout.rounds:
        for v in range(len(product)):
            dot = np.float32(product[v] + constant) + sigma * error[v]
            total = coefficient * np.float64(middle_of_code(dot, lowest, per_lsb, lsb, low, high, middle))
            out[v] += (total - subtract) * factor if corrects else total
    else:
        for v in range(len(product)):
            dot = product[v] + constant + sigma * error[v]
            dot = low if dot < low else dot
            total = coefficient * np.float64(high if dot > high else dot)
            out[v] += (total - subtract) * factor if corrects else total


@_njit
def _sum_column(  # type: ignore[no-untyped-def]  # numba infers
    out, room, product, constant, coefficients, subtract, factor, corrects, readout
):
    """The same of products [slices * vectors]."""
    if readout.converts:
        _read_out(room, product, constant, readout)
        constant *= 0
    vectors = len(out)
    total = room.total[:vectors]
    room.constant[:vectors] = constant
    sum_slices(total.reshape((1, vectors)), product.reshape((len(coefficients), vectors)), room.constant, coefficients)
    for v in range(vectors):
        out[v] += (total[v] - subtract) * factor if corrects else total[v]


@_njit
def _add_column(out, room, i, m, tables, product, coefficients, readout):  # type: ignore[no-untyped-def]  # numba infers
    """Add to out, float64 [vectors], what the tile i reads in output m, of its products [slices * vectors]."""
    subtract, factor, corrects = tables.subtract[i, m], tables.factor[i, m], tables.corrects[i]
    constant = tables.constant[i, m]
    if len(coefficients) == 1:
        _finish_column(out, room, product, constant, coefficients[0], subtract, factor, corrects, readout)
    else:
        _sum_column(out, room, product, constant, coefficients, subtract, factor, corrects, readout)


@_njit
def add_columns(  # type: ignore[no-untyped-def]  # numba infers
    values, tables, terms, scheme, both_signs, coefficients, readout, blocks, quantiles, pieces, counter, sums, step
):
    """Add to sums, float64 [groups, vectors, outputs], what tiles read of coded vectors, float32 [groups, vectors, inputs]."""
    vectors, slices, starts = values.shape[1], len(coefficients), tables.pattern_start
    most, noise = min(step, vectors), _Noise(blocks, counter.high, quantiles, pieces)
    room, drawn = _room(most * slices, most, tables.constant.shape[1], tables.matrix), room_for_words(most * slices)
    drives_room = np.empty(starts[-1] * terms * most * slices, tables.matrix.dtype)
    for start in range(0, vectors, step):
        count = min(step, vectors - start)
        reads, level = count * slices, room.level[:count]
        count_reads(drawn, counter, start, slices, count)
        for p in range(len(tables.pattern_group)):
            a, b = starts[p], starts[p + 1]
            drives = drives_room[a * terms * reads : b * terms * reads].reshape(((b - a) * terms, reads))
            given = values[tables.pattern_group[p], start : start + count]
            for j in range(b - a):
                source = tables.source[a + j]
                for v in range(count):
                    level[v] = given[v, source]
                _expand_row(drives, j, level, tables.sign[a + j], scheme, both_signs, slices, terms)
        for i in range(len(tables.group)):
            a, b, held = starts[tables.pattern[i]], starts[tables.pattern[i] + 1], -1
            drives = drives_room[a * terms * reads : b * terms * reads].reshape(((b - a) * terms, reads))
            products, out = _multiply(room, i, tables, drives), sums[tables.group[i], start : start + count]
            for m in tables.order[i, : tables.width[i]]:
                if readout.noise_dot > 0:
                    held = _draw_column(room, i, m, tables, drawn, reads, noise, held)
                _add_column(out[:, tables.output[i] + m], room, i, m, tables, products[m], coefficients, readout)


@_njit
def _driven(patches, terms, both_signs, like):  # type: ignore[no-untyped-def]  # numba infers
    """Analogue drives of all values of `PatchValues`, of either sign: [terms, values]; see `_expand_analogue`."""
    flat = patches.flat
    drives = np.empty((terms, len(flat)), like.dtype)
    if terms:
        _expand_analogue(drives, flat, np.float32(1), both_signs)
    return drives


@_njit
def add_patches(  # type: ignore[no-untyped-def]  # numba infers
    patches,
    tables,
    terms,
    scheme,
    both_signs,
    coefficients,
    readout,
    blocks,
    quantiles,
    pieces,
    counter,
    sums,
    first,
    step,
):
    """Add to sums, float64 [groups, outputs, vectors], from vector `first` on, what tiles read of `PatchValues`."""
    vectors, slices, starts = patches.count, len(coefficients), tables.pattern_start
    most, noise = min(step, vectors), _Noise(blocks, counter.high, quantiles, pieces)
    room, drawn = _room(most * slices, most, tables.constant.shape[1], tables.matrix), room_for_words(most * slices)
    drives_room = np.empty(starts[-1] * terms * most * slices, tables.matrix.dtype)
    runs = room_for_runs(patches, most)
    driven = _driven(patches, terms if scheme == 2 else 0, both_signs, tables.matrix)
    for start in range(0, vectors, step):
        count = min(step, vectors - start)
        reads, level = count * slices, room.level[:count]
        count_reads(drawn, counter, start, slices, count)
        find_runs(runs, patches, start, count)
        for p in range(len(tables.pattern_group)):
            a, b = starts[p], starts[p + 1]
            drives = drives_room[a * terms * reads : b * terms * reads].reshape(((b - a) * terms, reads))
            for j in range(b - a):
                offset = tables.pattern_group[p] * patches.group_size + np.int64(patches.taps[tables.source[a + j]])
                sign = tables.sign[a + j]
                if scheme == 2:
                    for term in range(terms):
                        gather_row(drives[term * (b - a) + j], driven[term], runs, offset, sign)
                else:
                    gather_row(level, patches.flat, runs, offset, np.float32(1))
                    _expand(drives[j].reshape((slices, count)), level, sign, scheme, both_signs)
        for i in range(len(tables.group)):
            a, b, held = starts[tables.pattern[i]], starts[tables.pattern[i] + 1], -1
            drives = drives_room[a * terms * reads : b * terms * reads].reshape(((b - a) * terms, reads))
            products, group = _multiply(room, i, tables, drives), tables.group[i]
            for m in tables.order[i, : tables.width[i]]:
                if readout.noise_dot > 0:
                    held = _draw_column(room, i, m, tables, drawn, reads, noise, held)
                out = sums[group, tables.output[i] + m, first + start : first + start + count]
                _add_column(out, room, i, m, tables, products[m], coefficients, readout)
