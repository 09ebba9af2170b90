"""Checks of what is fitted: columns of weights, the factors of their cells, level tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]


def checked_weights(weights: npt.ArrayLike) -> Floats:
    """Weights [inputs, outputs] as float64.

    Raises:
        ValueError: no matrix, an empty one, or other than finite real numbers.
    """
    w = real("weights", weights)
    if w.ndim != 2 or w.size == 0:
        raise ValueError(f"weights must be a non-empty array [inputs, outputs], found shape {w.shape}")
    return w


def checked_row_weight(row_weight: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Factors of cells as float64.

    Args:
        row_weight: factors.
        shape: of the weights.

    Raises:
        ValueError: another shape, or other than finite positive numbers.
    """
    g = real("row_weight", row_weight)
    if g.shape != shape:
        raise ValueError(f"row_weight must have the shape of weights {shape}, found {g.shape}")
    if g.min() <= 0:
        raise ValueError(
            f"row_weight must be positive, found {g.min()} at index {np.argwhere(g == g.min())[0].tolist()}"
        )
    return g


def real(name: str, values: npt.ArrayLike) -> Floats:
    """Numbers of any shape as float64.

    Args:
        name: what they are, for messages.
        values: the numbers.

    Raises:
        ValueError: other than finite real numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be real numbers, found dtype {array.dtype}")
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"{name} must be finite, found {array[~finite][0]} at index {np.argwhere(~finite)[0].tolist()}"
        )
    return array.astype(np.float64)
