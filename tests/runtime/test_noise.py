"""What noise repeats and what does not: runs of a session, places in its life, sizes of inputs, failures and threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.device_kit import Bench
from tests.support.model_kit import model_of
from tests.support.recurrence_kit import sequence_model
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.errors import DataError
from xbcompile.interop import onnx_backend
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.layer_executor import USE_VECTORS
from xbcompile.runtime.timeline import (
    COMMISSION_BATCH,
    COMMISSION_VECTOR,
    MAP_VECTOR,
    SIZE_VECTORS,
    SPREAD_VECTOR,
    STEP_VECTORS,
)
from xbcompile.targets import LoadedImages, ReadBlock, Target, WrittenImages, load_target
from xbcompile.targets.counter_random import MOST_VECTORS
from xbcompile.targets.families.spin_orbit import SpinOrbitArray

BINARY = "quantize{scheme=binary},thermometer{bits=3 low=0 high=1}"
TERNARY = "quantize{scheme=ternary},thermometer{bits=3 low=0 high=1}"
Run = Callable[[np.ndarray], np.ndarray]


def noisy(name: str) -> Target:
    """A target whose readings are new every time; on `sot` every write is, too."""
    if not name.startswith("sot"):
        return load_target(name)
    return load_target(name).with_quantities("test", read_noise=0.1, write_noise=0.05)


@cache
def program_of(target: str, kind: str = "conv", **options: Any) -> Program:
    model = convolution_model() if kind == "conv" else dense_model(30, 20, 5)
    passes = TERNARY if target == "sot" else BINARY
    return xbcompile.compile(model, noisy(target), passes=passes, effort=0, **options)


def inputs_of(kind: str, samples: int) -> np.ndarray:
    return images(samples, *((2, 4, 4) if kind == "conv" else (30,)))


def entry_points(program: Program, seed: int) -> dict[str, Run]:
    """Every way to run a program in a session of its own."""
    session, chunks, bench = (
        Session(program, seed=seed), Session(program, seed=seed), Session(program, Bench(program.target.device(seed=seed)))
    )  # fmt: skip
    interface = xbcompile.InferenceSession(program, seed=seed)
    backend = onnx_backend.XbcompileBackendRep(xbcompile.InferenceSession(program, seed=seed))
    return {
        "run": lambda x: session.run({"x": x})["y"],
        "run_samples": lambda x: chunks.run_samples({"x": x}, chunk=2)["y"],
        "InferenceSession": lambda x: interface.run(None, {"x": x})[0],
        "backend": lambda x: backend.run([x])[0],
        "one by one on a bench": lambda x: bench.run({"x": x})["y"],
    }


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize(
    ("target", "options"),
    [("mram64", {}), ("sot", {}), ("sot", {"arrays": 0}), ("sot-single", {}), ("sot", {"rewrite": "changed"})],
)
def test_samples_run_one_by_one_read_what_they_read_in_a_batch(kind: str, target: str, options: dict[str, Any]) -> None:
    """Read noise, and errors that writes draw: through every entry point, whatever each call holds."""
    program, x = program_of(target, kind, **options), inputs_of(kind, 6)
    expected = Session(program, seed=4).run({"x": x})["y"]
    assert not np.allclose(expected, Session(program, "ideal").run({"x": x})["y"], atol=1e-3)
    for name, run in entry_points(program, 4).items():
        found = [run(x[start:end]) for start, end in ((0, 1), (1, 2), (2, 5), (5, 6))]
        assert np.array_equal(np.concatenate(found), expected), name


def test_an_emulator_counts_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from xbcompile.targets.families import error_histograms

    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_IMAGES", 2)
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_VECTORS", 50)
    program, x = program_of("mram64", "dense"), inputs_of("dense", 4)
    session = Session(program, "mram64-emulator")
    found = np.concatenate([session.run({"x": each[None]})["y"] for each in x])
    assert np.array_equal(found, Session(program, "mram64-emulator").run({"x": x})["y"])
    assert not np.array_equal(found, session.run({"x": x})["y"])


@pytest.mark.parametrize("target", ["mram64", "sot"])
def test_one_input_again_and_again_spreads_as_in_a_batch(target: str) -> None:
    """20 runs of one sample, and one run of 20: both are the first 20 of its readings, and all differ."""
    program, x = program_of(target, "dense"), np.repeat(inputs_of("dense", 1), 20, axis=0)
    session = xbcompile.InferenceSession(program)
    found = np.concatenate([session.run(None, {"x": x[:1]})[0] for _ in range(20)])
    together = Session(program).run_samples({"x": x})["y"]
    assert np.array_equal(found, together)
    assert len(np.unique(found, axis=0)) > 10
    assert found.std(axis=0).max() > 1e-2


def test_a_place_in_the_life_of_a_session_reads_the_same_again() -> None:
    program, x = program_of("sot", "dense"), inputs_of("dense", 3)
    session, interface = Session(program, seed=2), xbcompile.InferenceSession(program, seed=2)
    first, second, third = (session.run({"x": x})["y"] for _ in range(3))
    assert not any(np.array_equal(a, b) for a, b in ((first, second), (second, third), (first, third)))
    for again in (session.run({"x": x}, 3)["y"], session.run_samples({"x": x}, first_sample=3)["y"]):
        assert np.array_equal(again, second)
    assert np.array_equal(interface.run(None, {"x": x}, first_sample=np.int64(6))[0], third)
    assert np.array_equal(interface.run(None, {"x": x}, first_sample=0)[0], first)
    later = session.run({"x": x})["y"]  # behind the last sample of all runs
    assert np.array_equal(later, Session(program, seed=2).run({"x": x}, 9)["y"])


def test_a_run_takes_whole_batches_of_the_program() -> None:
    program, x = program_of("sot", "dense", batch=4), inputs_of("dense", 3)
    session = Session(program)
    found = [session.run({"x": each[None]})["y"][0] for each in x]
    padded = np.zeros((12, 30), np.float32)
    padded[::4] = x
    assert np.array_equal(found, Session(program).run({"x": padded})["y"][::4])
    with pytest.raises(DataError, match="first_sample=2 is inside of a batch; give a multiple of 4"):
        session.run({"x": x}, 2)


def test_a_run_that_fails_has_used_its_numbers_and_refused_inputs_have_not() -> None:
    """Row 9 of a table of 3 is missed in a digital segment, when the run has begun."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("Gather", ["table", "row"], ["g"]),
        helper.make_node("Add", ["m", "g"], ["y"]),
    ]
    constants = {"w": np.random.default_rng(0).normal(size=(6, 5)), "table": np.zeros((3, 5))}
    model = model_of(nodes, {"x": ["n", 6], "row": ["n"]}, ["y"], constants)
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    program = xbcompile.compile(model, noisy("sot"), passes=TERNARY, effort=0)
    x, rows = images(8, 6), np.zeros(8, np.int64)
    expected = Session(program).run({"x": x, "row": rows})["y"]
    session = xbcompile.InferenceSession(program)

    def run(first: int, end: int, row: int = 0) -> np.ndarray:
        found: np.ndarray = session.run(None, {"x": x[first:end], "row": rows[first:end] + row})[0]
        return found

    assert np.array_equal(run(0, 2), expected[:2])
    with pytest.raises(DataError, match="shape 1x7"):
        session.run(None, {"x": np.zeros((1, 7), np.float32), "row": rows[:1]})
    assert np.array_equal(run(2, 4), expected[2:4])
    with pytest.raises(DataError, match="cannot run the model"):
        run(4, 5, row=9)
    assert np.array_equal(run(5, 8), expected[5:])


