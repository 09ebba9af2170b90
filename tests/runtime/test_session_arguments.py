"""Numbers that a session is given: integers of any kind in their range, or one error that names them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import dense_model, images
from xbcompile.errors import DataError, RunError, TargetError
from xbcompile.program.program import Program
from xbcompile.runtime import Session, commission

FEEDS = {"x": images(4, 6)}
WRONG = [2.0, "2", True, [2], float("nan"), -1, 2**70, 10**4000]


@pytest.fixture(scope="module")
def program() -> Program:
    return xbcompile.compile(dense_model(6, 4, 3), "m2tj4", passes="quantize,analogue{low=0 high=1}", effort=0, batch=2)


@pytest.mark.parametrize("value", [*WRONG, 0])
def test_threads_and_memory(program: Program, value: Any) -> None:
    for name in ("threads", "memory_bytes"):
        with pytest.raises(RunError, match=f"^{name}=.*: give .*, a whole number from 1 to"):
            Session(program, **{name: value})
    with pytest.raises(RunError, match="threads"):
        commission(program, threads=value)
    with pytest.raises(RunError, match=r"chunk=.*: give how many samples"):
        Session(program, threads=1).run_samples(FEEDS, chunk=value)


@pytest.mark.parametrize("value", [*WRONG[:-2], 3])
def test_first_samples(program: Program, value: Any) -> None:
    session = Session(program, threads=1)
    for run in (session.run, session.run_samples):
        with pytest.raises(DataError, match=r"first_sample=.* is inside of a batch; give a multiple of 2"):
            run(FEEDS, first_sample=value)
    with pytest.raises(DataError, match="more than a session has numbers for"):
        session.run(FEEDS, first_sample=2**70)


@pytest.mark.parametrize("value", [2.0, "2", True, None, [2], 2**130, 10**4000])
def test_seeds(program: Program, value: Any) -> None:
    with pytest.raises(TargetError, match=r"seed = .* of a chip is no whole number of at most 128 bits"):
        Session(program, seed=value)


def test_integers_of_any_kind(program: Program) -> None:
    wanted = Session(program, seed=3, threads=1).run_samples(FEEDS, chunk=2, first_sample=4)["y"]
    one, two, many = np.int64(1), np.uint8(2), np.array(1 << 20)
    session = Session(program, seed=np.int32(3), threads=one, memory_bytes=many)
    assert np.array_equal(session.run_samples(FEEDS, chunk=two, first_sample=np.int16(4))["y"], wanted)
    assert session.corrections.chip == "m2tj4 seed 3"
