"""Data from strangers: files of data sets, of arrays, and what Python callers hand over as data.

Files are made of right ones: fields of headers, sizes and members are changed and sealed again with right checksums, then bytes
here and there. What is accepted must be what numpy reads of it; values that hold the same numbers must give the same outputs.
"""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

import xbcompile
from tests.support.array_files import idx_of, npy, npy_header, npy_of, npz
from tests.support.device_kit import Gives
from tests.support.handed_over import SAME, WHOLE, WRONG
from tests.support.model_kit import model_of
from xbcompile.data.datasets import ENVIRONMENT_VARIABLE, load_data
from xbcompile.errors import XbcompileError
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.accuracy import Classifier, software_accuracy

SAMPLES, VALUES = 4, 6
CODED = "quantize{scheme=levels},analogue{low=0 high=1}"
CALIBRATED = "quantize{scheme=levels},analogue"
X = np.random.default_rng(0).integers(0, 4, (SAMPLES, VALUES)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])

# --- files

_sizes = st.one_of(
    st.integers(0, 9), st.sampled_from([-1, 2**31, 2**32, 2**62, 2**63, 2**64, 10**20, True, 4.0, None, "4"])
)
_shapes = st.one_of(
    st.sampled_from([(4, 6), (4, 2, 3), (4,), (), (2**62, 0), (0, 6), (4, 6, 2**61), 24, [4, 6], None, (1,) * 70]),
    st.lists(_sizes, max_size=4).map(tuple),
)
_types = st.one_of(
    st.sampled_from(
        [
            "<f4",
            "<f8",
            "|u1",
            ">f4",
            ">f8",
            "<f2",
            "<i8",
            "|b1",
            "<c8",
            "|O",
            "<U3",
            "|S2",
            "|V4",
            "<m8[s]",
            "<U0",
            "f4,f4",
        ]
    ),
    st.sampled_from(
        [[("a", "<f4")], [("a", "|O")], "(2,3)f4", "f4" * 9, "<f99", "", 4, None, ("<f4", (2,)), "{'x': 1}"]
    ),
    st.text(max_size=4),
)
_headers = st.one_of(
    st.builds(npy_header, _types, _shapes, st.one_of(st.booleans(), st.sampled_from([0, None, "C"]))),
    st.builds(npy_header, st.just("<f4"), st.just((4, 6)), st.booleans()),
    st.sampled_from(
        [
            "", "{", "[" * 5000, "-" * 9000 + "1", "{[]: 1}", "{1: 1, 'a': 2}", "()", "None", "0" * 9999, "9" * 6000, "lambda: 0",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 6L)}", "{'descr': '<f4', 'shape': (4, 6)}", "x" * 20_000,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6), 'more': 1}", "(" * 150 + ")" * 150, "\x00", "\ud800",
        ]
    ),
)  # fmt: skip
_bodies = st.one_of(st.just(X.tobytes()), st.just(X.astype("f8").tobytes()), st.binary(max_size=200))
_arrays = st.one_of(
    st.sampled_from([X, X.astype("f8"), X.astype(">f4"), np.asfortranarray(X), X.astype("u1"), X.astype("O"), X[0], LABELS]),
    st.sampled_from([X.astype(complex), X.astype(str), X * np.nan, X[:0], X[:, :0], np.float32(1), X.view([("a", "f4")]), X[:2]]),
)  # fmt: skip
_right = st.sampled_from(
    [X, X.astype("f8"), X.astype(">f4"), np.asfortranarray(X), X.astype("u1"), X[:2], X.reshape(4, 2, 3)]
)
_npy = st.one_of(
    _right.map(npy_of),
    st.builds(
        npy, _headers, _bodies, st.sampled_from([1, 1, 1, 2, 3, 0, 4, 255]), st.sampled_from([None] * 6 + [0, 10, 2**31 - 1])
    ),
    _arrays.map(npy_of),
)  # fmt: skip
_labels = st.sampled_from(
    [LABELS, LABELS.astype(float), LABELS * np.nan, -LABELS, LABELS[:3], np.eye(4, dtype=int), LABELS.astype(np.uint64) + 2**63]
).map(npy_of)  # fmt: skip
_names = st.one_of(
    st.sampled_from(
        ["x.npy", "x.npy", "x", "y.npy", "../x.npy", "/x.npy", "x/", "", "x.npy.npy", "\n", "é", "a" * 300]
    ),
    st.text(max_size=5),
)
_members = st.lists(st.tuples(_names, st.one_of(_npy, st.binary(max_size=40))), max_size=3)
_npz = st.builds(
    lambda members, labels, compression: npz([*members, *([("labels.npy", labels)] if labels else [])], compression),
    st.one_of(
        _members, _npy.map(lambda content: [("x.npy", content)]), _right.map(lambda array: [("x.npy", npy_of(array))])
    ),
    st.one_of(st.none(), st.just(npy_of(LABELS)), _labels),
    st.sampled_from(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    ),
)


