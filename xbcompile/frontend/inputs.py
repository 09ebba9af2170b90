"""What becomes of a model's inputs: those with a value of their own are constants, others may be fixed to one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from xbcompile.errors import ModelError, elided, shown, written
from xbcompile.onnx_graph.builder import copied, tensor
from xbcompile.onnx_graph.dimensions import is_fixed

LARGEST_FIXED = 2**20  # assumed: elements of a value that is said by hand, or filled with one number

_FIRST_WITHOUT_INPUTS = 4  # the first IR version in which an initializer need not be a graph input


@dataclass(frozen=True)
class ModelInputs:
    """What a user decides of a model's inputs.

    ONNX lets a model list an initializer among its inputs, which callers may feed then; before IR version 4 it must. What is
    compiled into cells cannot be fed, so that such initializers are constants, unless they are kept.

    Args:
        dims: sizes of open dimensions, by name or `INPUT:AXIS`.
        keep: initializers that stay inputs, to be fed in every run.
        fixed: values of inputs that become constants: numbers, texts, or nested lists of them; one number fills a shape.
    """

    dims: Mapping[str, int] = field(default_factory=dict)
    keep: Collection[str] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", (self.keep,) if isinstance(self.keep, str) else tuple(self.keep))


AS_THEY_ARE = ModelInputs()


def parse_inputs(settings: Iterable[str]) -> dict[str, Any]:
    """Values by input name from `NAME=VALUE` texts; a value is as JSON has it, anything else is a text.

    Raises:
        ModelError: a text is not of that form, or a name has two values.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name or not text:
            raise ModelError(
                f"--input {written(setting)}: write --input NAME=VALUE, for example --input rate=16000 or s=[1,2]"
            )
        try:
            value = json.loads(text)
        except RecursionError:
            raise ModelError(f"--input {written(name)}: the value has too many lists within lists") from None
        except ValueError:
            value = text
        if name in values:
            raise ModelError(f"--input {written(name)} is given twice; give one value")
        values[name] = value
    return values


def settled(model: ModelProto, inputs: ModelInputs) -> ModelProto:
    """The model whose initializers are no inputs, and whose inputs have no initializers; itself where that is so already.

    Args:
        model: any model; it is not changed.
        inputs: those that are kept, or will be fixed to another value, lose their own.

    Raises:
        ModelError: the model has no initializer to be kept among its inputs, or it is to be fixed too.
    """
    graph = model.graph
    values = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    both = [value.name for value in graph.input if value.name in values]
    for name in inputs.keep:
        if name in inputs.fixed:
            raise ModelError(f'input "{name}" is kept and fixed; leave out --keep-input or --input')
        if name not in both:
            raise ModelError(
                f'--keep-input {name}: the model has no initializer "{name}" among its inputs; those are: {elided(both)}'
            )
    if not both:
        return model
    result = copied(model)
    result.ir_version = max(model.ir_version, _FIRST_WITHOUT_INPUTS)
    graph, kept = result.graph, set(both).intersection([*inputs.keep, *inputs.fixed])
    _remove(graph.input, [value.name in values - kept for value in graph.input])
    _remove(graph.initializer, [each.name in kept for each in graph.initializer])
    _remove(graph.sparse_initializer, [each.values.name in kept for each in graph.sparse_initializer])
    return result


def with_fixed_inputs(model: ModelProto, fixed: Mapping[str, Any]) -> ModelProto:
    """The model in which these inputs are constants; itself where there are none.

    Args:
        model: a model from `settled`; it is not changed.
        fixed: see `ModelInputs`.

    Raises:
        ModelError: the model has no such input, or the value does not fit it.
    """
    if not fixed:
        return model
    result = copied(model)
    inputs = {value.name: value for value in model.graph.input}
    for name, value in fixed.items():
        if name not in inputs:
            raise ModelError(f'the model has no input "{name}" to be fixed; its inputs are: {elided(list(inputs))}')
        result.graph.initializer.append(_constant(inputs[name], value))
    _remove(result.graph.input, [value.name in fixed for value in result.graph.input])
    return result


def _remove(entries: Any, unwanted: list[bool]) -> None:
    """Delete the unwanted entries of a repeated field."""
    for i in reversed(range(len(unwanted))):
        if unwanted[i]:
            del entries[i]


def _constant(value: ValueInfoProto, given: Any) -> TensorProto:
    """The value as the input's type and shape have it."""
    what = f'input "{value.name}" cannot be fixed to {_shown(given)}'
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.elem_type:
        raise ModelError(f"{what}: it is no tensor, or the model does not say its element type")
    array = _array(given, kind.elem_type, what)
    if kind.HasField("shape"):
        array = _of_shape(array, [dim.dim_value if is_fixed(dim) else None for dim in kind.shape.dim], what)
    return tensor(value.name, array)


def _array(given: Any, element_type: int, what: str) -> np.ndarray:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element_type))
    wanted = f"{what}: it takes {TensorProto.DataType.Name(element_type).lower()} values"
    try:
        array = np.asarray(given)
    except ValueError:
        raise ModelError(f"{wanted}, and lists in it must be of one length") from None
    kinds = {"b": "b", "i": "iu", "u": "iu", "O": "U"}.get(dtype.kind, "fiu")
    if array.dtype.kind not in kinds:
        raise ModelError(f"{wanted}; found {array.dtype.name if array.dtype.kind != 'U' else 'text'}")
    with np.errstate(over="ignore"):  # told below
        converted = array.astype(dtype)
    in_range = np.array_equal(converted, array) if dtype.kind in "iu" else dtype.kind in "bO" or np.isfinite(converted)
    if not np.all(in_range):
        raise ModelError(f"{wanted}; found values that are out of its range")
    return converted


def _of_shape(array: np.ndarray, sizes: list[int | None], what: str) -> np.ndarray:
    """The array in the input's shape, which one value fills."""
    known = [size for size in sizes if size is not None]
    if array.ndim == 0 and len(known) == len(sizes) and np.prod(known) <= LARGEST_FIXED:
        return np.full(known, array, array.dtype)
    fits = array.ndim == len(sizes) and all(s is None or s == n for s, n in zip(sizes, array.shape, strict=True))
    if not fits or array.size > LARGEST_FIXED:
        wanted = "x".join("?" if size is None else str(size) for size in sizes) or "scalar"
        found = "x".join(map(str, array.shape)) or "scalar"
        raise ModelError(
            f"{what}: its shape is {wanted}, of at most {LARGEST_FIXED:,} values, and the value's {found}; give a list of that "
            f"shape, or one value, which fills a shape without open dimensions (--dim fixes those)"
        )
    return array


def _shown(value: Any) -> str:
    try:
        text = " ".join(str(value).split())
    except ValueError:  # an integer of too many digits
        return shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
