"""Counter-based random numbers: Philox 4x32-10, so that an error depends on what is read and never on when.

Sources: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11; keys are BLAKE2b (RFC 7693).

Layout. The 64-bit key is a hash of all that stays the same while numbers are drawn: the purpose, the seed, and what it is for
(array, tile, number of the write); seeds are whole numbers of any size. The 128-bit counter is

    word 0, 1, 2    vector, 96 bits, lowest first
    word 3          slice, 15 bits | tail, 1 bit | block of four columns, 16 bits

so no two readings share a counter. Arrays of numbers are read row by row, as vectors of one slice.

Normals. The half of a word that counts from the nearer end of its range, plus 1/2, is the probability of a larger error of that
sign in units of 2**-32. Its logarithm's whole part (the octave) and first bits choose a straight piece of the inverse
distribution function, which they miss by less than 4e-6 sigma. Beyond 4.7 sigma, where a word alone is coarse, 32 further
bits refine it. So probabilities of errors up to 8 sigma are right to 2e-5 of themselves. Only additions and multiplications
at run time, hence the same bits on every machine.
"""

from __future__ import annotations

import hashlib
import operator
from functools import cache, lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit

uint32, uint64 = np.uint32, np.uint64  # numba's own names, without loading it

MOST_COLUMNS = 4 << 16
MOST_SLICES = 1 << 15
MOST_VECTORS = 1 << 96

TAIL = np.uint32(1 << 16)  # of a counter: it draws further bits of what lies in a tail
_ROW = 4096  # numbers in one row of an array of numbers

_PIECES = 128  # straight pieces in an octave
_PIECE_SHIFT = np.uint32(23 - 7)  # what float32 has below the bits that choose a piece
_LOWEST_OCTAVE, _HIGHEST_OCTAVE = -33, 30  # of 2**-33, a refined word's least, to 2**31, half of all words
_FIRST_PIECE = np.uint32((127 + _LOWEST_OCTAVE) * _PIECES)  # bits of a float32 of the lowest octave
_SIDE = (_HIGHEST_OCTAVE - _LOWEST_OCTAVE + 1) * _PIECES + 1  # pieces of one sign; 2**31 itself starts one more
_COARSE = np.uint32(4096)  # words nearer to their end than this are refined


@cache
def quantile_pieces() -> np.ndarray:
    """Straight pieces of the inverse normal distribution function of t / 2**32: value at 0 and slope, float32 [2, pieces].

    The first half is for the low end, where errors are negative. One array for all, which cannot be written to.
    """
    octave = 2.0 ** np.arange(_LOWEST_OCTAVE, _HIGHEST_OCTAVE + 1)
    edges = (octave[:, None] * (1 + np.arange(_PIECES) / _PIECES)).ravel()
    quantile_of = NormalDist().inv_cdf  # to float64 rounding, as scipy's; loading that takes a hundred times as long
    quantiles = np.array([quantile_of(p) for p in (np.append(edges, 2.0**31) * 2.0**-32).tolist()])
    slope = np.diff(quantiles) / np.diff(np.append(edges, 2.0**31))
    value = quantiles[:-1] - slope * edges
    low = np.stack([np.append(value, 0.0), np.append(slope, 0.0)])  # the middle is 0
    pieces = np.concatenate([low, -low], axis=1).astype(np.float32)
    pieces.flags.writeable = False
    return pieces


class ReadCounter(NamedTuple):
    """Where the random numbers of some reads start: see `read_counter`."""

    vector: np.uint64
    high: np.uint32
    slice: np.uint32
    key_low: np.uint32
    key_high: np.uint32


Key = tuple[np.uint32, np.uint32]


@lru_cache(1 << 16, typed=True)
def key_of(purpose: str, seed: int, *which: int) -> Key:
    """The 64-bit key of what is drawn, as two words: BLAKE2b of the text `('PURPOSE', SEED, WHICH, ...)`.

    Args:
        purpose: what the numbers are for.
        seed: of the chip, any whole number.
        which: the array, tile or write that they are for.
    """
    text = repr((purpose, *map(operator.index, (seed, *which))))
    words = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), "<u4")
    return np.uint32(words[0]), np.uint32(words[1])