@st.composite
def _damaged(draw: Callable[..., Any], contents: st.SearchStrategy[bytes]) -> bytes:
    """Some bytes changed, taken out or put in: often those of sizes, at the start and the end."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 3]))):
        if not content:
            break
        place = draw(st.one_of(st.integers(0, len(content) - 1), st.integers(0, min(200, len(content) - 1))))
        place = draw(st.sampled_from([place, len(content) - 1 - place]))
        how = draw(st.sampled_from(["flip", "set", "set", "cut", "insert", "end"]))
        if how == "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            content[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\x80", b"\x01"])
            )
        elif how == "cut":
            del content[place : place + draw(st.integers(1, 50))]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        else:
            del content[place:]
    return bytes(content)


_pixels = np.random.default_rng(1).integers(0, 256, (3, 28, 28)).astype(np.uint8)
_idx_sizes = st.lists(st.sampled_from([0, 1, 3, 28, 784, 2**16, 2**31, 2**32 - 1]), max_size=5)
_idx = st.one_of(
    st.just(idx_of((3, 28, 28), _pixels.tobytes())),
    st.just(idx_of((3,), b"\x07\x02\x01")),
    st.builds(
        idx_of, _idx_sizes, st.sampled_from([b"", b"\x01", _pixels.tobytes()]), st.sampled_from([8, 8, 9, 13, 0]),
        st.sampled_from([None, None, 0, 3, 70, 255]),
    ),
)  # fmt: skip
_gz = st.one_of(
    _damaged(_idx).map(gzip.compress),
    _damaged(_idx.map(gzip.compress)),
    st.sampled_from([b"", b"<html>", gzip.compress(b""), gzip.compress(b"") * 1000]),
)
_words = [
    "mnist",
    "letters",
    "scenes",
    "train",
    "test",
    "0",
    "-1",
    "1",
    "2",
    "9" * 20,
    "9" * 5000,
    "nonsense",
    "",
    "\n",
]
_specs = st.one_of(
    st.lists(st.sampled_from(_words), max_size=4).map(":".join),
    st.sampled_from(["a.npy", "\0.npy", "\0.npz", "\ud800.npz", "x" * 300 + ".npz", "x" * 5000 + ".npy", "folder.npz",
                     "folder.npy", "loop.npz", "loop.npy", "pipe.npy", "pipe.npz", "zero.npy", "zero.npz",
                     "line\nbreak.npz", "none/x.npy"]),
    st.text(max_size=12),
)  # fmt: skip

# --- values

_entries = ("calibration", "run", "run_samples", "InferenceSession", "software_accuracy", "labels", "diagnose", "bench")
_AS_THEY_ARE = {
    "array",
    "big-endian",
    "Fortran",
    "strided",
    "reversed",
    "unaligned",
    "read-only",
    "list",
    "tensor",
    "packed",
}
_values = st.one_of(st.sampled_from(sorted(SAME)), st.sampled_from(sorted(WHOLE)), st.sampled_from(sorted(WRONG)))
_feeds = st.sampled_from(
    ["by name"] * 8 + ["alone", "alone", "other name", "one more", "none", "number as name", "list"]
)

examples = st.one_of(
    st.tuples(st.just("npy"), _damaged(_npy)),
    st.tuples(st.just("npz"), _damaged(_npz)),
    st.tuples(st.just("idx"), st.tuples(_gz, _gz)),
    st.tuples(st.just("spec"), _specs),
    st.tuples(
        st.just("value"),
        st.tuples(st.sampled_from(_entries), _values, _feeds, st.sampled_from(["dense", "loose", "two"])),
    ),
)


def attempt(example: Any, folder: Path) -> None:
    """Give a file, the name of data, or a value to what takes it."""
    kind, given = example
    if kind in ("npy", "npz"):
        path = folder / f"x.{kind}"
        path.write_bytes(given)
        _of_file(path)
    elif kind == "idx":
        (folder / "mnist").mkdir()
        for content, name in zip(given, ("images-idx3", "labels-idx1"), strict=True):
            (folder / "mnist" / f"t10k-{name}-ubyte.gz").write_bytes(content)
        _of_folder(folder, "mnist:test", FLAT)
    elif kind == "spec":
        _prepare(folder)
        here = Path.cwd()
        os.chdir(folder)
        try:
            _of_folder(folder, given, FLAT)
        finally:
            os.chdir(here)
    else:
        _hand_over(*given)


FLAT = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 784]),)
SIX = (helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", VALUES]),)


def _of_file(path: Path) -> None:
    data = load_data(str(path), SIX)
    found = np.asarray(data.inputs["x"])
    try:
        loaded = np.load(path, allow_pickle=False)
    except ValueError:  # numpy takes no carriage return behind a header, say: nothing to compare with
        return
    if path.suffix == ".npz":
        loaded = loaded[next(name for name in loaded.files if name != "labels")]
    if found.size < 10**6 and not np.array_equal(found, loaded.reshape(found.shape).astype(np.float32)):
        raise AssertionError(f"{found} is not {loaded}")
    Session(_program("dense")).run_samples(data.inputs)


def _of_folder(folder: Path, spec: str, inputs: Any) -> None:
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = str(folder)
    try:
        load_data(spec, inputs)
    finally:
        if before is None:
            del os.environ[ENVIRONMENT_VARIABLE]
        else:
            os.environ[ENVIRONMENT_VARIABLE] = before


def _prepare(folder: Path) -> None:
    for suffix in ("npy", "npz"):
        (folder / f"folder.{suffix}").mkdir()
        (folder / f"loop.{suffix}").symlink_to(f"loop.{suffix}")
        (folder / f"zero.{suffix}").symlink_to("/dev/zero")
        os.mkfifo(folder / f"pipe.{suffix}")


def _model(kind: str) -> onnx.ModelProto:
    """6 values to 3 outputs: of one input, of one whose shape the model does not say, or of two."""
    nodes = [
        helper.make_node(
            "MatMul" if kind == "loose" else "Gemm", ["s" if kind == "two" else "x", "w"], ["y"], name="fc"
        )
    ]
    if kind == "two":
        nodes.insert(0, helper.make_node("Add", ["x", "z"], ["s"]))
    inputs = {name: None if kind == "loose" else ["n", VALUES] for name in ("xz" if kind == "two" else "x")}
    return model_of(nodes, inputs, ["y"], {"w": np.random.default_rng(2).normal(size=(VALUES, 3))})


@cache
def _program(kind: str, target: str = "ideal") -> Program:
    return xbcompile.compile(_model(kind), target, passes=None if target == "ideal" else CODED, effort=0)


def _hand_over(entry: str, name: str, feeds: str, kind: str) -> None:
    make = {**SAME, **WHOLE, **WRONG}[name]
    value, rest = make(X), {"z": np.zeros_like(X)} if kind == "two" else {}
    given: Any = {
        "by name": {"x": value, **rest},
        "alone": value,
        "other name": {"q": value},
        "one more": {"x": value, "q": X},
        "none": {},
        "number as name": {1: value},
        "list": [value],
    }[feeds]
    try:
        found = _outputs(entry, kind, given, make)
    except XbcompileError:
        typed = entry == "InferenceSession" and name not in _AS_THEY_ARE
        alone = entry == "diagnose" and kind == "loose"  # a model without a batch has one sample
        if name in SAME and feeds == "by name" and entry not in ("labels", "bench") and not typed and not alone:
            raise AssertionError(f"{entry} refuses {name}") from None
        raise
    same = name in (*SAME, *WHOLE) and feeds in ("by name", "alone")
    if same and not np.array_equal(found, _outputs(entry, kind, {"x": X, **rest}, np.asarray)):
        raise AssertionError(f"{entry} gives something else of {name}")


def _outputs(entry: str, kind: str, given: Any, make: Callable[[np.ndarray], Any]) -> Any:
    """What comes of data in one place where they are taken."""
    if entry == "calibration":
        program: Program = xbcompile.compile(_model(kind), "m2tj4", calibration=given, passes=CALIBRATED, effort=0)
        return Session(program).run_samples({value.name: X for value in program.network.inputs})["y"]
    program = _program(kind)
    if entry == "run":
        return Session(program).run(given)["y"]
    if entry == "run_samples":
        return Session(program).run_samples(given)["y"]
    if entry == "InferenceSession":
        return xbcompile.InferenceSession(program).run(None, given)[0]
    if entry == "software_accuracy":
        return software_accuracy(program, given, LABELS)
    if entry == "diagnose":
        return [row.relative_error or 0.0 for row in xbcompile.diagnose(program, given).end_to_end]
    if entry == "bench":
        reading = make(np.arange(4, dtype=np.float32) % 4)
        return Session(_program("dense", "m2tj4"), Gives(reading)).run({"x": X / 3})["y"]
    return Classifier.of(program.network).accuracy(X[:, :3], make(LABELS))
