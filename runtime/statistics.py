"""Statistics of a layer's readings: how often the converter saturates, how far readings are from the exact sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.targets import Device


@dataclass(frozen=True)
class LayerStatistics:
    """What was seen on one layer.

    Args:
        layer: its name.
        readings: column readings observed.
        saturated_fraction: part of them at either end of the converter's range; None where the device
            has no such range (no converter, or an emulator of one).
        mean_error_lsb: mean of reading minus exact sum, before digital corrections.
        mean_absolute_error_lsb: mean absolute error; in converter codes, or in dot-product units without a converter.
    """

    layer: str
    readings: int
    saturated_fraction: float | None
    mean_error_lsb: float
    mean_absolute_error_lsb: float


class StatisticsCollector:
    """Accumulates statistics of one layer; see ReadingObserver."""

    def __init__(self, device: Device) -> None:
        self.lsb = device.lsb or 1.0
        self.limits = device.reading_limits
        self.readings = 0
        self.saturated = 0
        self.error = 0.0
        self.absolute_error = 0.0

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See ReadingObserver."""
        difference = (readings - exact) / self.lsb
        self.readings += readings.size
        self.error += float(difference.sum(dtype=np.float64))
        self.absolute_error += float(np.abs(difference).sum(dtype=np.float64))
        if self.limits is not None:
            low, high = self.limits
            self.saturated += int(np.count_nonzero((readings <= low) | (readings >= high)))

    def result(self, layer: str) -> LayerStatistics:
        """The statistics so far."""
        count = max(self.readings, 1)
        return LayerStatistics(
            layer,
            self.readings,
            None if self.limits is None else self.saturated / count,
            self.error / count,
            self.absolute_error / count,
        )
