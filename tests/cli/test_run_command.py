"""The run, inspect, verify, targets, passes and characterize commands."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model
from xbcompile import __version__, load_program
from xbcompile.units import percent, si

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)


@pytest.fixture
def xor(done, models, folder):
    """The XOR network on its published array, and its truth table."""
    np.savez(folder / "xor.npz", input=XOR, labels=np.array([0, 1, 1, 0]))
    done("compile", models / "xor.onnx", "-o", "xor.xbar", "--target", "m2tj4", "--calibration", "xor.npz")
    return "xor.xbar"


def test_xor(done, xor):
    result = json.loads(done("run", xor, "--data", "xor.npz", "-o", "out.npz", "--json").out)
    assert (np.load("out.npz")["output"][:, 0] > 0.5).tolist() == [False, True, True, False]
    decision = result["accuracy"].pop("decision")
    assert result["accuracy"] == {"mean": 1.0, "std": None, "per_seed": [1.0], "software": 1.0}
    assert (decision["rule"], decision["threshold"]) == ("threshold", 0.5)


def test_xor_image(done, xor):
    """The deliverable's resistances: 150.59 * level + 8110.40 Ohm for the lowest and the highest of its four levels."""
    shown = done("inspect", xor, "--image", 0).out
    lowest, highest = 150.59 * 8.58 + 8110.40, 150.59 * 12.01 + 8110.40
    assert (round(lowest), round(highest)) == (9402, 9919)
    assert f"0 = level -1, {lowest:.0f} Ohm" in shown
    assert f"3 = level 1, {highest:.0f} Ohm" in shown
    image = json.loads(done("inspect", xor, "--image", 0, "--json").out)["image"]
    program = load_program(xor)
    assert np.array_equal(image["cells"], program.cells(np.array([0]))[0])
    assert sum(tile["rows"] * tile["columns"] for tile in image["tiles"]) == 2 * 2 + 2 * 1


def test_schedule(done, xor):
    result = json.loads(done("inspect", xor, "--schedule", "--json").out)
    reads = [row for row in result["schedule"] if row["operation"] == "read"]
    assert len(reads) == result["totals"]["tiles"]
    assert sum(row["reads"] for row in reads) == result["totals"]["reads_per_inference"] * result["program"]["batch"]
    assert result["totals"]["weight_updates"] == len(result["schedule"]) - len(reads)
    assert "fc1[0:2, 0:2] at row" in done("inspect", xor, "--schedule").out


def test_continuous_image(done, program):
    shown = done("inspect", program, "--image", 0).out
    assert len(shown.splitlines()[-64:][0].split()) == 64


def test_counters(done, models, folder):
    """Over 3 samples on 2 chips: reads and dot products of six inferences, images rewritten for each."""
    np.savez(folder / "d.npz", input=np.zeros((3, 784), np.float32), labels=np.zeros(3, int))
    done("compile", models / "mnist_bnn.onnx", "-o", "p.xbar", "--packing", "none")
    result = json.loads(done("run", "p.xbar", "--data", "d.npz", "--seed", 5, "--repeat", 2, "--json").out)
    assert result["seeds"] == [5, 6]
    assert result["samples"] == 3
    assert result["counters"] == {
        "inferences": 6,
        "reads": 6 * 28 * 8,
        "dot_products": 6 * 13_472,
        "weight_updates": 6 * 28,
        "rows_written": 6 * 28 * 64,
    }
    assert len(result["accuracy"]["per_seed"]) == 2
    assert result["accuracy"]["mean"] == pytest.approx(np.mean(result["accuracy"]["per_seed"]))
    assert result["cost"]["energy_j"] == pytest.approx(6 * result["cost"]["energy_per_inference_j"])