def test_runs_of_several_threads_take_turns() -> None:
    """Of one input, so that it does not matter which thread comes first: what 24 samples read, in some order."""
    program, x = program_of("sot", "dense"), np.repeat(inputs_of("dense", 1), 24, axis=0)
    expected = Session(program).run({"x": x})["y"]
    session = Session(program)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: session.run({"x": x[:1]})["y"][0], range(24)))
    assert np.array_equal(np.unique(found, axis=0), np.unique(expected, axis=0))


class RecordedImages(LoadedImages):
    """Images that note every read: array, tile, vector, slice."""

    def __init__(self, images: LoadedImages, arrays: np.ndarray, drawn: Counter[tuple[int, ...]]) -> None:
        self.images, self.arrays, self.drawn = images, arrays, drawn

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        for image, vector, part in np.ndindex(drives.shape[:3]):
            place = int(self.arrays[image]), int(reads.tiles[image])
            self.drawn[(*place, reads.first_vector + vector, reads.first_slice + part)] += 1
        return self.images.read(drives, reads)


def matrix_model(
    before: list[onnx.NodeProto], shape: list[Any], inputs: int, **constants: np.ndarray
) -> onnx.ModelProto:
    """x of this shape -> nodes that make `v` -> a matrix -> y."""
    weights = np.random.default_rng(1).normal(size=(inputs, 4)).astype(np.float32)
    return model_of(
        [*before, helper.make_node("MatMul", ["v", "w"], ["y"])], {"x": shape}, ["y"], {"w": weights, **constants}
    )


