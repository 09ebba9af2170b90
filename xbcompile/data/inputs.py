"""Inputs of a model as Python callers hand them over, taken as arrays of its types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, ValueInfoProto, helper

from xbcompile.data.arrays import as_array, by_name
from xbcompile.data.shaping import converted
from xbcompile.errors import quoted


def arrays_of(model_inputs: Sequence[ValueInfoProto], given: Any) -> dict[str, Any]:
    """Inputs by name, tensors among them as arrays of the model's type; what is so already is not copied.

    Numbers are converted as those of data files are: where every value survives, and floats may be rounded.

    Args:
        model_inputs: the model's graph inputs.
        given: values by name, or the only input's: arrays, anything that has `__array__` or `__dlpack__`, numbers, lists of
            numbers; for sequences lists of these, for maps dicts.

    Raises:
        DataError: names are no texts, or a value is no array, or none that the input's type can hold.
    """
    inputs = {value.name: value for value in model_inputs}
    optional = [name for name, value in inputs.items() if value.type.HasField("optional_type")]
    found = by_name(given, [name for name in inputs if name not in optional] or optional, "inputs")
    return {name: _taken(inputs[name].type, x, name) if name in inputs else x for name, x in found.items()}


def _taken(kind: TypeProto, value: Any, name: str) -> Any:
    which = kind.WhichOneof("value")
    if which == "optional_type":
        return None if value is None else _taken(kind.optional_type.elem_type, value, name)
    if which == "sequence_type" and isinstance(value, list | tuple):
        return [_taken(kind.sequence_type.elem_type, each, name) for each in value]
    if which != "tensor_type" or value is None or isinstance(value, Mapping):
        return value  # `check_kind` says whether it fits
    where, element_type = f"input {quoted(name)}", kind.tensor_type.elem_type
    array = as_array(value, where)
    if not element_type or element_type == TensorProto.STRING or array.dtype.kind in "OSU":
        return array
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element_type))
    return array if array.dtype == dtype and dtype.kind != "V" else converted(array, dtype, name, where, finite=False)
