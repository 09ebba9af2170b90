"""calibrate-offsets: one digital offset per physical column, measured through the device.

    reading[column]  ->  reading[column] + offset[column]

The offset is minus the mean error of reads of that column, of which the share is kept that
holds on reads left out (`shrinkage`: the same for all columns), rounded to the converter's
code where the device has one (a digital offset on its output code). Scrambled columns share it, since it belongs to
the array. There are two ways to measure it:

program     all reads of the program on the calibration inputs
high        every cell of the array at its highest level, random drives with every number of high rows; where the converter does
            not cover a sum, its outermost reading is right. The program and its inputs do not matter.
Source: Jung et al., Nature 601, 211 (2022), "we add offset digital values to some columns", Extended Data Fig. 4; "high" is
Fig. 2d: W = R_H across the entire array, as many random input vectors for each possible dot product, and the "error distribution
across all possible R values at each column". Sums that saturate count there, and draw a column's mean towards 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.corrections import Corrections
from xbcompile.passes.contract import CalibratedPass, ChipView, Feeds, Floats, Stage
from xbcompile.passes.device.shrinkage import kept_share

PLACES = ("program", "high")
_PARTS = 5  # of the random drives: what holds from part to part is corrected


@dataclass(frozen=True)
class CalibrateOffsets(CalibratedPass):
    """Fit one offset per physical column of every array.

    Args:
        samples: calibration inputs to use at most; at=high: random drives of each array.
        at: what the cells hold while errors are measured: "program" or "high".
    """

    name: ClassVar[str] = "calibrate-offsets"
    stage: ClassVar[Stage] = Stage.READINGS
    removes: ClassVar[str] = "column means"
    at: str = "program"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("at", PLACES)

    @property
    def needs_calibration(self) -> bool:  # type: ignore[override]  # what each instance says
        """Whether calibration inputs are read."""
        return self.at == "program"

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """All layers at once, on the network's ideal activations: an offset belongs to the array, not to a layer."""
        if self.at == "program":
            total, count = chip.column_errors(feeds, corrections)
        else:
            total, count = self._errors_when_high(chip)
        return replace(corrections, column_offset=column_offset(repeated_error(total, count), chip.lsb))

    def _errors_when_high(self, chip: ChipView) -> tuple[Floats, Floats]:
        """Sums and numbers of errors, float64 [parts, arrays, columns], of arrays whose cells are all at their highest level."""
        spec = chip.spec
        total = np.zeros((_PARTS, chip.schedule.arrays, spec.columns))
        count = np.zeros_like(total)
        cell, level = highest_cell(spec)
        for array in np.unique(chip.schedule.copies["array"]).tolist():
            drives = random_drives(spec, self.samples, array)
            error = chip.random_errors(array, np.full((1, spec.rows, spec.columns), cell), drives[None])[0]
            exact = level * (drives.astype(np.float64) @ spec.row_weight)
            error += beyond(exact, chip.reading_limits)[:, None]
            for part in range(_PARTS):
                mine = np.arange(len(exact)) % _PARTS == part
                total[part, array], count[part, array] = error[mine].sum(axis=0), mine.sum()
        return total, count


def highest_cell(spec: ArraySpec) -> tuple[np.generic, float]:
    """What a cell of the highest level holds, as it is written and in level units; 1 where there is no highest."""
    if spec.levels is None:
        limit = spec.cell_limit or 1.0
        return np.float32(limit), limit
    return np.uint8(len(spec.levels) - 1), float(spec.levels[-1])


def random_drives(spec: ArraySpec, count: int, array: int) -> np.ndarray:
    """Drives float32 [count, rows], highest or lowest, with every number of high rows about equally often.

    Args:
        spec: the array.
        count: how many.
        array: which array of the chip; each has its own.
    """
    generator = np.random.default_rng(array)
    highs = generator.permutation(np.arange(count) % (spec.rows + 1))
    place = generator.permuted(np.tile(np.arange(spec.rows), (count, 1)), axis=1)
    low = -1 if spec.drives_both_signs or spec.drive == "unbounded" else 0
    return np.where(place < highs[:, None], np.float32(1), np.float32(low))


def beyond(exact: Floats, limits: tuple[float, float] | None) -> np.ndarray:
    """By how much exact sums lie above the converter's outermost readings, or (negative) below them; 0 between."""
    return np.zeros_like(exact) if limits is None else exact - np.clip(exact, *limits)


def repeated_error(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean error of each column, float64 [arrays, columns], shrunk towards 0 by what holds from part to part.

    Args:
        total: float64 [parts, arrays, columns], sums of errors over parts of the calibration inputs.
        count: float64 [parts, arrays, columns], numbers of readings.
    """
    whole, readings = total.sum(axis=0), count.sum(axis=0)
    predicted = (whole - total) / np.maximum(readings - count, 1)
    share = kept_share((predicted * total).sum(axis=(1, 2)), (count * np.square(predicted)).sum(axis=(1, 2)))
    mean_error: np.ndarray = share * whole / np.maximum(readings, 1)
    return mean_error


def column_offset(mean_error: np.ndarray, lsb: float | None) -> np.ndarray:
    """Offsets from the mean error (reading minus exact sum) of each column, any shape, dot-product units."""
    return -mean_error if lsb is None else -np.rint(mean_error / lsb) * lsb
