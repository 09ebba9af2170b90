"""Random numbers: known answers, moments, independence of order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xbcompile.targets.counter_random import (
    NORMAL_TABLE,
    fill_read_words,
    key_of,
    normal_of,
    philox,
    random_words,
    standard_normal,
    uniform,
)

ONES = 0xFFFFFFFF


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


def test_words_of_an_array_are_philox_of_their_block() -> None:
    words = random_words(seed=(7 << 32) + 5, stream=3, shape=(2, 5))
    flat = [
        philox(np.uint32(b), np.uint32(0), np.uint32(3), np.uint32(0x58424152), np.uint32(5), np.uint32(7))
        for b in range(3)
    ]
    assert np.array_equal(words.ravel(), np.array(flat, np.uint32).ravel()[:10])


def test_words_of_a_read_depend_on_each_part_of_its_counter() -> None:
    """Vector (64 bits), slice, tile, array and both words of the seed: each alone changes all words; none repeats."""
    seen = set()
    for changed in range(8):
        vector, which, tile, array, seed = (
            5 + (changed == 1),
            2 + (changed == 2),
            3 + (changed == 3),
            4 + (changed == 4),
            9,
        )
        vector += (changed == 5) << 33
        seed += (changed == 6) + ((changed == 7) << 40)
        words = np.empty(16, np.uint32)
        fill_read_words(words, np.uint64(vector), np.uint32(which), np.uint32(tile), np.uint32(array), *key_of(seed))
        seen.update(words.tolist())
    assert len(seen) == 8 * 16


def test_normals_have_the_moments_of_the_normal_distribution() -> None:
    """A million draws: standard errors are 0.001 for mean, 0.0007 for sigma, 0.0025 for skewness, 0.005 for kurtosis."""
    z = standard_normal(1, 2, (1_000_000,)).astype(np.float64)
    assert abs(z.mean()) < 0.004
    assert abs(z.std() - 1) < 0.004
    assert abs(stats.skew(z)) < 0.01
    assert abs(stats.kurtosis(z)) < 0.05
    assert abs(np.mean(z < -1.959964) - 0.025) < 0.0008
    assert np.abs(z).max() < 4


def test_the_normal_table_is_antisymmetric_and_increasing() -> None:
    assert np.array_equal(NORMAL_TABLE, -NORMAL_TABLE[::-1])
    assert np.all(np.diff(NORMAL_TABLE) > 0)


def test_one_normal_equals_the_vector_form() -> None:
    words = random_words(4, 0, (1000,))
    single = [normal_of(word, NORMAL_TABLE) for word in words]
    assert np.array_equal(np.array(single, np.float32), standard_normal(4, 0, (1000,)))


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    u = uniform(3, 0, (200_000,))
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert stats.chisquare(counts).pvalue > 0.001


def test_streams_and_seeds_are_uncorrelated() -> None:
    draws = np.stack([standard_normal(seed, stream, (50_000,)) for seed in (0, 1, 1 << 40) for stream in (0, 1)])
    correlation = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlation).max() < 0.02