def test_jobs(done, cli, folder):
    """Chips side by side in processes give what they give one after another, to the bit; faults are told as ever."""
    x, labels = np.random.default_rng(3).random((20, 6), np.float32), np.arange(20) % 3
    np.savez(folder / "d.npz", x=x, labels=labels)
    onnx.save(dense_model(6, 4, 3), folder / "model.onnx")
    done("compile", "model.onnx", "-o", "p.xbar", "--target", "sot", "--calibration", "d.npz")
    run = ("run", "p.xbar", "--data", "d.npz", "--repeat", 3, "--json", "-o", "o.npz")
    results, outputs = [], []
    for jobs in (1, 2):
        result = json.loads(done(*run, "--jobs", jobs, "--threads", 2).out)
        results.append({key: value for key, value in result.items() if key != "seconds"})
        outputs.append(np.load(folder / "o.npz")["y"])
    assert results[0] == results[1]
    assert results[0]["layers"][0]["readings"] == 20 * 4  # of the first chip alone
    assert np.array_equal(*outputs)
    status, out, err = cli(*run, "--jobs", 2, "--device", "none")
    assert status == 1
    assert json.loads(out)["error"]["kind"] == "TargetError"
    assert err.startswith("xbcompile: error: ")
    assert "none" in err


def test_every_chip_is_written_for_itself(done, models, folder):
    """Stationary: each of 3 chips is written once. Batches of 4: 6 samples are 2 batches on each chip, not 5 in all."""
    np.savez(folder / "d.npz", input=np.zeros((6, 784), np.float32))
    for options, updates in ((("--arrays", 0), 3 * 28), (("--batch", 4), 3 * 2 * 28)):
        done("compile", models / "mnist_bnn.onnx", "-o", "p.xbar", "--packing", "none", *options)
        result = json.loads(done("run", "p.xbar", "--data", "d.npz", "--repeat", 3, "--json").out)
        assert result["counters"]["weight_updates"] == updates


def test_software_accuracy(done, models, folder):
    model = dense_model(6, 4, 3)
    x = np.random.default_rng(4).random((50, 6), np.float32)
    labels = np.random.default_rng(5).integers(0, 3, 50)
    np.savez(folder / "d.npz", x=x, labels=labels)
    onnx.save(model, folder / "model.onnx")
    expected = float((run_onnxruntime(model, {"x": x})["y"].argmax(axis=1) == labels).mean())
    done("compile", "model.onnx", "-o", "p.xbar", "--target", "ideal")
    run = ("run", "p.xbar", "--data", "d.npz")
    accuracy = json.loads(done(*run, "--json").out)["accuracy"]
    assert accuracy["mean"] == accuracy["software"] == expected
    assert f"software {percent(expected)}, drop 0.00 points" in done(*run).out
    done("compile", "model.onnx", "-o", "p.xbar", "--target", "ideal", "--no-embed-model")
    assert json.loads(done(*run, "--json").out)["accuracy"]["software"] is None
    assert "software unknown" in done(*run).out
    np.savez(folder / "d.npz", x=x)
    assert json.loads(done(*run, "--json").out)["accuracy"] is None
    assert "accuracy" not in done(*run).out


def test_devices(done, xor):
    for device in ("m2tj4", "ideal"):
        assert json.loads(done("run", xor, "--data", "xor.npz", "--device", device, "--json").out)["device"] == device


@pytest.fixture
def logit(done, folder):
    """A perfect classifier with one raw logit, x0 - x1 > 0, calibrated on 0..1, and its data."""
    x = np.random.default_rng(6).random((40, 2), np.float32)
    x = x[np.abs(x[:, 0] - x[:, 1]) > 0.02]
    onnx.save(
        model_of(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 2]}, ["y"], {"w": np.array([[1.0], [-1]])}
        ),
        folder / "m.onnx",
    )
    np.savez(folder / "d.npz", x=x, labels=x[:, 0] > x[:, 1])
    np.savez(folder / "cal.npz", x=x)
    done(
        "compile",
        "m.onnx",
        "-o",
        "p.xbar",
        "--target",
        "m2tj4",
        "--calibration",
        "cal.npz",
        "--passes",
        "quantize,analogue",
    )
    return x


