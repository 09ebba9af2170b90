"""Models in which axis 0 of an inner tensor does not count samples."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.runtime import Session
from xbcompile.targets import load_target

RNG = np.random.default_rng(8)
W = RNG.normal(size=(10, 4))


def time_major():
    """[n, 5, 10] -> time first -> MatMul -> sample first."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["t", "w"], ["h"], "fc"),
        helper.make_node("Transpose", ["h"], ["y"], perm=[1, 0, 2]),
    ]
    return model_of(nodes, {"x": ["n", 5, 10]}, ["y"], {"w": W})


@pytest.mark.parametrize("last", ["Softmax", "ReduceMax"])
def test_a_fixed_batch_is_run_whole(last):
    """A batch of one, squeezed away: what follows works over axis 0, which then is no batch."""
    attributes = {"axis": 0} if last == "Softmax" else {"axes": [0]}
    nodes = [
        helper.make_node("Squeeze", ["x", "zero"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["h"], "fc"),
        helper.make_node(last, ["h"], ["y"], **attributes),
    ]
    model = model_of(nodes, {"x": [1, "t", 10]}, ["y"], {"w": W, "zero": np.array([0])})
    feeds = {"x": RNG.random((1, 7, 10), dtype=np.float32)}
    found = Session(xbcompile.compile(model, "ideal")).run(feeds)["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, feeds)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [60, 700])
@pytest.mark.parametrize("method", ["least-squares", "data-aware"])
def test_calibration_joins_vectors_and_not_tensors(samples, method):
    """700 samples are two chunks, whose time-major tensors cannot be joined along axis 0. Enough levels: a small error."""
    model = time_major()
    x = RNG.random((samples, 5, 10), dtype=np.float32)
    passes = f"quantize{{levels=16 method={method}}},analogue,recalibrate{{samples=700}}"
    program = xbcompile.compile(model, "ideal", passes=passes, calibration={"x": x})
    found = Session(program).run({"x": x[:50]})["y"]
    expected = run_onnxruntime(model, {"x": x[:50]})["y"]
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()


def test_a_call_in_which_all_mixes_is_one_sample():
    """The mean over all that a call holds: it is never cut, and is one inference of as many vectors as come."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
        helper.make_node("ReduceMean", ["h"], ["y"], keepdims=0),
    ]
    model = model_of(nodes, {"x": ["n", 10]}, ["y"], {"w": W})
    session = Session(xbcompile.compile(model, "ideal"))
    x = RNG.random((20, 10), dtype=np.float32)
    expected = run_onnxruntime(model, {"x": x})["y"]
    for chunk in (None, 8):
        np.testing.assert_allclose(session.run_samples({"x": x}, chunk=chunk)["y"], expected, rtol=1e-4)
    assert (session.counters.inferences, session.counters.reads) == (2, 2 * 20)
    both = session.run_samples({"x": np.stack([x, x + 1])})["y"]  # two calls
    np.testing.assert_allclose(both, [expected, run_onnxruntime(model, {"x": x + 1})["y"]], rtol=1e-4)


class OneByOneDevice:
    """A simulated device without its batched path."""

    def __init__(self, device) -> None:
        self.device, self.lsb, self.reading_limits = device, device.lsb, device.reading_limits

    def write(self, event, cells):
        self.device.write(event, cells)

    def read(self, event, drive):
        return self.device.read(event, drive)


def steps_first():
    """[5, n, 10]: the vectors of one sample are no neighbours."""
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": [5, "n", 10]}, ["y"], {"w": W})


def taking_turns():
    """[5, n, 10] as one matrix, in which samples take turns."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["h"], "fc"),
        helper.make_node("Reshape", ["h", "steps"], ["y"]),
    ]
    constants = {"w": W, "flat": np.array([-1, 10]), "steps": np.array([5, -1, 4])}
    return model_of(nodes, {"x": [5, "n", 10]}, ["y"], constants)


def with_one_for_all():
    """x W + v W, where v [1, 10] is the same for all samples and is read for each."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
        helper.make_node("MatMul", ["v", "w"], ["p"], "shared"),
        helper.make_node("Add", ["h", "p"], ["y"]),
    ]
    return model_of(nodes, {"x": [5, "n", 10], "v": [1, 10]}, ["y"], {"w": W})


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("make", "vectors"), [(steps_first, 5), (taking_turns, 5), (with_one_for_all, 6)])
def test_noise_follows_samples_on_any_axis(make, vectors, batch):
    """Together, in parts, one by one and event by event: the same bits; each sample is one inference of so many vectors."""
    passes = "quantize{scheme=ternary},analogue{low=0 high=1}"
    target = load_target("sot").with_quantities("noisy", read_noise=0.05, write_noise=0.05)
    program = xbcompile.compile(make(), target, passes=passes, batch=batch, arrays=0, effort=0)
    feeds = {"x": RNG.random((5, 7, 10), dtype=np.float32), "v": RNG.random((1, 10), dtype=np.float32)}
    feeds = {value.name: feeds[value.name] for value in program.network.inputs}
    session, axes = Session(program, seed=3), program.network.samples
    expected = session.run(feeds)["y"]
    assert len(program.schedule.tiles) == 1
    assert (session.counters.inferences, session.counters.reads) == (7, 7 * vectors)
    assert np.array_equal(Session(program, seed=3).run_samples(feeds, chunk=2)["y"], expected)
    chip = OneByOneDevice(program.target.device(None, 3))
    assert np.array_equal(Session(program, chip).run_samples(feeds)["y"], expected)
    if batch == 1:
        alone = Session(program, seed=3)
        parts = [alone.run(axes.part(feeds, i, i + 1)) for i in range(7)]
        assert np.array_equal(axes.join(parts)["y"], expected)
    assert not np.array_equal(expected, Session(program, "ideal").run(feeds)["y"])


def test_names_of_the_model_do_not_meet_those_of_parameters(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], "fc"), helper.make_node("Mul", ["h", "fc/bias"], ["y"])]
    constants = {"w": W, "b": RNG.normal(size=4), "fc/bias": RNG.normal(size=4)}
    model = model_of(nodes, {"x": ["n", 10]}, ["y"], constants)
    xbcompile.compile(model, "ideal").save(tmp_path / "p.xbar")
    x = RNG.random((3, 10), dtype=np.float32)
    found = Session(xbcompile.load_program(tmp_path / "p.xbar")).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": x})["y"], rtol=1e-5, atol=1e-6)


class Bench:
    """Nothing but the two methods: an exact array that counts its writes."""

    def __init__(self, spec: ArraySpec) -> None:
        self.spec, self.cells, self.writes = spec, {}, 0

    def write(self, event, cells):
        self.cells[event.array] = self.spec.levels[cells].astype(float)
        self.writes += 1

    def read(self, event, drive):
        return drive.astype(float) @ self.cells[event.array]


def test_two_methods_make_a_bench():
    """10 x 4 on 4 x 4 arrays: 3 tiles, each on its own array, so each is written once however many samples come."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    model = model_of(nodes, {"x": ["n", 10]}, ["y"], {"w": W})
    program = xbcompile.compile(model, "m2tj4", passes="quantize,analogue{low=0 high=1}", arrays=0, packing="none")
    bench, x = Bench(program.spec), RNG.random((9, 10), dtype=np.float32)
    found = Session(program, bench).run_samples({"x": x}, chunk=4)["y"]
    np.testing.assert_allclose(found, Session(program, "ideal").run({"x": x})["y"], rtol=1e-5, atol=1e-6)
    assert bench.writes == 3


@pytest.mark.parametrize(
    ("readings", "text"), [(np.zeros(3), r"shape \(3,\), 0 of"), (np.full(4, np.nan), "4 of them not finite")]
)
def test_impossible_readings_are_refused(readings, text):
    program = xbcompile.compile(time_major(), "m2tj4", passes="quantize,analogue{low=0 high=1}")
    bench = Bench(program.spec)
    bench.read = lambda event, drive: readings  # type: ignore[method-assign]
    with pytest.raises(TargetError, match=text):
        Session(program, bench).run({"x": np.zeros((1, 5, 10), np.float32)})
    with pytest.raises(TargetError, match="device object has no method write; it needs write and read"):
        Session(program, object())
