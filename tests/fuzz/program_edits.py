"""Edits of program files and of chips' corrections that get past the digest: of JSON, tables, models, tensors, archives."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from tokenize import TokenError
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.fuzz.mutations import OF_BYTES, OF_MODELS
from xbcompile.program.archive import sealed

Members = dict[str, bytes]

# What stands in the place of a value of JSON; small numbers get as far as right ones, large ones break what trusts them.
VALUES = [
    *(None, True, False, 0, 1, 2, 3, 7, 255, 256, -1, -2, 2**31 - 1, 2**31, 2**62, 2**63, 2**64, 2**200, 10**5000),
    *(0.0, -0.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), "", "x", "y", "a\0b", "é", "\ud800", "ideal", "[/]"),
    *("analogue", "bitserial", "thermometer", "Patches", "recalibrate", "../x"),
    *([], [1], [[]], [None], [-1, -1], [2**40] * 3, {}, {"kind": "Contraction"}),
]


def json_edit(members: Members, name: str, path: list[int], value: Any, how: str) -> None:
    """Replace, remove, double or add a value of a JSON member, found by going into it by numbers."""
    table = json.loads(members[name])
    holder, key = None, None
    found: Any = table
    for step in path:
        if not isinstance(found, (dict, list)) or not found:
            break
        holder, key = found, sorted(found)[step % len(found)] if isinstance(found, dict) else step % len(found)
        found = holder[key]
    if holder is None:
        members[name] = _dumped(value)
        return
    if how == "remove":
        del holder[key]
    elif how == "add" and isinstance(holder, dict):
        holder["unknown"] = value
    elif how == "double" and isinstance(holder, list):
        holder.append(found)
    elif how == "alike":
        alike = [each for each in _values(table) if type(each) is type(found)]
        holder[key] = alike[sum(path) % len(alike)]
    elif how == "more" and isinstance(found, int) and not isinstance(found, bool):
        holder[key] = found + 1
    elif how == "less" and isinstance(found, int) and not isinstance(found, bool):
        holder[key] = found - 1
    else:
        holder[key] = value
    members[name] = _dumped(table)


def _values(table: Any) -> Iterator[Any]:
    """Every value in a value of JSON, itself included."""
    yield table
    for each in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        yield from _values(each)


def _dumped(table: Any) -> bytes:
    if isinstance(table, int) and table > 2**1000:
        return b"9" * 5000
    try:
        return json.dumps(table).encode()
    except ValueError:  # a number of more digits than Python writes
        return (
            json.dumps(table, default=str, skipkeys=True).encode()
            if not _huge(table)
            else b'{"x": ' + b"9" * 5000 + b"}"
        )


def _huge(table: Any) -> bool:
    values = table.values() if isinstance(table, dict) else table if isinstance(table, list) else ()
    return (isinstance(table, int) and abs(table) > 2**1000) or any(map(_huge, values))


def table_edit(members: Members, name: str, place: int, value: int, how: str) -> None:
    """Another number, type, shape, length or header of a table in numpy's format."""
    table = np.load(io.BytesIO(members[name])).copy()
    if how == "entry" and table.size:
        flat = table.reshape(-1)
        with np.errstate(all="ignore"):
            if flat.dtype.names:
                field = flat.dtype.names[place % len(flat.dtype.names)]
                flat[field][place % len(flat)] = np.array(value).astype(flat.dtype[field])
            else:
                flat[place % len(flat)] = np.array(value).astype(flat.dtype)
    elif how == "not a number" and table.size:
        flat = table.reshape(-1)
        fields = [field for field in flat.dtype.names or () if flat.dtype[field].kind == "f"]
        if fields or flat.dtype.kind == "f":
            (flat[fields[place % len(fields)]] if fields else flat)[place % len(flat)] = [np.nan, np.inf, -1e300][
                value % 3
            ]
    elif how == "exchange" and len(table) > 1:
        i, j = place % len(table), value % len(table)
        table[[i, j]] = table[[j, i]]
    elif how == "shorter":
        table = table[: place % (len(table) + 1)]
    elif how == "longer" and len(table):
        table = np.concatenate([table, table[: 1 + place % len(table)]])
    elif how == "type" and not table.dtype.names:
        table = table.astype(["<f8", "<i8", "<u1", ">i4", "?", "<U3"][place % 6])
    elif how == "shape":
        table = table.reshape([(1, *table.shape), (*table.shape, 1), (-1,)][place % 3])
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    content = buffer.getvalue()
    if how == "header":
        content = content.replace(b"False", [b"True ", b"0    ", b"((((("][place % 3], 1)
    elif how == "size":
        content = content.replace(b"'shape': (", b"'shape': (%d, " % abs(value), 1)[: len(content)]
    members[name] = content