def test_a_raw_logit_is_compared_with_0(done, refused, logit):
    run = ("run", "p.xbar", "--data", "d.npz", "--device", "ideal")
    accuracy = json.loads(done(*run, "--json").out)["accuracy"]
    assert (accuracy["mean"], accuracy["software"]) == (1, 1)
    reason = "raw logit: the output has no bounds"
    assert accuracy["decision"] == {"rule": "threshold", "threshold": 0, "reason": reason}
    assert f"classes told apart at 0 ({reason}; --threshold)" in done(*run).out
    above = json.loads(done(*run, "--threshold", 0.5, "--json").out)["accuracy"]
    difference = logit[:, 0] - logit[:, 1]
    assert above["software"] == np.mean((difference > 0.5) == (difference > 0)) < 1
    rows = json.loads(done("diagnose", "p.xbar", "--data", "d.npz", "--threshold", 0.5, "--json").out)["end_to_end"]
    assert rows[0]["accuracy"] == above["software"]
    np.savez("three.npz", x=logit[:3], labels=[0, 1, 2])
    assert "labels go from 0 to 2" in refused("run", "p.xbar", "--data", "three.npz")
    for command in ("run", "diagnose"):
        text = refused(command, "p.xbar", "--data", "cal.npz", "--threshold", 0)
        assert "--threshold 0 is for accuracy, and data 'cal.npz' has no labels" in text


def test_spread_over_chips_is_that_of_a_sample(done, logit):
    """Of n chips: the root of the summed squares over n - 1; of one chip there is none."""
    done("compile", "m.onnx", "-o", "p.xbar", "--passes", "quantize{scheme=binary},bitserial{bits=4}")  # a noisy array
    run = ("run", "p.xbar", "--data", "d.npz")
    result = json.loads(done(*run, "--repeat", 3, "--json").out)["accuracy"]
    each = np.array(result["per_seed"])
    assert len(set(each)) > 1
    assert result["std"] == pytest.approx(np.sqrt(np.square(each - each.mean()).sum() / 2), abs=1e-12)
    shown = done(*run, "--repeat", 3).out
    assert f"{percent(result['mean'])} ± {100 * result['std']:.2f} (3 chips" in shown
    assert "±: sample standard deviation over chips" in shown
    assert "±" not in done(*run).out


def test_clipped_inputs_are_told(done, logit):
    """The data times 255: what is above the calibrated maximum is clipped, on every layer that reads it."""
    np.savez("wide.npz", x=logit * 255)
    result = done("run", "p.xbar", "--data", "wide.npz", "--json")
    (layer,) = json.loads(result.out)["layers"]
    low, high = logit.min(), logit.max()
    assert (layer["input_low"], layer["input_high"]) == (low, high)
    assert layer["clipped_fraction"] == np.mean(logit * 255 > high * (1 + 1e-5)) > 0.9
    assert layer["highest_input"] == pytest.approx(255 * high)
    assert result.err.startswith("xbcompile: warning: layer 'MatMul_y': ")
    assert f"of its inputs are clipped, as they lie outside of {low:g} to {high:g}" in result.err
    assert json.loads(result.out)["warnings"] == [result.err.strip().removeprefix("xbcompile: warning: ")]
    usual = done("run", "p.xbar", "--data", "cal.npz", "--json")
    assert (usual.err, json.loads(usual.out)["layers"][0]["clipped_fraction"]) == ("", 0)


def test_nan_inputs_are_counted(done, refused, logit):
    strange = logit.copy()
    strange[3] = np.nan, np.inf
    np.savez("nan.npz", x=strange, labels=logit[:, 0] > logit[:, 1])
    result = done("run", "p.xbar", "--data", "nan.npz", "--device", "ideal", "-o", "out.npz", "--json")
    found = json.loads(result.out)
    assert found["not_finite"] == {"inputs": 2, "outputs": 1}
    assert found["layers"][0]["not_finite"] == 2
    assert "2 input values are NaN or infinite, and 1 output values" in result.err
    assert np.flatnonzero(np.isnan(np.load("out.npz")["y"][:, 0])).tolist() == [3]
    assert found["accuracy"]["mean"] == found["accuracy"]["software"] == 1 - 1 / len(logit)
    for command in (("compile", "m.onnx", "-o", "q.xbar", "--calibration"), ("diagnose", "p.xbar", "--data")):
        assert f"there are NaN or infinite values (2 of {logit.size})" in refused(*command, "nan.npz")


