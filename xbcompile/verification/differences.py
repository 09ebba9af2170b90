"""How far values are from those of a reference, infinite ones and NaN included."""

from __future__ import annotations

import numpy as np


def differences(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Absolute differences, float64, of two arrays of one shape and element type.

    What overflows is infinite in every runtime, and sums near the limit of the type may do so in one and not in another: an
    infinity counts as the largest number of the type. NaN equals NaN, and is infinitely far from any number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.asarray(np.subtract(found, expected, dtype=np.float64))
    np.abs(gaps, out=gaps)
    if np.isfinite(gaps.max(initial=0)):  # NaN, too, would be the largest
        return gaps
    left, right = found.astype(np.float64), expected.astype(np.float64)
    if expected.dtype.kind == "f":
        limit = float(np.finfo(expected.dtype).max)
        left, right = np.clip(left, -limit, limit), np.clip(right, -limit, limit)
    with np.errstate(over="ignore"):  # twice the largest float64
        gaps = np.abs(left - right)
    only_one, both = np.isnan(left) != np.isnan(right), np.isnan(left) & np.isnan(right)
    return np.where(both, 0.0, np.where(only_one, np.inf, gaps))
