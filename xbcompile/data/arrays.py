"""What a Python caller hands over, as arrays of numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xbcompile.data.stored import StoredArray, is_mapped
from xbcompile.errors import DataError, quoted

# What numpy and other libraries raise where they cannot make an array of something.
_NO_ARRAY = (TypeError, ValueError, RuntimeError, AttributeError, BufferError, OverflowError)


def by_name(given: Any, names: Sequence[str], where: str) -> dict[str, Any]:
    """Values by input name; a single value is that of the only input.

    Args:
        given: a mapping, or the value.
        names: of the inputs that must have one.
        where: what is given, for messages.

    Raises:
        DataError: a name is no text, or a single value is given for several inputs.
    """
    if isinstance(given, Mapping):
        strange = [key for key in given if not isinstance(key, str)]
        if strange:
            raise DataError(f"{where}: the input name {quoted(strange[0])} is no text; give {{NAME: array}}")
        return dict(given)
    if len(names) != 1:
        raise DataError(
            f"{where}: a {type(given).__name__} alone is given for {len(names)} inputs; give {{NAME: array}}, names "
            f"as the model has them"
        )
    return {names[0]: given}


def as_array(value: Any, where: str) -> Any:
    """The same values as an array of numpy; an array of numpy itself, also one in a file, as it is.

    Args:
        value: an array, anything that has numpy's `__array__` or DLPack's `__dlpack__` (tensors of other libraries, also on
            other devices and with gradients), numbers, or lists of numbers.
        where: what it is, for messages.

    Raises:
        DataError: it is no array, or has masked values.
    """
    if type(value) is np.ndarray or isinstance(value, StoredArray) or is_mapped(value):
        return value
    if isinstance(value, np.ma.MaskedArray):
        if count := int(np.ma.count_masked(value)):
            raise DataError(f"{where}: {count:,} values are masked; give values for them, with .filled(VALUE)")
        return np.asarray(value)
    try:
        return _converted(value)
    except _NO_ARRAY as error:
        reason = quoted(" ".join(str(error).split()))
        raise DataError(f"{where}: it is no array but a {type(value).__name__}: {reason}") from None


def _converted(value: Any) -> np.ndarray:
    for step in ("detach", "cpu"):  # of tensors of torch: out of the graph of gradients, onto the processor
        if callable(getattr(value, step, None)):
            value = getattr(value, step)()
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    try:
        array = np.asarray(value)
    except TypeError:
        if not callable(getattr(value, "float", None)):
            raise
        array = np.asarray(value.float())  # bfloat16, which numpy does not have: float32 holds all its values
    if array.ndim == 0 and array.dtype.kind == "O":
        raise TypeError("there are no numbers in it")
    return array


def whole_labels(labels: Any, where: str) -> np.ndarray:
    """Labels as int64 [samples].

    Args:
        labels: whole numbers, one per sample.
        where: where they come from, for messages.

    Raises:
        DataError: they are no such numbers.
    """
    labels = as_array(labels, f"{where}: labels")
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        hint = "; of rows that hold a 1 in the place of the class take .argmax(axis=1)" if labels.ndim == 2 else ""
        raise DataError(
            f"{where}: labels must be whole numbers, one per sample; found {labels.dtype} {labels.shape}{hint}"
        )
    most = np.iinfo(np.int64).max
    if labels.dtype.kind == "u" and (labels > most).any():
        raise DataError(f"{where}: labels go up to {labels.max()}; allowed: {most} at most")
    found: np.ndarray = labels.astype(np.int64)
    return found
