"""Calls that threads make side by side: the same numbers, counts and statistics as one thread gives, in order."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import dense_model
from xbcompile.errors import DataError
from xbcompile.runtime import Session
from xbcompile.runtime.layer_executor import LayerExecutor

SAMPLES = 1301  # no multiple of anything
X = np.random.default_rng(1).random((SAMPLES, 70), np.float32)


@pytest.fixture(scope="module")
def program() -> xbcompile.Program:
    target = xbcompile.load_target("sot").with_quantities("a test", read_noise=0.01, converter_codes=255)
    return xbcompile.compile(dense_model(70, 30, 10), target, arrays=0, effort=0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """(first sample, samples, alone) of every call."""
    made: list[tuple[int, int, bool]] = []
    together = Session._run_together

    def noted(self: Session, feeds: Any, samples: int, first: int, observe: bool, alone: bool = False) -> Any:
        made.append((first, samples, alone))
        return together(self, feeds, samples, first, observe, alone)

    monkeypatch.setattr(Session, "_run_together", noted)
    return made


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_give_what_one_gives(program, calls, threads):
    alone, shared = Session(program, threads=1), Session(program, threads=threads)
    for run in range(3):  # the first one observes: its first call is all threads' own
        del calls[:]
        done: list[int] = []
        observe = run == 0
        expected = alone.run_samples({"x": X}, observe=observe)
        found = shared.run_samples({"x": X}, done.append, observe=observe)
        assert np.array_equal(found["y"], expected["y"])
        side_by_side = [call for call in calls if call[2]]
        assert len(side_by_side) >= (2 if run else 1)
        assert sum(samples for _, samples, _ in calls) == 2 * SAMPLES
        assert done == sorted(done)
        assert done[-1] == SAMPLES
    assert shared.counters == alone.counters
    assert shared.statistics == alone.statistics


def test_what_is_observed_does_not_depend_on_threads(program, calls):
    """Little memory makes calls of fewer samples than are observed: all of these come first."""
    found = []
    for threads in (1, 2):
        session = Session(program, threads=threads, memory_bytes=1 << 20)
        session.run_samples({"x": X})
        found.append(session.statistics)
    assert max(samples for _, samples, _ in calls) < 500
    assert any(alone for _, _, alone in calls)
    assert found[0] == found[1]


def test_few_samples_stay_in_one_call(program, calls):
    session = Session(program, threads=2)
    for _ in range(2):
        session.run_samples({"x": X[:100]})
    assert [samples for _, samples, _ in calls] == [100, 100]


def test_given_chunks_are_kept(program, calls):
    session = Session(program, threads=2)
    session.run_samples({"x": X}, chunk=400)
    assert [samples for _, samples, _ in calls] == [400, 400, 400, 101]


def test_a_call_that_fails_is_told_and_the_session_goes_on(program, monkeypatch):
    session, run, fails = Session(program, threads=2), LayerExecutor.run, [False]
    expected = session.run_samples({"x": X}, first_sample=0)

    def failing(self: LayerExecutor, x: np.ndarray, *arguments: Any) -> np.ndarray:
        if fails[0] and np.array_equal(x[-1], X[-1]):
            raise DataError("the last sample")
        return run(self, x, *arguments)

    monkeypatch.setattr(LayerExecutor, "run", failing)
    fails[0] = True
    with pytest.raises(DataError, match="the last sample"):
        session.run_samples({"x": X})
    fails[0] = False
    assert np.array_equal(session.run_samples({"x": X}, first_sample=0)["y"], expected["y"])


def test_parts_may_be_left(program):
    session = Session(program, threads=2)
    expected = session.run_samples({"x": X}, first_sample=0)["y"]
    parts = session.run_parts({"x": X}, first_sample=0)
    assert isinstance(parts, Generator)
    first = next(parts)["y"]
    parts.close()
    assert np.array_equal(first, expected[: len(first)])
    assert np.array_equal(session.run_samples({"x": X}, first_sample=0)["y"], expected)
