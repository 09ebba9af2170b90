"""When batches start: the sums of periods that the clock's text promises."""

from __future__ import annotations

import pytest

from xbcompile.runtime.timeline import COMMISSION_BATCH, Clock


def clock() -> Clock:
    return Clock(setup_s=10.0, period_s=2.0, makespan_s=3.0)


def test_runs_follow_each_other() -> None:
    """Three batches from 10 s on, each 2 s after the other and 3 s long: the next run starts at 17 s."""
    time = clock()
    time.run(0, 3)
    assert time.start_s([0, 1, 2]).tolist() == [10.0, 12.0, 14.0]
    assert time.now_s == 17.0
    time.run(3, 2)
    assert time.start_s([3, 4]).tolist() == [17.0, 19.0]
    assert float(time.start_s(2)) == 14.0  # what arrays hold at the start of the run is as old as it is
    assert time.batches == 5


def test_a_run_that_skips_batches() -> None:
    """The batch before it is one period older than its first, and never younger than the run."""
    time = clock()
    time.run(0, 1)
    time.run(1000, 2)
    assert time.start_s([999, 1000, 1001]).tolist() == [11.0, 13.0, 15.0]
    time.run(0, 1)
    assert float(time.start_s(0)) == 18.0
    assert time.batches == 1002


@pytest.mark.parametrize("runs", [0, 1])
def test_commissioning_starts_after_set_up(runs: int) -> None:
    time = clock()
    for first in range(runs):
        time.run(first, 1)
    assert time.start_s([COMMISSION_BATCH, COMMISSION_BATCH + 2]).tolist() == [10.0, 14.0]