def model_edit(members: Members, name: str, number: int, seed: int) -> None:
    """A mutation of a model's messages, or of its bytes."""
    random = np.random.default_rng(seed)
    try:
        if number % 8 == 7:
            members[name] = OF_BYTES[number % len(OF_BYTES)](members[name], random)
            return
        model = onnx.ModelProto.FromString(members[name])
        OF_MODELS[number % len(OF_MODELS)](model, random)
        members[name] = model.SerializeToString()
    except Exception:  # edits before it left nothing that it can change
        return


def function_edit(members: Members, place: int, seed: int) -> None:
    """A mutation of the body of a function of the host graph, or of its node order or interface."""
    model = onnx.ModelProto.FromString(members["host.onnx"])
    if not model.functions:
        return
    function, random = model.functions[place % len(model.functions)], np.random.default_rng(seed)
    inner = onnx.ModelProto(ir_version=8)
    inner.graph.node.extend(function.node)
    try:
        OF_MODELS[seed % len(OF_MODELS)](inner, random)
    except Exception:  # the mutation is of what a function does not have
        return
    del function.node[:]
    function.node.extend(inner.graph.node)
    if seed % 5 == 0:
        function.node.add(op_type=function.name, domain=function.domain, input=function.input, output=["again"])
    members["host.onnx"] = model.SerializeToString()


def external_edit(members: Members, name: str, place: int, where: int) -> None:
    """A tensor that points out of the archive: an initializer, or one in a node's attribute."""
    model = onnx.ModelProto.FromString(members[name])
    location = ["secret", "../secret", "/etc/passwd", "tensors/" + "0" * 64, "manifest.json"][where % 5]
    if place % 2 and model.graph.initializer:
        tensor = model.graph.initializer[place % len(model.graph.initializer)]
    else:
        node = model.graph.node.add(op_type="Constant", output=["stray"])
        node.attribute.append(helper.make_attribute("value", TensorProto(name="t", data_type=1, dims=[4])))
        tensor = node.attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=location)
    if where % 2:
        tensor.external_data.add(key="offset", value="-1")
    members[name] = model.SerializeToString()


def tensor_edit(members: Members, which: int, place: int, value: int) -> None:
    """Other bytes in a tensor, under a name that fits them wherever it is named; or fewer, or none."""
    names = [name for name in members if name.startswith("tensors/")]
    if not names:
        return
    name = names[which % len(names)]
    content = bytearray(members.pop(name))
    if value % 7 == 0:
        del content[place % (len(content) + 1) :]
    elif len(content):
        content[place % len(content)] = value % 256
    new = "tensors/" + hashlib.sha256(content).hexdigest()
    for other in ("manifest.json", "host.onnx", "source.onnx"):
        if other in members:
            members[other] = members[other].replace(name.encode(), new.encode())
    members[new] = bytes(content)


