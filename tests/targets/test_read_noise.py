"""Errors of reads: counters that never meet, quantiles of 16 bits and of their tails, the same in part as in whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import erfc, ndtri

from xbcompile.targets import read_noise
from xbcompile.targets.counter_random import MOST_COLUMNS, TAIL, key_of, quantile_pieces, read_counter
from xbcompile.targets.read_noise import blocks_of, draw_noise, half_of, middle_quantiles, wanted_blocks

KEY = key_of("test", 0)


def drawn(columns: np.ndarray, of: int, vectors: int, slices: int = 1, first: int = 0, start: int = 0) -> np.ndarray:
    """Errors of some columns, of so many in all: [vectors * slices, columns]."""
    noise = np.empty((vectors * slices, len(columns)), np.float32)
    words = np.full((len(noise), 4 * blocks_of(of)), 7, np.uint32)
    counter = read_counter(KEY, first, 0, (start + vectors, slices, of))
    halves, blocks = half_of(columns, of), wanted_blocks(columns)
    draw_noise(noise, words, counter, *KEY, start, slices, *blocks, halves, middle_quantiles(), quantile_pieces())
    return noise


def test_philox_has_seven_rounds_of_the_ten() -> None:
    """Salmon et al.'s generator: each round multiplies two words, exchanges halves and adds keys that grow by Weyl steps."""
    c, k = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
    words = [np.uint32(each) for each in (*c, *k)]
    for _ in range(7):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    assert [int(word) for word in read_noise.philox_seven(*words)] == c


def test_counters_of_one_key_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of words and of the further bits of every column, to the ends of their ranges."""
    asked: list[tuple[int, ...]] = []

    def record(*words: np.uint32) -> tuple[np.uint32, ...]:
        asked.append(tuple(map(int, words)))
        return (np.uint32(0),) * 4

    monkeypatch.setattr(read_noise, "philox_seven", record)
    for name in (
        "_draw_read_by_read",
        "_draw_block_by_block",
        "_refine",
    ):  # as they are written, where `record` is called
        monkeypatch.setattr(read_noise, name, getattr(read_noise, name).__wrapped__)
    columns = np.array([0, 1, 7, 8, 63, 64, MOST_COLUMNS - 2, MOST_COLUMNS - 1])
    for vector, which in itertools.product((0, 1, 2**32 - 1, 2**64, 2**96 - 1), (0, 1, 32767)):
        counter = read_counter(KEY, vector, which, (1, 1, MOST_COLUMNS))
        for blocks in (3, 5):  # few and many
            noise, words = np.empty((1, len(columns)), np.float32), np.zeros((1, 4 * blocks), np.uint32)
            draw_noise.__wrapped__(
                noise,
                words,
                counter,
                *KEY,
                0,
                1,
                0,
                blocks,
                half_of(np.arange(8), 8 * blocks),
                middle_quantiles(),
                quantile_pieces(),
            )
        bits = np.zeros((1, MOST_COLUMNS), np.uint16)  # all in a tail
        read_noise._refine(noise, bits, 0, counter, *KEY, 0, 1, half_of(columns, MOST_COLUMNS), quantile_pieces())
    # Neighbours share further words: four columns each.
    further = {each for each in asked if each[3] & int(TAIL)}
    assert len({each for each in asked if not each[3] & int(TAIL)}) == 15 * 5
    assert len(further) == 15 * len({int(column) // 4 for column in (*columns, *range(8))})


@pytest.mark.parametrize("of", [4, 64, 100])
def test_an_error_depends_on_its_read_and_column_alone(of: int) -> None:
    every = drawn(np.arange(of), of, 9, 2, first=2**64 - 9)
    rng = np.random.default_rng(of)
    for _ in range(5):
        some = rng.permutation(of)[: rng.integers(1, of + 1)]
        assert np.array_equal(drawn(some, of, 9, 2, first=2**64 - 9), every[:, some])
        narrow = np.arange(int(some[0]), min(int(some[0]) + 3, of))
        assert np.array_equal(drawn(narrow, of, 5, 2, first=2**64 - 11, start=6), every[8:18, narrow])


@pytest.mark.parametrize("of", [8, 20, 64])
def test_columns_side_by_side_share_blocks(of: int) -> None:
    """Every column has a half of its own; eight side by side are one block, so that few columns draw few words."""
    halves = half_of(np.arange(of), of)
    assert len(set(halves.tolist())) == of
    for first in range(0, of, 8):
        some = np.arange(first, min(first + 8, of))
        assert wanted_blocks(some) == (first // 8, 1)
        assert set((halves[some] // 2 % blocks_of(of)).tolist()) == {first // 8}
    assert wanted_blocks(np.arange(0)) == (0, 0)


def test_quantiles_are_the_middles_of_equal_parts() -> None:
    expected = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    assert np.abs(middle_quantiles() - expected).max() < 8e-6
    inner = expected[64:-64]
    assert np.diff(inner).max() < 0.005
    assert 3.09 < inner[-1] < 3.1


def test_tails_take_further_bits() -> None:
    """All words 0 or all ones: the outermost part of either side, cut by 32 bits from counters of its own."""
    bits = np.repeat(np.array([[0], [0xFFFF], [63], [0xFFFF - 63], [64]], np.uint16), 8, axis=1)
    noise = np.full(bits.shape, 9, np.float32)
    counter, halves = read_counter(KEY, 5, 0, (5, 1, 8)), half_of(np.arange(8), 8)
    for row in range(len(bits)):
        read_noise._refine(noise, bits, row, counter, *KEY, 0, 1, halves, quantile_pieces())
    for row, column in np.ndindex(4, 8):
        words = [np.uint32(each) for each in (5 + row, 0, 0, int(TAIL) | column // 4, *KEY)]
        further = int(read_noise.philox_seven(*words)[column % 4])
        part = (0, 0, 63, 63)[row] + (further + 0.5) * 2.0**-32
        assert noise[row, column] == pytest.approx((-1) ** row * ndtri(part / 65536), abs=2e-5)
    assert (noise[4] == 9).all()


def test_errors_are_normal_and_independent() -> None:
    """Kolmogorov-Smirnov, tails beyond 3 to 4.5 sigma by their counts, correlations of neighbours and of their squares."""
    z = drawn(np.arange(64), 64, 1 << 15, 2).astype(np.float64)
    assert stats.kstest(z[: 1 << 14].ravel(), "norm").pvalue > 1e-3
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
    for sigma in (2, 3, 3.2, 3.5, 4, 4.5):
        for side in (1, -1):
            found, expected = int(np.count_nonzero(side * z > sigma)), z.size * erfc(sigma / np.sqrt(2)) / 2
            assert 1e-4 < stats.poisson.cdf(found, expected) < 1 - 1e-4, (sigma, side)
    for each in (z, (z**2 - 1) / np.sqrt(2)):
        for lag in (1, 2, 4, 8, 16, 32):
            assert abs(np.mean(each[:, :-lag] * each[:, lag:])) * np.sqrt(z.size) < 4.5, lag
            assert abs(np.mean(each[:-lag] * each[lag:])) * np.sqrt(z.size) < 4.5, lag
