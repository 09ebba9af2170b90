"""Alias tables: probabilities exact to a word in 2**32, and draws that follow them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from xbcompile.targets.alias_tables import alias_tables, draw
from xbcompile.targets.counter_random import key_of, random_words

WORDS = 1 << 32


def words_of_outcomes(table: np.ndarray) -> np.ndarray:
    """How many of the 2**32 words draw each outcome, as each cell's first word that draws the alias says: found by bisection."""
    cells = len(table)
    counts = np.zeros(cells, np.int64)
    for cell in range(cells):
        low, high = 0, WORDS // cells  # of its words, low draw the cell's own outcome at least
        while low < high:
            middle = (low + high) // 2
            is_own = draw(table, np.array([middle * cells + cell], np.uint32))[0] == cell
            low, high = (middle + 1, high) if is_own and table[cell] % cells != cell else (low, middle)
        counts[cell] += low
        counts[int(table[cell]) % cells] += WORDS // cells - low
    return counts


@pytest.mark.parametrize("bins", [1, 2, 3, 16, 17, 29])
def test_probabilities_are_those_of_the_counts_to_a_word(bins: int) -> None:
    """Skewed histograms, one outcome alone, all alike, and one count among a billion."""
    rng = np.random.default_rng(bins)
    histograms = rng.integers(0, 6, (4, bins)) ** 6
    histograms[:, 0] += 1
    histograms[1] = np.arange(bins) == bins - 1
    histograms[2] = 3
    histograms[3, -1] = 10**9
    for counts, table in zip(histograms, alias_tables(histograms), strict=True):
        assert len(table) == max(2, 1 << (bins - 1).bit_length())
        found = words_of_outcomes(table)
        assert np.abs(found[:bins] - counts / counts.sum() * WORDS).max() < 1
        assert not found[bins:].any()
        assert not found[:bins][counts == 0].any()
        assert found.sum() == WORDS


def chi_square(drawn: np.ndarray, counts: np.ndarray) -> float:
    """Probability of a fit as bad as that of outcomes drawn; outcomes that cannot be are left to the others' sum."""
    possible = counts > 0
    expected = counts[possible] / counts.sum() * len(drawn)
    found = np.bincount(drawn, minlength=len(counts))[: len(counts)][possible]
    return float(chi2.sf(((found - expected) ** 2 / expected).sum(), len(expected) - 1))


def test_draws_follow_the_counts_and_a_wrong_table_is_found() -> None:
    counts = np.array([1, 40, 0, 900, 3000, 2000, 300, 7])
    table = alias_tables(counts)
    words = random_words(key_of("test", 0), (1 << 20,))
    drawn = draw(table, words)
    assert not np.any(drawn == 2)
    assert chi_square(drawn, counts) > 1e-4
    for cell in range(8):
        wrong = table.copy()
        wrong[cell] ^= 5  # the alias of one cell is another outcome
        assert chi_square(draw(wrong, words), counts) < 1e-9, cell
