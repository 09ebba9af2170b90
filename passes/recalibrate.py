"""recalibrate: one digital gain and offset per layer output, measured through the device.

    y[m]  ->  gain[m] * y[m] + offset[m]

Least squares of the user's model's own layer outputs against the device's, on unlabelled calibration inputs, layer by
layer: a later layer is fitted on what the recalibrated earlier ones give. It costs nothing where a batch-norm or bias
follows. It corrects what stays the same from read to read: devices, converter offsets, and the mean and gain error of
quantization. (A program without the user's model takes its own ideal meaning instead, and corrects the device alone.)
Source: ordinary least squares; the effect was measured, see docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.ir.network_pass import OutputsPass


@dataclass(frozen=True)
class Recalibrate(OutputsPass):
    """Fit gain and offset of every output of every matrix layer.

    Args:
        samples: calibration inputs to use at most.
    """

    name: ClassVar[str] = "recalibrate"
    least_samples: ClassVar[int] = 2

    def fit(self, measured: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least-squares gain and offset per column.

        Args:
            measured: float64 [vectors, outputs], the device's layer outputs.
            reference: float64 [vectors, outputs], the ideal ones.

        Returns:
            gain and offset, float64 [outputs]; gain 1 where the device's output does not vary.
        """
        mean_measured, mean_reference = measured.mean(axis=0), reference.mean(axis=0)
        centred = measured - mean_measured
        variance = np.square(centred).mean(axis=0)
        covariance = (centred * (reference - mean_reference)).mean(axis=0)
        varies = variance > 1e-20 * (1 + np.square(mean_measured))
        gain = np.where(varies, covariance / np.where(varies, variance, 1.0), 1.0)
        return gain, mean_reference - gain * mean_measured
