"""Alias tables: a draw from a histogram with one random word and one look-up.

Source: Walker, "An efficient method for generating discrete random variables with general distributions", ACM TOMS 3 (1977).
A table of K = 2**k cells of 2**(32 - k) words each holds two outcomes per cell, its own and its alias. The low k bits of a
random word choose the cell, the others one of the two. All is done in whole numbers: an outcome's probability is its share of
the counts, rounded to a multiple of 2**-32 by less than one of them, and one that never occurred has probability 0.
"""

from __future__ import annotations

import numpy as np

_WORDS = 1 << 32


def alias_tables(counts: np.ndarray) -> np.ndarray:
    """Tables of histograms: uint32 [..., K], K the smallest power of two that holds all bins.

    An entry's low k bits are the alias; a word that is not below the entry without them draws it, see `draw`.

    Args:
        counts: int64 [..., bins], each histogram with one count at least and less than 2**31 of them.
    """
    *shape, bins = counts.shape
    cells = max(2, 1 << (bins - 1).bit_length())
    cumulative = counts.reshape(-1, bins).cumsum(axis=1)
    ends = cumulative * _WORDS // cumulative[:, -1:]
    left = np.zeros((len(ends), cells), np.int64)  # words of each outcome that have no cell yet
    left[:, :bins] = np.diff(ends, axis=1, prepend=0)
    return _paired(left, _WORDS // cells).reshape(*shape, cells)


def _paired(left: np.ndarray, room: int) -> np.ndarray:
    """Fill cell after cell, that of the outcome with the fewest words left, with words of the one that has most.

    The cells not yet filled always have room for just the words that are left, so the fewest fit, and the most fill up.
    """
    histograms, cells = left.shape
    row = np.arange(histograms)
    entries = np.zeros(left.shape, np.uint32)
    open_least, open_most = left.copy(), left.copy()  # filled cells out of the way of either search
    for _ in range(cells):
        own, alias = open_least.argmin(axis=1), open_most.argmax(axis=1)
        words = left[row, own]
        full = words == room
        alias[full] = own[full]
        entries[row, own] = np.where(full, 0, words) * cells + alias
        left[row, alias] -= np.where(full, 0, room - words)
        open_least[row, alias] = open_most[row, alias] = left[row, alias]
        open_least[row, own], open_most[row, own] = _WORDS + 1, -1
    return entries


def draw(entries: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Outcomes that random words draw from one table; the kernels do the same.

    Args:
        entries: uint32 [K], of `alias_tables`.
        words: uint32 [n].
    """
    last = np.uint32(len(entries) - 1)
    own = words & last
    entry = entries[own]
    return np.where(words < (entry & ~last), own, entry & last)
