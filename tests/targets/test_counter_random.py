"""Random numbers: known answers, counters and keys that never meet, the normal distribution up to its tails."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import erfc, ndtr, ndtri

from xbcompile.targets import counter_random
from xbcompile.targets.counter_random import (
    MOST_COLUMNS,
    MOST_SLICES,
    MOST_VECTORS,
    fill_read_words,
    key_of,
    philox,
    quantile_pieces,
    random_words,
    read_counter,
    standard_normal,
    uniform,
)

ONES = 0xFFFFFFFF
KEY = key_of("test", 0)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        # digits of pi
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, ...], words: str
) -> None:
    found = philox(*(np.uint32(word) for word in (*counter, *key)))
    assert [f"{int(word):08x}" for word in found] == words.split()


def test_a_key_is_a_hash_of_purpose_seed_and_place() -> None:
    digest = hashlib.blake2b(b"('noise', 5, 1, 2)", digest_size=8).digest()
    low, high = key_of("noise", 5, np.int64(1), np.int32(2))
    assert int(low) | int(high) << 32 == int.from_bytes(digest, "little")
    with pytest.raises(TypeError):
        key_of("noise", 1.5)  # type: ignore[arg-type]  # a seed is a whole number


def test_keys_never_meet() -> None:
    """Seeds that agree in any 32 or 48 bits, are larger than 64 bits or negative; purposes and places that look alike."""
    parts = [0, 1, 3, 2**31, 2**32 - 1]
    seeds = {low + (high << shift) for low in parts for high in parts for shift in (0, 16, 32, 48, 64)} | {-1, -3}
    places: list[tuple[int, ...]] = [(), (0,), (0, 0), (0, 1), (1, 0), (1,), (2**32,), (1 << 31, 7), (11,), (1, 1)]
    purposes = ["noise", "noise 1", "noise', 1", "writes", "devices", ""]
    keys = [
        tuple(map(int, key_of(purpose, seed, *place)))
        for purpose, seed, place in itertools.product(purposes, sorted(seeds), places)
    ]
    assert len(set(keys)) == len(keys)


def test_each_purpose_is_drawn_at_one_place() -> None:
    """No two uses of one chip's random numbers share a key: every purpose is a text of its own in the code."""
    folder = Path(counter_random.__file__).parent
    calls = [
        node.args[0]
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key_of"
    ]
    purposes = [each.value for each in calls if isinstance(each, ast.Constant)]
    assert len(purposes) == len(calls) > 10
    assert len(set(purposes)) == len(purposes)


class CounterRecorder:
    """In place of `philox`: keeps the counters that it is asked for."""

    def __init__(self) -> None:
        self.counters: list[tuple[int, ...]] = []

    def __call__(self, *words: np.uint32) -> tuple[np.uint32, ...]:
        assert all(isinstance(word, np.uint32) for word in words)
        self.counters.append(tuple(map(int, words)))
        return (np.uint32(0),) * 4


