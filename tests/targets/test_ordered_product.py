"""Chains of fused multiply-adds: against numbers of any size, in any blocks, on any processor."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.targets.ordered_product import ordered_product

SHAPES = ((7, 5, 10), (1, 3, 1), (13, 64, 6), (3, 0, 5), (0, 4, 4), (5, 9, 70), (12, 25, 17), (6, 2, 16), (2, 3, 130))


def product(drives: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    sums = np.full((len(drives), matrix.shape[1]), np.nan, drives.dtype)
    ordered_product(drives, matrix, sums)
    return sums


def case(shape: tuple[int, int, int], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(sum(shape))
    vectors, rows, columns = shape
    return rng.normal(size=(vectors, rows)).astype(dtype), rng.normal(size=(rows, columns)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 11, 3), (7, 6, 19)])
def test_each_sum_is_rounded_once_a_row(shape, dtype):
    """A fused multiply-add is the exact sum of product and total, rounded: numerator by numerator."""
    drives, matrix = case(shape, dtype)
    expected = np.zeros((shape[0], shape[2]), dtype)
    for v, m in np.ndindex(expected.shape):
        for k in range(shape[1]):
            exact = Fraction(float(drives[v, k])) * Fraction(float(matrix[k, m])) + Fraction(float(expected[v, m]))
            expected[v, m] = rounded(exact, dtype)
    assert np.array_equal(product(drives, matrix), expected)


def rounded(exact: Fraction, dtype: type) -> float:
    """To nearest, ties to even, of the number's own binade."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** (exponent - np.finfo(dtype).nmant)
    return float(round(exact / step) * step)  # round() of a fraction takes ties to even


@given(
    st.integers(1, 14), st.integers(0, 9), st.integers(1, 40), st.integers(0, 100), st.sampled_from([np.float32, np.float64])
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_sum_depends_on_its_own_row_and_column_alone(vectors, rows, columns, place, dtype):
    """However vectors and columns are cut, transposed, or filled up with rows that are driven with 0."""
    drives, matrix = case((vectors, rows, columns), dtype)
    whole = product(drives, matrix)
    v, m = place % vectors, place % columns
    assert np.array_equal(product(drives[v:], matrix), whole[v:])
    assert np.array_equal(product(drives, np.ascontiguousarray(matrix[:, m:])), whole[:, m:])
    assert np.array_equal(product(matrix.T, np.ascontiguousarray(drives.T)).T, whole)
    wider = np.zeros((vectors, 2 * rows + 1), dtype)
    wider[:, 1::2] = drives
    filled = np.random.default_rng(0).normal(size=(2 * rows + 1, columns)).astype(dtype)
    filled[1::2] = matrix
    assert np.array_equal(product(wider, filled), whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_single_precision_stays_within_its_bound(shape):
    """Of n rows, n 2**-24 of the sum of sizes (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1)."""
    drives, matrix = case(shape, np.float32)
    exact = drives.astype(np.float64) @ matrix.astype(np.float64)
    sizes = np.abs(drives).astype(np.float64) @ np.abs(matrix).astype(np.float64)
    assert np.all(np.abs(product(drives, matrix) - exact) <= 1.01 * shape[1] * 2.0**-24 * sizes)


DIGEST = """
import hashlib
import sys
sys.path.insert(0, {folder!r})
from test_ordered_product import SHAPES, case, np, product
whole = b"".join(product(*case(shape, dtype)).tobytes() for shape in SHAPES for dtype in (np.float32, np.float64))
print(hashlib.sha256(whole).hexdigest())
"""


def test_processors_without_fused_multiply_adds_give_the_same_bits():
    code = DIGEST.format(folder=os.path.dirname(__file__))
    found = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | extra, capture_output=True, text=True, check=True
        ).stdout
        for extra in ({}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""})
    ]
    assert found[0] == found[1]
