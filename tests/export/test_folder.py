"""Exported files against the program: every number, and sums against the tables that `inspect` prints."""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
import pytest

import xbcompile
from tests.support.small_programs import convolution_model, images
from xbcompile.errors import DataError
from xbcompile.export import drives
from xbcompile.export.folder import export_program
from xbcompile.export.model import overlay
from xbcompile.export.trace import write_trace
from xbcompile.ir.schedule import READ
from xbcompile.reference.evaluate import layer_inputs
from xbcompile.report.summary import summarize

OPTIONS = {
    "m2tj4": {"arrays": 3, "batch": 2},
    "sot": {"arrays": 0},
    "mram64": {"arrays": 1},
    "memristor20": {"arrays": 0},
}


@pytest.fixture(scope="module", params=OPTIONS)
def program(request):
    return xbcompile.compile(convolution_model(), request.param, **OPTIONS[request.param])


@pytest.fixture
def exported(program, tmp_path):
    export_program(program, tmp_path, {"x": images(3, 2, 4, 4)})
    return tmp_path


def test_csv_and_archive_say_the_same_of_every_weight(program, exported):
    with (exported / "cells.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    cells = np.load(exported / "cells.npz")
    assert len(lines) == sum(layer.weight_code.codes.size for layer in program.network.layers)
    by_name = {layer.name: layer.weight_code for layer in program.network.layers}
    names = set(program.target.parameters.cell_states(np.zeros(1, cells["cell"].dtype)))
    assert names, "every shipped family but ideal says what its cells are"
    for line in lines:
        at = tuple(int(line[name]) for name in ("image", "row", "column"))
        code = by_name[line["layer"]].codes[tuple(int(line[name]) for name in ("group", "input", "output"))]
        assert float(line["cell"]) == pytest.approx(float(code))
        assert cells["cell"][at] == code
        for name in names:
            assert cells[name][at] == pytest.approx(float(line[name]))


def test_cells_of_the_archive_are_those_of_the_program(program, exported):
    cells = np.load(exported / "cells.npz")
    np.testing.assert_array_equal(cells["cell"], program.cells(np.arange(program.schedule.images)))
    for name, array in program.target.parameters.cell_states(cells["cell"]).items():
        np.testing.assert_array_equal(cells[name], array)


def test_schedules_are_the_steps(program, exported):
    lines = [json.loads(line) for line in (exported / "schedule.jsonl").read_text().splitlines()]
    with (exported / "schedule.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(lines) == len(rows) == len(program.schedule.steps) + program.schedule.initial_writes
    reads = sum(line.get("reads", 0) for line in lines)
    assert reads == summarize(program)["totals"]["reads_per_inference"] * program.schedule.batch
    for line, row in zip(lines, rows, strict=True):
        assert {name: row[name] for name in ("operation", "start_s", "array")} == {
            "operation": line["operation"], "start_s": repr(line["start_s"]), "array": str(line["array"])
        }  # fmt: skip


def test_drives_stand_for_the_inputs(program, exported):
    """Undoing the input code gives what the layers read, within a step of the code, where it is in range."""
    stored = np.load(exported / "drives.npz")
    values = layer_inputs(program.network, {"x": images(3, 2, 4, 4)})
    for layer in program.network.layers:
        drive, count = stored[f"{layer.name}/drive"], stored[f"{layer.name}/coefficients"]
        inputs = np.einsum("s,gvsk->gvk", count, drive) * stored[f"{layer.name}/gain"][:, None]
        inputs += stored[f"{layer.name}/shift"][:, None]
        groups, _, k = inputs.shape
        if layer.name == "fc":
            wanted = np.concatenate(values["fc"]).reshape(groups, -1, k)
            step = (wanted.max() - wanted.min()) / max(1, layer.input_code.steps) if layer.input_code.steps else 1e-5
            np.testing.assert_allclose(inputs, wanted, atol=step)
        signals = {name for name in stored if name.startswith(f"{layer.name}/")}
        own = set(program.target.parameters.row_signals(drive))
        assert signals == {f"{layer.name}/{name}" for name in ("drive", "coefficients", "gain", "shift", *own)}


def test_drives_that_are_too_many_are_refused(program, monkeypatch):
    monkeypatch.setattr(drives, "MOST_DRIVES", 10)
    with pytest.raises(DataError, match="at most 10 are exported"):
        list(drives.layer_drives(program, {"x": images(3, 2, 4, 4)}))


def test_a_large_program_has_no_csv(program, tmp_path):
    written = export_program(program, tmp_path, csv_weights=10)
    assert "cells.csv" not in {path.name for path in written}
    assert json.loads((tmp_path / "program.json").read_text())["files"] == [path.name for path in written[:-1]]


def test_the_model_runs_elsewhere_and_tells_its_costs(program, exported):
    session = onnxruntime.InferenceSession(str(exported / "host.onnx"), providers=["CPUExecutionProvider"])
    x = images(3, 2, 4, 4)
    (found,) = session.run(None, {"x": x})
    wanted = xbcompile.Session(program, "ideal").run({"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    model = onnx.load(exported / "host.onnx")
    facts = {row["layer"]: row for row in summarize(program)["layers"]}
    told = {
        node.name: {entry.key: entry.value for entry in node.metadata_props}
        for node in model.graph.node
        if node.metadata_props
    }
    assert set(told) == set(facts)
    for name, metadata in told.items():
        assert float(metadata["xbcompile.reads_per_inference"]) == facts[name]["reads_per_inference"]
    shown = overlay(program)["results"]
    assert {name: each["value"] for name, each in shown.items()} == {
        name: row["reads_per_inference"] for name, row in facts.items()
    }
    assert set(shown) <= {node.name for node in model.graph.node}


@pytest.mark.parametrize("batches", [1, 3])
def test_the_trace_adds_up_to_the_tables(program, tmp_path, batches):
    """Reads, rows and energy are those of `inspect`; the slices of an array never overlap within a batch."""
    path = tmp_path / "trace.json"
    with path.open("wb") as file:
        count = write_trace(program, file, batches)
    trace = json.loads(path.read_text())
    assert len(trace["traceEvents"]) == count
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    schedule, totals = program.schedule, summarize(program)["totals"]
    reads = [each for each in slices if each["cat"] == "read"]
    assert len(reads) == batches * np.count_nonzero(schedule.steps["operation"] == READ)
    assert sum(each["args"]["reads"] for each in reads) == totals["reads_per_inference"] * schedule.batch * batches
    energy = sum(each["args"]["energy_joule"] for each in reads)
    assert energy == pytest.approx(totals["e_read_per_inference_j"] * schedule.batch * batches)
    writes = [each for each in slices if each["cat"] == "write"]
    assert sum(each["args"]["rows"] for each in writes) == (
        0 if schedule.stationary else schedule.rows_written * batches
    )
    assert sum(each["cat"] == "set-up write" for each in slices) == schedule.initial_writes
    by_array = defaultdict(list)
    for each in slices:
        if each["args"].get("batch", 0) == 0:
            by_array[each["tid"]].append((each["ts"], each["ts"] + each["dur"]))
    for spans in by_array.values():
        spans.sort()
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert start >= end - 1e-9
    starts = [[each["ts"] for each in slices if each["args"].get("batch") == batch] for batch in range(batches)]
    for batch, each in enumerate(starts):
        np.testing.assert_allclose(each, np.add(starts[0], batch * schedule.period_s * 1e6), rtol=1e-12, atol=1e-9)
    assert {event["name"] for event in trace["traceEvents"] if event["ph"] == "M"} == {
        "process_name", "thread_name", "thread_sort_index",
    }  # fmt: skip
