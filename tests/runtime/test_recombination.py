"""What is recombined of patches is, to the bit, what is recombined of vectors; and that is the formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.runtime.recombination import recombine, recombine_patches

GROUPS, OUTPUTS, EACH, INPUTS = 2, 3, 5, 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offsets", [False, True], ids=["no offset", "offset"])
@pytest.mark.parametrize("ranges", ["one range", "a range of each vector"])
@pytest.mark.parametrize(("first", "vectors"), [(0, 20), (3, 9), (7, 1), (4, 0)])
def test_patches_are_recombined_as_vectors(first: int, vectors: int, ranges: str, offsets: bool, dtype: type) -> None:
    """From a patch within a sample: scale (gain sums + shift levels) + offset (gain drives + shift inputs) + bias."""
    rng = np.random.default_rng(first + vectors)
    sums = rng.normal(size=(GROUPS, vectors, OUTPUTS))
    gain, shift = rng.normal(size=(2, 1 if ranges == "one range" else vectors))
    scale, levels, offset = rng.normal(size=(3, GROUPS, OUTPUTS))
    drives = rng.normal(size=(GROUPS, vectors))
    if not offsets:
        offset, drives = np.zeros((GROUPS, 0)), np.zeros((GROUPS, 0))
    bias, own_gain, own_shift = rng.normal(size=(3, GROUPS * OUTPUTS))
    further = gain, shift, scale, levels, offset, drives, INPUTS, bias, own_gain, own_shift
    by_vector = np.empty((vectors, GROUPS * OUTPUTS), dtype)
    recombine(by_vector, sums, *further, True)
    y = scale[:, None] * (gain[:, None] * sums + shift[:, None] * levels[:, None])
    if offsets:
        y = y + offset[:, None] * (gain * drives + shift * INPUTS)[:, :, None]
    y = y.transpose(1, 0, 2).reshape(vectors, GROUPS * OUTPUTS)
    np.testing.assert_allclose(by_vector, (y + bias) * own_gain + own_shift, rtol=1e-5, atol=1e-5)
    found = np.full((4, GROUPS * OUTPUTS, EACH), 9, dtype)
    expected = found.transpose(0, 2, 1).reshape(4 * EACH, GROUPS * OUTPUTS).copy()
    expected[first : first + vectors] = by_vector
    recombine_patches(found, first, np.ascontiguousarray(sums.transpose(0, 2, 1)), *further)
    assert np.array_equal(found.transpose(0, 2, 1).reshape(4 * EACH, GROUPS * OUTPUTS), expected)
