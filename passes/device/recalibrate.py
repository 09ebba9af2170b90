"""recalibrate: one digital gain and offset per layer output, measured through the device.

    y[m]  ->  gain[m] * y[m] + offset[m]

Least squares of the user's model's own layer outputs against the device's, on unlabelled calibration inputs, layer by
layer: a later layer is fitted on what the recalibrated earlier ones give. It costs nothing where a batch-norm or bias
follows. It corrects what stays the same from read to read: devices, converter offsets, and the mean and gain error of
quantization. (A program without the user's model takes its own ideal meaning instead, and corrects the device alone.)
With per=tile each tile of an output's column first gets a gain of its own, by the same least squares with a small pull to 1;
that costs one multiplication per tile and output.
Source: ordinary least squares; the effect was measured, see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.passes.contract import LayerMeasurement, OutputsPass

SCOPES = ("output", "tile")


@dataclass(frozen=True)
class Recalibrate(OutputsPass):
    """Fit gain and offset of every output of every matrix layer.

    Args:
        samples: calibration inputs to use at most.
        per: "output", or "tile": a gain for each tile of an output's column before those.
    """

    name: ClassVar[str] = "recalibrate"
    helps_against: ClassVar[Mapping[str, int]] = {"weights": 2, "systematic": 0}
    least_samples: ClassVar[int] = 2
    per: str = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in SCOPES:
            raise PassError(f"per={self.per} is unknown; allowed: {', '.join(SCOPES)}")

    def fit_layer(self, layer: LayerMeasurement) -> LayerMeasurement:
        """See OutputsPass."""
        parts = layer.tile_parts() if self.per == "tile" else None
        if parts is not None:
            layer = layer.with_tile_gain(tile_gain(*parts))
        return layer.with_outputs(*gain_and_shift(layer.outputs, layer.reference))


def gain_and_shift(measured: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares gain and shift per output.

    Args:
        measured: float64 [vectors, outputs], the device's layer outputs.
        reference: float64 [vectors, outputs], the right ones.

    Returns:
        float64 [outputs] each; gain 1 where the device's output does not vary.
    """
    mean_measured, mean_reference = measured.mean(axis=0), reference.mean(axis=0)
    centred = measured - mean_measured
    variance = np.square(centred).mean(axis=0)
    covariance = (centred * (reference - mean_reference)).mean(axis=0)
    varies = variance > 1e-20 * (1 + np.square(mean_measured))
    gain = np.where(varies, covariance / np.where(varies, variance, 1.0), 1.0)
    return gain, mean_reference - gain * mean_measured


def tile_gain(parts: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Gain of each tile's part of each output, beside a free constant; float64 [tiles, outputs].

    Args:
        parts: float64 [vectors, tiles, outputs], what each tile adds to the output.
        reference: float64 [vectors, outputs], what all of them together should add, up to a constant per output.
    """
    vectors, tiles, _ = parts.shape
    centred = (parts - parts.mean(axis=0)).transpose(2, 0, 1)  # [outputs, vectors, tiles]
    wanted = (reference - reference.mean(axis=0)).T - centred.sum(axis=2)
    normal = centred.transpose(0, 2, 1) @ centred / vectors
    pull = (normal.trace(axis1=1, axis2=2) / vectors)[:, None, None] * np.eye(tiles)
    right = (centred.transpose(0, 2, 1) @ wanted[:, :, None]) / vectors
    # A tile that adds nothing keeps its gain of 1; the pull alone would leave a column of zeros singular.
    pull += np.where(normal.trace(axis1=1, axis2=2) > 0, 0.0, 1.0)[:, None, None] * np.eye(tiles)
    return 1 + np.linalg.solve(normal + pull, right)[:, :, 0].T