def open_models() -> dict[str, tuple[onnx.ModelProto, list[tuple[int, ...]]]]:
    """Models with open sizes, and the shapes of runs."""
    rows = np.array([-1, 6])
    return {
        "sequences of any length": (
            matrix_model([helper.make_node("Identity", ["x"], ["v"])], ["n", "t", 6], 6),
            [(1, 5, 6), (1, 7, 6), (2, 3, 6), (1, 1, 6), (3, 5, 6), (1, 7, 6)],
        ),
        "one vector of all steps": (
            matrix_model([helper.make_node("Reshape", ["x", "one"], ["v"])], [7, 6], 42, one=np.array([1, 42])),
            [(7, 6)] * 3,
        ),
        "rows that are no samples": (
            matrix_model([helper.make_node("Reshape", ["x", "rows"], ["v"])], ["n", 4], 6, rows=rows),
            [(3, 4), (6, 4), (3, 4), (9, 4), (3, 4)],
        ),
        "more rows than samples": (
            matrix_model([helper.make_node("Reshape", ["x", "rows"], ["v"])], ["n", 8], 6, rows=rows),
            [(3, 8), (6, 8), (3, 8)],
        ),
        "recurrence": (sequence_model("LSTM", "t"), [(2, 3, 2), (1, 5, 2), (2, 1, 2), (1, 5, 2)]),
    }


@pytest.mark.parametrize("name", open_models())
def test_no_two_reads_of_a_session_draw_the_same(name: str) -> None:
    """A read draws by array, tile, vector and slice: all reads of all runs, whatever sizes they have."""
    model, shapes = open_models()[name]
    program = xbcompile.compile(model, "sot", passes="quantize{scheme=ternary},analogue{low=-1 high=1}", effort=0)
    drawn: Counter[tuple[int, ...]] = Counter()

    class Recording(SpinOrbitArray):
        def load(self, written: WrittenImages) -> Any:
            return RecordedImages(super().load(written), written.arrays, drawn)

    session = Session(program, Recording(program.target.parameters))
    for number, shape in enumerate(shapes):
        session.run({"x": images(shape[0], *shape[1:], seed=number)})
    assert drawn.total() >= len(shapes)
    assert set(drawn.values()) == {1}


def test_kinds_of_vectors_have_numbers_of_their_own() -> None:
    """Runs and three kinds of commissioning lie side by side in 50 bits, then layers, then sizes, then the end."""
    kinds = [0, COMMISSION_VECTOR, MAP_VECTOR, SPREAD_VECTOR, USE_VECTORS]
    assert kinds == [kind << 48 for kind in range(5)]
    assert STEP_VECTORS << 20 == COMMISSION_VECTOR
    assert USE_VECTORS << 14 == SIZE_VECTORS
    assert SIZE_VECTORS << 32 == MOST_VECTORS


def test_numbers_end_with_a_clear_error() -> None:
    program, x = program_of("mram64", "dense"), inputs_of("dense", 2)
    session = Session(program)
    with pytest.raises(DataError, match="2 samples from number 4294967295 on are more than a session has numbers for"):
        session.run({"x": x}, COMMISSION_BATCH - 1)
    assert np.isfinite(session.run({"x": x}, COMMISSION_BATCH - 2)["y"]).all()
    with pytest.raises(DataError, match=r"first_sample=-1 is inside of a batch"):
        session.run({"x": x}, -1)
    recurrent = xbcompile.compile(sequence_model("RNN", 2), "ideal", passes="", effort=0)
    with pytest.raises(
        DataError, match=r"at input vector 268435457 of the session's life, at step 0; .* 1048576 steps"
    ):
        Session(recurrent).run({"x": np.zeros((1, 2, 2), np.float32)}, STEP_VECTORS)
