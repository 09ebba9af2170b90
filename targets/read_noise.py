"""Unit normal errors of readings, drawn with 16 bits each: see `counter_random` for counters, keys and quantiles.

A reading's 16 bits choose the middle of one of 65,536 parts of equal probability. In the 64 outermost of either side, beyond 3.1
sigma, 32 further bits choose the place within the part, so that tails are those of `counter_random`; within, values are at
most 0.005 sigma apart. Philox with seven rounds passes BigCrush (Salmon et al., table 2), and makes eight of them at once.

Column c takes half c % 2 (the lower one first) of word c % 8 // 2 of the read's block c // 8, so that few columns side by side
need few blocks; and in a tail, of the counters of tails, word c % 4 of block c // 4. In memory word i of block b has place
i * blocks + b.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.counter_random import TAIL, philox_rounds, piece_of, quantile_pieces

uint16, uint32, uint64 = np.uint16, np.uint32, np.uint64  # numba's own names, without loading it

BLOCK_COLUMNS = 8
_MANY_BLOCKS = 4  # from so many on, blocks of one read are drawn at once
_TAIL_PARTS = np.uint16(64)
# How halves of words lie in memory: exchanged where the higher one comes first.
_EXCHANGED = 0 if sys.byteorder == "little" else 1


@cache
def middle_quantiles() -> np.ndarray:
    """The inverse normal distribution function at (h + 1/2) / 65,536 for h from 0 on, float32 [65536]; cannot be written to."""
    low = (np.arange(1 << 15) + 0.5) * 2.0**16
    value, slope = quantile_pieces().astype(np.float64)
    piece = np.array([piece_of.py_func(t) for t in low.astype(np.float32)], np.intp)
    half = value[piece] + slope[piece] * low
    quantiles = np.concatenate([half, -half[::-1]]).astype(np.float32)
    quantiles.flags.writeable = False
    return quantiles


def blocks_of(columns: int) -> int:
    """Blocks of words in a read of so many columns."""
    return -(-columns // BLOCK_COLUMNS)


def half_of(used: np.ndarray, columns: int) -> np.ndarray:
    """Where the halves of used columns, of so many columns in all, lie in the words of a read, uint32."""
    word = used % BLOCK_COLUMNS // 2 * blocks_of(columns) + used // BLOCK_COLUMNS
    return (2 * word + used % 2 ^ _EXCHANGED).astype(np.uint32)


def block_of(used: np.ndarray) -> np.ndarray:
    """The block of words that holds the half of each used column."""
    return used // BLOCK_COLUMNS


def wanted_blocks(used: np.ndarray) -> tuple[int, int]:
    """First block and number of blocks of words that hold the halves of used columns."""
    block = block_of(used)
    return (int(block.min()), int(np.ptp(block) + 1)) if len(block) else (0, 0)


@njit(cache=True, inline="always")
def philox_seven(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]  # numba infers uint32
    """`philox_rounds` with seven rounds."""
    return philox_rounds(c0, c1, c2, c3, k0, k1, 7)


@njit(cache=True, inline="always")
def in_tail(h):  # type: ignore[no-untyped-def]  # numba infers uint16
    """Whether 16 bits lie in a tail, whose errors `tail_error` gives."""
    return uint16(h + _TAIL_PARTS) < uint16(2 * _TAIL_PARTS)


@njit(cache=True, inline="always")
def column_of(half, blocks):  # type: ignore[no-untyped-def]  # numba infers
    """The column whose half lies there, see `half_of`, of so many blocks."""
    place = np.int64(half ^ uint32(_EXCHANGED))
    word = place // 2
    return word % blocks * BLOCK_COLUMNS + word // blocks * 2 + place % 2


@njit(cache=True, error_model="numpy")
def tail_error(h, further, pieces):  # type: ignore[no-untyped-def]  # numba infers
    """The unit normal error of 16 bits in a tail and of 32 further ones."""
    low = h < _TAIL_PARTS
    part = h if low else uint16(0xFFFF) - h
    t = np.float32(np.float64(part) * 65536.0 + (np.float64(further) + 0.5) * 2.0**-16)
    piece = piece_of(t) if low else piece_of(t) + pieces.shape[1] // 2
    return pieces[0, piece] + pieces[1, piece] * t


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_block_by_block(  # type: ignore[no-untyped-def]  # numba infers
    words, rows, counter, k0, k1, start, slices, first_block, blocks
):
    """Fill the words of reads, eight blocks at once."""
    every = words.shape[1] // 4
    for row in range(rows):
        running = counter.vector + uint64(start + row // slices)
        low, middle, high = uint32(running), uint32(running >> uint64(32)), counter.high
        base = uint32(uint32(counter.slice + uint32(row % slices)) << uint32(17)) | uint32(first_block)
        w0 = words[row, first_block : first_block + blocks]
        w1 = words[row, every + first_block : every + first_block + blocks]
        w2 = words[row, 2 * every + first_block : 2 * every + first_block + blocks]
        w3 = words[row, 3 * every + first_block : 3 * every + first_block + blocks]
        for b in range(blocks):
            w0[b], w1[b], w2[b], w3[b] = philox_seven(low, middle, high, uint32(base + uint32(b)), k0, k1)


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_read_by_read(  # type: ignore[no-untyped-def]  # numba infers
    words, rows, counter, k0, k1, start, slices, first_block, blocks
):
    """The same where blocks are few, eight reads at once."""
    every, high = words.shape[1] // 4, counter.high
    low, middle, base = np.empty(rows, np.uint32), np.empty(rows, np.uint32), np.empty(rows, np.uint32)
    for row in range(rows):
        running = counter.vector + uint64(start + row // slices)
        low[row], middle[row] = uint32(running), uint32(running >> uint64(32))
        base[row] = uint32(counter.slice + uint32(row % slices)) << uint32(17)
    w0, w1 = np.empty(rows, np.uint32), np.empty(rows, np.uint32)
    w2, w3 = np.empty(rows, np.uint32), np.empty(rows, np.uint32)
    for b in range(first_block, first_block + blocks):
        for row in range(rows):
            w0[row], w1[row], w2[row], w3[row] = philox_seven(
                low[row], middle[row], high, uint32(base[row] | uint32(b)), k0, k1
            )
        for row in range(rows):
            words[row, b], words[row, every + b], words[row, 2 * every + b], words[row, 3 * every + b] = (
                w0[row], w1[row], w2[row], w3[row]
            )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def draw_noise(  # type: ignore[no-untyped-def]  # numba infers
    noise, words, counter, k0, k1, start, slices, first_block, blocks, halves, quantiles, pieces
):
    """Fill float32 [vectors * slices, columns wanted] with unit normal errors.

    Args:
        noise: what is filled.
        words: uint32 [vectors * slices, 4 * blocks of a read], working memory.
        counter: of the block of reads, see `read_counter`.
        k0: low word of the key.
        k1: high word of the key.
        start: the first vector, from the first of the block on.
        slices: reads of each vector.
        first_block: of `wanted_blocks`.
        blocks: of `wanted_blocks`.
        halves: uint32, of `half_of`, of the columns wanted.
        quantiles: of `middle_quantiles`.
        pieces: of `quantile_pieces`.
    """
    rows, width = noise.shape
    if blocks < _MANY_BLOCKS:
        _draw_read_by_read(words, rows, counter, k0, k1, start, slices, first_block, blocks)
    else:
        _draw_block_by_block(words, rows, counter, k0, k1, start, slices, first_block, blocks)
    bits = words.view(np.uint16)
    for row in range(rows):
        out, given = noise[row], bits[row]
        tail = uint16(0)
        for m in range(width):
            h = given[halves[m]]
            out[m] = quantiles[h]
            tail |= uint16(in_tail(h))
        if tail:
            _refine(noise, bits, row, counter, k0, k1, start, slices, halves, pieces)


@njit(cache=True, nogil=True, error_model="numpy")
def _refine(noise, bits, row, counter, k0, k1, start, slices, halves, pieces):  # type: ignore[no-untyped-def]  # numba infers
    """Draw the errors of a row again that lie in tails."""
    running = counter.vector + uint64(start + row // slices)
    low, middle, high = uint32(running), uint32(running >> uint64(32)), counter.high
    base = uint32(uint32(counter.slice + uint32(row % slices)) << uint32(17)) | TAIL
    for m in range(noise.shape[1]):
        h = bits[row, halves[m]]
        if in_tail(h):
            column = uint32(column_of(halves[m], bits.shape[1] // BLOCK_COLUMNS))
            further = philox_seven(low, middle, high, uint32(base | (column >> uint32(2))), k0, k1)[column & uint32(3)]
            noise[row, m] = tail_error(h, further, pieces)
