"""Chips of one prepared program: what they share changes nothing of what each gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

import xbcompile
from tests.support.small_programs import dense_model
from xbcompile.runtime import Session
from xbcompile.runtime.prepared import PreparedProgram

X = np.random.default_rng(1).random((12, 70), np.float32)
PIPELINES = {
    "recalibrate": ("mram64", "quantize{scheme=binary},thermometer{bits=2},recalibrate{samples=8}"),
    "tiles": ("sot", "quantize{scheme=ternary},analogue,recalibrate{samples=8 per=tile}"),
    "offsets": ("mram64", "quantize{scheme=binary},thermometer{bits=2},calibrate-offsets{samples=8}"),
    "columns": (
        "mram64",
        "quantize{scheme=binary},thermometer{bits=2},quiet-columns{samples=8},recalibrate{samples=8}",
    ),
    "defects": ("memristor20", "quantize{scheme=continuous per=matrix},analogue,avoid-defects,recalibrate{samples=4}"),
}


def program(kind: str) -> xbcompile.Program:
    target, passes = PIPELINES[kind]
    return xbcompile.compile(dense_model(70, 30, 10), target, passes=passes, calibration={"x": X}, effort=0)


@pytest.mark.parametrize("kind", PIPELINES)
def test_chips_that_share_are_as_those_that_do_not(kind: str) -> None:
    """Outputs, corrections and what they cost, in whatever order chips come; the first is run again at the end."""
    made = program(kind)
    prepared = PreparedProgram(made, threads=2)
    for seed in (0, 1, 2, 0):
        alone, shared = Session(made, seed=seed, threads=1), Session(prepared, seed=seed)
        assert shared.corrections == alone.corrections
        expected, found = alone.run_samples({"x": X}), shared.run_samples({"x": X}, observe=False)
        assert np.array_equal(found["y"], expected["y"])
        assert shared.counters == alone.counters
    outputs = [Session(prepared, seed=seed).run({"x": X})["y"] for seed in (0, 1)]
    assert not np.array_equal(*outputs)


def test_what_is_shared_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime is asked for segments and references by the first chip alone; without room they are computed again."""
    opened: list[bytes] = []
    open_session = onnxruntime.InferenceSession

    def counted(model: bytes, *arguments: Any, **options: Any) -> onnxruntime.InferenceSession:
        opened.append(model)
        return open_session(model, *arguments, **options)

    monkeypatch.setattr("onnxruntime.InferenceSession", counted)
    made = program("recalibrate")
    prepared = PreparedProgram(made)
    opened.clear()
    Session(prepared, seed=0)
    assert opened
    opened.clear()
    Session(prepared, seed=1)
    assert not opened
    monkeypatch.setattr("xbcompile.runtime.prepared.KEPT_BYTES", 0)
    full = PreparedProgram(made)
    Session(full, seed=0)
    opened.clear()
    Session(full, seed=1)
    assert opened


def test_readings_are_observed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's readings are seen until there are enough, whatever runs they are in; none where they are not wanted."""
    monkeypatch.setattr("xbcompile.runtime.layer_executor.OBSERVED_READINGS", 500)
    monkeypatch.setattr("xbcompile.runtime.session.OBSERVED_READINGS", 500)
    session = Session(program("recalibrate"))
    session.run_samples({"x": X}, observe=False)
    assert [each.readings for each in session.statistics] == [0, 0]
    session.run_samples({"x": X[:1]})  # fc1: 2 strips of 30 columns, read twice; fc2: 10 columns, read twice
    session.run_samples({"x": X})
    assert [each.readings for each in session.statistics] == [120 + 5 * 120, 20 + 12 * 20]
    session.run_samples({"x": X})
    assert [each.readings for each in session.statistics] == [720, 20 + 2 * 12 * 20]
    assert [each.inputs for each in session.statistics] == [37 * 70, 37 * 30]
    for chunk in (1, 5, None):  # as memory allows
        other = Session(session.prepared)
        other.run_samples({"x": X}, chunk=chunk)
        assert [each.readings for each in other.statistics] == [5 * 120, 12 * 20]


def test_samples_that_have_room() -> None:
    """Per sample 70 inputs and 30 outputs of the first layer, float32, wait while the segment behind takes these and gives as
    many, all once more for onnxruntime: 4 (70 + 30 + 30 + 2 * 30) = 760 bytes, for which there is a quarter of the memory.
    """
    made = program("recalibrate")
    for memory_bytes, expected in ((1 << 29, 1000), (4 * 760 * 7, 7), (1, 1)):
        assert PreparedProgram(made, memory_bytes=memory_bytes).samples_at_once({"x": X}) == expected
    outputs = [
        Session(made, seed=1, memory_bytes=size).run_samples({"x": X})["y"] for size in (1, 4 * 760 * 5, 1 << 29)
    ]
    assert np.array_equal(outputs[0], outputs[2])
    assert np.array_equal(outputs[1], outputs[2])
    parts = list(Session(made, seed=1, memory_bytes=4 * 760 * 5).run_parts({"x": X}))
    assert [len(part["y"]) for part in parts] == [5, 5, 2]
    assert np.array_equal(np.concatenate([part["y"] for part in parts]), outputs[2])
