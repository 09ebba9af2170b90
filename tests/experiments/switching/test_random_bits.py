"""The tests of random bits on the examples of NIST SP 800-22, on bits that must fail, and on devices."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest

from xbcompile.experiments.switching import random_bits
from xbcompile.experiments.switching.random_bits import TESTS, device_bits, unbiased
from xbcompile.targets.families.switching import SwitchingCurves

# Sections 2.1.8, 2.2.8, 2.3.8: the first hundred binary digits of pi.
PI = "1100100100001111110110101010001000100001011010001100001000110100110001001100011001100010100010111000"
# Section 2.4.8.
LONG = (
    "11001100000101010110110001001100111000000000001001001101010100010001001111010110100000001101011111001100111001101101100010"
    "110010"
)
CURVES = SwitchingCurves(0.25, 0.05, 0.1)


def bits(text: str) -> np.ndarray:
    return np.array([int(each) for each in text], np.uint8)


def test_the_standards_examples() -> None:
    assert random_bits.monobit(bits(PI)) == pytest.approx(0.109599, abs=1e-6)
    assert random_bits.block_frequency(bits(PI), 10) == pytest.approx(0.706438, abs=1e-6)
    assert random_bits.runs(bits(PI)) == pytest.approx(0.500798, abs=1e-6)
    assert random_bits.longest_run(bits(LONG)) == pytest.approx(0.180609, abs=2e-5)  # its classes have four digits


def test_classes_of_longest_runs_are_those_of_all_blocks() -> None:
    """Of the 256 blocks of 8 bits."""
    longest = [
        max((len([*run]) for bit, run in groupby(block) if bit), default=0) for block in product((0, 1), repeat=8)
    ]
    shares = np.bincount(np.clip(np.array(longest) - 1, 0, 3)) / 256
    np.testing.assert_allclose(random_bits._LONGEST_RUNS[1][3], shares, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "faulty"),
    [
        ("monobit", np.arange(10_000) % 100 < 53),
        ("block frequency", np.arange(10_000) % 2000 < 1000),
        ("runs", np.arange(10_000) % 2),
        ("longest run", np.arange(10_000) % 4 < 2),
    ],
)
def test_what_is_not_random_fails(name: str, faulty: np.ndarray) -> None:
    assert TESTS[name](faulty.astype(np.uint8)) < 1e-6


def test_few_bits_have_no_longest_run() -> None:
    with pytest.raises(ValueError, match="127 bits are too few"):
        random_bits.longest_run(np.zeros(127, np.uint8))


@pytest.mark.parametrize("name", list(TESTS))
def test_bits_at_the_devices_own_threshold_pass(name: str) -> None:
    """One in a hundred fails; six or more of 100 do with a probability of 5e-4."""
    passed = sum(TESTS[name](device_bits(CURVES, 0.3, 0.3, 10_000, 0, device)) >= 0.01 for device in range(100))
    assert passed >= 95


def test_bits_at_another_voltage_are_biased_until_they_are_paired() -> None:
    """At one sigma 84 % switch; pairs are unequal in 2 p (1 - p) = 27 % of all cases."""
    raw = device_bits(CURVES, 0.3, 0.3 + CURVES.sigma_v, 40_000, 0, 0)
    assert raw.mean() == pytest.approx(0.8413, abs=0.01)
    paired = unbiased(raw)
    assert len(paired) == pytest.approx(20_000 * 2 * 0.8413 * 0.1587, rel=0.05)
    assert TESTS["monobit"](raw) < 1e-6 < 0.01 < TESTS["monobit"](paired)
    assert unbiased(bits("0010110110")).tolist() == [1, 0, 1]
