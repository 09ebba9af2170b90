"""The plan command, as users see it: published mappings, requirements and their exit status, every key documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import xbcompile

SHAPES = {
    "what": "matrix shapes [inputs, outputs] in order of execution",
    "mlp": [[784, 128], [128, 10]],
    "lenet5": [[25, 6], [150, 16], [400, 120], [120, 84], [84, 10]],
    "autoencoder": [[640, 128], *[[128, 128]] * 3, [128, 8], [8, 128], *[[128, 128]] * 3, [128, 640]],
    "resnet8": [
        [27, 16],
        [144, 16],
        [144, 16],
        [144, 32],
        [144, 32],
        [288, 32],
        [288, 64],
        [288, 64],
        [576, 64],
        [64, 10],
    ],
    "dscnn": [[40, 64], *[[64, 64]] * 4, [64, 12]],
}


@pytest.fixture
def shapes(folder) -> str:
    (folder / "shapes.json").write_text(json.dumps(SHAPES))
    return "shapes.json"


@pytest.mark.parametrize(
    ("network", "options", "images"),
    [
        ("mlp", ["--target", "mram64"], 25),
        ("mlp", ["--array", "64x64", "--target", "ideal"], 25),
        ("lenet5", ["--array", "64x64", "--cuts", "free"], 16),
        ("lenet5", ["--array", "64x64", "--cuts", "greedy"], 17),
        ("autoencoder", ["--array", "256x256"], 5),
        ("resnet8", ["--array", "256x256"], 2),
        ("dscnn", ["--array", "256x256"], 1),
    ],
)
def test_images_and_writes_on_one_recycled_array(done, shapes, network, options, images):
    """Each image is written once per inference, and there are as few as weights fill."""
    out = json.loads(done("plan", f"{shapes}:{network}", *options, "--effort", "0.2", "--json").out)
    totals = out["totals"]
    assert totals["images"] == totals["weight_updates"] == images
    assert totals["images_lower_bound"] >= images - 1
    assert totals["weight_updates_lower_bound"] <= images
    assert totals["makespan_lower_bound_s"] <= totals["makespan_s"]
    assert out["seconds"] > 0


def test_json_is_the_python_result(done, shapes):
    out = json.loads(done("plan", f"{shapes}:lenet5", "--arrays", "4", "--batch", "2", "--effort", "0", "--json").out)
    plan = xbcompile.plan(SHAPES["lenet5"], "mram64", arrays=4, batch=2, effort=0)
    expected = json.loads(json.dumps(plan.summary))
    assert out["plan"].pop("network") == "lenet5"
    assert expected["plan"].pop("network") == "shapes"
    assert {**out, "seconds": 0} == {**expected, "seconds": 0}


def test_every_key_is_documented(cli, shapes):
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    section = text.split("## `plan`")[1].split("\n## ")[0] + text.split("## `compile`, `inspect`")[1].split("\n## ")[0]
    documented = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", section))))
    out = json.loads(cli("plan", f"{shapes}:mlp", "--effort", "0", "--require", "stationary", "--json").out)
    keys = {*out, *out["plan"], *out["options"], *out["totals"], *out["layers"][0], *out["candidates"][0]}
    keys |= {*out["requirements"][0], *out["requirements"][0]["relaxations"][0]}
    assert keys - documented == set()


def test_table(done, shapes):
    out = done("plan", f"{shapes}:mlp", "--array", "64x100", "--effort", "0").out
    assert "plan of mlp on mram64 (64x100, 1 array, recycled)" in out
    assert "│ matrix1 │ 784x128" in out
    assert "101,632 weights" in out
    assert "note: array of 64x100 in place of 64x64" in out
    assert "slices of inputs: 8 per vector, as thermometer of target mram64 says" in out
    assert re.search(r"│ chosen +│", out)


def test_requirements_decide_the_exit_status(cli, shapes):
    met = cli("plan", f"{shapes}:lenet5", "--effort", "0", "--require", "images<=17")
    assert (met.status, met.err) == (0, "")
    assert "requirement images<=17: met; found 16; at least 16, however it is mapped" in met.out
    unmet = cli("plan", f"{shapes}:dscnn", "--effort", "0", "--require", "images<=4", "--require", "images<=100")
    assert (unmet.status, unmet.err) == (1, "")
    assert "requirement images<=4: impossible; found 5; at least 5, however it is mapped" in unmet.out
    assert "requirement images<=100: met" in unmet.out
    assert "  binds: 19,712 weights fill 4.81 arrays of 64x64; 5 images hold them" in unmet.out
    assert "  met with --array 64x77 (no smaller one will do): 4 images on 1 array" in unmet.out


def test_relaxations_are_options_of_the_command(cli, done, shapes):
    arguments = ("plan", f"{shapes}:dscnn", "--effort", "0", "--require", "stationary")
    result = cli(*arguments, "--json")
    assert result.status == 1
    (row,) = json.loads(result.out)["requirements"]
    assert row["verdict"] == "impossible"
    assert len(row["relaxations"]) == 3
    for each in row["relaxations"]:
        again = json.loads(done(*arguments, *each["option"].split(), "--json").out)
        assert again["requirements"][0]["verdict"] == "met"
        assert again["totals"]["images"] == each["images"]


def test_a_model(done, model):
    out = json.loads(done("plan", model, "--target", "ideal", "--set", "columns=3", "--json").out)
    assert [(layer["inputs"], layer["outputs"]) for layer in out["layers"]] == [(6, 4), (4, 3)]
    assert (out["plan"]["array_rows"], out["plan"]["array_columns"]) == (64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "none.json: no such file"),
        (["none.onnx"], "none.onnx: no such file"),
        (["shapes.json"], "5 lists; give one as shapes.json:NAME, of mlp, lenet5"),
        (["shapes.json:alexnet"], "no list 'alexnet'"),
        (["shapes.json:mlp", "--array", "64"], "--array 64: write --array ROWSxCOLUMNS"),
        (["shapes.json:mlp", "--array", "0x64"], "array of 0 rows"),
        (["shapes.json:mlp", "--array", "-1x64"], "--array -1x64: write"),
        (["shapes.json:mlp", "--cuts", "round"], "cuts='round' is unknown: use one of auto, greedy, balanced, free"),
        (["shapes.json:mlp", "--objective", "fame"], "'fame' is unknown"),
        (["shapes.json:mlp", "--require", "fast"], "requirement 'fast' is unknown"),
        (["shapes.json:mlp", "--target", "none"], "unknown target 'none'"),
        (["shapes.json:mlp", "--dim", "batch=1"], "dimensions and inputs belong to models"),
        (["shapes.json:mlp", "--slices", "0"], "slices=0: give reads per input vector, a whole number from 1 to 255"),
        (["shapes.json:mlp", "--effort", "inf"], "effort=inf is out of range; allowed: numbers from 0"),
    ],
)
def test_faults_are_one_line(refused, shapes, arguments, message):
    assert message in refused("plan", *arguments)