def read_counter(key: Key, first_vector: int, first_slice: int, size: tuple[int, int, int]) -> ReadCounter:
    """The counter of a block of readings [vectors, slices, columns], for the kernels that add errors to them.

    Args:
        key: of `key_of`.
        first_vector: running number of the first vector; the others follow.
        first_slice: the first slice; the others follow.
        size: vectors, slices and columns.

    Raises:
        ValueError: the block has no counter of its own.
    """
    vectors, slices, columns = size
    low, high = first_vector % 2**64, first_vector >> 64
    if not 0 <= first_vector < MOST_VECTORS or low + vectors > 2**64:
        raise ValueError(f"vectors {first_vector} to {first_vector + vectors} cannot be counted; allowed: below 2**96")
    if not 0 <= first_slice <= first_slice + slices <= MOST_SLICES:
        raise ValueError(f"slices {first_slice} to {first_slice + slices} cannot be counted; allowed: {MOST_SLICES}")
    if columns > MOST_COLUMNS:
        raise ValueError(f"{columns} columns cannot be counted; allowed: {MOST_COLUMNS}")
    return ReadCounter(np.uint64(low), np.uint32(high), np.uint32(first_slice), *key)


@njit(cache=True, inline="always")
def philox_rounds(c0, c1, c2, c3, k0, k1, rounds):  # type: ignore[no-untyped-def]  # numba infers uint32
    """Four random 32-bit words of a 128-bit counter and a 64-bit key: Philox 4x32."""
    low = uint64(0xFFFFFFFF)
    # In 64 bits whose upper halves are left as they come: the products take lower halves alone, so no lane is ever moved.
    c0, c1, c2, c3, k0, k1 = uint64(c0), uint64(c1), uint64(c2), uint64(c3), uint64(k0), uint64(k1)
    for _ in range(rounds):
        p0 = uint64(0xD2511F53) * (c0 & low)
        p1 = uint64(0xCD9E8D57) * (c2 & low)
        c0, c1, c2, c3 = (p1 >> uint64(32)) ^ c1 ^ k0, p1, (p0 >> uint64(32)) ^ c3 ^ k1, p0
        k0 = (k0 + uint64(0x9E3779B9)) & low
        k1 = (k1 + uint64(0xBB67AE85)) & low
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@njit(cache=True, inline="always")
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]  # as above
    """`philox_rounds` with ten rounds."""
    return philox_rounds(c0, c1, c2, c3, k0, k1, 10)


@njit(cache=True, error_model="numpy")
def fill_read_words(words, counter, vector, slice_index, tail):  # type: ignore[no-untyped-def]  # numba infers
    """Fill uint32 [4 * blocks] with the random words of one read, one per column.

    Word i of block b goes to column i * blocks + b, so that neighbouring columns come from neighbouring counters and the loop
    runs in vector registers.

    Args:
        words: what is filled.
        counter: of the block of reads.
        vector: the vector, from the first of the block on.
        slice_index: the slice likewise.
        tail: 0, or `TAIL` for the bits that refine tails.
    """
    blocks = words.size // 4
    running = counter.vector + uint64(vector)
    low, middle, high = uint32(running), uint32(running >> uint64(32)), counter.high
    base = uint32((counter.slice + uint32(slice_index)) << uint32(17)) | uint32(tail)
    for b in range(blocks):
        r0, r1, r2, r3 = philox(low, middle, high, uint32(base | uint32(b)), counter.key_low, counter.key_high)
        words[b] = r0
        words[blocks + b] = r1
        words[2 * blocks + b] = r2
        words[3 * blocks + b] = r3


