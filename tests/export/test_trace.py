"""Traces by the rules of the Trace Event Format and of Perfetto's importer.

Sources: "Trace Event Format" (Duffy and others), sections JSON object format, complete events, metadata events; Perfetto's
trace processor, which drops events before time 0, counts in whole nanoseconds, and wants slices of a thread nested.
"""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from itertools import pairwise

import pytest

import xbcompile
from tests.support.small_programs import convolution_model
from xbcompile.export.trace import write_trace
from xbcompile.ir.schedule import READ

METADATA = {"process_name": ("name", str), "thread_name": ("name", str), "thread_sort_index": ("sort_index", int)}
OPTIONS = {
    "recycled": ("m2tj4", {"arrays": 3, "batch": 2}),
    "one array": ("mram64", {"arrays": 1}),
    "stationary": ("sot", {"arrays": 0}),
    "overlapping": ("memristor20", {"arrays": 0, "packing": "none"}),
}


def check_event(event: dict) -> None:
    """One event alone."""
    assert event["ph"] in ("X", "M")
    assert isinstance(event["pid"], int)
    assert isinstance(event["name"], str)
    if event["ph"] == "M":
        key, kind = METADATA[event["name"]]
        assert set(event["args"]) == {key}
        assert isinstance(event["args"][key], kind)
        return
    assert set(event) == {"ph", "pid", "tid", "name", "cat", "ts", "dur", "args"}
    assert isinstance(event["tid"], int)
    assert isinstance(event["cat"], str)
    assert "," not in event["cat"]  # commas part categories
    for name in ("ts", "dur"):
        assert isinstance(event[name], int | float)
        assert math.isfinite(event[name])
        assert event[name] >= 0
    assert all(isinstance(value, int | float | str) for value in event["args"].values())


def check_trace(text: str) -> list[dict]:
    """The whole of a file; its slices."""
    trace = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert set(trace) == {"displayTimeUnit", "traceEvents"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    for event in trace["traceEvents"]:
        check_event(event)
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    named = {event["tid"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {event["tid"] for event in slices} <= named
    spans = defaultdict(list)
    for event in slices:  # microseconds, as the importer cuts them to nanoseconds
        start = int(event["ts"] * 1000)
        spans[event["tid"]].append((start, start + int(event["dur"] * 1000)))
    for mine in spans.values():
        for (_, end), (start, _) in pairwise(sorted(mine)):
            assert end <= start + 1  # a nanosecond that arithmetic of floats may cost
    return slices


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("batches", [1, 4])
def test_traces_are_what_viewers_take(name, batches):
    target, options = OPTIONS[name]
    program = xbcompile.compile(convolution_model(), target, **options)
    file = io.BytesIO()
    count = write_trace(program, file, batches)
    slices = check_trace(file.getvalue().decode())
    schedule = program.schedule
    assert count > len(slices) == schedule.initial_writes + batches * len(schedule.steps)
    overlapping = schedule.stationary and schedule.period_s < schedule.makespan_s
    assert overlapping == (name == "overlapping")
    setup = [each for each in slices if each["cat"] == "set-up write"]
    reads = [each for each in slices if each["cat"] == "read"]
    assert len(reads) == batches * int((schedule.steps["operation"] == READ).sum())
    if setup:
        assert min(each["ts"] for each in setup) == 0
        assert max(each["ts"] + each["dur"] for each in setup) == pytest.approx(schedule.setup_s * 1e6)
        assert min(each["ts"] for each in slices if "batch" in each["args"]) == pytest.approx(schedule.setup_s * 1e6)


@pytest.fixture(scope="module")
def written() -> bytes:
    file = io.BytesIO()
    write_trace(xbcompile.compile(convolution_model(), "m2tj4", arrays=1), file)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"ts": -1.0},
        {"dur": math.nan},
        {"dur": 1e9},
        {"tid": 99},
        {"args": {"a": [1]}},
        {"cat": "a,b"},
        {"ph": "B"},
    ],
)
def test_the_checker_sees_what_is_wrong(change, written):
    trace = json.loads(written)
    first = next(event for event in trace["traceEvents"] if event["ph"] == "X")
    first |= change
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_trace(json.dumps(trace))
