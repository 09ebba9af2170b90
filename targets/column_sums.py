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
from xbcompile.targets.read_noise import column_of, in_tail, philox_seven, tail_error
from xbcompile.targets.tile_sums import convert, sum_slices

int32, uint16, uint32 = np.int32, np.uint16, np.uint32  # numba's own names, without loading it

_njit = njit(cache=True, nogil=True, error_model="numpy")


class _Room(NamedTuple):
    """Working memory: products of many reads in all columns of a tile, and what becomes of them in one column."""

    products: np.ndarray
    constant: np.ndarray
    readings: np.ndarray
    noise: np.ndarray
    total: np.ndarray


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
        np.empty(vectors),
    )  # fmt: skip


@_njit
def _expand(drives, level, values, sources, signs, scheme, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Drives of -1, 0 and 1: [rows, slices, vectors] of codes [vectors, inputs]."""
    slices, vectors = drives.shape[1], len(values)
    for j in range(len(sources)):
        for v in range(vectors):
            level[v] = values[v, sources[j]]
        for t in range(slices):
            row = drives[j, t]
            if scheme == 0:
                edge = np.float32(t + 1)
                for v in range(vectors):
                    row[v] = level[v] >= edge
            else:
                for v in range(vectors):
                    row[v] = (int32(level[v]) >> t) & 1
            if both_signs:
                for v in range(vectors):
                    row[v] = np.float32(row[v] + row[v] - np.float32(1)) * signs[j]


@_njit
def _expand_analogue(drives, level, values, sources, signs, both_signs):  # type: ignore[no-untyped-def]  # numba infers
    """Analogue drives as those of `tile_sums`: [terms, rows, vectors] of codes [vectors, inputs]."""
    exact = drives.itemsize == 8
    for j in range(len(sources)):
        for v in range(len(values)):
            level[v] = values[v, sources[j]]
        out = drives[0, j]
        for v in range(len(values)):
            u = level[v]
            drive = np.float32(u + u - np.float32(1)) * signs[j] if both_signs else u
            out[v] = np.rint(drive * 16777216.0) if exact else drive
        for term in range(1, len(drives)):
            before, after = drives[term - 1, j], drives[term, j]
            for v in range(len(values)):
                after[v] = np.rint(before[v] * (abs(out[v]) / 16777216.0))


@_njit
def _draw(errors, drawn, column, noise, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    """Unit normal errors of one column, of the words of its block."""
    words, shift, tail = drawn.words[column // 2 // noise.blocks], uint32(16 * (column % 2)), uint16(0)
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
def _add_tile(sums, i, tables, room, drawn, drives, coefficients, readout, noise):  # type: ignore[no-untyped-def]  # numba infers
    """Add what the tile i reads of some vectors, of drives [terms * rows, reads], to sums [vectors, outputs]."""
    rows, reads = drives.shape
    vectors, width, at, last_block = len(sums), tables.width[i], tables.matrix_start[i], -1
    products, total = room.products[: width * reads].reshape((width, reads)), room.total[:vectors]
    ordered_product(tables.matrix[at : at + rows * width].reshape((rows, width)).T, drives, products)
    for place in range(width):
        m = tables.order[i, place]
        product, constant = products[m], tables.constant[i, m]
        if readout.noise_dot > 0:
            column, k0, k1 = np.int64(column_of(tables.halves[i, m])), tables.keys[i, 0], tables.keys[i, 1]
            block = column // 2 % noise.blocks
            if block != last_block:
                draw_block_of_halves(drawn, reads, noise.high, uint32(block), k0, k1)
                last_block = block
            _draw(room.noise[:reads], drawn, column, noise, k0, k1)
        if readout.converts:
            _read_out(room, product, constant, readout)
            constant *= 0
        room.constant[:vectors] = constant
        slices = product.reshape((len(coefficients), vectors))
        sum_slices(total.reshape((1, vectors)), slices, room.constant[:vectors], coefficients)
        subtract, factor, output = tables.subtract[i, m], tables.factor[i, m], tables.output[i] + m
        for v in range(vectors):
            sums[v, output] += (total[v] - subtract) * factor


@_njit
def add_columns(  # type: ignore[no-untyped-def]  # numba infers
    values, tables, terms, scheme, both_signs, coefficients, readout, blocks, quantiles, pieces, counter, sums, step
):
    """Add to sums, float64 [groups, vectors, outputs], what tiles read of coded vectors, float32 [groups, vectors, inputs]."""
    vectors, patterns, slices = values.shape[1], len(tables.pattern_group), len(coefficients)
    most, starts, noise = min(step, vectors), tables.pattern_start, _Noise(blocks, counter.high, quantiles, pieces)
    room, drawn = _room(most * slices, most, tables.constant.shape[1], tables.matrix), room_for_words(most * slices)
    drives_room, level = (
        np.empty(starts[patterns] * terms * most * slices, tables.matrix.dtype),
        np.empty(most, np.float32),
    )
    for start in range(0, vectors, step):
        count = min(step, vectors - start)
        reads, some = count * slices, level[:count]
        count_reads(drawn, counter, start, slices, count)
        for p in range(patterns):
            a, b = starts[p], starts[p + 1]
            drives = drives_room[a * terms * reads : b * terms * reads]
            given, source, sign = (
                values[tables.pattern_group[p], start : start + count],
                tables.source[a:b],
                tables.sign[a:b],
            )
            if scheme == 2:
                _expand_analogue(drives.reshape((terms, b - a, count)), some, given, source, sign, both_signs)
            else:
                _expand(drives.reshape((b - a, slices, count)), some, given, source, sign, scheme, both_signs)
        for i in range(len(tables.group)):
            a, b = starts[tables.pattern[i]], starts[tables.pattern[i] + 1]
            drives = drives_room[a * terms * reads : b * terms * reads].reshape(((b - a) * terms, reads))
            out = sums[tables.group[i], start : start + count]
            _add_tile(out, i, tables, room, drawn, drives, coefficients, readout, noise)
