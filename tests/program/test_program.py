"""The program file: what it holds comes back, it depends on nothing but content, and damage never goes unseen."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.model_kit import MODELS, run_onnxruntime
from tests.support.small_programs import convolution_model, convolution_program, dense_model, images
from xbcompile.errors import ProgramError
from xbcompile.ir import WeightCode
from xbcompile.program.archive import TENSORS, sealed
from xbcompile.program.network_file import pack_codes, unpack_codes
from xbcompile.program.program import FORMAT_VERSION, Program, load_program
from xbcompile.reference.evaluate import evaluate_model
from xbcompile.runtime import Session
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.verification.verify import verify

PASSES = {"m2tj4": "quantize,analogue{low=-1 high=2}", "mram64": "quantize{scheme=binary},thermometer", "ideal": ""}


def resealed(data: bytes, changes: dict[str, bytes | None]) -> bytes:
    """A program file with other members (None: without one) and a digest that fits them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        new.comment = old.comment
        for info in old.infolist():
            content = changes.get(info.filename, old.read(info.filename))
            if content is not None:
                new.writestr(zipfile.ZipInfo(info.filename), content)
    return sealed(buffer.getvalue())


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "p.xbar"
    convolution_program().save(path)
    return path.read_bytes()


@pytest.mark.parametrize("target", sorted(PASSES))
@pytest.mark.parametrize("embed_model", [True, False])
def test_a_program_comes_back_equal(tmp_path: Path, target: str, embed_model: bool) -> None:
    calibration = {"x": images(5, 2, 4, 4)}
    passes = PASSES[target] + ",recalibrate{samples=4}" if PASSES[target] else "recalibrate{samples=4}"
    program = xbcompile.compile(
        convolution_model(), target, passes=passes, calibration=calibration, embed_model=embed_model, arrays=2, batch=3
    )
    assert len(program.calibration["x"]) == 4  # what the passes need, no more
    program.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded == program
    assert (loaded.source is not None) == embed_model
    assert loaded.digest == program.digest
    assert verify(loaded) == []
    loaded.save(tmp_path / "again.xbar")
    assert (tmp_path / "again.xbar").read_bytes() == (tmp_path / "p.xbar").read_bytes()
    feeds = {"x": images(4, 2, 4, 4, seed=9)}
    assert np.array_equal(Session(loaded, seed=1).run(feeds)["y"], Session(program, seed=1).run(feeds)["y"])


def test_an_old_model_comes_back_equal(tmp_path: Path) -> None:
    """IR version 7 knows no functions: the host graph is written with a newer one, the network keeps its own."""
    model = dense_model(6, 5, 3)
    model.ir_version = 7
    program = xbcompile.compile(model, "ideal")
    program.save(tmp_path / "p.xbar")
    assert program.network.ir_version == 7
    assert load_program(tmp_path / "p.xbar") == program


@pytest.mark.parametrize("field", ["network", "schedule", "target", "pipeline", "calibration", "source", "options"])
def test_equality_of_programs_sees_every_field(field: str) -> None:
    program = convolution_program()
    other = convolution_program(passes="quantize{scheme=levels},analogue{low=0 high=2}", arrays=1)
    value = {
        "target": xbcompile.load_target("ideal"),
        "source": None,
        "calibration": {"x": images(1, 2, 4, 4)},
        "options": {},
    }.get(field, getattr(other, field))
    assert replace(program, **{field: value}) != program
    assert replace(program) == program


def test_a_digest_is_the_sha256_of_all_before_the_trailer(saved: bytes) -> None:
    trailer = b"xbcompile sha256:" + hashlib.sha256(saved[: -(17 + 64)]).hexdigest().encode()
    assert saved.endswith(trailer)
    assert convolution_program().digest.encode() == trailer[-64:]


COMPILE = """
import sys
from tests.support.small_programs import CODED, convolution_model
import xbcompile
p = xbcompile.compile(convolution_model(), "m2tj4", passes=CODED, arrays=2, effort=0)
p.save(sys.argv[1])
"""


