"""Damage to tensors: names, types, shapes, values and where the data lie."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

Random = np.random.Generator
SIZES = (-(2**40), -2, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**40, 2**62)


def pick(random: Random, items):
    """One of the items, None where there is none."""
    items = list(items)
    return items[int(random.integers(len(items)))] if items else None


def a_tensor(model: ModelProto, random: Random) -> TensorProto | None:
    inside = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    return pick(random, [*model.graph.initializer, *inside])


def swap_tensors(model, random):
    first, second = a_tensor(model, random), a_tensor(model, random)
    if first is not None:
        first.name, second.name = second.name, first.name


def retype_tensor(model, random):
    tensor = a_tensor(model, random)
    if tensor is not None:
        tensor.data_type = int(random.choice([0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 14, 16, 17, 21, 22, 23, 99]))


def cast_tensor(model, random):
    tensor = a_tensor(model, random)
    if tensor is not None and tensor.data_location != TensorProto.EXTERNAL:
        with np.errstate(all="ignore"):
            dtype = pick(random, ["f2", "f4", "f8", "i1", "u1", "i4", "i8", "?"])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))


def resize_tensor(model, random):
    tensor = a_tensor(model, random)
    if tensor is None:
        return
    dims = list(tensor.dims)
    kind = int(random.integers(6))
    if kind == 0:
        dims = dims[::-1]
    elif kind == 1:
        dims.insert(int(random.integers(len(dims) + 1)), 1)
    elif kind == 2 and dims:
        dims.pop(int(random.integers(len(dims))))
    elif kind == 3:
        dims = [int(np.prod(dims))]
    elif dims:
        dims[int(random.integers(len(dims)))] = int(random.choice(SIZES))
    tensor.dims[:] = dims


def cut_tensor(model, random):
    """Values and shape cut together: a sound tensor of another size."""
    tensor = a_tensor(model, random)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL or not tensor.dims:
        return
    array = numpy_helper.to_array(tensor)
    axis = int(random.integers(array.ndim))
    kept = int(random.integers(array.shape[axis] + 1))
    tensor.CopyFrom(numpy_helper.from_array(np.take(array, range(kept), axis), tensor.name))


def spoil_weights(model, random):
    tensor = a_tensor(model, random)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL or not tensor.ByteSize():
        return
    array = numpy_helper.to_array(tensor).copy()
    if array.size and array.dtype.kind == "f":
        array.reshape(-1)[int(random.integers(array.size))] = random.choice([np.nan, np.inf, 1e38, -1e30, 1e-42, 0.0])
    elif array.size and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        array.reshape(-1)[int(random.integers(array.size))] = random.choice([limits.min, limits.max, 0, 1])
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def spoil_data(model, random):
    tensor = a_tensor(model, random)
    if tensor is None:
        return
    kind = int(random.integers(5))
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]
    elif kind == 1:
        tensor.raw_data = tensor.raw_data + b"\0" * int(random.integers(1, 9))
    elif kind == 2:
        tensor.ClearField("raw_data")
    elif kind == 3:
        tensor.float_data.extend([1.0, 2.0])
    else:
        tensor.data_location = TensorProto.EXTERNAL


def misplace_data(model, random):
    tensor = pick(random, model.graph.initializer)
    if tensor is None:
        return
    if tensor.data_location != TensorProto.EXTERNAL:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    entries = {
        "location": [
            "none.bin",
            "../../etc/passwd",
            "/etc/passwd",
            "",
            ".",
            "model.onnx",
            "weights.bin\0x",
            "a" * 5000,
        ],
        "offset": ["-1", "x", "", str(2**63), "3", "99999999"],
        "length": ["-1", "0", "x", str(2**63), "3", "99999999"],
    }
    key = pick(random, entries)
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.external_data.add(key=key, value=pick(random, entries[key]))
