"""One gain per layer, fitted on the chip: what cells that all fade alike take away."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.passes.contract import LayerMeasurement, OutputsPass


@dataclass(frozen=True)
class OneGain(OutputsPass):
    """Fit one gain for all outputs of each layer, by least squares.

    Args:
        samples: calibration inputs to use at most.
    """

    name: ClassVar[str] = "one-gain"

    def fit_layer(self, layer: LayerMeasurement) -> LayerMeasurement:
        """gain = sum(reference outputs) / sum(outputs**2)."""
        square = float((layer.outputs**2).sum())
        gain = float((layer.reference * layer.outputs).sum()) / square if square else 1.0
        outputs = layer.outputs.shape[1]
        return layer.with_outputs(np.full(outputs, gain), np.zeros(outputs))