def member_edit(members: Members, which: int, how: str) -> None:
    """A member that is not there, has another's content, none, or another name."""
    names = sorted(members)
    name, other = names[which % len(names)], names[(which // 7) % len(names)]
    if how == "missing":
        del members[name]
    elif how == "other":
        members[name] = members[other]
    elif how == "empty":
        members[name] = b""
    elif how == "name":
        members[["../x", "x/", "", "schedule/none.npy", "é.json", name.upper()][which % 6]] = members.pop(name)
    elif how == "deep":
        members[name] = b'{"a":' * 100_000


def archive(members: Members, how: str, place: int) -> bytes:
    """The members as an archive with a right digest, and something wrong in its structure."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED) as file:
        file.comment = b" " * 81
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, file.compression)
        if how == "twice" and members:
            name = sorted(members)[place % len(members)]
            file.filelist.append(file.getinfo(name))
        elif how == "bomb":
            file.writestr(zipfile.ZipInfo("tensors/" + "0" * 64), bytes(2**22), zipfile.ZIP_DEFLATED)
    data = bytearray(buffer.getvalue())
    directory = data.rfind(b"PK\x01\x02") if how == "last entry" else data.find(b"PK\x01\x02")
    if how in ("entry", "last entry"):
        struct.pack_into(
            "<I", data, min(directory + 10 + 4 * (place % 9), len(data) - 90), [0, 1, 2**31, 2**32 - 1][place % 4]
        )
    elif how == "byte":
        data[4 + place % (len(data) - 90)] ^= 1 << (place % 8)
    elif how == "cut":
        del data[4 + place % (len(data) - 90) : -81]
    return sealed(bytes(data))


ARCHIVES = ("right",) * 40 + ("compressed", "twice", "bomb", "entry", "last entry", "byte", "cut")
NUMBERS = st.integers(0, 2**31 - 1)
ENTRIES = st.one_of(st.integers(-3, 40), st.sampled_from([-(2**31), 2**31 - 1, 255, 256, 65535]))
_HOW_JSON = st.sampled_from(
    ["alike"] * 6 + ["more", "less", "more", "less", "replace", "replace", "remove", "add", "double"]
)
_HOW_TABLE = st.sampled_from(
    ["entry"] * 6 + ["not a number", "exchange", "shorter", "longer", "type", "shape", "header", "size"]
)
EDITS: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {
    "json": (json_edit, (st.lists(NUMBERS, min_size=1, max_size=6), st.sampled_from(VALUES), _HOW_JSON)),
    "table": (table_edit, (NUMBERS, ENTRIES, _HOW_TABLE)),
    "model": (model_edit, (NUMBERS, NUMBERS)),
    "external": (external_edit, (NUMBERS, NUMBERS)),
    "function": (function_edit, (NUMBERS, NUMBERS)),
    "tensor": (tensor_edit, (NUMBERS, NUMBERS, NUMBERS)),
    "member": (member_edit, (NUMBERS, st.sampled_from(["missing", "other", "empty", "name", "deep"]))),
}
# Which members an edit is of, by how their names end; the others find theirs.
OF = {"json": ".json", "table": ".npy", "model": ".onnx", "external": ".onnx"}


def edits(kinds: tuple[str, ...]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Some edits, each its kind, a number that chooses the member, and what it takes."""
    one = st.one_of([st.tuples(st.just(kind), NUMBERS, *EDITS[kind][1]) for kind in kinds])
    return st.lists(one, min_size=1, max_size=3)


def edited(members: Members, wanted: list[tuple[Any, ...]]) -> Members:
    """The members with the edits, one after another; those that no longer find what they change do nothing."""
    members = dict(members)
    for kind, which, *arguments in wanted:
        change = EDITS[kind][0]
        names = sorted(name for name in members if name.endswith(OF.get(kind, "")))
        if not names:
            continue
        try:
            change(members, *([names[which % len(names)]] if kind in OF else []), *arguments)
        except (
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            SyntaxError,
            TokenError,
            DecodeError,
            MemoryError,
            RecursionError,
        ):
            continue  # an edit before it left nothing that this one can read
    return members
