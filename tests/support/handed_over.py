"""Values as Python callers hand them over: arrays of any type and layout, and objects of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np


class Tensor:
    """What a tensor of another library is to numpy: it must be taken out of the graph of gradients, onto the processor."""

    def __init__(self, values: np.ndarray, attached: bool = True) -> None:
        self.values, self.attached = values, attached

    def detach(self) -> Tensor:
        return Tensor(self.values, attached=False)

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.attached:
            raise RuntimeError("call detach() on a tensor that requires grad")
        return self.values if dtype is None else self.values.astype(dtype)


class Narrow(Tensor):
    """A tensor of a type that numpy does not have."""

    def detach(self) -> Narrow:
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("unsupported ScalarType BFloat16")

    def float(self) -> np.ndarray:
        return self.values.astype(np.float32)


class Packed:
    """DLPack's protocol alone."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Broken:
    """Claims to be an array, and is none."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise self.error("no\nnumbers")


def generated(values: np.ndarray) -> Iterator[Any]:
    yield from values


def _unaligned(x: np.ndarray) -> np.ndarray:
    raw = np.empty(x.nbytes + 1, np.uint8)
    moved = raw[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def _spread(x: np.ndarray) -> np.ndarray:
    wide = np.full((*x.shape, 2), np.nan, x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


# The same numbers, of whatever float32 holds them: each gives what the plain array gives.
SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian float64": lambda x: x.astype(">f8"),
    "Fortran": np.asfortranarray,
    "strided": _spread,
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "unaligned": _unaligned,
    "read-only": _read_only,
    "list": lambda x: x.tolist(),
    "tuple of arrays": tuple,
    "subclass": lambda x: x.view(np.recarray) if x.ndim else x,
    "mask without effect": lambda x: np.ma.masked_array(x, np.zeros(x.shape, bool)),
    "tensor": Tensor,
    "packed": lambda x: Packed(x.copy()),
}
# Numbers in types that have fewer: whole numbers from 0 to 3, which all of them hold.
WHOLE: dict[str, Callable[[np.ndarray], Any]] = {
    "int8": lambda x: x.astype(np.int8),
    "uint64": lambda x: x.astype(np.uint64),
    "big-endian int": lambda x: x.astype(">i4"),
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "float8": lambda x: x.astype(ml_dtypes.float8_e4m3fn),
    "int4": lambda x: x.astype(ml_dtypes.int4),
    "narrow tensor": Narrow,
    "list of ints": lambda x: x.astype(int).tolist(),
}
# What is none: each is refused with one clear error.
WRONG: dict[str, Callable[[np.ndarray], Any]] = {
    "None": lambda x: None,
    "text": lambda x: "mnist",
    "texts": lambda x: x.astype(str),
    "bytes": lambda x: b"1234",
    "objects": lambda x: x.astype(object),
    "object": lambda x: object(),
    "complex": lambda x: x.astype(complex),
    "times": lambda x: x.astype("datetime64[s]"),
    "records": lambda x: np.zeros(len(x), [("a", "f4"), ("b", "i2")]),
    "generator": generated,
    "set": lambda x: set(x.ravel().tolist()),
    "ragged": lambda x: [[1.0], [1.0, 2.0]],
    "list in itself": lambda x: _circle(),
    "huge whole numbers": lambda x: [[2**70] * x.shape[-1]],
    "masked": lambda x: np.ma.masked_array(x, np.ones(x.shape, bool)),
    "function": lambda x: np.abs,
    "class": lambda x: np.ndarray,
    "broken (TypeError)": lambda x: Broken(TypeError),
    "broken (ValueError)": lambda x: Broken(ValueError),
    "broken (RuntimeError)": lambda x: Broken(RuntimeError),
    "scalar": lambda x: 1.0,
    "zero axes": lambda x: np.float32(1),
    "one axis": lambda x: x.ravel(),
    "one axis more": lambda x: x[None],
    "one value more": lambda x: np.concatenate([x, x[..., :1]], axis=-1),
    "transposed": lambda x: np.concatenate([x, x]).T,
    "too large": lambda x: x.astype(np.float64) + 1e300,
}


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle
