"""Counter-based random numbers: Philox 4x32-10, so that an error depends on what is read and never on when.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. Normals come from a table of
    the inverse distribution function with linear interpolation: only additions and multiplications at run time, hence
    the same bits on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64
from scipy.special import ndtri

_TABLE_BITS = 12


def _inverse_normal_table() -> np.ndarray:
    """Quantiles of the unit normal at the edges of 4,096 equal-probability bins; the open ends get the tail's mean.

    The interpolated variate then has unit variance to 1e-3 and is bounded at about 3.8 sigma.
    """
    edges = np.arange(2**_TABLE_BITS + 1) / 2**_TABLE_BITS
    table = ndtri(edges)
    density = np.exp(-0.5 * table[1] ** 2) / np.sqrt(2 * np.pi)
    tail_mean = density * 2**_TABLE_BITS  # mean of |z| in the outermost bin
    outer = 2 * tail_mean + table[1]  # linear interpolation over the bin then has that mean
    table[0], table[-1] = -outer, outer
    return table.astype(np.float32)


NORMAL_TABLE = _inverse_normal_table()
# The same as start and slope of each bin, the slope per step of the 20 lower bits of a word: float32 [4096, 2].
NORMAL_STEPS = np.stack([NORMAL_TABLE[:-1], np.diff(NORMAL_TABLE) * np.float32(2.0 ** (_TABLE_BITS - 32))], axis=1)


@njit(cache=True, inline="always")
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]  # numba infers uint32
    """Four random 32-bit words of a 128-bit counter and a 64-bit key (Philox 4x32, ten rounds)."""
    for _ in range(10):
        p0 = uint64(0xD2511F53) * uint64(c0)
        p1 = uint64(0xCD9E8D57) * uint64(c2)
        c0, c1, c2, c3 = (
            uint32((p1 >> uint64(32)) ^ uint64(c1) ^ uint64(k0)),
            uint32(p1),
            uint32((p0 >> uint64(32)) ^ uint64(c3) ^ uint64(k1)),
            uint32(p0),
        )
        k0 = uint32(uint64(k0) + uint64(0x9E3779B9))
        k1 = uint32(uint64(k1) + uint64(0xBB67AE85))
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@njit(cache=True, inline="always")
def normal_of(word, table):  # type: ignore[no-untyped-def]  # numba infers float32
    """Unit normal variate of one random 32-bit word."""
    index = word >> uint32(32 - _TABLE_BITS)
    fraction = np.float32(word & uint32(2 ** (32 - _TABLE_BITS) - 1)) * np.float32(2.0 ** -(32 - _TABLE_BITS))
    low = table[index]
    return low + (table[index + 1] - low) * fraction


@njit(cache=True, error_model="numpy")
def fill_read_words(words, vector, slice_index, tile, array, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    """Fill uint32 [4 * blocks] with the random words of one read, one per column.

    Counter of a block: (vector, slice and block, tile, array); word i of block b goes to column i * blocks + b, so that
    neighbouring columns come from neighbouring counters and the loop runs in vector registers.
    """
    blocks = words.size // 4
    low, base = uint32(vector), uint32(uint32(slice_index) << uint32(16))
    # A vector's high word goes into the key: in the counter it would meet the slice and block of another read.
    high_key = uint32(k1 ^ uint32(uint64(vector) >> uint64(32)))
    for b in range(blocks):
        r0, r1, r2, r3 = philox(low, uint32(base + uint32(b)), tile, array, k0, high_key)
        words[b] = r0
        words[blocks + b] = r1
        words[2 * blocks + b] = r2
        words[3 * blocks + b] = r3


@njit(cache=True)
def _fill_words(words, stream, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    for block in range((words.size + 3) // 4):
        r = philox(uint32(block), uint32(uint64(block) >> uint64(32)), uint32(stream), uint32(0x58424152), k0, k1)
        for i in range(min(4, words.size - 4 * block)):
            words[4 * block + i] = r[i]


def key_of(seed: int) -> tuple[np.uint32, np.uint32]:
    """The 64-bit key of a seed (0 <= seed < 2**64) as two words."""
    return np.uint32(seed & 0xFFFFFFFF), np.uint32((seed >> 32) & 0xFFFFFFFF)


def random_words(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random uint32 array of this shape; `stream` separates independent uses of one seed."""
    words = np.empty(int(np.prod(shape)), np.uint32)
    _fill_words(words, np.uint32(stream), *key_of(seed))
    return words.reshape(shape)


def standard_normal(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Unit normal float32 array of this shape."""
    words = random_words(seed, stream, shape)
    index = words >> np.uint32(32 - _TABLE_BITS)
    mask = np.uint32(2 ** (32 - _TABLE_BITS) - 1)
    fraction = (words & mask).astype(np.float32) * np.float32(2.0 ** -(32 - _TABLE_BITS))
    low = NORMAL_TABLE[index]
    return low + (NORMAL_TABLE[index + 1] - low) * fraction


def uniform(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 array on [0, 1) of this shape."""
    return random_words(seed, stream, shape) * 2.0**-32
