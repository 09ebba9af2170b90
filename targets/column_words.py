"""Random words of a block of columns for many reads: loops over reads stay long however few columns are wanted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.counter_random import philox
from xbcompile.targets.read_noise import philox_seven

uint32, uint64 = np.uint32, np.uint64  # numba's own names, without loading it


class ReadWords(NamedTuple):
    """Counters of reads and their words in one block; see `counter_random` for their layout.

    Attributes:
        low: uint32 [reads], word 0 of each counter.
        middle: uint32 [reads], word 1.
        base: uint32 [reads], word 3 of block 0.
        words: uint32 [4, reads], what `draw_block` has drawn.
    """

    low: np.ndarray
    middle: np.ndarray
    base: np.ndarray
    words: np.ndarray


_njit = njit(cache=True, nogil=True, error_model="numpy")


@_njit
def room_for_words(reads):  # type: ignore[no-untyped-def]  # numba infers
    """Room for this many reads."""
    return ReadWords(
        np.empty(reads, np.uint32), np.empty(reads, np.uint32), np.empty(reads, np.uint32), np.empty((4, reads), np.uint32)
    )  # fmt: skip


@_njit
def count_reads(room, counter, start, slices, vectors):  # type: ignore[no-untyped-def]  # numba infers
    """Count reads [slices, vectors] from vector `start` of those of the counter on."""
    for t in range(slices):
        for v in range(vectors):
            r, running = t * vectors + v, counter.vector + uint64(start + v)
            room.low[r], room.middle[r] = uint32(running), uint32(running >> uint64(32))
            room.base[r] = uint32(uint32(counter.slice + uint32(t)) << uint32(17))


@_njit
def draw_block(room, reads, high, block, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    """Draw the words of one block of four columns for the first reads; high is word 2 of all counters."""
    low, middle, base, words = room.low, room.middle, room.base, room.words
    first, second, third, fourth = words[0], words[1], words[2], words[3]
    for r in range(reads):
        first[r], second[r], third[r], fourth[r] = philox(low[r], middle[r], high, uint32(base[r] | block), k0, k1)


@_njit
def draw_block_of_halves(room, reads, high, block, k0, k1):  # type: ignore[no-untyped-def]  # numba infers
    """Draw the words of one block of eight columns likewise, see `read_noise`."""
    low, middle, base, words = room.low, room.middle, room.base, room.words
    first, second, third, fourth = words[0], words[1], words[2], words[3]
    for r in range(reads):
        first[r], second[r], third[r], fourth[r] = philox_seven(
            low[r], middle[r], high, uint32(base[r] | block), k0, k1
        )
