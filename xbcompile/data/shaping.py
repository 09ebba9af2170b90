"""One array as a model's input takes it: in its type without another value, in its shape without another order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise, permutations
from operator import mul
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import helper

from xbcompile.data.stored import StoredArray, blocks, is_mapped
from xbcompile.errors import DataError, plain, quoted

_MOST_AXES = 6  # of a sample whose transpositions are tried: 720 orders
_Sizes = Sequence[int | None]
Size = TypeVar("Size")


def shaped(x: np.ndarray, value: onnx.ValueInfoProto, where: str, *, axis: int | None = 0, finite: bool = True) -> Any:
    """An array as a model's input wants it: its type, and its shape apart from the axis that counts samples.

    Only neighbouring axes are merged or split, and axes of size 1 added or left out, so that values keep their order. A
    layout of the same sizes, as square images with rows and columns exchanged, cannot be told from the right one.

    Args:
        x: any numbers.
        value: the model's input.
        where: what the array is, for messages.
        axis: which axis counts samples; None: none does.
        finite: whether NaN and infinite values are refused.

    Raises:
        DataError: it does not fit.
    """
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        raise DataError(f"{where}: the model's input {quoted(value.name)} takes no numbers, so no array fits it")
    if axis is not None and (x.ndim <= axis or x.shape[axis] == 0):
        raise DataError(f"{where}: there are no samples (shape {x.shape})")
    x = converted(x, helper.tensor_dtype_to_np_dtype(tensor.elem_type), value.name, where, finite=finite)
    wanted = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if not tensor.HasField("shape") or (axis is not None and len(wanted) <= axis):
        return x
    end, start = (0, 0) if axis is None else (axis, axis + 1)
    before, after = _fitted(x.shape[:end], wanted[:end]), _fitted(x.shape[start:], wanted[start:])
    if before is not None and after is not None:
        return x.reshape((*before, *x.shape[end:start], *after))
    hint = transposition_hint(x.shape, wanted, axis) or _open_hint(value, axis)
    raise DataError(
        f"{where}: samples have shape {_by(_without(x.shape, axis))}; the model's input {quoted(value.name)} wants "
        f"{_by(_without(wanted, axis))}{hint}"
    )


def converted(x: np.ndarray, dtype: np.dtype[np.generic], name: str, where: str, *, finite: bool = True) -> Any:
    """The same numbers in another type; floats may be rounded.

    Args:
        x: any numbers.
        dtype: the type of the model's input.
        name: the model's input, for messages.
        where: what the array is, for messages.
        finite: whether NaN and infinite values are refused.

    Raises:
        DataError: the type cannot hold them, or they are no numbers.
    """
    if dtype.kind == "V":
        raise DataError(
            f"{where}: the model's input {quoted(name)} is of type {dtype}, which onnxruntime takes from no array; let the model "
            f"take float32 or integers, and cast"
        )
    kind = kind_of(x.dtype)
    if kind not in ("f", "i", "u", "b"):
        raise DataError(f"{where}: type {plain(str(x.dtype))} is not numeric")
    if kind == "f" and dtype.kind != "f":
        raise DataError(f"{where}: type {x.dtype} does not fit the model's input {quoted(name)} of type {dtype}")
    if finite and (strange := sum(int(np.count_nonzero(~np.isfinite(each))) for each in blocks(x))):
        raise DataError(f"{where}: there are NaN or infinite values ({strange:,} of {x.size:,})")
    if x.dtype != dtype and not all(_fits(each, dtype) for each in blocks(x)):
        raise DataError(f"{where}: there are values outside the range of the model's input {quoted(name)}, {dtype}")
    if is_mapped(x):
        return StoredArray(x, dtype)
    return x.astype(dtype, copy=False)


def kind_of(dtype: np.dtype[Any]) -> str:
    """The kind of an element type, as numpy has it for its own: "f" of bfloat16 and of narrower floats, "i" of narrow integers.

    Args:
        dtype: of elements.
    """
    if dtype.kind == "V" and np.can_cast(dtype, np.float32):
        return "i" if np.can_cast(dtype, np.int16) else "f"
    return dtype.kind


def _fits(x: np.ndarray, dtype: np.dtype[Any]) -> bool:
    with np.errstate(over="ignore"):  # it does not fit then
        y = x.astype(dtype)
    return bool((np.isfinite(y) | ~np.isfinite(x) if dtype.kind == "f" else y == x).all())


def transposition_hint(found: Sequence[int], wanted: _Sizes, axis: int | None = 0) -> str:
    """What to do about an array that fits once its axes change places, as the end of a message; else empty.

    Args:
        found: its sizes.
        wanted: those that the model wants, None where they are open.
        axis: the axis of both that counts samples, and stays; None: none does.
    """
    found, wanted = _without(found, axis), _without(wanted, axis)
    rank = len(found)
    if not 2 <= rank <= _MOST_AXES or _fitted(found, wanted) is not None:
        return ""
    last_first, first_last = (rank - 1, *range(rank - 1)), (*range(1, rank), 0)
    names = {last_first: "channels last", first_last: "channels first"} if rank > 2 else {}
    for order in (last_first, first_last, *permutations(range(rank))):
        if _fitted([found[i] for i in order], wanted) is not None:
            whole = list(order)
            if axis is not None:
                whole = [i + (i >= axis) for i in order]
                whole.insert(axis, axis)
            layout = names.get(order, "transposed")
            named = {"channels last": " (NHWC)", "channels first": " (NCHW)"}.get(layout, "") if rank == 3 else ""
            return f"; they look {layout}{named}: use .transpose({', '.join(map(str, whole))})"
    return ""


def _fitted(found: Sequence[int], wanted: _Sizes) -> tuple[int, ...] | None:
    """The wanted sizes, with open ones as found, where values keep their order; None where they do not fit."""
    if _agree(found, wanted):
        return tuple(found)
    if None not in wanted:
        sizes = tuple(size or 0 for size in wanted)
        return sizes if _merged_or_split(found, sizes) else None
    solid = [size for size in found if size != 1]  # of open sizes no more than axes of 1 can be told
    if not _agree(solid, [size for size in wanted if size != 1]):
        return None
    given = iter(solid)
    return tuple(1 if size == 1 else next(given) for size in wanted)


def _agree(found: Sequence[int], wanted: _Sizes) -> bool:
    return len(found) == len(wanted) and all(w is None or w == f for f, w in zip(found, wanted, strict=True))


def _merged_or_split(found: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether every axis of one shape is several neighbours of the other, or one of them.

    Both are cut where as many values lie behind each other; between two cuts one shape must have a single axis.
    """
    ends = [list(accumulate((size for size in sizes if size != 1), mul)) for sizes in (found, wanted)]
    if ends[0][-1:] != ends[1][-1:]:
        return False
    cuts = sorted(set(ends[0]).intersection(ends[1]))
    return all(min(sum(a < end <= b for end in each) for each in ends) == 1 for a, b in pairwise([1, *cuts]))


def _open_hint(value: onnx.ValueInfoProto, axis: int | None) -> str:
    dims = value.type.tensor_type.shape.dim
    names = [
        d.dim_param or f"{value.name}:{i}" for i, d in enumerate(dims) if i != axis and not d.HasField("dim_value")
    ]
    options = " ".join(f"--dim {name}=SIZE" for name in names)
    return f"; fix what it leaves open when compiling: {options}" if names else ""


def _without(sizes: Sequence[Size], axis: int | None) -> tuple[Size, ...]:
    return tuple(size for i, size in enumerate(sizes) if i != axis)


def _by(sizes: _Sizes) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes) or "scalar"
