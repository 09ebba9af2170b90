"""Manifests, targets and tables that someone wrote: loading ends in one line of error or in a program that can be run.

`tests.fuzz.boundaries.program` draws further ones at random.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.fuzz.boundaries.program import members, program
from tests.fuzz.program_edits import Members
from tests.support.forged_programs import changed, manifest_of, refused, with_manifest, written
from xbcompile.errors import ProgramError
from xbcompile.ir import InputCode
from xbcompile.report.summary import summarize
from xbcompile.runtime import Session

# The manifest


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("base", ["convolution", "sequence"])
def test_every_place_of_the_manifest_with_other_values(base: str, tmp_path: Path) -> None:
    """Each takes one type at most of these, and a program that still loads can be described."""
    path, taken = tmp_path / "p.xbar", 0
    for place in places(manifest_of(base)):
        for value in (None, -(2**70), "€"):
            try:
                loaded = xbcompile.load_program(written(path, changed(base, *place, value=value)))
            except ProgramError:
                continue
            taken += 1
            summarize(loaded)
    assert taken > 10  # texts for people, and what may be left open


def test_every_key_is_needed_and_no_other_is_known(tmp_path: Path) -> None:
    for place in places(manifest_of("convolution")):
        if not isinstance(place[-1], str) or place[0] in ("options", "format_version"):
            continue
        table = manifest_of("convolution")
        holder: Any = table
        for key in place[:-1]:
            holder = holder[key]
        value = holder.pop(place[-1])
        assert "malformed" in refused(written(tmp_path / "p.xbar", with_manifest("convolution", table))), place
        holder[place[-1]] = value
        holder[place[-1] + "_"] = value
        assert "unknown field" in refused(written(tmp_path / "p.xbar", with_manifest("convolution", table))), place


JSON = {
    "deep": (b'{"a":' * 100_000, "nested too deeply"),
    "deep list": (b'{"options": ' + b"[" * 100_000, "nested too deeply"),
    "no object": (b"[1, 2]", "holds no object but list"),
    "not UTF-8": (b'{"format_version": "\xff"}', "is no JSON"),
    "half a pair": (b'{"format_version": 6, "cuts": "\\ud800"}', "malformed"),
    "long number": (b'{"format_version": ' + b"9" * 5000 + b"}", "is no JSON"),
    "NaN": (b'{"format_version": NaN}', "format version nan"),
    "true": (b'{"format_version": true}', "format version True"),
}


@pytest.mark.parametrize("case", JSON)
def test_json(case: str, tmp_path: Path) -> None:
    content, text = JSON[case]
    assert text in refused(written(tmp_path / "p.xbar", {**members("dense"), "manifest.json": content}))
    if "format" not in text:
        refused(written(tmp_path / "p.xbar", {**members("dense"), "target.json": content}))


CODE = {"scheme": "bitserial", "bits": 4, "low": None, "high": None, "span": None}
MANIFESTS: dict[str, tuple[str, tuple[Any, ...], Any, str]] = {
    "no input code": ("dense", ("nodes", 0, "input_code"), None, "uncoded inputs, and the target's rows take bipolar"),
    "analogue": ("dense", ("nodes", 0, "input_code"), {**CODE, "scheme": "analogue", "bits": 1}, "rows take bipolar"),
    "bits": ("dense", ("nodes", 0, "input_code"), {**CODE, "bits": 2**31}, "input_code.bits: Expected `int` <= 255"),
    "bits in series": ("dense", ("nodes", 0, "input_code"), {**CODE, "bits": 17}, "allowed: 1 to 16"),
    "scheme": (
        "dense",
        ("nodes", 0, "input_code"),
        {**CODE, "scheme": "none"},
        "regex .*analogue|thermometer|bitserial",
    ),
    "half a range": ("dense", ("nodes", 0, "input_code"), {**CODE, "low": 0.0}, "give both, or neither"),
    "no range": ("dense", ("nodes", 0, "input_code"), {**CODE, "low": 0.0, "high": 1e-60}, "are no range of float32"),
    "span": ("dense", ("nodes", 0, "input_code"), {**CODE, "span": -1.0}, "span = -1.0"),
    "not finite": ("dense", ("schedule", "setup_s"), float("inf"), "schedule.setup_s"),
    "not a number": ("dense", ("schedule", "period_s"), float("nan"), "schedule.period_s"),
    "pipeline": ("dense", ("pipeline",), True, "manifest.json.pipeline: Expected `str`, got `bool`"),
    "options": ("dense", ("options",), 0, "manifest.json.options: Expected `object`, got `int`"),
    "objective": ("dense", ("schedule", "objective"), "beauty", "'beauty' is unknown"),
    "floorplan": ("dense", ("schedule", "floorplan"), "9x", "floorplan '9x'"),
    "sites": ("convolution", ("schedule", "floorplan"), "1x1", "not one of 1 sites"),
    "rows": ("dense", ("schedule", "rows"), 65, "the target's are 64x64"),
    "arrays": ("dense", ("schedule", "arrays"), 2**31 - 1, "initial images: table has shape"),
    "shape": ("dense", ("nodes", 0, "shape"), [1, 2**40, 2**40], "malformed"),
    "negative shape": ("dense", ("nodes", 0, "shape"), [1, -6, 5], "shape[1]: Expected `int` >= 1"),
    "matrix": ("dense", ("nodes", 2, "matrix"), "w0", "has tiles of its own, but its matrix is that of 'fc0'"),
    "element type": ("dense", ("nodes", 0, "element_type"), 7, "element_type: Invalid enum value 7"),
    "axis": ("dense", ("nodes", 0, "geometry", "input_axis"), 5, "input_axis"),
    "sample axis": ("dense", ("nodes", 0, "sample_axis"), 64, "sample_axis: Expected `int` <= 63"),
    "dilations": ("convolution", ("nodes", 0, "geometry", "dilations"), [2**31, 1], "input values at a time"),
    "pads": ("convolution", ("nodes", 0, "geometry", "pads"), [2**31] * 4, "input values at a time"),
    "strides": ("convolution", ("nodes", 0, "geometry", "strides"), [1], "do not fit a kernel of 2 axes"),
    "kernel": ("convolution", ("nodes", 0, "geometry", "kernel"), [2, 2], "does not fit its 9 inputs"),
    "input": ("dense", ("nodes", 0, "input"), "y", "is not the host graph's node"),
    "layer": ("dense", ("nodes", 0, "layer"), "other", "is not the host graph's node"),
    "first": ("dense", ("nodes", 1, "first"), 0, "its place is 1"),
    "count": ("dense", ("nodes", 1, "count"), 2, "malformed"),
    "beyond": ("dense", ("nodes", 1, "count"), 2**62, "fewer than the manifest's"),
    "nothing": ("dense", ("nodes",), [], "layer indices outside 0..-1"),
    "fewer": ("sequence", ("nodes", 3, "nodes"), [], "more than the manifest's 0|layer indices"),
    "untyped": ("dense", ("nodes", 1, "inputs"), ["nothing"], "has no type of its tensor 'nothing'"),
    "constant": ("dense", ("nodes", 1, "constants"), ["nothing"], "has no initializer 'nothing'"),
    "order": ("sequence", ("nodes", 3, "position"), 2, "or has another place"),
    "wiring": ("sequence", ("nodes", 3, "states"), [], "are not those of the host graph"),
    "steps": ("sequence", ("nodes", 3, "steps"), 2**40, "allowed: 2,097,152"),
    "many steps": ("sequence", ("nodes", 3, "steps"), 100_000, "recurrence of 100000 steps"),
    "vectors of a step": ("sequence", ("nodes", 3, "nodes", 1, "vectors_per_inference"), 2, "multiples of that"),
    "samples": ("dense", ("samples", "inputs"), [["z", 0]], "axes of samples are those of z"),
    "axis of samples": ("dense", ("samples", "inputs"), [["x", 2]], "'x' has no axis 2 of samples"),
    "fixed axis of samples": ("dense", ("samples", "inputs"), [["x", 1]], "input 'x' takes 6 samples"),
    "samples of a call": ("dense", ("samples", "call"), 2**62, "samples.call: Expected `int` <= 268435456"),
    "ranks": ("dense", ("samples", "ranks"), [["z", 2]], "it names others"),
    "calibration": ("dense", ("calibration",), ["z"], "the inputs are x"),
    "member": ("dense", ("tensors", 0, "bias", "member"), "manifest.json", "tensors/"),
    "no bias": ("dense", ("tensors", 0, "bias", "shape"), [0], "holds"),
    "fewer tensors": ("dense", ("tensors",), [], "has none"),
    "unknown option": ("dense", ("options", "speed"), 1, "are missing or unknown"),
    "option": ("dense", ("options", "arrays"), -1, "arrays=-1"),
    "ir version": ("dense", ("ir_version",), -1, "ir_version: Expected `int` >= 0"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(case: str, tmp_path: Path) -> None:
    base, place, value, text = MANIFESTS[case]
    found = refused(written(tmp_path / "p.xbar", changed(base, *place, value=value)))
    assert re.search(text if "|" in text else re.escape(text), found)


def test_a_tensor_of_another_role_is_refused(tmp_path: Path) -> None:
    table = manifest_of("dense")
    table["tensors"][0]["codes"] = table["tensors"][0]["scale"]
    assert "its layer wants uint8" in refused(written(tmp_path / "p.xbar", with_manifest("dense", table)))
    table = manifest_of("dense")
    del table["tensors"][0]["scale"]
    assert "tensors[0].scale is missing" in refused(written(tmp_path / "p.xbar", with_manifest("dense", table)))


def test_codes_beyond_the_levels_are_refused(tmp_path: Path) -> None:
    """Two bits hold four numbers, and `sot` has three levels."""
    table, content = manifest_of("large"), dict(members("large"))
    described = table["tensors"][0]["codes"]
    data = b"\xff" * len(content.pop(described["member"]))
    described["member"] = "tensors/" + hashlib.sha256(data).hexdigest()
    content |= {"manifest.json": json.dumps(table).encode(), described["member"]: data}
    assert "codes beyond the target's 3 levels" in refused(written(tmp_path / "p.xbar", content))


def test_input_codes_check_themselves() -> None:
    for scheme, most in (("analogue", 1), ("thermometer", 255), ("bitserial", 16)):
        InputCode(scheme, most)
        for bits in (0, most + 1, -1, 2**31, True, 2.0):
            with pytest.raises(ValueError, match=f"allowed: 1 to {most}"):
                InputCode(scheme, bits)


def test_no_kernel_is_handed_inputs_that_are_not_coded() -> None:
    """A program made in Python, too: the emulator of binary arrays looks numbers of matches up in tables."""
    right = program("dense")
    uncoded = [replace(layer, input_code=None) for layer in right.network.layers]
    wrong = replace(right, network=right.network.with_layers(uncoded))
    for device in ("mram64", "emulator", "physics"):
        with pytest.raises(ProgramError, match="not coded as drives, and rows of the target take bipolar drives"):
            Session(wrong, device)
    Session(wrong, "ideal")


# Tables


def table(content: Members, name: str) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(content[f"schedule/{name}.npy"])).copy()
    return found


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("base", ["convolution", "sequence"])
@pytest.mark.parametrize("name", ["tiles", "copies", "column_permutation", "steps", "initial", "site"])
def test_every_field_of_every_table_out_of_range(base: str, name: str, tmp_path: Path) -> None:
    content = members(base)
    array = table(content, name)
    for field in array.dtype.names or (None,):
        kind = array.dtype[field] if field else array.dtype
        values = [np.nan, np.inf] if kind.kind == "f" else [np.iinfo(kind).max, np.iinfo(kind).min or 200]
        for value in values if array.size else ():
            other = array.copy()
            (other[field] if field else other).reshape(-1)[0] = value
            path = written(tmp_path / "p.xbar", {**content, f"schedule/{name}.npy": npy(other)})
            if (field, value) == (None, -(2**31)) and name == "initial":  # any negative image stands for none
                continue
            assert "malformed" in refused(path), (field, value)
    one = array[array.dtype.names[0]] if array.dtype.names else array.astype("<f8")
    for other in (array[:-1], array[None], one) if array.size else ():
        refused(written(tmp_path / "p.xbar", {**content, f"schedule/{name}.npy": npy(other)}))


def headers() -> Iterator[bytes]:
    plain = npy(np.arange(6, dtype="<i4"))
    yield plain.replace(b"(6,)", b"(9,)")
    yield plain.replace(b"(6,), }", b"(-6,), }")
    yield plain.replace(b"(6,), }   ", b"(6000000000000000000,), }")
    yield plain.replace(b"<i4", b"|O8")
    yield plain.replace(b"<i4", b">i4")
    yield plain.replace(b"<i4", b"<i3")
    yield plain.replace(b"'<i4'", b"'V\\n'")
    yield plain.replace(b"\x01\x00", b"\x02\x00", 1)
    yield plain.replace(b"\x01\x00", b"\x09\x00", 1)
    yield plain.replace(b"{'descr'", b"(((((((")
    yield plain.replace(b"False", b"True ")
    yield plain[:9]
    yield plain[:70]
    yield plain + b"\0"
    yield npy(np.array(["a", "b"]))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    yield buffer.getvalue()


def test_headers_of_tables(tmp_path: Path) -> None:
    for content in headers():
        for name in ("schedule/initial.npy", "calibration/0.npy"):
            text = refused(written(tmp_path / "p.xbar", {**members("fitted"), name: content}))
            assert name in text or "calibration input" in text


def test_calibration_inputs_fit_the_model(tmp_path: Path) -> None:
    for array, text in (
        (np.ones((8, 23), np.float32), "has shape [8, 23]"),
        (np.ones((8, 24)), "has elements float64"),
        (np.ones((0, 24), np.float32), "there are no samples"),
        (np.ones(24, np.float32), "has shape [24]"),
    ):
        path = written(tmp_path / "p.xbar", {**members("fitted"), "calibration/0.npy": npy(array)})
        assert text in refused(path)