def test_the_same_inputs_give_the_same_bytes(saved: bytes, tmp_path: Path) -> None:
    """In this process once more, and in others with other hash seeds (set orders differ there)."""
    again = xbcompile.compile(
        convolution_model(), "m2tj4", passes="quantize{scheme=levels},analogue{low=0 high=1}", arrays=2, effort=0
    )
    again.save(tmp_path / "again.xbar")
    assert (tmp_path / "again.xbar").read_bytes() == saved
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        path = tmp_path / f"{seed}.xbar"
        subprocess.run([sys.executable, "-c", COMPILE, str(path)], check=True, env=environment)
        assert path.read_bytes() == saved


def test_another_option_gives_another_digest() -> None:
    digests = {convolution_program(**options).digest for options in ({}, {"seed": 1}, {"batch": 2}, {"arrays": 1})}
    assert len(digests) == 4


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(2, 256), st.lists(st.integers(1, 9), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_packed_codes_come_back(levels: int, shape: list[int], seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, levels, shape, np.uint8)
    ones = np.ones((shape[0], shape[2]), np.float32)
    code = WeightCode(np.arange(levels, dtype=np.float32), codes, ones, ones)
    packed = pack_codes(code)
    bits = next(b for b in (1, 2, 4, 8) if levels <= 2**b)
    assert packed.nbytes == -(-codes.size * bits // 8)
    assert np.array_equal(unpack_codes(packed, tuple(shape), code.levels), codes)


def test_packed_codes_come_back_for_every_number_of_levels() -> None:
    for levels in range(2, 257):
        codes = np.arange(levels, dtype=np.uint8).reshape(1, levels, 1)
        code = WeightCode(np.arange(levels, dtype=np.float32), codes, np.ones((1, 1)), np.ones((1, 1)))
        assert np.array_equal(unpack_codes(pack_codes(code), codes.shape, code.levels), codes)


def test_continuous_cells_are_stored_as_they_are() -> None:
    weights = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    code = WeightCode.continuous(weights)
    assert np.array_equal(unpack_codes(pack_codes(code), weights.shape, None), weights)
    assert np.array_equal(code.dequantized(), weights)


def test_nothing_in_the_file_is_a_pickle(saved: bytes) -> None:
    """Every table has a plain dtype; an object array in its place is refused, not unpickled."""
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        assert archive.testzip() is None
        tables = [name for name in archive.namelist() if name.endswith(".npy")]
        assert len(tables) == 6  # the schedule
        tensors = [name for name in archive.namelist() if name.startswith(TENSORS)]
        assert len(tensors) == 8  # codes, scale, offset and bias of two layers
        for name in tensors:
            assert name == TENSORS + hashlib.sha256(archive.read(name)).hexdigest()
        for name in tables:
            assert not np.load(io.BytesIO(archive.read(name)), allow_pickle=False).dtype.hasobject
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.compress_type == zipfile.ZIP_STORED


def test_a_pickle_in_the_file_is_refused(saved: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    (tmp_path / "p.xbar").write_bytes(resealed(saved, {"schedule/steps.npy": buffer.getvalue()}))
    with pytest.raises(ProgramError, match="allow_pickle=False"):
        load_program(tmp_path / "p.xbar")


def flipped_positions(data: bytes) -> list[int]:
    """All local zip headers' first bytes, the central directory's and the trailer's, and others spread over the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        headers = [info.header_offset + i for info in archive.infolist() for i in (0, 8, 14, 18, 26, 30)]
        directory = archive.start_dir
    ends = [*range(directory, directory + 46, 3), *range(len(data) - 110, len(data), 3)]
    return sorted({*range(12), *headers, *ends, *np.linspace(0, len(data) - 1, 100).astype(int).tolist()})


def test_every_flipped_byte_is_refused(saved: bytes, tmp_path: Path) -> None:
    positions = flipped_positions(saved)
    assert len(positions) >= 200
    path = tmp_path / "p.xbar"
    for position in positions:
        damaged = bytearray(saved)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(
            ProgramError, match=r"is damaged: its digest does not match|is no program file of xbcompile"
        ):
            load_program(path)


@pytest.mark.parametrize("kept", [5, 1000, -1, -81, -100])
def test_a_truncated_file_is_refused(saved: bytes, tmp_path: Path, kept: int) -> None:
    (tmp_path / "p.xbar").write_bytes(saved[:kept])
    with pytest.raises(
        ProgramError,
        match=r"program file .* is damaged: its digest does not match; make it again with: xbcompile compile",
    ):
        load_program(tmp_path / "p.xbar")


def test_a_longer_file_is_refused(saved: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.xbar").write_bytes(saved + b"\n")
    with pytest.raises(ProgramError, match="is damaged"):
        load_program(tmp_path / "p.xbar")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x08\x01 an onnx file", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.xbar").write_bytes(content)
    with pytest.raises(
        ProgramError, match=r"p.xbar' is no program file of xbcompile; make one with: xbcompile compile"
    ):
        load_program(tmp_path / "p.xbar")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"none.xbar' does not exist"):
        load_program(tmp_path / "none.xbar")
    with pytest.raises(ProgramError, match="cannot be read: Is a directory"):
        load_program(tmp_path)


def test_another_format_version_is_refused(saved: bytes, tmp_path: Path) -> None:
    now, other = (f'"format_version": {version}'.encode() for version in (FORMAT_VERSION, FORMAT_VERSION + 1))
    manifest = member(saved, "manifest.json").replace(now, other)
    (tmp_path / "p.xbar").write_bytes(resealed(saved, {"manifest.json": manifest}))
    with pytest.raises(
        ProgramError,
        match=f"has format version {FORMAT_VERSION + 1}; this xbcompile reads {FORMAT_VERSION}: compile it again",
    ):
        load_program(tmp_path / "p.xbar")


def tensor_of(data: bytes, layer: int, name: str) -> str:
    """The member that holds a tensor of a layer."""
    described = json.loads(member(data, "manifest.json"))["tensors"][layer][name]
    return str(described["member"])


def test_changed_codes_are_refused_by_their_own_digest(saved: bytes, tmp_path: Path) -> None:
    """A file whose codes were changed and whose digest was made to fit: the name of the tensor still tells."""
    path, name = tmp_path / "p.xbar", tensor_of(saved, 1, "codes")
    codes = bytearray(member(saved, name))
    codes[3] ^= 4
    path.write_bytes(resealed(saved, {name: bytes(codes)}))
    with pytest.raises(ProgramError, match=f"is damaged: {name} holds other bytes"):
        load_program(path)


def test_codes_changed_together_with_their_name_are_found_by_verification(saved: bytes, tmp_path: Path) -> None:
    """Small parameters are in host.onnx as well, which still tells what was meant."""
    path, name = tmp_path / "p.xbar", tensor_of(saved, 1, "codes")
    codes = bytearray(member(saved, name))
    codes[3] ^= 4
    other = TENSORS + hashlib.sha256(codes).hexdigest()
    manifest = member(saved, "manifest.json").replace(name.encode(), other.encode())
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as old, zipfile.ZipFile(buffer, "w") as new:
        new.comment = old.comment
        for info in old.infolist():
            if info.filename not in (name, "manifest.json"):
                new.writestr(zipfile.ZipInfo(info.filename), old.read(info.filename))
        new.writestr("manifest.json", manifest)
        new.writestr(other, bytes(codes))
    path.write_bytes(b"PK\x03\x04" + sealed(buffer.getvalue())[4:])
    assert verify(load_program(path)) == ["codes: layer 'fc' differs from the host graph's"]


def test_a_changed_host_graph_is_found_by_verification(tmp_path: Path) -> None:
    """Large codes are stored once, for layer and host graph; what the host graph does with them is its own."""
    path = tmp_path / "p.xbar"
    xbcompile.compile(dense_model(70, 60, 50), "m2tj4", passes="quantize,analogue{low=0 high=1}").save(path)
    data = path.read_bytes()
    host = onnx.ModelProto.FromString(member(data, "host.onnx"))
    assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in host.graph.initializer)
    function = next(f for f in host.functions if f.domain == "xbcompile")
    next(node for node in function.node if node.op_type == "Mul").op_type = "Div"  # the scale
    path.write_bytes(resealed(data, {"host.onnx": host.SerializeToString()}))
    (finding,) = verify(load_program(path))
    assert finding.startswith("equivalence: layer")


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["codes", "scale", "offset", "bias"])
def test_a_missing_tensor_is_refused(saved: bytes, tmp_path: Path, layer: int, name: str) -> None:
    (tmp_path / "p.xbar").write_bytes(resealed(saved, {tensor_of(saved, layer, name): None}))
    with pytest.raises(ProgramError, match=r"lacks a part that it must have: .*tensors/"):
        load_program(tmp_path / "p.xbar")


def test_a_tensor_of_another_size_is_refused(saved: bytes, tmp_path: Path) -> None:
    manifest = json.loads(member(saved, "manifest.json"))
    manifest["tensors"][1]["bias"]["shape"] = [4]
    (tmp_path / "p.xbar").write_bytes(resealed(saved, {"manifest.json": json.dumps(manifest).encode()}))
    with pytest.raises(ProgramError, match=r"holds \d+ bytes in tensors/\w+, not \(4,\)"):
        load_program(tmp_path / "p.xbar")


def test_equal_tensors_are_stored_once(tmp_path: Path) -> None:
    """On `ideal` the cells hold the weights themselves: one member for layer, host graph and user's model."""
    model = dense_model(70, 60)
    xbcompile.compile(model, "ideal").save(tmp_path / "p.xbar")
    weights = model.graph.initializer[0].raw_data
    assert len(weights) > 4096
    assert (tmp_path / "p.xbar").read_bytes().count(weights) == 1


def test_the_unpacked_source_is_a_model_with_external_data(tmp_path: Path) -> None:
    model = dense_model(70, 60)
    program = xbcompile.compile(model, "m2tj4", passes="quantize,analogue{low=0 high=1}")
    program.save(tmp_path / "p.xbar")
    with zipfile.ZipFile(tmp_path / "p.xbar") as archive:
        archive.extractall(tmp_path)
    x = images(3, 70)
    name = program.network.inputs[0].name
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(tmp_path / "source.onnx", options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {name: x})[0], run_onnxruntime(model, {name: x})["y"])


def test_a_folder_that_does_not_exist_or_is_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"cannot write into folder .*nowhere': it does not exist or is no folder"):
        convolution_program().save(tmp_path / "nowhere" / "p.xbar")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProgramError, match=r"cannot write into folder .*file': it does not exist or is no folder"):
        convolution_program().save(tmp_path / "file" / "p.xbar")
    (tmp_path / "folder.xbar").mkdir()
    with pytest.raises(ProgramError, match=r"folder.xbar' is a folder; give the name of a file"):
        convolution_program().save(tmp_path / "folder.xbar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.xbar"]  # nothing temporary is left


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbcompile.files.os.access", lambda *_: False)  # a mode would not stop root
    with pytest.raises(ProgramError, match="permission denied"):
        convolution_program().save(tmp_path / "p.xbar")


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", ["os.replace", "xbcompile.program.program.write_archive"])
def test_an_interruption_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, call: str
) -> None:
    path = tmp_path / "p.xbar"
    path.write_bytes(b"old")
    program = convolution_program()

    def fail(file: Any, *_: object) -> None:
        if call != "os.replace":
            file.write(b"half")
        raise failure

    monkeypatch.setattr(call, fail)
    if isinstance(failure, OSError):
        with pytest.raises(ProgramError, match=r"cannot write .*p.xbar': No space left on device"):
            program.save(path)
    else:
        with pytest.raises(KeyboardInterrupt):
            program.save(path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["p.xbar"]
    assert path.read_bytes() == b"old"


def test_a_saved_program_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    convolution_program().save(tmp_path / "p.xbar")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "p.xbar").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_cells_are_the_codes_at_their_places_and_neutral_elsewhere() -> None:
    """Each image once by hand, cell by cell, from the tables' definition."""
    for target, passes in PASSES.items():
        program = xbcompile.compile(convolution_model(), target, passes=passes or None, arrays=2)
        schedule, spec = program.schedule, program.spec
        cells = program.cells(np.arange(schedule.images))
        expected = np.zeros(cells.shape) if spec.levels is None else np.empty(cells.shape)
        if spec.levels is not None:
            expected[:] = spec.neutral_level[None, :, None]
        for tile in schedule.tiles:
            codes = program.network.layers[tile["layer"]].weight_code.codes
            for k in range(tile["k0"], tile["k1"]):
                for m in range(tile["m0"], tile["m1"]):
                    column = schedule.column_permutation[tile["image"], tile["column"] + m - tile["m0"]]
                    expected[tile["image"], tile["row"] + k - tile["k0"], column] = codes[tile["group"], k, m]
        assert np.array_equal(cells, expected)
        some = np.array([schedule.images - 1, 0])
        assert np.array_equal(program.cells(some), cells[some])


