"""Voltage drops on the lines of an array: its conductances as they are seen from the ends of its lines.

The circuit: row line k is driven at one end, through a contact, by a voltage source; a wire segment lies between
neighbouring cells. Column line m ends, beyond the last row, through a contact in a virtual ground. With cell conductances
g[k, m] the circuit is linear, so one matrix, found once per written image, holds all that a read can give: the current
into the ground of column m per volt on row k, all other rows at 0 V. Every read is then a product with that matrix.

Source: Kirchhoff's laws. The circuit is that of Bayat et al., Nat. Commun. 9, 2331 (2018), Supplementary Note 1 (lines are
    never floated; during inference one set of lines is driven, the other virtually grounded) with contacts added.
Method: the rows are added one by one, from the far end of the columns towards their grounds (`_add_rows`), which costs
    lines x columns**3; by reciprocity rows and columns may swap, so the longer side is the one that is walked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Float64 values that a batch of images may hold at a time.
_BATCH_VALUES = 1 << 22


@dataclass(frozen=True)
class LineResistance:
    """Resistances of an array's lines in Ohm; each may be 0.

    Args:
        row_segment_ohm: row line between neighbouring cells.
        column_segment_ohm: column line between neighbouring cells.
        row_contact_ohm: between the voltage source and a row line's first cell.
        column_contact_ohm: between a column line's last cell and its virtual ground.
    """

    row_segment_ohm: float = 0.0
    column_segment_ohm: float = 0.0
    row_contact_ohm: float = 0.0
    column_contact_ohm: float = 0.0

    @property
    def is_zero(self) -> bool:
        """Whether the lines are perfect."""
        return self == LineResistance()

    def effective(self, conductance: np.ndarray) -> np.ndarray:
        """Current into each column's ground per volt on each row.

        Args:
            conductance: float64 [images, rows, columns], siemens, at least 0.

        Returns:
            float64 [images, rows, columns], siemens; without resistance the conductances themselves. One image's result
            does not depend on the others. Measured on one core, per image: 0.3 ms for 20x20, 9 ms for 64x64, 12 ms for
            70x70, 0.10 s for 128x128, 0.23 s for 128x256; a sparse LU factorisation of the nodal equations takes 5 times
            as long or more.
        """
        if self.is_zero:
            return conductance.astype(np.float64)
        images, rows, columns = conductance.shape
        result = np.empty((images, rows, columns))
        narrow, wide = sorted((rows, columns))
        size = max(1, _BATCH_VALUES // (narrow * (narrow + wide)))
        for first in range(0, images, size):
            part = conductance[first : first + size].astype(np.float64)
            if columns <= rows:
                result[first : first + size] = self._add_rows(part)
            else:  # reciprocity: drive the columns' ends, ground the rows' ends
                turned = LineResistance(
                    self.column_segment_ohm, self.row_segment_ohm, self.column_contact_ohm, self.row_contact_ohm
                )
                swapped = turned._add_rows(part[:, ::-1, ::-1].transpose(0, 2, 1))
                result[first : first + size] = swapped.transpose(0, 2, 1)[:, ::-1, ::-1]
        return result

    def _add_rows(self, conductance: np.ndarray) -> np.ndarray:
        """The effective matrix, row after row.

        A row at voltage V whose cells meet column nodes at potentials w sends them the currents B (V - w), with
        B = (I + D Z)^-1 D for D = diag(g) and Z[m, n] = contact + segment min(m, n), the resistance that the currents of
        cells m and n share on the row line. Together, the rows so far send down the columns J = a - Y w, a having one column
        per driven row. One segment further, where w is s J lower, J = (I + s Y)^-1 (a - Y w); the next row adds its B.
        """
        images, rows, columns = conductance.shape
        position = np.arange(columns)
        shared_ohm = self.row_contact_ohm + self.row_segment_ohm * np.minimum.outer(position, position)
        one = np.eye(columns)
        joint = np.zeros((images, columns, columns + rows))  # Y, then a
        for row in range(rows):
            if row and self.column_segment_ohm:
                admittance = joint[:, :, :columns]
                joint[:, :, : columns + row] = np.linalg.solve(
                    one + self.column_segment_ohm * admittance, joint[:, :, : columns + row]
                )
            g = conductance[:, row, :, None]
            cells = np.linalg.solve(one + g * shared_ohm, g * one)
            joint[:, :, :columns] += cells
            joint[:, :, columns + row] = cells.sum(axis=2)
        admittance, driven = joint[:, :, :columns], joint[:, :, columns:]
        return np.linalg.solve(one + self.column_contact_ohm * admittance, driven).transpose(0, 2, 1)
