"""Corrections as a value: compared, saved and loaded, bound to a program and a chip, and applied by any session on that chip."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import xbcompile
from tests.support.small_programs import CODED, convolution_program, dense_model, images
from xbcompile.errors import ProgramError, TargetError
from xbcompile.ir.corrections import Corrections, Effort, LayerCorrection
from xbcompile.ir.image_route import ImageRoute
from xbcompile.program.archive import write_archive
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import Session, commission, load_corrections, save_corrections
from xbcompile.targets.families.ideal import IdealArray

PASSES = (
    "quantize{scheme=continuous per=matrix},analogue{low=0 high=1},avoid-defects,quiet-columns{samples=20 vectors=20},"
    "calibrate-offsets{samples=20},recalibrate{samples=20 per=tile}"
)
X = {"x": images(9, 24, seed=8)}


@cache
def fitted_program() -> Program:
    """Everything that can be fitted: routes, columns, offsets, gains of tiles and outputs, on a chip with stuck devices."""
    calibration = {"x": images(30, 24)}
    return xbcompile.compile(
        dense_model(24, 9, 4, seed=5), "memristor20", passes=PASSES, calibration=calibration, arrays=1, packing="none"
    )


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


floats = st.floats(allow_nan=False, width=64)


@st.composite
def some_corrections(draw: st.DrawFn) -> Corrections:
    def array(*shape: int) -> np.ndarray:
        return draw(hnp.arrays(np.float64, shape, elements=floats))

    arrays, images_, rows, columns, layers = (draw(st.integers(1, 3)) for _ in range(5))
    maybe = st.booleans()
    sign = hnp.arrays(np.float32, rows, elements=st.sampled_from([-1.0, 1.0]))
    return Corrections(
        program=draw(st.text(max_size=9)),
        chip=draw(st.text(max_size=9)),
        layers=tuple(
            LayerCorrection(array(columns), array(columns), array(2, columns) if draw(maybe) else None)
            for _ in range(layers)
        ),
        column_offset=array(arrays, columns) if draw(maybe) else None,
        column_permutation=np.tile(np.arange(columns, dtype=np.uint16), (images_, 1)) if draw(maybe) else None,
        routes=tuple(
            ImageRoute(np.arange(rows)[::-1].copy(), np.arange(columns), draw(sign), np.ones(columns, np.float32))
            for _ in range(images_)
        )
        if draw(maybe)
        else None,
        defects_known=draw(maybe),
        effort=Effort(*(draw(st.integers(0, 2**62)) for _ in range(3))),
    )


@given(corrections=some_corrections())
@settings(max_examples=40, deadline=None)
def test_files_hold_the_value(corrections: Corrections, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fit") / "chip.fit"
    save_corrections(corrections, path)
    loaded = load_corrections(path)
    assert loaded == corrections
    for found, given_ in zip(loaded.layers, corrections.layers, strict=True):
        assert found.gain.dtype == given_.gain.dtype
    again = path.with_suffix(".again")
    save_corrections(loaded, again)
    assert path.read_bytes() == again.read_bytes()


def test_corrections_are_compared_by_content() -> None:
    one = commission(fitted_program(), seed=2)
    assert one == commission(fitted_program(), seed=2, threads=2)
    assert one != commission(fitted_program(), seed=3)
    offset = one.column_offset
    assert offset is not None
    changed = offset.copy()
    changed[0, 0] += 1e-9
    for other in (
        replace(one, column_offset=changed),
        replace(one, column_offset=None),
        replace(one, defects_known=not one.defects_known),
        replace(one, effort=Effort()),
        replace(one, layers=one.layers[:1]),
        replace(one, chip="another"),
    ):
        assert other != one


def test_a_session_with_corrections_is_the_session_that_fits_them(tmp_path: Path) -> None:
    """Bit for bit, from the file too, and after other runs of the same chip; their effort stays what commissioning took."""
    program = fitted_program()
    corrections = commission(program, seed=4)
    assert corrections.routes is not None
    assert corrections.column_permutation is not None
    assert corrections.layers[0].tile_gain is not None
    assert corrections.effort.reads > 0
    fits = Session(program, seed=4)
    assert fits.corrections == corrections
    expected = fits.run_samples(X)["y"]
    save_corrections(corrections, tmp_path / "chip2.fit")
    for given_ in (corrections, load_corrections(tmp_path / "chip2.fit")):
        session = Session(program, seed=4, corrections=given_)
        np.testing.assert_array_equal(session.run_samples(X)["y"], expected)
        assert session.corrections == corrections
        assert session.counters == fits.counters


def test_corrections_of_another_process(tmp_path: Path) -> None:
    program, path = fitted_program(), tmp_path / "chip.fit"
    program.save(tmp_path / "p.xbar")
    code = "import sys, xbcompile.runtime as r; from xbcompile.program.program import load_program; "
    code += "r.save_corrections(r.commission(load_program(sys.argv[1]), seed=5), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.xbar"), str(path)], check=True)
    assert load_corrections(path) == commission(program, seed=5)
    found = Session(load_program(tmp_path / "p.xbar"), seed=5, corrections=load_corrections(path)).run_samples(X)["y"]
    np.testing.assert_array_equal(found, Session(program, seed=5).run_samples(X)["y"])


def test_a_session_leaves_device_and_program_as_they_are() -> None:
    """A second session on the same object finds the same chip, and one of another program nothing of the first's."""
    program = fitted_program()
    chip = program.target.device(seed=4)
    digest, permutation = program.digest, program.schedule.column_permutation.copy()
    unaware = xbcompile.compile(dense_model(24, 9, 4, seed=5), "memristor20", passes=",".join(PASSES.split(",")[:2]))
    before = Session(unaware, chip).run_samples(X)["y"]
    outputs = [Session(program, chip).run_samples(X)["y"] for _ in range(2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(Session(unaware, chip).run_samples(X)["y"], before)
    assert not chip.defects_known  # type: ignore[attr-defined]  # of simulated devices
    assert program.digest == digest
    np.testing.assert_array_equal(program.schedule.column_permutation, permutation)


def test_corrections_for_something_else_are_refused() -> None:
    program, other = convolution_program(), convolution_program(arrays=0)
    corrections = commission(program, seed=1)
    for session in (
        lambda: Session(other, seed=1, corrections=corrections),
        lambda: Session(other, seed=1, corrections=replace(corrections, chip="")),
    ):
        with pytest.raises(
            ProgramError, match=f"are for the program {program.digest[:16]}, and this one is {other.digest[:16]}"
        ):
            session()
    for device, seed in ((None, 2), ("ideal", 1), (IdealArray(program.spec), 1)):
        with pytest.raises(ProgramError, match="are for the chip 'm2tj4 seed 1', and this one is"):
            Session(program, device, seed, corrections=corrections)
    Session(program, "m2tj4", 1, corrections=corrections)  # the same chip by its name


def test_a_chip_with_an_identity() -> None:
    """Corrections are bound to it, whatever object stands for the chip."""

    class Known(IdealArray):
        identity = "rack 3, board 7"

    program = convolution_program()
    corrections = commission(program, Known(program.spec))
    assert corrections.chip == "rack 3, board 7"
    Session(program, Known(program.spec), corrections=corrections)
    with pytest.raises(ProgramError, match="for the chip 'rack 3, board 7', and this one is 'IdealArray'"):
        Session(program, IdealArray(program.spec), corrections=corrections)


def test_a_defect_map_that_is_not_there() -> None:
    class Bare:
        lsb = reading_limits = None

        def write(self, event, cells) -> None: ...

        def read(self, event, drive): ...

    program = convolution_program()
    corrections = replace(commission(program, Bare()), defects_known=True)
    with pytest.raises(TargetError, match="corrections use a defect map, and device Bare has none"):
        Session(program, Bare(), corrections=corrections)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    program, path = convolution_program(), tmp_path / "chip.fit"
    with pytest.raises(ProgramError, match=r"file of corrections '.*chip\.fit' does not exist"):
        load_corrections(path)
    with pytest.raises(ProgramError, match="cannot be read: Is a directory"):
        load_corrections(tmp_path)
    program.save(tmp_path / "p.xbar")
    with pytest.raises(ProgramError, match="holds no corrections; make some with: xbcompile commission"):
        load_corrections(tmp_path / "p.xbar")
    path.write_bytes(b"PK not an archive")
    with pytest.raises(ProgramError, match=r"chip\.fit"):
        load_corrections(path)


def test_damaged_files_and_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "chip.fit"
    save_corrections(commission(fitted_program()), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(ProgramError, match=r"chip\.fit"):
            load_corrections(path)
    path.write_bytes(whole[:-7])
    with pytest.raises(ProgramError, match=r"file of corrections '.*chip\.fit' is damaged: .*: xbcompile commission"):
        load_corrections(path)
    path.write_bytes(b"")
    with pytest.raises(ProgramError, match=r"'.*chip\.fit' is no file of corrections of xbcompile; make one with"):
        load_corrections(path)
    path.write_bytes(whole)
    with pytest.raises(ProgramError, match="it holds corrections of a chip, for run --fit"):
        load_program(path)
    path.write_bytes(whole)
    content = members(path)

    def rewritten(**changes: object) -> None:
        manifest = {**json.loads(content["fit.json"]), **changes}
        parts = {**content, "fit.json": json.dumps(manifest).encode()}
        with path.open("wb") as file:
            write_archive(file, ((name, parts[name]) for name in parts if name.endswith((".json", ".npy"))))

    rewritten(fit_version=99)
    with pytest.raises(ProgramError, match="has version 99; this xbcompile reads 1: commission the chip again"):
        load_corrections(path)
    rewritten(layers=7)
    with pytest.raises(ProgramError, match="lacks a part that it must have"):
        load_corrections(path)


def test_rewriting_rows_that_change_does_not_go_with_moving_cells() -> None:
    program = xbcompile.compile(
        dense_model(12, 9, 4),
        "m2tj4",
        passes=f"{CODED},quiet-columns{{samples=5 vectors=5}}",
        calibration={"x": images(20, 12)},
        rewrite="changed",
    )
    noisy = program.target.with_quantities("a test", sigma_perp_ohm=30.0)
    with pytest.raises(xbcompile.XbcompileError, match=r"quiet-columns moves weights to other cells.*--rewrite all"):
        commission(replace(program, target=noisy))