def extremes(most: int) -> list[int]:
    return sorted({0, 1, 2, 7, most // 2, most - 2, most - 1})


def blocks_of_reads() -> Iterator[tuple[int, int]]:
    vectors = [number << shift for number in extremes(2**28) for shift in (0, 28, 32, 48, 50, 64)]
    yield from itertools.product(sorted({each for each in vectors if each < MOST_VECTORS}), extremes(MOST_SLICES))


def test_counters_of_one_key_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vector, slice, block of columns, and the further bits of tails, to the ends of their ranges."""
    recorder = CounterRecorder()
    monkeypatch.setattr(counter_random, "philox", recorder)
    places = list(blocks_of_reads())
    blocks = 20
    for vector, which in places:
        counter = read_counter(KEY, vector, which, (1, 1, MOST_COLUMNS))
        for tail in (np.uint32(0), counter_random.TAIL):
            fill_read_words.py_func(np.empty(4 * blocks, np.uint32), counter, 0, 0, tail)
    assert len(recorder.counters) == len(places) * 2 * blocks
    assert len(set(recorder.counters)) == len(recorder.counters)
    last = counter_random.ReadCounter(np.uint64(0), np.uint32(0), np.uint32(MOST_SLICES - 1), *KEY)
    recorder.counters.clear()
    fill_read_words.py_func(np.empty(MOST_COLUMNS, np.uint32), last, 0, 0, counter_random.TAIL)
    assert {counter[3] for counter in recorder.counters} == {ONES - block for block in range(MOST_COLUMNS // 4)}


def test_a_block_of_reads_counts_on_from_its_first() -> None:
    first = 2**64 + 2**32 - 2
    counter = read_counter(KEY, first, 3, (4, 2, 8))
    for vector, which in itertools.product(range(4), range(2)):
        words, alone = np.empty((2, 8), np.uint32)
        fill_read_words(words, counter, vector, which, 0)
        fill_read_words(alone, read_counter(KEY, first + vector, 3 + which, (1, 1, 8)), 0, 0, 0)
        at = first + vector
        expected = [
            philox(
                np.uint32(at & ONES), np.uint32(at >> 32 & ONES), np.uint32(1), np.uint32((3 + which) << 17 | b), *KEY
            )
            for b in range(2)
        ]
        assert np.array_equal(words, alone)
        assert np.array_equal(words.reshape(4, 2), np.array(expected, np.uint32).T)


@pytest.mark.parametrize(
    ("first", "slices", "size", "text"),
    [
        (-1, 0, (1, 1, 1), "vectors -1 to 0"),
        (MOST_VECTORS, 0, (1, 1, 1), "below 2\\*\\*96"),
        (2**64 - 1, 0, (2, 1, 1), "cannot be counted"),
        (0, MOST_SLICES - 1, (1, 2, 1), "slices 32767 to 32769"),
        (0, -1, (1, 2, 1), "slices -1"),
        (0, 0, (1, 1, MOST_COLUMNS + 1), "262145 columns"),
    ],
)
def test_what_has_no_counter_is_refused(first: int, slices: int, size: tuple[int, int, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_counter(KEY, first, slices, size)


def test_arrays_of_numbers_are_read_row_by_row() -> None:
    rows = np.empty((2, 4096), np.uint32)
    for row in range(2):
        fill_read_words(rows[row], read_counter(KEY, row, 0, (1, 1, 4096)), 0, 0, 0)
    assert np.array_equal(random_words(KEY, (5, 1000)).ravel(), rows.ravel()[:5000])
    assert np.array_equal(standard_normal(KEY, (5,)), standard_normal(KEY, (5000,))[:5])
    assert standard_normal(KEY, (0, 3)).shape == (0, 3)


@pytest.fixture(scope="module")
def ten_million() -> np.ndarray:
    return standard_normal(key_of("normals", 1), (10_000_000,))


def test_normals_are_normal(ten_million: np.ndarray) -> None:
    """Counts in 4,000 bins of equal probability; and counts of each tail, binomial, against erfc."""
    edges = ndtri(np.arange(1, 4000) / 4000).astype(np.float32)
    counts = np.diff(np.searchsorted(np.sort(ten_million), edges), prepend=0, append=ten_million.size)
    assert stats.chisquare(counts).pvalue > 1e-3
    for sigma in (1, 2, 3, 3.3, 3.49, 3.8, 4, 4.5, 5):
        expected = ten_million.size * erfc(sigma / np.sqrt(2)) / 2
        for side in (1, -1):
            found = int(np.count_nonzero(side * ten_million > sigma))
            assert stats.poisson.cdf(found, expected) > 1e-3, (sigma, side)
            assert stats.poisson.sf(found - 1, expected) > 1e-3, (sigma, side)


def test_neighbours_are_independent(ten_million: np.ndarray) -> None:
    """Correlations of values and of squares at distances within and across blocks; each is normal / sqrt(n)."""
    z = ten_million[:2_000_000].astype(np.float64)
    squares = z**2 - 1
    for distance in (1, 2, 3, 4, 16, 1023, 1024, 1025, 4096):
        for each, scale in ((z, 1.0), (squares, 2.0)):
            correlation = float(np.mean(each[:-distance] * each[distance:])) / scale
            assert abs(correlation) * np.sqrt(z.size) < 4.5, distance


def test_pieces_follow_the_inverse_distribution_to_eight_sigma() -> None:
    """Of the word's distance from its end, t / 2**32: errors of quantiles, and of probabilities as shares of themselves."""
    t = np.geomspace(2.0**-33, 2.0**31, 200_001).astype(np.float32)
    piece = [int(counter_random.piece_of.py_func(each)) for each in t[::50]]
    value, slope = quantile_pieces().astype(np.float64)
    found = value[piece] + slope[piece] * t[::50].astype(np.float64)
    probability = t[::50].astype(np.float64) * 2.0**-32
    assert np.abs(found - ndtri(probability)).max() < 4e-6
    tail = found < -2
    assert np.abs(ndtr(found) / probability - 1)[tail & (found > -8)].max() < 2e-5
    half = quantile_pieces().shape[1] // 2
    assert np.array_equal(quantile_pieces()[:, :half], -quantile_pieces()[:, half:])  # both signs alike


def test_tails_are_refined_by_further_bits() -> None:
    """Words 0, 1, 4095, 4096 from either end: the quantile of word and further bits together, of the last one of word and 1/2."""
    near = np.array([0, 1, 4095, 4096], np.uint32)
    words, further = np.concatenate([near, ~near]), random_words(key_of("further", 0), (8,))
    t, pieces = np.empty(8, np.float32), words.copy()
    assert counter_random._choose_pieces(t, pieces) == 0
    counter_random._refine_tails(t, pieces, further)
    found = quantile_pieces()[0][pieces] + quantile_pieces()[1][pieces] * t
    bits = np.where(np.tile(near < 4096, 2), (further + 0.5) * 2.0**-32, 0.5)
    quantile = ndtri((np.tile(near, 2) + bits) * 2.0**-32)
    np.testing.assert_allclose(found, quantile * np.repeat([1, -1], 4), rtol=0, atol=1e-5)
    assert quantile.min() < -6.2


def test_a_read_takes_further_bits_of_its_own_for_its_tails() -> None:
    """Searched: the first reads of 64 columns with a word in a tail; the words' further bits come from the tail's counters."""
    found = 0
    for vector in range(20_000):
        counter = read_counter(KEY, vector, 1, (1, 1, 64))
        words = np.empty(64, np.uint32)
        fill_read_words(words, counter, 0, 0, 0)
        distance = np.minimum(words, ~words)
        if distance.min() >= 4096:
            continue
        further, normals = np.empty(64, np.uint32), np.empty(64, np.float32)
        fill_read_words(further, counter, 0, 0, counter_random.TAIL)
        counter_random.fill_row_of_normals(normals, np.empty(64, np.uint32), counter, 0, 0, quantile_pieces())
        at = int(distance.argmin())
        expected = ndtri((int(distance[at]) + (int(further[at]) + 0.5) * 2.0**-32) * 2.0**-32)
        assert abs(normals[at]) == pytest.approx(-expected, abs=1e-5)
        assert (normals[at] < 0) == (words[at] < 2**31)
        found += 1
        if found == 3:
            return
    raise AssertionError("no word in a tail")


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    u = uniform(key_of("uniform", 3), (200_000,))
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert stats.chisquare(counts).pvalue > 0.001


def test_draws_of_different_keys_are_uncorrelated() -> None:
    keys = [key_of(purpose, seed) for seed in (0, 1, 1 << 40) for purpose in ("a", "b")]
    draws = np.stack([standard_normal(key, (50_000,)) for key in keys])
    correlation = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlation).max() < 0.02
