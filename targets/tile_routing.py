"""Where coded vectors go in tiles, and where the tiles' readings go."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# Vectors below which all tiles are driven in one call.
_FEW_VECTORS = 32


@dataclass(frozen=True, eq=False)
class TileRouting:
    """Tiles in order of the outputs that they add into: how vectors drive their rows, and what becomes of their readings.

    What the tile i adds to an output is `(sum over slices of coefficient * reading - subtract) * factor`.

    Args:
        tile: int [n], numbers of the tiles in the program.
        group: intp [n], which of a layer's matrices the tile is of.
        output: intp [n], first output column.
        width: intp [n], number of output columns.
        source: intp [n, rows], the input that drives each row; 0 where idle.
        idle: bool [n, rows], rows that take `idle_drive`.
        idle_drive: float32 [rows].
        row_sign: float32 [n, rows], sign of each row's drive; None: all are +1.
        columns: intp [n, widest], the columns whose readings are wanted; any column from a tile's width on.
        subtract: float64 [n, widest].
        factor: float64 [n, widest].
        scheme: "thermometer" (slice t is high where the value is above t), "bitserial" (slice t is bit t) or "analogue" (one
            slice, the value itself).
        both_signs: rows take 2 u - 1 in place of u.
        coefficients: float64 [slices], what the readings of each slice count.
    """

    tile: np.ndarray
    group: np.ndarray
    output: np.ndarray
    width: np.ndarray
    source: np.ndarray
    idle: np.ndarray
    idle_drive: np.ndarray
    row_sign: np.ndarray | None
    columns: np.ndarray
    subtract: np.ndarray
    factor: np.ndarray
    scheme: str
    both_signs: bool
    coefficients: np.ndarray

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.group)

    @property
    def slices(self) -> int:
        """Reads per vector."""
        return len(self.coefficients)

    def of(self, tiles: slice) -> TileRouting:
        """The same for some tiles.

        Args:
            tiles: which.
        """
        by_tile = ("tile", "group", "output", "width", "source", "idle", "columns", "subtract", "factor")
        row_sign = None if self.row_sign is None else self.row_sign[tiles]
        return replace(self, row_sign=row_sign, **{name: getattr(self, name)[tiles] for name in by_tile})

    def drives(self, values: np.ndarray) -> np.ndarray:
        """Drives of coded vectors, float32 [tiles, vectors, slices, rows].

        Args:
            values: float32 [groups, vectors, inputs]: level indices, or values that drive rows as they are.
        """
        drives = np.empty((self.tiles, values.shape[1], self.slices, self.source.shape[1]), np.float32)
        # A tile at a time stays in the cache; few vectors are done at once, as calls would cost more than work.
        step = self.tiles if values.shape[1] < _FEW_VECTORS else 1
        for i in range(0, self.tiles, max(step, 1)):
            some = slice(i, i + step)
            value = values[self.group[some, None], :, self.source[some]]  # [tiles, rows, vectors]
            self._expand(value, drives[some].transpose(2, 0, 3, 1))
        if self.row_sign is not None:
            drives *= self.row_sign[:, None, None, :]
        if self.idle.any():
            np.copyto(drives, self.idle_drive, where=self.idle[:, None, None, :])
        return drives

    def _expand(self, value: np.ndarray, out: np.ndarray) -> None:
        """Fill the slices of `out`, float32 [slices, ...], with values [...]."""
        if self.scheme == "thermometer":
            for t in range(self.slices):
                np.greater_equal(value, np.float32(t + 1), out=out[t], casting="unsafe")
        elif self.scheme == "bitserial":
            whole = value.astype(np.int32)
            for t in range(self.slices):
                out[t] = (whole >> t) & 1
        else:
            out[0] = value
        if self.both_signs:
            out *= 2
            out -= 1

    def totals(self, readings: np.ndarray) -> np.ndarray:
        """What readings of all columns add to each tile's outputs: float64 [tiles, vectors, widest].

        Args:
            readings: float [tiles, vectors, slices, columns].
        """
        total = np.multiply(readings[:, :, 0], self.coefficients[0], dtype=np.float64)
        for t in range(1, self.slices):  # one after another: the order never depends on the number of vectors
            total += np.multiply(readings[:, :, t], self.coefficients[t], dtype=np.float64)
        total = np.take_along_axis(total, self.columns[:, None, :], axis=2)
        return (total - self.subtract[:, None, :]) * self.factor[:, None, :]

    def add(self, totals: np.ndarray, sums: np.ndarray) -> None:
        """Add totals to sums, float64 [groups, vectors, outputs], tile after tile.

        Args:
            totals: see `totals`.
            sums: changed in place.
        """
        for total, group, output, width in zip(totals, self.group, self.output, self.width, strict=True):
            sums[group, :, output : output + width] += total[:, :width]
