"""calibrate-offsets: one digital offset per physical column, measured through the device.

    reading[column]  ->  reading[column] + offset[column]

The offset is minus the mean error of all reads of that column on the calibration inputs, of which the share is kept that
holds on inputs left out (`shrinkage`: the same for all columns), rounded to the converter's
code where the device has one (a digital offset on its output code). Scrambled columns share it, since it belongs to
the array.
Source: Jung et al., Nature 601, 211 (2022), "we add offset digital values to some columns", Extended Data Fig. 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.ir.corrections import Corrections
from xbcompile.passes.contract import CalibratedPass, ChipView, Feeds, Stage
from xbcompile.passes.device.shrinkage import kept_share


@dataclass(frozen=True)
class CalibrateOffsets(CalibratedPass):
    """Fit one offset per physical column of every array.

    Args:
        samples: calibration inputs to use at most.
    """

    name: ClassVar[str] = "calibrate-offsets"
    stage: ClassVar[Stage] = Stage.READINGS
    removes: ClassVar[str] = "column means"

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """All layers at once, on the network's ideal activations: an offset belongs to the array, not to a layer."""
        mean_error = repeated_error(*chip.column_errors(feeds, corrections))
        return replace(corrections, column_offset=column_offset(mean_error, chip.lsb))


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
