"""calibrate-offsets: one digital offset per physical column, measured through the device.

    reading[column]  ->  reading[column] + offset[column]

The offset is minus the mean error of all reads of that column on the calibration inputs, rounded to the converter's
code where the device has one (a digital offset on its output code). Scrambled columns share it, since it belongs to
the array.
Source: Jung et al., Nature 601, 211 (2022), "we add offset digital values to some columns", Extended Data Fig. 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.passes.contract import ReadingsPass


@dataclass(frozen=True)
class CalibrateOffsets(ReadingsPass):
    """Fit one offset per physical column of every array.

    Args:
        samples: calibration inputs to use at most.
    """

    name: ClassVar[str] = "calibrate-offsets"

    def fit(self, mean_error: np.ndarray, lsb: float | None) -> np.ndarray:
        """Offsets from the mean error (reading minus exact sum) of each column, any shape, dot-product units."""
        return -mean_error if lsb is None else -np.rint(mean_error / lsb) * lsb
