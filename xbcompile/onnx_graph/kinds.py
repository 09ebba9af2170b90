"""Whether a value is of the kind that a model's input takes: onnxruntime ends the process on some that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, ValueInfoProto

from xbcompile.errors import DataError, quoted

_KINDS = {
    "tensor_type": "an array",
    "sequence_type": "a list with one value per entry",
    "map_type": "a dict",
}


def check_kind(value: ValueInfoProto, fed: Any) -> None:
    """Raise DataError where what is fed is no array, list or dict as this graph input takes it, or nothing where it must be
    something.
    """
    wrong = _wrong(value.type, fed)
    if wrong:
        raise DataError(f"input {quoted(value.name)} takes {wrong}")


def _wrong(kind: TypeProto, fed: Any) -> str:
    """What the type takes and what it is given, where that does not fit; empty where it does."""
    name = kind.WhichOneof("value")
    if name == "optional_type":
        return "" if fed is None else _wrong(kind.optional_type.elem_type, fed)
    if name == "sequence_type" and isinstance(fed, (list, tuple)):
        return next(filter(None, (_wrong(kind.sequence_type.elem_type, each) for each in fed)), "")
    if name == "map_type" and isinstance(fed, Mapping):
        return _wrong_keys(kind, fed)
    if name == "tensor_type" and fed is not None and not isinstance(fed, Mapping):
        return _wrong_elements(kind.tensor_type.elem_type, fed)
    return "" if name not in _KINDS else f"{_KINDS[name]}, not {'None' if fed is None else f'a {type(fed).__name__}'}"


def _wrong_elements(element_type: int, fed: Any) -> str:
    """Texts where numbers are meant, numbers where texts are; other types and shapes are told elsewhere."""
    try:
        found = fed.dtype if isinstance(getattr(fed, "dtype", None), np.dtype) else np.asarray(fed).dtype
    except ValueError:  # a list that is no array
        return "an array, not a list of lists of different lengths"
    texts = element_type == TensorProto.STRING
    fits = not element_type or texts == (found.kind in "OSU")
    return "" if fits else f"an array of {'texts' if texts else 'numbers'}, not of {found}"


def _wrong_keys(kind: TypeProto, fed: Mapping[Any, Any]) -> str:
    texts = kind.map_type.key_type == TensorProto.STRING
    allowed = (str,) if texts else (int, np.integer)
    strange = next((key for key in fed if not isinstance(key, allowed)), None)
    keys = "texts" if texts else "whole numbers"
    return "" if strange is None else f"a dict whose keys are {keys}, not one with the key {quoted(strange)}"
