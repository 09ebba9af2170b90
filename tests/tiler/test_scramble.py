"""Column permutations: bijective, seeded, independent per image, stable."""

import numpy as np
import pytest

from xbcompile.tiler import scramble
from xbcompile.tiler.scramble import scramble_columns


@pytest.mark.parametrize("columns", [1, 2, 10, 64, 300])
def test_rows_are_bijections(columns):
    permutation = scramble_columns(50, columns, seed=3)
    assert permutation.dtype == np.uint16
    assert permutation.shape == (50, columns)
    assert (np.sort(permutation, axis=1) == np.arange(columns)).all()


def test_identity_without_scrambling():
    assert (scramble_columns(3, 5, scramble=False) == np.arange(5)).all()


def test_seed_decides_and_images_differ():
    one, again, other = (scramble_columns(8, 64, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len(np.unique(one, axis=0)) == 8


def test_permutation_does_not_depend_on_the_number_of_images_or_on_chunks(monkeypatch):
    many = scramble_columns(40, 9, seed=7)
    assert np.array_equal(scramble_columns(11, 9, seed=7), many[:11])
    monkeypatch.setattr(scramble, "_CHUNK_WORDS", 20)
    assert np.array_equal(scramble_columns(40, 9, seed=7), many)


def test_stream_is_the_documented_philox_stream():
    words = np.random.Philox(key=5).random_raw(12).reshape(3, 4) >> np.uint64(16)
    assert np.array_equal(scramble_columns(3, 4, seed=5), np.argsort(words, axis=1))


def test_all_permutations_are_equally_frequent():
    permutation = scramble_columns(6000, 3, seed=0)
    _, counts = np.unique(permutation, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 5 / 6)
