"""Differences of values that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from xbcompile.verification.differences import differences

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("dtype", "found", "expected", "difference"),
    [
        (np.float32, 1.5, 1.0, 0.5),
        (np.float32, INF, INF, 0.0),
        (np.float32, -INF, -INF, 0.0),
        (np.float32, NAN, NAN, 0.0),
        (np.float32, NAN, 1.0, INF),
        (np.float32, INF, NAN, INF),
        (np.float16, INF, 65504, 0.0),
        (np.float16, 65472, INF, 32.0),
        (np.float16, INF, -INF, 2 * 65504.0),
        (np.float64, INF, -INF, INF),
        (np.int32, -(2**31), 2**31 - 1, 2**32 - 1),
    ],
)
def test_an_infinity_counts_as_the_largest_number_of_the_type(dtype, found, expected, difference) -> None:
    assert differences(np.array([found], dtype), np.array([expected], dtype)) == [difference]
    beside = differences(np.array([2, found, 0], dtype), np.array([2, expected, 1], dtype))
    assert beside.tolist() == [0, difference, 1]
    assert differences(np.array(found, dtype), np.array(expected, dtype)) == difference
