"""Characterising a resistance-sum array the way its paper did.

Source: Jung et al., Nature 601, 211 (2022), "Time-domain array readout" and Fig. 2d: W = R_H everywhere, 1,000 input
    vectors per dot product, every column read, one digital offset per column from its errors "across all possible R values".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.targets.contract import WrittenImages
from xbcompile.targets.counter_random import key_of, uniform
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters
from xbcompile.targets.read_block import ReadBlock

_OPERATIONS_PER_CELL = 2  # binary multiplication and accumulation, Methods "Power consumption and efficiency"


@dataclass(frozen=True)
class Characterization:
    """What the measurement gives. An error is the measured code minus the code of the exact dot product, in codes (LSB).

    Args:
        dot_products: number of measurements.
        mean_absolute_error_lsb: over the dot products that the converter covers, after digital offsets.
        mean_absolute_error_all_lsb: over all dot products; outside the covered ones the right code is the outermost.
        covered: smallest and largest dot product covered.
        columns_with_offset: columns whose digital offset is not 0.
        error_by_dot_lsb: mean error at each dot product, -rows to rows in steps of 2.
        absolute_error_by_dot_lsb: mean absolute error likewise.
        delay_shortest_s: shortest measured-cell delay to V_REF (all cells low, fastest column).
        delay_longest_s: longest (all cells high, slowest column).
        tera_operations_per_s_per_w: operations per energy of a read: of array and converters, without anything digital.
        e_write_array_j: energy to write the whole array.
    """

    dot_products: int
    mean_absolute_error_lsb: float
    mean_absolute_error_all_lsb: float
    covered: tuple[float, float]
    columns_with_offset: int
    error_by_dot_lsb: list[float]
    absolute_error_by_dot_lsb: list[float]
    delay_shortest_s: float
    delay_longest_s: float
    tera_operations_per_s_per_w: float
    e_write_array_j: float


def vectors_of_dot(rows: int, highs: int, count: int, seed: int) -> np.ndarray:
    """Random drives with exactly `highs` rows at +1, float32 [count, rows]."""
    order = uniform(key_of("characterization", seed, highs), (count, rows)).argsort(axis=1, kind="stable")
    return np.where(order < highs, 1, -1).astype(np.float32)


def column_offsets(error: np.ndarray) -> np.ndarray:
    """Digital offset of each column, whole codes: minus the mean error [..., columns] in codes, rounded."""
    return -np.rint(error.reshape(-1, error.shape[-1]).mean(axis=0))


def errors_when_high(device: ResistanceSumArray, vectors: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a chip whose cells are all high with random drives of every dot product.

    Args:
        device: the chip; its first array is read.
        vectors: input vectors per dot product.

    Returns:
        dot products float64 [rows + 1], and errors float64 [rows + 1, vectors, columns]: measured code minus the code of the
        dot product, before digital offsets.
    """
    p = device.parameters
    drives = np.stack([vectors_of_dot(p.rows, highs, vectors, device.seed) for highs in range(p.rows + 1)])
    loaded = device.load(WrittenImages.once(np.zeros(1, int), np.ones((1, p.rows, p.columns), np.uint8)))
    readings = loaded.read(drives.reshape(1, -1, 1, p.rows), ReadBlock(np.zeros(1, int), 0))
    dots = 2.0 * np.arange(p.rows + 1) - p.rows
    measured = (readings.reshape(p.rows + 1, vectors, p.columns).astype(np.float64) - p.dot_of_lowest_code) / p.lsb_dot
    right = np.clip(np.floor((dots - (p.tdc_lowest_dot - 1)) / p.lsb_dot), 0, p.tdc_codes - 1)
    return dots, measured - right[:, None, None]


def characterize(parameters: ResistanceSumParameters, seed: int = 0, vectors: int = 1000) -> Characterization:
    """Measure one simulated chip.

    Args:
        parameters: the array's numbers.
        seed: which chip.
        vectors: input vectors per dot product.
    """
    p = parameters
    device = ResistanceSumArray(p, seed)
    dots, error = errors_when_high(device, vectors)
    low, high = p.tdc_lowest_dot, p.tdc_lowest_dot + 2 * (p.tdc_dots_per_code * p.tdc_codes - 1)
    covered = (dots >= low) & (dots <= high)
    offsets = column_offsets(error)
    error += offsets
    absolute = np.abs(error)
    shortest, longest = _delays(device)
    operations = _OPERATIONS_PER_CELL * p.rows * p.columns
    return Characterization(
        dot_products=error.size,
        mean_absolute_error_lsb=float(absolute[covered].mean()),
        mean_absolute_error_all_lsb=float(absolute.mean()),
        covered=(float(dots[covered][0]), float(dots[covered][-1])),
        columns_with_offset=int(np.count_nonzero(offsets)),
        error_by_dot_lsb=error.mean(axis=(1, 2)).tolist(),
        absolute_error_by_dot_lsb=absolute.mean(axis=(1, 2)).tolist(),
        delay_shortest_s=shortest,
        delay_longest_s=longest,
        tera_operations_per_s_per_w=operations / p.e_read_j / 1e12,
        e_write_array_j=p.e_write_array_j,
    )


def _delays(device: ResistanceSumArray) -> tuple[float, float]:
    """Delays of the fastest column with all cells low and the slowest with all cells high, converter noise aside."""
    p = device.parameters
    left, right = device.paths(0)
    weight_farad = p.row_weight * ((p.rows + 1) * p.c_cell_farad / 2 + p.c_load_farad)
    low = (weight_farad[:, None] * right[0]).sum(axis=0)  # W = R_H: drive -1 selects the right path, low
    high = (weight_farad[:, None] * left[1]).sum(axis=0)
    return float(p.delay_per_time_constant * low.min()), float(p.delay_per_time_constant * high.max())


def calibrate_jitter(
    parameters: ResistanceSumParameters, error_lsb: float, seeds: int = 3, covered: bool = True
) -> float:
    """Converter jitter (dot-product units) at which the mean absolute error is `error_lsb`.

    Args:
        parameters: the array's numbers.
        error_lsb: the mean absolute error, in codes.
        seeds: chips that are measured.
        covered: over the dot products that the converter covers; else over all.
    """
    low, high = 0.0, 4 * parameters.lsb_dot
    for _ in range(20):
        middle = (low + high) / 2
        trial = replace(parameters, tdc_jitter_dot=middle)
        each = [characterize(trial, seed, 200) for seed in range(seeds)]
        found = np.mean([e.mean_absolute_error_lsb if covered else e.mean_absolute_error_all_lsb for e in each])
        low, high = (middle, high) if found < error_lsb else (low, middle)
    return (low + high) / 2