def test_two_outputs_and_integers_in(done, folder):
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["n", 4]}, ["h", "y"], {"w": np.random.default_rng(1).normal(size=(4, 3))})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, folder / "m.onnx")
    x = np.arange(20).reshape(5, 4)
    np.savez(folder / "d.npz", x=x)
    done("compile", "m.onnx", "-o", "p.xbar", "--target", "ideal")
    done("run", "p.xbar", "--data", "d.npz", "-o", "out.npz")
    expected, found = run_onnxruntime(model, {"x": x}), np.load("out.npz")
    assert set(found) == {"h", "y"}
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_verify(done, cli, xor, models):
    assert done("verify", xor).out == "right: schedule tables, codes and equivalence\n"
    assert json.loads(done("verify", xor, "--json").out) == {"findings": [], "notes": []}
    shown = done("verify", xor, "--model", models / "xor.onnx").out
    assert shown.startswith("note: output 'output': largest difference from the model ")


def test_verify_finds(cli, xor):
    """A program whose steps take no time: its file is whole and can be executed, its tables are wrong."""
    program = load_program(xor)
    program.schedule.steps["end_s"] = program.schedule.steps["start_s"]
    program.save("wrong.xbar")
    result = cli("verify", "wrong.xbar")
    assert result.status == 1
    assert "finding: steps: " in result.out
    assert result.out.endswith("wrong\n")
    result = cli("verify", "wrong.xbar", "--json")
    assert result.status == 1
    assert json.loads(result.out)["findings"]


def test_targets(done):
    shown = done("targets").out
    listed = json.loads(done("targets", "--json").out)["targets"]
    assert {"ideal", "m2tj4", "mram64"} <= {target["name"] for target in listed}
    assert all(target["name"] in shown for target in listed)
    one = json.loads(done("targets", "m2tj4", "--json").out)["targets"]
    assert [target["name"] for target in one] == ["m2tj4"]
    assert one[0]["quantities"]["rows"] == {"value": 4, "unit": "1", "source": "paper, section 3.1.2"}
    assert "9402.46" in done("targets", "m2tj4").out


def test_passes(done):
    described = {each["name"]: each for each in json.loads(done("passes", "--json").out)["passes"]}
    options = {"scheme": "levels", "levels": 0, "per": "column", "method": "least-squares", "samples": 10_000}
    assert described["quantize"]["options"] == options
    shown = done("passes").out
    assert all(name in shown for name in described)
    assert "scheme=levels levels=0 per=column" in shown


def test_characterize(done):
    result = json.loads(done("characterize", "--vectors", 20, "--json").out)
    # Full-size dot products of 64 columns, and no more of them than asked for.
    assert result["target"] == "mram64"
    assert result["delay_shortest_s"] < result["delay_longest_s"]
    assert f"{result['mean_absolute_error_lsb']:.3f} LSB" in done("characterize", "--vectors", 20).out


def test_version_and_help(done, cli):
    assert done("--version").out == f"{__version__}\n"
    shown = done("--help").out
    assert all(name in shown for name in ("compile", "inspect", "run", "verify", "targets", "passes", "characterize"))
    assert cli().status == 2


def test_units():
    assert si(3.1e-11, "J") == "31 pJ"
    assert si(0, "s") == "0 s"
    assert si(-2500, "m") == "-2.5 km"
    assert si(1e-18, "J") == "0.001 fJ"
    assert si(9.99999e-7, "s") == "1 µs"
    assert percent(0.9758) == "97.58 %"
    assert percent(0.5, 0) == "50 %"
