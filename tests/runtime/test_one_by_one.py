"""Commissioning event by event gives what it gives all together, on every family; what it asked for is what the chip saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.support.device_kit import Bench, Gives, read_image, reads_of, write_image, written
from tests.support.handed_over import SAME, WHOLE, WRONG
from tests.support.recurrence_kit import sequence_model
from tests.support.small_programs import dense_model, images
from xbcompile.errors import TargetError
from xbcompile.ir.corrections import Corrections
from xbcompile.program.program import Program
from xbcompile.runtime import Session, commission
from xbcompile.runtime.one_by_one import EffortCounter, OneByOne, batched, checked, read_once
from xbcompile.targets import BatchedDevice, Device, LoadedImages, Read, Target, Write, load_target
from xbcompile.targets.families.ideal import IdealArray

BINARY = "quantize{scheme=binary},thermometer{bits=2 low=0 high=1}"
LEVELS = "quantize{scheme=levels},analogue{low=0 high=1}"
CONTINUOUS = "quantize{scheme=continuous per=matrix},analogue{low=0 high=1}"
SPREAD = load_target("m2tj4").with_quantities("a test", sigma_perp_ohm=20.0, sigma_nl_ohm=10.0)
# One of each family, and what codes a network for it; the histograms are those of mram64's emulator.
FAMILIES: dict[str, tuple[Target, str]] = {
    "ideal": (load_target("ideal"), ""),
    "mram64": (load_target("mram64"), BINARY),
    "mram64-emulator": (load_target("mram64"), BINARY),
    "m2tj4": (SPREAD, LEVELS),
    "multicell": (load_target("multicell"), LEVELS),
    "memristor20": (load_target("memristor20"), CONTINUOUS),
    "sot": (load_target("sot"), LEVELS),
    "sot-single": (load_target("sot-single"), BINARY.replace("thermometer{bits=2", "analogue{")),
}


class BenchWithMap(Bench):
    """A bench that knows its defects."""

    device: Any

    def cell_limits(self, array: int) -> np.ndarray | None:
        return self.device.cell_limits(array)

    def with_known_defects(self) -> BenchWithMap:
        return BenchWithMap(self.device.with_known_defects(), self.events)


def program_of(name: str, passes: str, arrays: int) -> Program:
    target, coding = FAMILIES[name]
    return xbcompile.compile(
        dense_model(30, 9, 4),
        target,
        passes=f"{coding},{passes}".strip(","),
        calibration={"x": images(12, 30)},
        arrays=arrays,
        packing="none",
        cuts="greedy",
        batch=2,
    )


@pytest.mark.parametrize("arrays", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_literal_equals_batched(name: str, arrays: int) -> None:
    """Also where arrays are recycled and writes draw at random; events are those that the effort counts."""
    program = program_of(name, "avoid-defects,calibrate-offsets{samples=6},recalibrate{samples=6 per=tile}", arrays)
    device = None if name != "mram64-emulator" else name
    bench = BenchWithMap(program.target.device(device, 3))
    literal, together = commission(program, bench), commission(program, device, 3)
    if name != "ideal":
        assert replace(literal, chip=together.chip) == together
    else:  # its sums are float64 in the order of a library's
        for one, other in zip(literal.layers, together.layers, strict=True):
            np.testing.assert_allclose(one.gain, other.gain, rtol=1e-9)
            np.testing.assert_allclose(one.shift, other.shift, atol=1e-9)
        assert literal.effort == together.effort
    effort = literal.effort
    assert (len(bench.writes), len(bench.reads)) == (effort.weight_updates, effort.reads)
    assert sum(len(each.rows) for each in bench.writes) == effort.rows_written
    assert effort.reads > 0


@pytest.mark.parametrize("arrays", [0, 2])
@pytest.mark.parametrize("measure", ["images", "columns"])
def test_measuring_columns_one_by_one(measure: str, arrays: int) -> None:
    """An image that its array holds alone is written anew for each turn of its columns."""
    passes = f"quiet-columns{{measure={measure} samples=4 vectors=3 patterns=2 weigh=scale}},recalibrate{{samples=4}}"
    program = program_of("m2tj4", passes, arrays)
    bench = Bench(program.target.device(seed=3))
    literal, together = commission(program, bench), commission(program, seed=3)
    assert replace(literal, chip=together.chip) == together
    effort = literal.effort
    assert (len(bench.writes), len(bench.reads)) == (effort.weight_updates, effort.reads)


@pytest.mark.parametrize("steps", [3, "t"])
@pytest.mark.parametrize("arrays", [0, 1])
def test_recurrences_one_by_one(steps: int | str, arrays: int) -> None:
    """Of known and of open length, where writes draw at random; what a session then runs is the same too."""
    x = np.random.default_rng(1).uniform(-1, 1, (5, 3, 2)).astype(np.float32)
    program = xbcompile.compile(
        sequence_model("GRU", steps, hidden=2),
        "sot",
        passes="quantize{scheme=ternary},analogue,calibrate-offsets{samples=4},recalibrate{samples=4}",
        calibration={"x": x},
        arrays=arrays,
        packing="none",
    )
    bench = Bench(program.target.device(seed=3))
    sessions = Session(program, bench), Session(program, seed=3)
    fitted: list[Corrections] = [each.corrections for each in sessions]
    assert replace(fitted[0], chip=fitted[1].chip) == fitted[1]
    assert (len(bench.writes), len(bench.reads)) == (fitted[0].effort.weight_updates, fitted[0].effort.reads)
    outputs = [each.run_samples({"x": x}) for each in sessions]
    for key, value in outputs[1].items():
        np.testing.assert_array_equal(outputs[0][key], value)


def test_an_image_is_written_where_its_array_holds_another() -> None:
    """Or one of another write; reading it again needs no write."""
    spec = load_target("m2tj4").array_spec
    bench = Bench(IdealArray(spec))
    adapter, counter = OneByOne(bench), EffortCounter(spec.rows)
    cells = np.random.default_rng(0).integers(0, 4, (2, 4, 4)).astype(np.uint8)
    drives = np.ones((2, 3, 1, 4), np.float32)

    def read(arrays: list[int], number: int = 0) -> None:
        images_ = written(arrays, cells, number)
        found = adapter.load(images_).read(drives, reads_of([0, 1]))
        exact = IdealArray(spec).load(images_).read(drives, reads_of([0, 1]))
        np.testing.assert_array_equal(found, exact)
        counter.note(images_, 3)

    for arrays, number, writes in (([0, 1], 0, 2), ([0, 1], 0, 2), ([0, 1], 1, 4), ([0, 0], 1, 5), ([0, 0], 1, 7)):
        read(arrays, number)
        assert len(bench.writes) == counter.effort.weight_updates == writes
        assert len(bench.reads) == counter.effort.reads
    assert counter.effort.rows_written == 7 * 4


def test_what_has_the_batched_path_is_taken_as_it_is() -> None:
    device = IdealArray(load_target("m2tj4").array_spec)
    assert batched(device) is device
    adapter = batched(Bench(device))
    assert isinstance(adapter, OneByOne)
    assert isinstance(adapter, BatchedDevice)


def test_devices_that_are_none() -> None:
    with pytest.raises(TargetError, match="device object has no method write; it needs write and read"):
        checked(object())  # type: ignore[arg-type]  # that is the fault

    class WritesOnly:
        def write(self, event, cells) -> None: ...

    with pytest.raises(TargetError, match="device WritesOnly has no method read"):
        checked(WritesOnly())  # type: ignore[arg-type]  # that is the fault


@pytest.mark.parametrize("name", [*SAME, *WHOLE])
def test_readings_of_any_make(name: str) -> None:
    """A bench may give what holds the numbers of its readings, also in an array that it fills again for the next."""
    reading = np.arange(4, dtype=np.float32)
    give = {**SAME, **WHOLE}[name]
    found = read_once(Gives(give(reading)), Read(0, 0, 0, 0, 0, 0, 0.0), np.ones(4, np.float32), 4)
    np.testing.assert_array_equal(np.asarray(found, np.float64), reading)


@pytest.mark.parametrize("name", sorted({*WRONG} - {"one axis", "scalar", "zero axes", "ragged", "too large"}))
def test_readings_that_are_none(name: str) -> None:
    """In a session and while commissioning."""
    program = program_of("m2tj4", "recalibrate{samples=2}", 0)
    corrections = commission(program)
    bench = Gives(WRONG[name](np.arange(4, dtype=np.float32)))
    bench_of_corrections = replace(corrections, chip="Gives")
    session = Session(program, bench, corrections=bench_of_corrections)
    for run in (lambda: session.run({"x": images(2, 30)}), lambda: commission(program, bench)):
        with pytest.raises(TargetError, match=r"device gave readings .* for tile \d+ in array \d+.*; wanted 4 finite"):
            run()


class Fails:
    """A bench whose instrument does not answer."""

    lsb = reading_limits = None

    def __init__(self, method: str, error: BaseException) -> None:
        self.method, self.error = method, error

    def write(self, event: Any, cells: np.ndarray) -> None:
        if self.method == "write":
            raise self.error

    def read(self, event: Any, drive: np.ndarray) -> np.ndarray:
        raise self.error


@pytest.mark.parametrize("method", ["write", "read"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError("no answer\nin 10 s"), "TimeoutError: 'no answer in 10 s'"),
        (KeyError("volts"), "KeyError"),
        (StopIteration(), "StopIteration: ''"),
        (AssertionError("x" * 1000), "AssertionError: 'xxx"),
    ],
)
def test_an_instrument_that_fails(method: str, error: Exception, text: str) -> None:
    """Its own error is the cause; what is no error of the bench, such as Ctrl-C, goes through."""
    program = program_of("m2tj4", "", 0)
    with pytest.raises(TargetError, match=f"device Fails failed to {method} .* array 0: {text}") as caught:
        Session(program, Fails(method, error)).run({"x": images(2, 30)})
    assert caught.value.__cause__ is error
    assert len(str(caught.value)) < 400
    with pytest.raises(KeyboardInterrupt):
        Session(program, Fails(method, KeyboardInterrupt())).run({"x": images(2, 30)})
    with pytest.raises(TargetError, match="none of the bench's"):
        Session(program, Fails(method, TargetError("none of the bench's"))).run({"x": images(2, 30)})


class Scribbles(Bench):
    """A bench that changes what it is handed, if it can."""

    def write(self, event: Write, cells: np.ndarray) -> None:
        super().write(event, cells)
        with pytest.raises(ValueError, match="read-only"):
            cells[:] = 0

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        with pytest.raises(ValueError, match="read-only"):
            drive[:] = 0
        return super().read(event, drive)


def test_what_a_bench_is_handed_stays() -> None:
    program = program_of("m2tj4", "recalibrate{samples=2}", 2)
    expected = Session(program, Bench(program.target.device(seed=3))).run({"x": images(3, 30)})["y"]
    found = Session(program, Scribbles(program.target.device(seed=3))).run({"x": images(3, 30)})["y"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"lsb": "1"}, "has lsb '1'"),
        ({"lsb": np.float32(0.5), "reading_limits": [-1, 1]}, None),
        ({"lsb": 0}, "has lsb 0; it must be None or a number above 0"),
        ({"lsb": float("nan")}, "has lsb nan"),
        ({"lsb": "a"}, "has lsb 'a'"),
        ({"lsb": [1, 2]}, "has lsb"),
        ({"reading_limits": 3}, r"has reading_limits 3; they must be None or \(lowest, highest\)"),
        ({"reading_limits": (1, 0)}, r"has reading_limits \(1, 0\)"),
        ({"reading_limits": (0, None)}, "has reading_limits"),
        ({"reading_limits": (0, 1, 2)}, "has reading_limits"),
    ],
)
def test_converters_that_are_none(given: dict[str, Any], text: str | None) -> None:
    device = Gives(np.zeros(4), **given)
    if text is None:
        assert checked(device) is device
        return
    with pytest.raises(TargetError, match=f"device Gives {text}"):
        Session(program_of("m2tj4", "", 0), device)


def test_a_class_is_no_device() -> None:
    with pytest.raises(TargetError, match=r"device Gives is a class; give a device of that class, Gives\(...\)"):
        Session(program_of("m2tj4", "", 0), Gives)
    with pytest.raises(TargetError, match="device int has no method write"):
        Session(program_of("m2tj4", "", 0), 3)


def test_other_things_that_a_bench_says() -> None:
    program = program_of("m2tj4", "avoid-defects", 0)

    class Named(BenchWithMap):
        identity = 12

    class Mapped(BenchWithMap):
        def cell_limits(self, array: int) -> np.ndarray:
            return np.zeros((2, 3))

    with pytest.raises(TargetError, match="device Named has identity 12; it must be a text"):
        commission(program, Named(program.target.device()))
    with pytest.raises(
        TargetError, match=r"device gave cell limits of shape \(2, 3\) for array \d; wanted \(2, 4, 4\)"
    ):
        commission(program, Mapped(program.target.device()))


class _Reads(LoadedImages):
    def __init__(self, given: Any) -> None:
        self.given = given

    def read(self, drives: np.ndarray, reads: Any) -> np.ndarray:
        return self.given


class Loads:
    """A device with the batched path, which gives one thing for all readings."""

    lsb = reading_limits = None
    writes_differ = False

    def __init__(self, given: Any) -> None:
        self.given = given

    def write(self, event: Write, cells: np.ndarray) -> None: ...

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        raise AssertionError("it has the batched path")

    def load(self, given: Any) -> LoadedImages:
        return _Reads(self.given)


@pytest.mark.parametrize("given", [None, np.zeros(4), np.zeros((1, 1, 1, 4), complex), [[[[0.0] * 4]]]])
def test_blocks_of_readings_that_are_none(given: Any) -> None:
    with pytest.raises(TargetError, match=r"device gave readings .* for drives of shape"):
        Session(program_of("m2tj4", "", 0), Loads(given)).run({"x": images(2, 30)})


def test_readings_must_be_finite_and_as_many_as_columns() -> None:
    device: Device = Bench(IdealArray(load_target("m2tj4").array_spec))
    write_image(device, 0, np.zeros((4, 4), np.uint8))
    assert read_image(device, 0, np.ones(4, np.float32)).shape == (4,)
    event = Read(0, 0, 7, 0, 0, 0, 0.0)
    with pytest.raises(
        TargetError, match=r"readings of shape \(4,\), 0 of them not finite, for tile 7 in array 0; wanted 5"
    ):
        read_once(device, event, np.ones(4, np.float32), 5)
    for given in (None, ["a"] * 4, [[1], [1, 2]], np.zeros(4, complex)):
        with pytest.raises(TargetError, match=r"no numbers for tile 7 in array 0: .*; wanted 4"):
            read_once(Gives(given), event, np.ones(4, np.float32), 4)
    with pytest.raises(TargetError, match="4 of them not finite"):
        read_once(device, event, np.full(4, np.nan, np.float32), 4)
