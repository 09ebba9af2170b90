"""Emulator of a resistance-sum array: exact dot products plus errors drawn from measured histograms.

Source: Jung et al., Nature 601, 211 (2022), Methods "Emulator". Errors are grouped by column N_C and by N_delta, the
    number of high cells in the column's top half minus that in its bottom half: with 64 rows and columns 64 x 65 =
    4,160 groups. An error is drawn from its group's histogram and added to the exact dot product. The histograms come
    from characterising the physics model of the same chip with 4,160,000 digital-offset-corrected dot products.

What such a histogram cannot carry: where inside a half the high cells sit. The delay's row weight falls linearly along
the whole column, so two patterns of one N_delta differ by what the weights inside the halves do; the emulator gives
both the same distribution. For a network not trained for row weights that is just more spread; for one that is, it is
lost
signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.deferred import njit
from xbcompile.targets.contract import ReadBlock, SimulatedDevice, WrittenImages
from xbcompile.targets.counter_random import (
    MOST_VECTORS,
    fill_read_words,
    key_of,
    read_counter,
    standard_normal,
    uniform,
)
from xbcompile.targets.families.characterization import column_offsets
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters
from xbcompile.targets.loaded_images import LoadedImages

_CHARACTERIZATION_VECTOR = MOST_VECTORS // 2  # its reads are no session's
# The paper's count, 4,160,000 dot products, as images x vectors x 64 columns; it does not say how inputs and weights
# were chosen: random patterns in which the share of high cells in each half has this spread around one half (assumed).
CHARACTERIZATION_IMAGES = 65
CHARACTERIZATION_VECTORS = 1000
HIGH_SHARE_SIGMA = 0.12


class ErrorHistogramArray(SimulatedDevice):
    """Draws errors from histograms by (column, N_delta); histograms of an array are built when it is first used.

    Args:
        parameters: the description's numbers.
        seed: which chip; the physics model of the same seed is characterised.
    """

    writes_differ = False
    separable = False  # a histogram holds all errors of the array that was characterised

    def __init__(self, parameters: ResistanceSumParameters, seed: int = 0) -> None:
        super().__init__()
        self.parameters = parameters
        self.seed = seed
        self.lsb = parameters.lsb_dot
        self._histograms: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def histograms(self, array: int) -> tuple[np.ndarray, np.ndarray]:
        """Error histograms of one array.

        Returns:
            counts int64 [columns, rows + 1, bins], and the error of each bin in dot-product units, float64 [bins].
        """
        if array not in self._histograms:
            self._histograms[array] = _characterize(self.parameters, self.seed, array)
        return self._histograms[array]

    def load(self, written: WrittenImages) -> EmulatedImages:
        """See BatchedDevice."""
        tables = {}
        for array in np.unique(written.arrays).tolist():
            counts, bins = self.histograms(array)
            tables[array] = _thresholds(counts), np.float32(bins[0])
        weights = 2.0 * written.cells.astype(np.float32) - 1.0
        return EmulatedImages(self, written.arrays, weights.astype(np.float32), tables)


@dataclass(frozen=True, eq=False)
class EmulatedImages(LoadedImages):
    """Written images as plain +-1 weights [images, rows, columns]; each array's cumulative histograms and first bin."""

    device: ErrorHistogramArray
    arrays: np.ndarray
    weights: np.ndarray
    tables: dict[int, tuple[np.ndarray, np.float32]]

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages."""
        images, vectors, slices, rows = drives.shape
        flat, half = drives.reshape(images, vectors * slices, rows), rows // 2
        top = (flat[..., :half] @ self.weights[:, :half]).reshape(images, vectors, slices, -1)
        dots = (flat[..., half:] @ self.weights[:, half:]).reshape(top.shape)
        for i in range(images):
            _add_errors(
                dots[i],
                top[i],
                half,
                rows - half,
                *self.tables[int(self.arrays[i])],
                read_counter(
                    key_of("histogram", self.device.seed, self.arrays[i], reads.tiles[i]),
                    reads.first_vector,
                    reads.first_slice,
                    dots[i].shape,
                ),
            )
        return dots


def _characterize(p: ResistanceSumParameters, seed: int, array: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure the physics model: random weight patterns, inputs with varied shares of high cells in each half."""
    device = ResistanceSumArray(p, seed)
    half, count = p.rows // 2, CHARACTERIZATION_VECTORS
    errors, deltas = [], []
    for image in range(CHARACTERIZATION_IMAGES):
        pattern = uniform(key_of("patterns", seed, image), (p.rows,)) < 0.5
        flipped = uniform(key_of("flipped columns", seed, image), (p.columns,)) < 0.5
        share = np.clip(0.5 + HIGH_SHARE_SIGMA * standard_normal(key_of("high shares", seed, image), (count, 2)), 0, 1)
        drawn = uniform(key_of("high inputs", seed, image), (count, p.rows))
        high = drawn < np.repeat(share, [half, p.rows - half], axis=1)
        drives = np.where(high == pattern, 1, -1).astype(np.float32)
        cells = (pattern[:, None] ^ flipped).astype(np.uint8)
        loaded = device.load(WrittenImages.once(np.array([array]), cells[None]))
        reads = ReadBlock(np.array([image]), _CHARACTERIZATION_VECTOR)
        readings = loaded.read(drives[None, :, None, :], reads)[0, :, 0].astype(np.float64)
        weights = 2.0 * cells - 1
        top = drives[:, :half].astype(np.float64) @ weights[:half]
        bottom = drives[:, half:].astype(np.float64) @ weights[half:]
        errors.append(readings - top - bottom)
        deltas.append(_delta_index(top, bottom, half, p.rows - half))
    error, delta = np.concatenate(errors), np.concatenate(deltas).astype(np.intp)
    error += column_offsets(error / p.lsb_dot) * p.lsb_dot
    widest = int(np.ceil(np.abs(error).max()))
    counts = np.zeros((p.columns, p.rows + 1, 2 * widest + 1), np.int64)
    column = np.broadcast_to(np.arange(p.columns), error.shape)
    np.add.at(counts, (column, delta, np.rint(error).astype(np.intp) + widest), 1)
    return counts, np.arange(-widest, widest + 1, dtype=np.float64)