def archived_host(program: Program, path: Path) -> onnx.ModelProto:
    program.save(path)
    return load_program(path).host


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_archived_host_graph_runs_in_plain_onnxruntime(path: Path, tmp_path: Path) -> None:
    """On `ideal` weights are continuous: host graph, session and the user's model agree to float rounding."""
    program = xbcompile.compile(path, "ideal")
    size = program.network.inputs[0].type.tensor_type.shape.dim[1].dim_value
    feeds = {"input": images(16, size)}
    host = run_onnxruntime(archived_host(program, tmp_path / "p.xbar"), feeds)
    original = run_onnxruntime(onnx.load(path), feeds)
    session = Session(load_program(tmp_path / "p.xbar")).run(feeds)
    for name, value in original.items():
        largest = np.abs(value).max()
        np.testing.assert_allclose(host[name], value, rtol=0, atol=2e-5 * largest)
        np.testing.assert_allclose(session[name], value, rtol=0, atol=2e-5 * largest)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
@pytest.mark.parametrize("target", ["mram64", "m2tj4"])
def test_coded_layers_of_the_archived_host_graph_equal_the_runtime(path: Path, target: str, tmp_path: Path) -> None:
    """Layer by layer, each on the host graph's own input: a rounding difference before a threshold would else multiply."""
    program = xbcompile.compile(path, target, passes=PASSES[target])
    host = archived_host(program, tmp_path / "p.xbar")
    size = program.network.inputs[0].type.tensor_type.shape.dim[1].dim_value
    names = list(dict.fromkeys(t for layer in program.network.layers for t in (layer.input, layer.output)))
    found = evaluate_model(host, program.network.samples, {"input": images(8, size)}, names)
    values = {name: chunks[0] for name, chunks in zip(names, found, strict=True)}
    placed, ideal = PlacedProgram(program, no_corrections(program)), IdealArray(program.spec)
    for i, layer in enumerate(program.network.layers):
        result = LayerExecutor(placed, i, ideal).run(values[layer.input])
        expected = values[layer.output]
        bound = np.abs(values[layer.input]).max() * np.abs(layer.weights).sum(axis=1).max() + np.abs(layer.bias).max()
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * bound)


def test_the_public_functions_survive_compiling() -> None:
    xbcompile.compile(dense_model(3, 2), "ideal")
    for name in xbcompile.__all__:
        assert callable(getattr(xbcompile, name)), name


def test_a_program_is_shown_in_a_line_and_in_notebooks():
    program = convolution_program()
    shown = repr(program)
    assert shown.startswith("<Program 'test' on 'm2tj4': 2 matrix layers, ")
    assert f"{program.schedule.images} weight images of 4x4 on {program.schedule.arrays} array" in shown
    assert len(shown) < 120
    page = program._repr_html_()
    assert page.count("<tr>") == 3
    assert "&lt;" not in page
    assert "conv" in page
