"""Equality by content for frozen dataclasses that hold numpy arrays."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


class ContentEqual:
    """Mixin: two values are equal when they are of one class and all their fields are, arrays element by element.

    Use with `@dataclass(frozen=True, eq=False)`. Such values are not hashable: they are compared, never looked up.
    """

    __hash__ = None  # type: ignore[assignment]  # arrays have no stable hash

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]  # mixed into dataclasses


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    return bool(left == right)
