"""Images as packed bits, so that differing cells are counted 64 rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xbcompile.deferred import library

optimize = library("scipy.optimize")

CellsOf = Callable[[np.ndarray], np.ndarray]

_BLOCK_CELLS = 1 << 22  # cells asked for at a time: bounds memory, does not change the result
_WORD_ROWS = 64


class PackedCells:
    """The cells of some images in logical columns, and how many differ between two of them.

    Two columns are compared row by row: bit r of a word is row r, one word per 64 rows and bit of the cells' binary
    code. Cells differ where a bit does; the differing cells are the set bits of the words' exclusive or.

    Args:
        cells_of: cells [n, rows, columns] of n images, uint8 or float32, in logical columns.
        images: the images to hold, each once; [n].
    """

    def __init__(self, cells_of: CellsOf, images: np.ndarray) -> None:
        self._slot = {image: slot for slot, image in enumerate(images.tolist())}
        shape = cells_of(images[:1]).shape
        self.rows, self.columns = shape[1], shape[2]
        step = max(1, _BLOCK_CELLS // (self.rows * self.columns))
        blocks = [_packed(cells_of(images[start : start + step])) for start in range(0, len(images), step)]
        bits, counts = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        varying = (bits != bits[:1, :, :, :1]).any(axis=(0, 2, 3))
        self._bits = np.ascontiguousarray(bits[:, varying])  # uint64 [n, code bits, words, columns]
        self._row_counts = counts[:, varying].reshape(len(images), -1).astype(np.float64)
        self._fewest: dict[tuple[int, int], int] = {}

    def differing(self, one: int, two: int) -> np.ndarray:
        """Rows in which column i of one image differs from column j of another, int32 [columns, columns]."""
        first, second = self._bits[self._slot[one]], self._bits[self._slot[two]]
        result = np.zeros((self.columns, self.columns), np.int32)
        for word in range(self._bits.shape[2]):
            differ = np.zeros((self.columns, self.columns), np.uint64)
            for a, b in zip(first[:, word], second[:, word], strict=True):
                differ |= a[:, None] ^ b[None, :]
            result += np.bitwise_count(differ)
        return result

    def changed(self, one: int, one_logical: np.ndarray, two: int, two_logical: np.ndarray) -> tuple[int, int]:
        """Cells, and rows with such cells, that change when one image is replaced by another.

        Args:
            one: the image that the array holds.
            one_logical: logical column of each of its physical columns.
            two: the image that is written.
            two_logical: logical column of each of its physical columns.
        """
        first, second = self._bits[self._slot[one]], self._bits[self._slot[two]]
        differ = np.bitwise_or.reduce(first[:, :, one_logical] ^ second[:, :, two_logical], axis=0)
        rows = np.bitwise_or.reduce(differ, axis=1)
        return int(np.bitwise_count(differ).sum()), int(np.bitwise_count(rows).sum())

    def fewest(self, one: int, two: int) -> int:
        """Fewest cells that differ between two images, over all permutations of columns (linear assignment)."""
        if one == two:
            return 0
        pair = (min(one, two), max(one, two))
        if pair not in self._fewest:
            differing = self.differing(*pair)
            self._fewest[pair] = int(differing[optimize.linear_sum_assignment(differing)].sum())
        return self._fewest[pair]

    def row_profiles(self, images: np.ndarray) -> np.ndarray:
        """How many cells of each row have each code bit set, float64 [n, code bits * rows]: alike for similar images.

        With two levels, the sum of absolute differences of two images is a lower bound on `fewest`.
        """
        return self._row_counts[[self._slot[image] for image in images.tolist()]]


def _packed(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits uint64 [n, code bits, words, columns], and set bits per row int32 [n, code bits, rows]."""
    codes = cells if cells.dtype == np.uint8 else (cells.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    n, rows, columns = codes.shape
    words = -(-rows // _WORD_ROWS)
    planes = 8 * codes.itemsize
    packed = np.zeros((n, planes, columns, words * _WORD_ROWS // 8), np.uint8)
    counts = np.empty((n, planes, rows), np.int32)
    for plane in range(planes):
        bits = (codes >> plane & 1).astype(np.uint8)
        counts[:, plane] = bits.sum(axis=2)
        row_bytes = np.packbits(bits, axis=1)
        packed[:, plane, :, : row_bytes.shape[1]] = row_bytes.transpose(0, 2, 1)
    return packed.view(np.uint64).transpose(0, 1, 3, 2), counts
