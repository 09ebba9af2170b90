"""Column scrambling: which physical column carries each logical column of an image."""

from __future__ import annotations

import numpy as np

_CHUNK_WORDS = 1 << 22  # random words drawn at a time: bounds memory, does not change the result
_COLUMN_BITS = np.uint64(0xFFFF)


def scramble_columns(images: int, columns: int, *, seed: int = 0, scramble: bool = True) -> np.ndarray:
    """Draw one permutation of the columns per image, uniformly and independently.

    Image i uses the 64-bit words i * columns .. (i + 1) * columns of the Philox stream with key `seed`, so its
    permutation does not depend on the number of images. Each word's low 16 bits are replaced by its column; the order
    of the words then is the permutation, without ties.

    Args:
        images: number of weight images.
        columns: columns of an array, at most 65,535.
        seed: key of the stream, 0 .. 2**128 - 1.
        scramble: False gives the identity.

    Returns:
        uint16 [images, columns]: physical column of each logical column; each row is a bijection. The identity is one row, seen
        as many times, which cannot be written to.
    """
    logical = np.arange(columns, dtype=np.uint16)
    if not scramble:
        return np.broadcast_to(logical, (images, columns))
    result = np.empty((images, columns), dtype=np.uint16)
    stream = np.random.Philox(key=seed)
    step = max(1, _CHUNK_WORDS // columns)
    for start in range(0, images, step):
        block = result[start : start + step]
        words = stream.random_raw(block.size).reshape(block.shape)
        words &= ~_COLUMN_BITS
        words |= logical
        words.sort(axis=1)
        block[:] = words & _COLUMN_BITS
    return result
