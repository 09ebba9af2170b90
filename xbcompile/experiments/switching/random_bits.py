"""True random bits of a junction that is switched with probability 1/2, and tests of them.

Tests and their examples: NIST SP 800-22 rev. 1a (2010), sections 2.1 to 2.4. Each gives the probability that truly random bits
look less random than these; less than 0.01 fails, so that one true sequence of a hundred does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, sqrt

import numpy as np

from xbcompile.deferred import library
from xbcompile.targets.counter_random import key_of, standard_normal
from xbcompile.targets.families.switching import SwitchingCurves

special = library("scipy.special")

SIGNIFICANCE = 0.01
BLOCK = 128  # of the block frequency test: at least 20, more than 1 % of the bits, and fewer than 100 blocks (section 2.2.7)

# Longest run of ones in a block: least number of bits, bits of a block, shortest class, probabilities of the classes
# (sections 2.4.2, 2.4.4 and 3.4).
_LONGEST_RUNS = (
    (6272, 128, 4, (0.1174, 0.2430, 0.2493, 0.1752, 0.1027, 0.1124)),
    (128, 8, 1, (0.2148, 0.3672, 0.2305, 0.1875)),
)


def monobit(bits: np.ndarray) -> float:
    """Section 2.1: as many ones as zeros."""
    return erfc(abs(2 * float(bits.sum()) - len(bits)) / sqrt(2 * len(bits)))


def block_frequency(bits: np.ndarray, block: int = BLOCK) -> float:
    """Section 2.2: the same in every block; what is left over of the last one is not looked at."""
    blocks = len(bits) // block
    shares = bits[: blocks * block].reshape(blocks, block).mean(axis=1)
    return float(special.gammaincc(blocks / 2, 4 * block * np.sum((shares - 0.5) ** 2) / 2))


def runs(bits: np.ndarray) -> float:
    """Section 2.3: as many runs of equal bits as the share of ones lets expect; 0 where the monobit test cannot pass."""
    share, count = float(bits.mean()), len(bits)
    if abs(share - 0.5) >= 2 / sqrt(count):
        return 0.0
    found = 1 + int((bits[1:] != bits[:-1]).sum())
    spread = 2 * share * (1 - share)
    return erfc(abs(found - count * spread) / (sqrt(2 * count) * spread))


def longest_run(bits: np.ndarray) -> float:
    """Section 2.4: the longest run of ones in blocks of 8 bits, of 128 from 6,272 bits on.

    Raises:
        ValueError: fewer than 128 bits.
    """
    chosen = next((each for each in _LONGEST_RUNS if len(bits) >= each[0]), None)
    if chosen is None:
        raise ValueError(f"{len(bits)} bits are too few for the longest run; allowed: 128 and more")
    _, block, shortest, probabilities = chosen
    blocks = len(bits) // block
    longest = running = np.zeros(blocks, np.int64)
    for column in bits[: blocks * block].reshape(blocks, block).T:
        running = (running + 1) * (column != 0)
        longest = np.maximum(longest, running)
    classes = np.clip(longest - shortest, 0, len(probabilities) - 1)
    found = np.bincount(classes, minlength=len(probabilities))
    expected = blocks * np.array(probabilities)
    return float(special.gammaincc((len(probabilities) - 1) / 2, np.sum((found - expected) ** 2 / expected) / 2))


TESTS: dict[str, Callable[[np.ndarray], float]] = {
    "monobit": monobit,
    "block frequency": block_frequency,
    "runs": runs,
    "longest run": longest_run,
}


def device_bits(
    curves: SwitchingCurves, threshold_v: float, voltage_v: float, count: int, seed: int, device: int
) -> np.ndarray:
    """Bits of one device, uint8 [count]: 1 where a pulse has switched it; before each it is set to the other state.

    Args:
        curves: of the array's devices.
        threshold_v: of the device.
        voltage_v: of the pulses.
        count: how many.
        seed: the chip.
        device: running number of the device.
    """
    normals = standard_normal(key_of("random bits", seed, device), (count,))
    return (voltage_v > threshold_v + curves.sigma_v * normals).astype(np.uint8)


def unbiased(bits: np.ndarray) -> np.ndarray:
    """Von Neumann's way: of each pair of unequal bits the first one, uint8; unbiased where bits are independent.

    Source: von Neumann, "Various techniques used in connection with random digits", NBS Applied Mathematics Series 12 (1951).
    """
    pairs = bits[: len(bits) // 2 * 2].reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1], 0]
