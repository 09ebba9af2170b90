"""What the digital side makes of a layer's sums over tiles: its outputs, with the chip's own correction."""

from __future__ import annotations

import numpy as np

from xbcompile.ir import MatrixLayer
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.runtime.drive import NotDriven
from xbcompile.runtime.reading import PatchReading, Reading
from xbcompile.runtime.recombination import recombine, recombine_patches


class DigitalSide:
    """Undoes the codes of a layer's inputs and weights.

    Args:
        layer: the layer, whose weights are coded.
        correction: the chip's own.
        both_signs_of: coefficients of the slices, where rows take 2 u - 1 in place of u; else None.
    """

    def __init__(self, layer: MatrixLayer, correction: LayerCorrection, both_signs_of: np.ndarray | None) -> None:
        assert layer.weight_code is not None
        self.layer, self.correction, self.code = layer, correction, layer.weight_code
        self.level_sum, self.both_signs_of = self.code.column_sums(), both_signs_of
        self.scale, self.bias = self.code.scale.astype(np.float64), layer.bias.astype(np.float64)

    def recombine(self, reading: Reading, y: np.ndarray, corrected: bool = False) -> None:
        """Fill y, float32 or float64 [V, groups * outputs].

        Args:
            reading: what all tiles read.
            y: what is filled.
            corrected: whether the chip's own correction is applied.
        """
        coded, own = reading.coded, self.correction
        offset, drive_sum = self._offset(coded.value)
        recombine(
            y, reading.sums, coded.gain, coded.shift, self.scale, self.level_sum, offset, drive_sum, self.layer.inputs,
            self.bias, own.gain, own.shift, corrected,
        )  # fmt: skip
        if coded.not_driven is not None:
            self._follow_floats(coded.not_driven, y, corrected)

    def recombine_patches(self, reading: PatchReading, y: np.ndarray, first: int) -> None:
        """Fill y, float32 or float64 [samples, groups * outputs, patches of a sample], with corrected outputs.

        Args:
            reading: what all tiles read.
            y: what is filled, from one patch on.
            first: that patch's place among those of all samples.
        """
        own = self.correction
        offset, drive_sum = self._offset(reading.patches.vectors() if np.any(self.code.offset) else None)
        recombine_patches(
            y, first, reading.sums, reading.gain, reading.shift, self.scale, self.level_sum, offset, drive_sum,
            self.layer.inputs, self.bias, own.gain, own.shift,
        )  # fmt: skip

    def _offset(self, values: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """`offset` and `drive_sum` of `recombine`, of coded vectors, float32 [groups, V, K]."""
        groups, inputs = self.layer.groups, self.layer.inputs
        if values is None or not np.any(self.code.offset):
            return np.zeros((groups, 0)), np.zeros((groups, 0))
        drive_sum = values.sum(axis=2, dtype=np.float64)
        if self.both_signs_of is not None:
            drive_sum = 2 * drive_sum - inputs * self.both_signs_of.sum()
        return self.code.offset.astype(np.float64), drive_sum

    def _follow_floats(self, lost: NotDriven, y: np.ndarray, corrected: bool) -> None:
        """Replace, in y [V, groups * outputs], the outputs of vectors that the array was not driven with by what floats give."""
        weights, outputs, own = self.code.dequantized().astype(np.float64), self.layer.outputs, self.correction
        for group in np.unique(lost.group).tolist():
            mine, columns = lost.group == group, slice(group * outputs, (group + 1) * outputs)
            with np.errstate(invalid="ignore"):  # infinity times 0, or less infinity
                found = lost.values[mine].astype(np.float64) @ weights[group] + self.layer.bias[columns]
                y[lost.vector[mine], columns] = (
                    found * own.gain[columns] + own.shift[columns] if corrected else found
                )  # fmt: skip
