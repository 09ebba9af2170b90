"""Statistics of a layer: inputs outside of the range that they are coded for, how the converter's range is used, how far
readings are from the exact sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xbcompile.ir import InputCode
from xbcompile.targets import Device


@dataclass(frozen=True)
class LayerStatistics:
    """What was seen on one layer: of inputs all, of readings those observed.

    Args:
        layer: its name.
        inputs: values of its input tensors, padding apart.
        not_finite: how many of them are NaN or infinite.
        lowest_input: the smallest of the others; None where there is none.
        highest_input: the largest of the others; None where there is none.
        clipped_fraction: part of all outside of the range of the input code, by more than the code rounds; None where the range
            is each vector's own.
        readings: column readings observed.
        saturated_low_fraction: part of them at the lower end of the converter's range; None where the device has no such range
            (no converter, or an emulator of one).
        saturated_high_fraction: part of them at its upper end.
        range_used_fraction: from the lowest to the highest reading, over the converter's range.
        mean_error_lsb: mean of reading minus exact sum, before digital corrections.
        mean_absolute_error_lsb: mean absolute error; in converter codes, or in dot-product units without a converter.
    """

    layer: str
    inputs: int
    not_finite: int
    lowest_input: float | None
    highest_input: float | None
    clipped_fraction: float | None
    readings: int
    saturated_low_fraction: float | None
    saturated_high_fraction: float | None
    range_used_fraction: float | None
    mean_error_lsb: float
    mean_absolute_error_lsb: float

    @property
    def saturated_fraction(self) -> float | None:
        """Part of the readings at either end of the converter's range."""
        if self.saturated_low_fraction is None or self.saturated_high_fraction is None:
            return None
        return self.saturated_low_fraction + self.saturated_high_fraction


@dataclass(frozen=True)
class ColumnStatistics:
    """What was seen on each physical column, of all arrays together that hold tiles of one layer.

    Each list has an entry a column.

    Args:
        layer: its name.
        readings: how many were observed.
        mean_error_lsb: see `LayerStatistics`; None where a column has no reading.
        mean_absolute_error_lsb: likewise.
        range_used_fraction: likewise; None where the device has no converter's range.
    """

    layer: str
    readings: list[int]
    mean_error_lsb: list[float | None]
    mean_absolute_error_lsb: list[float | None]
    range_used_fraction: list[float | None] | None


class StatisticsCollector:
    """Accumulates statistics of one layer; see ReadingObserver.

    Args:
        device: what is read.
        code: how the layer's inputs are coded; None: not at all.
        columns: of an array.
    """

    def __init__(self, device: Device, code: InputCode | None = None, columns: int = 0) -> None:
        self.columns = _Columns(columns)
        self.lsb = device.lsb or 1.0
        self.limits = device.reading_limits
        self.taken = None if code is None else code.taken
        self.inputs = self.not_finite = self.clipped = 0
        self.input_range = self.reading_range = (math.inf, -math.inf)
        self.readings = self.saturated_low = self.saturated_high = 0
        self.error = 0.0
        self.absolute_error = 0.0

    def note_inputs(self, x: np.ndarray) -> None:
        """See an input tensor of the layer."""
        if not x.size:
            return
        self.inputs += x.size
        lowest, highest = float(x.min()), float(x.max())  # no longer of a type in which the limits may be infinite
        inside = self.taken is None or (self.taken[0] <= lowest and highest <= self.taken[1])  # not where one is NaN
        if self.taken is not None and not inside:
            low, high = map(np.float64, self.taken)
            self.clipped += int(np.count_nonzero((x < low) | (x > high)))
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            finite = x[np.isfinite(x)]
            self.not_finite += x.size - finite.size
            lowest, highest = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
        self.input_range = _widened(self.input_range, lowest, highest)

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See ReadingObserver."""
        difference = (readings - exact) / self.lsb
        self.readings += readings.size
        self.error += float(difference.sum(dtype=np.float64))
        self.absolute_error += float(np.abs(difference).sum(dtype=np.float64))
        self.columns.add(columns, difference, readings)
        if self.limits is not None and readings.size:
            low, high = self.limits
            self.saturated_low += int(np.count_nonzero(readings <= low))
            self.saturated_high += int(np.count_nonzero(readings >= high))
            self.reading_range = _widened(self.reading_range, float(readings.min()), float(readings.max()))

    def result(self, layer: str) -> LayerStatistics:
        """The statistics so far."""
        count, limits = max(self.readings, 1), self.limits
        lowest, highest = self.input_range if self.inputs > self.not_finite else (None, None)
        return LayerStatistics(
            layer=layer,
            inputs=self.inputs,
            not_finite=self.not_finite,
            lowest_input=lowest,
            highest_input=highest,
            clipped_fraction=None if self.taken is None else self.clipped / max(self.inputs, 1),
            readings=self.readings,
            saturated_low_fraction=None if limits is None else self.saturated_low / count,
            saturated_high_fraction=None if limits is None else self.saturated_high / count,
            range_used_fraction=None if limits is None else self._range_used(*limits),
            mean_error_lsb=self.error / count,
            mean_absolute_error_lsb=self.absolute_error / count,
        )

    def result_of_columns(self, layer: str) -> ColumnStatistics:
        """The statistics of columns so far."""
        count, error, absolute = self.columns.count, self.columns.error, self.columns.absolute_error

        def each(values: np.ndarray) -> list[float | None]:
            return [float(value / n) if n else None for value, n in zip(values, count.tolist(), strict=True)]

        used = None
        if self.limits is not None:
            low, high = self.limits
            lowest, highest = (np.clip(end, low, high) for end in (self.columns.lowest, self.columns.highest))
            used = each(np.maximum(highest - lowest, 0.0) / (high - low) * count)
        return ColumnStatistics(layer, count.tolist(), each(error), each(absolute), used)

    def _range_used(self, low: float, high: float) -> float:
        lowest, highest = (min(max(end, low), high) for end in self.reading_range)
        return max(highest - lowest, 0.0) / (high - low)


class _Columns:
    """Sums over readings by physical column."""

    def __init__(self, columns: int) -> None:
        self.count = np.zeros(columns, np.int64)
        self.error, self.absolute_error = np.zeros(columns), np.zeros(columns)
        self.lowest, self.highest = np.full(columns, np.inf), np.full(columns, -np.inf)

    def add(self, columns: np.ndarray, difference: np.ndarray, readings: np.ndarray) -> None:
        """See ReadingObserver: [tiles, width], and twice [tiles, vectors, slices, width]."""
        if not len(self.count) or not readings.size:
            return
        self.count += np.bincount(columns.ravel(), minlength=len(self.count)) * readings[0, ..., 0].size
        np.add.at(self.error, columns, difference.sum(axis=(1, 2), dtype=np.float64))
        np.add.at(self.absolute_error, columns, np.abs(difference).sum(axis=(1, 2), dtype=np.float64))
        np.minimum.at(self.lowest, columns, readings.min(axis=(1, 2)))
        np.maximum.at(self.highest, columns, readings.max(axis=(1, 2)))


def _widened(span: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    return min(span[0], low), max(span[1], high)
