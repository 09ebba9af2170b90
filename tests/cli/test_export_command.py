"""`export`, `where`, `report`, `compare` and `glossary` as they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.small_programs import convolution_model, images


@pytest.fixture
def program(done, folder) -> Path:
    onnx.save(convolution_model(), folder / "m.onnx")
    done("compile", "m.onnx", "--target", "m2tj4", "--arrays", 2, "-o", "p.xbar")
    return folder / "p.xbar"


def test_every_file_that_is_named_is_there(done, program, folder):
    np.save(folder / "x.npy", images(2, 2, 4, 4))
    result = json.loads(
        done(
            "export", "p.xbar", "-o", "out", "--data", "x.npy", "--trace", "t.json", "--onnx", "h.onnx", "--overlay",
            "o.json", "--json",
        ).out
    )  # fmt: skip
    assert {Path(each["path"]).name for each in result["files"]} == {
        "cells.csv", "cells.npz", "layers.npz", "schedule.csv", "schedule.jsonl", "drives.npz", "host.onnx", "program.json",
        "t.json", "h.onnx", "o.json",
    }  # fmt: skip
    for each in result["files"]:
        assert Path(each["path"]).stat().st_size == each["bytes"] > 0


def test_nothing_to_export(refused, program):
    assert "give -o DIR" in refused("export", "p.xbar")
    assert "give -o DIR" in refused("export", "p.xbar", "--data", "x.npy", "--trace", "t.json")
    assert "overwrite the input" in refused("export", "p.xbar", "--trace", "p.xbar")


def test_where_both_ways(done, program):
    found = json.loads(done("where", "p.xbar", "fc[3,2]", "--json").out)["weights"]
    assert [(each["layer"], each["input"], each["output"]) for each in found] == [("fc", 3, 2)]
    cell = ",".join(map(str, (found[0]["arrays"][0], found[0]["row"], found[0]["column"])))
    assert found[0] in json.loads(done("where", "p.xbar", "--cell", cell, "--json").out)["weights"]
    text = done("where", "p.xbar", "fc[3,2]").out
    assert f"image {found[0]['image']}, row {found[0]['row']}, column {found[0]['column']}" in text
    assert "resistance_ohm" in text


def test_where_needs_one_of_two(refused, program):
    assert "either a weight" in refused("where", "p.xbar")
    assert "either a weight" in refused("where", "p.xbar", "fc[0,0]", "--cell", "0,0,0")


def test_a_page_with_a_run(done, program, folder):
    np.savez(folder / "d.npz", x=images(3, 2, 4, 4), labels=np.array([0, 1, 2]))
    result = json.loads(done("report", "p.xbar", "--data", "d.npz", "-o", "page.html", "--json").out)
    page = (folder / "page.html").read_text()
    assert result["bytes"] == len(page.encode())
    assert f"{100 * result['run']['accuracy']['mean']:.2f} %" in page
    assert '<section id="accuracy"' in page
    done("report", "p.xbar", "-o", "page.html")
    assert '<section id="accuracy"' not in (folder / "page.html").read_text()


def test_two_programs(done, program):
    done("compile", "m.onnx", "--target", "m2tj4", "--arrays", 0, "--set", "t_read_s=2e-6", "-o", "q.xbar")
    result = json.loads(done("compare", "p.xbar", "q.xbar", "--json").out)
    decided = {row["what"]: (row["first"], row["second"]) for row in result["decided"]}
    assert decided["option arrays"] == (2, 0)
    assert decided["target t_read_s"] == (1e-6, 2e-6)
    assert decided["stationary"] == (False, True)
    inspected = [json.loads(done("inspect", name, "--json").out) for name in ("p.xbar", "q.xbar")]
    for row in result["figures"]:
        assert (row["first"], row["second"]) == tuple(each["totals"][row["figure"]] for each in inspected)
    assert not result["same"]
    assert "target t_read_s" in done("compare", "p.xbar", "q.xbar").out
    same = json.loads(done("compare", "p.xbar", "p.xbar", "--json").out)
    assert same["same"]
    assert same["decided"] == same["layers"] == []


def test_words(done, refused):
    assert done("glossary", "area").out.startswith("area bound (bound): ")
    assert len(json.loads(done("glossary", "--json").out)["terms"]) > 30
    assert "no word 'xylophone'" in refused("glossary", "xylophone")


def test_requirements_decide_the_status(cli, done, refused, program, folder):
    np.savez(folder / "d.npz", x=images(3, 2, 4, 4), labels=np.array([0, 1, 2]))
    asked = ["run", "p.xbar", "--data", "d.npz", "--require"]
    result = json.loads(done(*asked, "accuracy>=0", "--json").out)
    assert result["requirements"] == [{"asked": "accuracy>=0", "found": result["accuracy"]["mean"], "met": True}]
    missed = cli(*asked, "accuracy>=1.5")
    assert missed.status == 1
    assert "required: accuracy>=1.5: NOT MET" in missed.out
    np.save(folder / "x.npy", images(3, 2, 4, 4))
    assert "needs labels" in refused("run", "p.xbar", "--data", "x.npy", "--require", "accuracy>=0")
    assert "is unknown" in refused(*asked, "speed>=1")
