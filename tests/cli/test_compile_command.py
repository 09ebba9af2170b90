"""The compile command: every option, and counts that follow from the shapes of the matrices."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from xbcompile import CompileOptions, load_program, load_target

DENSE = [(784, 128), (128, 10)]


def tiles(shapes, size):
    """Tiles of plain cutting: each matrix into pieces of at most size x size."""
    return sum(ceil(k / size) * ceil(m / size) for k, m in shapes)


@pytest.fixture
def compiled(done):
    """Compile to p.xbar and return what --json prints."""

    def call(*arguments):
        return json.loads(done("compile", *arguments, "-o", "p.xbar", "--json").out)

    return call


def test_reads_of_the_float_network(compiled, models):
    summary = compiled(models / "mnist_mlp.onnx", "--target", "m2tj4", "--packing", "none")
    assert tiles(DENSE, 4) == 196 * 32 + 32 * 3 == 6368
    assert summary["totals"]["reads_per_inference"] == summary["totals"]["tiles"] == 6368
    assert summary["totals"]["weight_updates"] == summary["totals"]["images"] == 6368  # one tile per image, one array
    # Each read measures the tile's columns once: 128 columns in 196 row blocks, 10 in 32.
    assert summary["totals"]["dot_products_per_inference"] == 196 * 128 + 32 * 10


def test_reads_after_pca(mnist, compiled, models):
    assert tiles([(87, 128), (128, 10)], 4) == 22 * 32 + 32 * 3 == 800
    built_in = compiled(models / "mnist_mlp_pca87.onnx", "--target", "m2tj4", "--packing", "none")
    assert built_in["totals"]["reads_per_inference"] == 800
    passes = "pca{components=87},quantize,analogue"
    calibration = ("--calibration", "mnist:train:1000", "--passes", passes)
    fitted = compiled(models / "mnist_mlp.onnx", "--target", "m2tj4", "--packing", "none", *calibration)
    assert fitted["totals"]["reads_per_inference"] == 800
    assert fitted["program"]["pipeline"] == passes


def test_binary_network(compiled, models):
    model = models / "mnist_bnn.onnx"
    summary = compiled(model, "--packing", "none")
    assert [layer["weight_updates"] for layer in summary["layers"]] == [26, 2]
    assert [layer["images_lower_bound"] for layer in summary["layers"]] == [25, 1]  # 24.5 and 0.3 arrays of cells
    alone = summary["totals"]
    assert alone["weight_updates"] == alone["images"] == tiles(DENSE, 64) == 13 * 2 + 2 == 28
    assert alone["reads_per_inference"] == 28 * 8
    assert alone["dot_products_per_inference"] == (13 * 128 + 2 * 10) * 8 == 13_472
    packed = compiled(model, "--cuts", "greedy")["totals"]
    assert packed["weight_updates"] == packed["images"] == 26
    assert packed["images_lower_bound"] == ceil((784 * 128 + 128 * 10) / 64**2) == 25
    assert packed["dot_products_per_inference"] == 13_472
    free = compiled(model)  # the best of all
    assert free["totals"]["images"] == free["totals"]["images_lower_bound"] == 25
    assert free["program"]["packing_status"] == "optimal"
    assert free["program"]["cuts"] == "free"


def test_arrays(compiled, models):
    model = models / "mnist_bnn.onnx"
    one, four, all_of_them = (compiled(model, "--cuts", "greedy", "--arrays", n) for n in (1, 4, 0))
    assert [s["program"]["arrays"] for s in (one, four, all_of_them)] == [1, 4, 26]
    assert [s["program"]["stationary"] for s in (one, four, all_of_them)] == [False, False, True]
    # Weights that stay are written once, so an inference costs its reads alone.
    assert all_of_them["totals"]["e_write_per_inference_j"] == 0
    assert one["totals"]["e_write_per_inference_j"] == pytest.approx(26 * load_target("mram64").array_spec.e_write_j)
    assert all_of_them["totals"]["makespan_s"] < four["totals"]["makespan_s"] < one["totals"]["makespan_s"]


def test_batch(compiled, models):
    one, eight = (compiled(models / "mnist_bnn.onnx", "--batch", n)["totals"] for n in (1, 8))
    assert one["weight_updates"] == eight["weight_updates"]
    assert eight["e_write_per_inference_j"] == pytest.approx(one["e_write_per_inference_j"] / 8)
    assert eight["e_read_per_inference_j"] == pytest.approx(one["e_read_per_inference_j"])


def test_scramble_and_seed(done, models):
    def permutation(*options):
        done("compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4", *options)
        program = load_program("p.xbar")
        return program.schedule.column_permutation, program.options

    plain, options = permutation("--no-scramble")
    assert np.array_equal(plain[0], np.arange(4))
    assert options == CompileOptions(scramble=False)
    found = {permutation("--seed", seed)[0].tobytes() for seed in range(8)}
    assert len(found) > 1
    assert permutation("--seed", 3)[0].tobytes() == permutation("--seed", 3)[0].tobytes()


def test_like_another_program(done, refused, models):
    """Target and options of a program make its bytes again; what is given besides replaces one of them."""
    given = (
        "--target",
        "m2tj4",
        "--set",
        "states=8",
        "--arrays",
        2,
        "--no-scramble",
        "--digital",
        "fc1",
        "--dim",
        "batch=2",
    )
    done("compile", models / "xor.onnx", "-o", "p.xbar", *given)
    first = load_program("p.xbar")
    done("compile", models / "xor.onnx", "-o", "again.xbar", "--like", "p.xbar")
    assert load_program("again.xbar").digest == first.digest
    done(
        "compile",
        models / "xor.onnx",
        "-o",
        "other.xbar",
        "--like",
        "p.xbar",
        "--arrays",
        1,
        "--scramble",
        "--target",
        "ideal",
    )
    other = load_program("other.xbar")
    assert other.options == replace(first.options, arrays=1, scramble=True)
    assert other.target == load_target("ideal")
    assert "would overwrite the input" in refused("compile", models / "xor.onnx", "-o", "p.xbar", "--like", "p.xbar")
    assert "'none.xbar' does not exist" in refused(
        "compile", models / "xor.onnx", "-o", "q.xbar", "--like", "none.xbar"
    )


def test_digital(compiled, models):
    summary = compiled(models / "xor.onnx", "--target", "m2tj4", "--digital", "fc1", "--digital", "f*1")
    assert [layer["layer"] for layer in summary["layers"]] == ["fc2"]
    assert [(n["node"], n["lowered"]) for n in summary["nodes"]] == [("fc1", False), ("fc2", True)]
    assert "fc1" in summary["nodes"][0]["reason"]


def test_summary_keys(compiled, models):
    summary = compiled(models / "xor.onnx", "--target", "m2tj4")
    assert set(summary) == {"program", "options", "layers", "totals", "nodes", "notes"}
    assert {
        "weight_updates",
        "reads_per_inference",
        "images",
        "images_lower_bound",
        "dot_products_per_inference",
    } <= set(summary["totals"])
    assert summary["program"]["digest"] == load_program("p.xbar").digest


def test_table(done, models):
    result = done("compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4", "--digital", "fc2")
    assert (
        "xor on m2tj4 (4x4, 1 array, weights stay): greedy cuts, packing dense; passes: fold-batchnorm,quantize,analogue"
        in result.out
    )
    assert "digital: fc2 (Gemm): " in result.out
    assert "verified and written: p.xbar" in result.out
    assert result.err.startswith("xbcompile: warning: no calibration inputs: recalibrate left out")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("print_after", ["quantize", "all"])
def test_print_after(done, models, print_after):
    result = done(
        "compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4", "--print-after", print_after, "--json"
    )
    json.loads(result.out)  # the network goes to standard error
    shown = [line for line in result.err.splitlines() if line.startswith("after ")]
    steps = ["after fold-batchnorm:", "after quantize:", "after analogue:"]
    assert shown == (steps if print_after == "all" else steps[1:2])
    geometry = "Contraction(input_axis=-1, output_axis=-1, squeeze=False)"
    assert (
        f"  matrix fc1: input -> {load_program('p.xbar').network.layers[0].output}: [1x2x2], 4 levels, inputs as they "
        f"are, {geometry}" in result.err.splitlines()
    )


def test_bytes_are_deterministic(done, models, folder):
    def content(*options):
        done("compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4", *options)
        return (folder / "p.xbar").read_bytes()

    assert content() == content()
    assert content() != content("--seed", 1)


def test_no_embedded_model(done, models):
    done("compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4", "--no-embed-model")
    assert load_program("p.xbar").source is None
    done("compile", models / "xor.onnx", "-o", "p.xbar", "--target", "m2tj4")
    assert load_program("p.xbar").source is not None


def test_odd_names(done, models, folder):
    copy = folder / "mödel one.onnx"
    copy.write_bytes((models / "xor.onnx").read_bytes())
    done("compile", copy.name, "-o", "prögram one.xbar", "--target", "m2tj4")
    np.savez(folder / "dätä one.npz", input=np.ones((1, 2), np.float32))
    done("run", "prögram one.xbar", "--data", "dätä one.npz", "-o", "öut one.npz")
    assert np.load("öut one.npz")["output"].shape == (1, 1)


def test_target_file(compiled, models, folder):
    (folder / "t.toml").write_text(
        'extends = "mram64"\nname = "mram32"\n[quantities]\n'
        'rows = { value = 32, unit = "1", source = "assumed" }\ncolumns = { value = 32, unit = "1", source = "assumed" }\n'
    )
    summary = compiled(models / "mnist_bnn.onnx", "--target", "t.toml", "--packing", "none")
    assert summary["program"]["target"] == "mram32"
    assert summary["totals"]["images"] == tiles(DENSE, 32)
