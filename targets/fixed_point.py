"""Exact sums: matrices rounded to a common binary step so that a float product has no rounding left in it.

When every entry is a multiple of 2**-s and every partial sum fits the mantissa, a matrix product gives the same bits
in any order of summation: whatever the chunking, the threads, the library or the machine.
"""

from __future__ import annotations

import numpy as np


def round_to_exact(matrix: np.ndarray, largest_sum: float, mantissa_bits: int) -> np.ndarray:
    """Round `matrix` to the finest binary step at which sums up to `largest_sum` stay exact.

    Args:
        matrix: float64 of any shape.
        largest_sum: bound on the magnitude of every partial sum of products.
        mantissa_bits: 24 for float32 arithmetic, 53 for float64, less the bits that the other factor needs.

    Returns:
        float64 of the same shape; the rounding is at most `largest_sum * 2**-mantissa_bits`.
    """
    step = 2.0 ** (np.ceil(np.log2(largest_sum)) + 1 - mantissa_bits)
    return np.rint(matrix / step) * step