def _delta_index(top: np.ndarray, bottom: np.ndarray, top_rows: int, bottom_rows: int) -> np.ndarray:
    """N_delta from the halves' dot products, counted from its smallest value: highs = (rows + dot) / 2."""
    return (top_rows + top) / 2 - (bottom_rows + bottom) / 2 + bottom_rows


def _thresholds(counts: np.ndarray) -> np.ndarray:
    """Cumulative histograms scaled to 2**32, uint64 [columns, groups, bins]; an empty group takes its nearest neighbour's."""
    filled = counts.copy()
    groups = np.arange(counts.shape[1])
    for column in range(len(counts)):
        populated = groups[counts[column].sum(axis=1) > 0]
        nearest = populated[np.abs(groups[:, None] - populated).argmin(axis=1)]
        filled[column] = counts[column][nearest]
    cumulative = filled.cumsum(axis=2)
    return (cumulative * (2.0**32) / cumulative[:, :, -1:]).astype(np.uint64)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_errors(dots, top, top_rows, bottom_rows, table, first_bin, counter):  # type: ignore[no-untyped-def]  # numba infers
    """Add to bottom-half dot products [vectors, slices, columns] the top half's and an error of the right group, in place."""
    vectors, slices, columns = dots.shape
    bins = table.shape[2]
    words = np.empty(4 * ((columns + 3) // 4), np.uint32)
    for v in range(vectors):
        for t in range(slices):
            fill_read_words(words, counter, v, t, 0)
            for m in range(columns):
                delta = int((top_rows + top[v, t, m]) / 2 - (bottom_rows + dots[v, t, m]) / 2 + bottom_rows)
                low, high = 0, bins - 1
                while low < high:
                    middle = (low + high) // 2
                    if np.uint64(words[m]) < table[m, delta, middle]:
                        high = middle
                    else:
                        low = middle + 1
                dots[v, t, m] += top[v, t, m] + first_bin + np.float32(low)
