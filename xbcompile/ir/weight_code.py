"""The code that stands for a layer's real weights on an array."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.ir.content_equality import ContentEqual

_VALUES_AT_ONCE = 1 << 22  # that are summed


@dataclass(frozen=True, eq=False)
class WeightCode(ContentEqual):
    """`W[g, k, m] ~= row_weight[g, k, m] * scale[g, m] * levels[codes[g, k, m]] + offset[g, m]`.

    Scale and offset are digital, one per output column: they cost the array nothing. The row weight is the factor that
    the target's readout gives to the row on which a weight sits.

    Args:
        levels: float32 [L], strictly increasing normalised level table; None when cells hold any real value.
        codes: uint8 [groups, inputs, outputs] index into `levels`, or float32 cell values when `levels` is None.
        scale: float32 [groups, outputs].
        offset: float32 [groups, outputs].
        row_weight: float32 [groups, inputs, outputs], or None where every row counts alike.
    """

    levels: np.ndarray | None
    codes: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    row_weight: np.ndarray | None = None

    @classmethod
    def continuous(cls, weights: np.ndarray) -> WeightCode:
        """The code of an array whose cells hold any real value: float32 weights [groups, inputs, outputs] as they are."""
        groups, _, outputs = weights.shape
        ones = np.ones((groups, outputs), np.float32)
        return cls(None, weights.astype(np.float32, copy=False), ones, np.zeros_like(ones))

    def cell_values(self) -> np.ndarray:
        """Normalised cell contents, float32 [groups, inputs, outputs]: `levels[codes]`."""
        return self.codes if self.levels is None else self.levels[self.codes]

    def weighted_cells(self) -> np.ndarray:
        """What one unit of drive adds to an ideal read, float32 [groups, inputs, outputs]: row weight times level."""
        cells = self.cell_values()
        if self.row_weight is None:
            return cells
        return np.multiply(self.row_weight, cells, out=None if self.levels is None else cells)

    def column_sums(self) -> np.ndarray:
        """Sums of `weighted_cells` over inputs, float64 [groups, outputs], some rows at a time."""
        groups, inputs, outputs = self.codes.shape
        sums, rows = np.zeros((groups, outputs)), max(1, _VALUES_AT_ONCE // max(1, groups * outputs))
        for first in range(0, inputs, rows):
            some = slice(first, first + rows)
            weight = None if self.row_weight is None else self.row_weight[:, some]
            part = replace(self, codes=self.codes[:, some], row_weight=weight)
            sums += part.weighted_cells().sum(axis=1, dtype=np.float64)
        return sums

    def dequantized(self) -> np.ndarray:
        """The real weights that the code stands for, float32 [groups, inputs, outputs]."""
        weights = self.weighted_cells() * self.scale[:, None, :]
        weights += self.offset[:, None, :]
        return weights

    def real_weights(self) -> np.ndarray:
        """`dequantized`; the codes themselves where they are the weights, so that memory is shared."""
        plain = self.levels is None and self.row_weight is None
        return self.codes if plain and np.all(self.scale == 1.0) and not np.any(self.offset) else self.dequantized()

    def row_factor(self) -> np.ndarray | None:
        """`row_weight` as a factor of the cells: float32 [groups, inputs, 1] where it is made to be the same of all outputs."""
        weight = self.row_weight
        return weight[:, :, :1] if weight is not None and weight.strides[2] == 0 else weight