@njit(cache=True, error_model="numpy")
def fill_row_of_normals(normals, words, counter, vector, slice_index, pieces):  # type: ignore[no-untyped-def]  # as above
    """Fill float32 [4 * blocks] with unit normal variates of one read; see `fill_read_words`.

    Args:
        normals: what is filled.
        words: uint32 of the same shape, working memory.
        counter: of the block of reads.
        vector: the vector, from the first of the block on.
        slice_index: the slice likewise.
        pieces: of `quantile_pieces`.
    """
    fill_read_words(words, counter, vector, slice_index, uint32(0))
    if _choose_pieces(normals, words) < _COARSE:
        further = np.empty(words.size, np.uint32)
        fill_read_words(further, counter, vector, slice_index, TAIL)
        _refine_tails(normals, words, further)
    value, slope = pieces[0], pieces[1]
    for i in range(words.size):
        normals[i] = value[words[i]] + slope[words[i]] * normals[i]


@njit(cache=True, inline="always")
def piece_of(t):  # type: ignore[no-untyped-def]  # numba infers uint32
    """The piece in which float32 t lies, of the low end."""
    return uint32(uint32(np.float32(t).view(np.uint32) >> _PIECE_SHIFT) - _FIRST_PIECE)


@njit(cache=True, error_model="numpy")
def _choose_pieces(t, words):  # type: ignore[no-untyped-def]  # numba infers
    """Put into t how far words are from the nearer end, words become pieces; the distance of the nearest one."""
    least = uint32(0xFFFFFFFF)
    for i in range(words.size):
        high = uint32(np.int32(words[i]) >> np.int32(31))  # all ones in the upper half
        distance = uint32(words[i] ^ high)
        least = min(least, distance)
        t[i] = np.float32(np.int32(distance)) + np.float32(0.5)
        words[i] = uint32(piece_of(t[i]) + uint32(high & uint32(_SIDE)))
    return least


@njit(cache=True, error_model="numpy")
def _refine_tails(t, pieces, further):  # type: ignore[no-untyped-def]  # numba infers
    """Where t is less than `_COARSE`, put 32 further bits in place of its 1/2."""
    for i in range(t.size):
        if t[i] < np.float32(_COARSE):
            high = uint32(_SIDE) if pieces[i] >= uint32(_SIDE) else uint32(0)
            whole = np.float64(t[i]) - 0.5
            t[i] = np.float32(whole + (np.float64(further[i]) + 0.5) * 2.0**-32)
            pieces[i] = uint32(piece_of(t[i]) + high)


@njit(cache=True)
def _fill_words(words, counter):  # type: ignore[no-untyped-def]  # numba infers
    row = np.empty(_ROW, np.uint32)
    for start in range(0, words.size, _ROW):
        fill_read_words(row, counter, start // _ROW, 0, uint32(0))
        words[start : start + _ROW] = row[: words.size - start]


@njit(cache=True)
def _fill_normals(normals, counter, pieces):  # type: ignore[no-untyped-def]  # numba infers
    words, row = np.empty(_ROW, np.uint32), np.empty(_ROW, np.float32)
    for start in range(0, normals.size, _ROW):
        fill_row_of_normals(row, words, counter, start // _ROW, 0, pieces)
        normals[start : start + _ROW] = row[: normals.size - start]


def random_words(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Random uint32 array of this shape.

    Args:
        key: of `key_of`; another one for each independent use.
        shape: of the array; its numbers are the first of those of a larger one.
    """
    words = np.empty(int(np.prod(shape)), np.uint32)
    _fill_words(words, ReadCounter(np.uint64(0), np.uint32(0), np.uint32(0), *key))
    return words.reshape(shape)


def standard_normal(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Unit normal float32 array of this shape; arguments as of `random_words`.

    Args:
        key: of `key_of`.
        shape: of the array.
    """
    normals = np.empty(int(np.prod(shape)), np.float32)
    _fill_normals(normals, ReadCounter(np.uint64(0), np.uint32(0), np.uint32(0), *key), quantile_pieces())
    return normals.reshape(shape)


def uniform(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 array on [0, 1) of this shape; arguments as of `random_words`.

    Args:
        key: of `key_of`.
        shape: of the array.
    """
    return random_words(key, shape) * 2.0**-32
