"""Arrays in files, of which no more is in memory than what was asked for last."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Bytes of an array that are looked at together.
BLOCK_BYTES = 1 << 24


class StoredArray:
    """An array in a file, in another type where that is wanted. Cut, it gives arrays in memory.

    Args:
        source: maps the file, or views a map.
        dtype: of what it gives; None: the file's.
    """

    def __init__(self, source: np.ndarray, dtype: np.dtype[Any] | None = None) -> None:
        self.source, self.dtype = source, source.dtype if dtype is None else np.dtype(dtype)
        self.shape, self.ndim, self.size = source.shape, source.ndim, source.size

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Any) -> np.ndarray:
        found = np.array(self.source[key], self.dtype)
        release(self.source)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype, copy=False)

    def reshape(self, shape: Sequence[int]) -> StoredArray:
        """The same in another shape."""
        return StoredArray(self.source.reshape(shape), self.dtype)

    def transpose(self, order: Sequence[int]) -> StoredArray:
        """The same with axes in another order."""
        return StoredArray(self.source.transpose(order), self.dtype)


def blocks(x: Any) -> Iterator[np.ndarray]:
    """All values of an array, some at a time: views of it along axis 0 where that has so many entries."""
    if not x.ndim:
        yield np.asarray(x)
        return
    entries = max(1, BLOCK_BYTES // max(1, math.prod(x.shape[1:]) * x.dtype.itemsize))
    for first in range(0, len(x), entries):
        yield x[first : first + entries]
        if is_mapped(x):
            release(x)


def release(x: np.ndarray) -> None:
    """Let go of the pages of the file that an array maps; they are read again when they are asked for."""
    base: Any = x
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode not in ("r", "r+"):
            return  # what was changed in memory alone is in no file
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def in_memory(x: Any) -> Any:
    """An array in a file as one in memory; anything else as it is.

    Args:
        x: an input of a model.
    """
    return x[...] if isinstance(x, StoredArray) else x


def is_mapped(x: object) -> bool:
    """Whether an array lies in a file."""
    return isinstance(x, np.memmap) and x.ndim > 0
