"""Program files and chips' corrections that someone made: right ones, edited, with the digest that fits.

An example is the base, the edits, what is wrong with the archive, and what the program is taken to. What `verify` calls
right must run wherever the host graph does.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

import xbcompile
from tests.fuzz.program_edits import ARCHIVES, NUMBERS, Members, archive, edited, edits
from tests.support.recurrence_kit import sequence_model
from tests.support.small_programs import CODED, convolution_model, dense_model, images
from xbcompile.errors import DataError, XbcompileError
from xbcompile.program.program import Program
from xbcompile.report.summary import summarize
from xbcompile.runtime import Session, commission, load_corrections, save_corrections
from xbcompile.verification.probes import probe_inputs

BASES = ("convolution", "dense", "sequence", "large", "fitted")
ENTRIES = ("inspect", "verify", "verify", "run", "run", "session", "commission")


@cache
def _prepared(base: str) -> str:
    """The name of a base whose programs are compiled, and its devices' kernels, before an attempt's time starts."""
    members(base)
    name = "fitted" if base == "corrections" else base
    for device in program(name).target.device_names:
        Session(program(name), device, threads=1).run_samples(probe_inputs(program(name), samples=2))
    xbcompile.verify(program(name))
    return base


examples = st.one_of(
    st.tuples(
        st.sampled_from(BASES).map(_prepared),
        edits(("json", "json", "json", "json", "table", "table", "model", "external", "function", "tensor", "member")),
        st.sampled_from(ARCHIVES),
        NUMBERS,
        st.sampled_from(ENTRIES),
    ),
    st.tuples(
        st.just("corrections").map(_prepared),
        edits(("json", "json", "table", "table", "table", "member")),
        st.sampled_from(ARCHIVES),
        NUMBERS,
        st.just("fit"),
    ),
)


@cache
def program(name: str) -> Program:
    """A program to edit."""
    if name == "convolution":
        return xbcompile.compile(convolution_model(), "m2tj4", passes=CODED, arrays=2, effort=0, floorplan="2x2")
    if name == "dense":
        return xbcompile.compile(dense_model(6, 5, 3), "mram64", effort=0)
    if name == "sequence":
        return xbcompile.compile(sequence_model("GRU", 3), "ideal", effort=0)
    if name == "large":  # codes that host.onnx does not hold
        return xbcompile.compile(dense_model(70, 60, 5), "sot", arrays=1, effort=0)
    return xbcompile.compile(
        dense_model(24, 9, 4),
        "memristor20",
        passes="quantize{scheme=continuous per=matrix},analogue{low=0 high=1},avoid-defects,quiet-columns{samples=8 vectors=8},"
        "calibrate-offsets{samples=8},recalibrate{samples=8 per=tile}",
        calibration={"x": images(8, 24)},
        arrays=1,
        packing="none",
    )


@cache
def members(name: str) -> Members:
    """The members of a base."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        if name == "corrections":
            save_corrections(commission(program("fitted"), seed=1, threads=1), path)
        else:
            program(name).save(path)
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as file:
            return {each: file.read(each) for each in file.namelist()}


def attempt(example: tuple[str, list[Any], str, int, str], folder: Path) -> None:
    """Load what was edited, and take it to an entry point."""
    base, wanted, how, place, entry = example
    path = folder / "p.xbar"
    path.write_bytes(archive(edited(members(base), wanted), how, place))
    if entry == "fit":
        session = Session(program("fitted"), seed=1, corrections=load_corrections(path), threads=1)
        session.run({"x": images(2, 24)})
        return
    loaded = xbcompile.load_program(path)
    if entry == "inspect":
        summarize(loaded)
    elif entry == "verify":
        if not xbcompile.verify(loaded):
            _runs_as_verified(loaded)
    elif entry == "run":
        for device in loaded.target.device_names:
            Session(loaded, device, threads=1).run_samples(probe_inputs(loaded, samples=2))
    elif entry == "session":
        xbcompile.InferenceSession(path).run(None, probe_inputs(loaded, samples=2))
    else:
        commission(loaded, threads=1)


def _runs_as_verified(loaded: Program) -> None:
    """A program that is called right runs: on the exact device, without what is fitted, on inputs that it takes."""
    feeds = probe_inputs(loaded, samples=1)
    try:
        outputs = Session(replace(loaded, pipeline=""), "ideal", threads=1).run(feeds)
    except DataError:
        return
    except XbcompileError as error:
        raise AssertionError(f"verify calls a program right that does not run: {error}") from error
    assert all(np.shape(value) is not None for value in outputs.values())
