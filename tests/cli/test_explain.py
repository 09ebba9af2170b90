"""The explain command and --dim, as users see them."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

import xbcompile
from tests.fuzz.mutated_models import attention, control_flow, convolutional


@pytest.fixture
def heads(folder):
    onnx.save(attention(), folder / "heads.onnx")
    return "heads.onnx"


def rows(text):
    """The table's cells by the first one."""
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")
    ]
    return {cells[0]: cells[1:] for cells in lines}


def test_table(done, heads):
    out = done("explain", heads, "--dim", "sequence=5").out
    table = rows(out)
    assert table["query"] == ["MatMul", "4x4x5", "", "80"]
    assert table["scores"] == ["MatMul", "", "both operands are activations", "100"]
    assert table["softmax"] == ["Softmax", "", "normalisation", ""]
    assert "MACs on arrays: 60.00 % (300 of 500 per inference)" in out
    assert "12 nodes, 4 of them on arrays: 4 matrices, 60 weights; 2 digital segments" in out
    assert "open dimensions: batch; to fix: --dim batch=SIZE" in out
    assert "samples: axis 0 of x counts samples" in out


def test_open_sizes_show_as_question_marks(done, heads):
    out = done("explain", heads).out
    assert rows(out)["query"] == ["MatMul", "4x4x?", "", "?"]
    assert "6 matrix products of unknown size not counted" in out
    assert "--dim batch=SIZE --dim sequence=SIZE" in out


def test_groups_and_inner_nodes(done, folder):
    onnx.save(convolutional(), folder / "conv.onnx")
    assert rows(done("explain", "conv.onnx").out)["conv1"] == ["Conv", "2 x 9x2x16", "", "576"]
    onnx.save(control_flow(), folder / "flow.onnx")
    assert rows(done("explain", "flow.onnx", "--batch-axis", "0").out)["then_fc"] == [
        "MatMul",
        "",
        'inside the body of If "if"',
        "16",
    ]


def test_long_names_stay_inside_120_characters(done, folder):
    model = convolutional()
    for node in model.graph.node:
        node.name = f"/model/encoder/layers.0/blocks.11/attention/self/{node.name}/with/a/very/long/name"
    onnx.save(model, folder / "long.onnx")
    out = done("explain", "long.onnx").out
    assert max(map(len, out.splitlines())) <= 160
    assert max(len(line) for line in out.splitlines() if line.startswith("│")) <= 120
    assert "/model/encoder/layers.0/blocks.11" in out


def test_json_is_the_python_result(done, heads):
    out = json.loads(done("explain", heads, "--dim", "sequence=5", "--json").out)
    assert out == json.loads(json.dumps(xbcompile.explain(heads, dims={"sequence": 5}).to_json()))
    query = out["nodes"][0]
    assert query["matrices"] == [{"name": "query", "groups": 1, "inputs": 4, "outputs": 4, "vectors": 5}]
    assert {"node", "operator", "lowered", "matrices", "macs", "reason"} <= query.keys()
    assert out["totals"]["share_percent"] == pytest.approx(60)


def test_every_key_is_documented(done, heads):
    text = (onnx_root() / "docs" / "json.md").read_text(encoding="utf-8")
    section = text.split("## `explain`")[1].split("\n## ")[0]
    documented = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", section))))
    out = json.loads(done("explain", heads, "--json").out)
    keys = {*out, *out["totals"], *out["nodes"][0], *out["nodes"][0]["matrices"][0]}
    assert keys <= documented


def onnx_root():
    from tests.support.model_kit import MODELS

    return MODELS.parent


def test_bad_input(refused, heads):
    assert 'no dimension "width"; its open dimensions are: batch (axis 0 of x), sequence' in refused(
        "explain", heads, "--dim", "width=3"
    )
    assert "write --dim NAME=SIZE" in refused("explain", heads, "--dim", "batch")
    assert 'no dimension "width"' in refused("compile", heads, "-o", "p.xbar", "--target", "ideal", "--dim", "width=3")
    assert "none.onnx: no such file" in refused("explain", "none.onnx")
    assert 'digital "z*" matches no node' in refused("explain", heads, "--digital", "z*")


def test_compile_and_inspect_tell_of_open_sizes(done, heads):
    out = done("compile", heads, "-o", "open.xbar", "--target", "ideal").out
    assert "vectors per inference of query, key, value, fc depend on the size of the input; counted as 1" in out
    assert "--dim sequence=SIZE" in out
    shown = json.loads(done("inspect", "open.xbar", "--json").out)
    assert shown["program"]["open_dimensions"] == ["batch", "sequence"]
    assert "--dim sequence=SIZE" in shown["program"]["open_sizes"]
    done("compile", heads, "-o", "fixed.xbar", "--target", "ideal", "--dim", "sequence=5")
    fixed = json.loads(done("inspect", "fixed.xbar", "--json").out)
    assert (fixed["program"]["open_dimensions"], fixed["program"]["open_sizes"]) == (["batch"], "")
    assert [layer["vectors_per_inference"] for layer in fixed["layers"]] == [5] * 4


def test_data_of_another_size_names_the_dimension(refused, done, heads, folder):
    done("compile", heads, "-o", "open.xbar", "--target", "ideal")
    np.savez(folder / "c.npz", x=np.ones((4, 5, 3), np.float32))
    text = refused("run", "open.xbar", "--data", "c.npz")
    assert "samples have shape 5x3; the model's input 'x' wants ?x4" in text
    assert "--dim sequence=SIZE" in text


def test_verify_against_a_model_that_refuses_random_inputs(done, refused, folder):
    """Two open sizes that must be equal and do not say so."""
    from onnx import helper

    from tests.support.model_kit import model_of

    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "z"], ["y"])]
    onnx.save(model_of(nodes, {"x": ["n", 4], "z": ["k", "m"]}, ["y"], {"w": np.ones((4, 3))}), folder / "m.onnx")
    done("compile", "m.onnx", "-o", "p.xbar", "--target", "ideal")
    text = refused("verify", "p.xbar", "--model", "m.onnx")
    assert "it refuses random inputs of shape x 8x4, z 8x8" in text
    assert "--dim k=SIZE" in text
    done("compile", "m.onnx", "-o", "p.xbar", "--target", "ideal", "--dim", "k=3")
    assert "right" in done("verify", "p.xbar", "--model", "m.onnx").out
