"""The diagnose command."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from tests.support.small_programs import dense_model, images
from xbcompile.diagnosis.ablation import SOURCES
from xbcompile.diagnosis.advice import advice
from xbcompile.passes import pass_names
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import load_program
from xbcompile.report.diagnosis import NAMES


@pytest.fixture
def files(done, folder):
    """A binary network on `mram64`, and 20 labelled inputs."""
    onnx.save(dense_model(9, 6, 4), folder / "model.onnx")
    x = images(20, 9)
    np.savez(folder / "x.npz", x=x, labels=np.arange(20) % 4)
    np.savez(folder / "plain.npz", x=x)
    passes = "quantize{scheme=binary},bitserial{bits=3},recalibrate{samples=20}"
    done("compile", "model.onnx", "-o", "p.xbar", "--passes", passes, "--calibration", "x.npz")
    return folder


def test_json(done, files):
    found = json.loads(done("diagnose", "p.xbar", "--data", "x.npz", "--seed", 3, "--json").out)
    assert found["device"] == "mram64"
    assert (found["seed"], found["samples"], found["data"]) == (3, 20, "x.npz")
    assert (found["sources"], found["absent"]) == (list(SOURCES), [])
    assert [layer["layer"] for layer in found["layers"]] == ["fc0", "fc1"]
    for layer in found["layers"]:
        for key in ("corrected", "uncorrected"):
            each = layer[key]
            assert sum(s["mean_square"] for s in each["sources"]) + each["cross_terms"] == pytest.approx(
                each["mean_square"]
            )
            assert each["relative_error"] ** 2 * layer["variance"] == pytest.approx(each["mean_square"])
        shares = {s["source"]: s["share"] for s in layer["corrected"]["sources"]}
        assert layer["largest"] == max(shares, key=shares.get)
    cases = [(row["case"], row["source"]) for row in found["end_to_end"]]
    assert cases == [("model", None), ("device", None), *((c, s) for c in ("without", "alone") for s in SOURCES)]
    run = json.loads(done("run", "p.xbar", "--data", "x.npz", "--seed", 3, "--json").out)["accuracy"]
    model, device = found["end_to_end"][:2]
    assert (model["accuracy"], device["accuracy"]) == (run["software"], run["mean"])


def test_text(done, files):
    """Sources of each layer by share, largest first; the largest is named with what to try."""
    arguments = ("diagnose", "p.xbar", "--data", "x.npz")
    found, shown = json.loads(done(*arguments, "--json").out), done(*arguments).out
    assert "x.npz" in shown
    assert "accuracy: model" in shown
    for layer in found["layers"]:
        block = shown[shown.index(f"layer {layer['layer']}, 20 vectors") :]
        order = sorted(layer["corrected"]["sources"], key=lambda s: -s["share"])
        places = [block.index(f"│ {NAMES[s['source']]} ") for s in order]
        assert places == sorted(places)
        assert f"largest on {layer['layer']}: {NAMES[layer['largest']]}: {layer['advice']}" in block.replace("\n", " ")
        assert f"{100 * layer['corrected']['relative_error']:.2f} %" in block


def test_without_labels_and_on_the_exact_device(done, files):
    found = json.loads(done("diagnose", "p.xbar", "--data", "plain.npz", "--device", "ideal", "--json").out)
    assert found["absent"] == ["systematic", "saturation", "rounding", "random"]
    assert {row["accuracy"] for row in found["end_to_end"]} == {None}
    shown = done("diagnose", "p.xbar", "--data", "plain.npz", "--device", "ideal").out
    assert "this device has no systematic device errors, readout saturation" in shown
    assert "accuracy" not in shown


def test_what_was_tried(done, files):
    """Half of the 20 samples; what helps is advised with its gain, what does not is not."""
    found = json.loads(done("diagnose", "p.xbar", "--data", "x.npz", "--json").out)
    assert found["tried"]
    advised = " ".join(layer["advice"] for layer in found["layers"])
    for trial in found["tried"]:
        assert set(trial) == {"pass", "pipeline", "samples", "helps", "before", "after"}
        if trial["pipeline"] is None:
            continue
        assert trial["samples"] == 10
        assert set(trial["before"]) == set(trial["after"]) == {"accuracy", "relative_error"}
        assert trial["pass"] in trial["pipeline"]
        gained = f"{trial['pass']} (output error" in advised
        assert not gained or trial["helps"]


def test_refusals(refused, files):
    emulator = refused("diagnose", "p.xbar", "--data", "x.npz", "--device", "emulator")
    assert emulator.endswith("cannot be switched off one by one; devices that can: mram64, ideal")
    assert "has no device 'chip'" in refused("diagnose", "p.xbar", "--data", "x.npz", "--device", "chip")
    assert "does not exist" in refused("diagnose", "none.xbar", "--data", "x.npz")


@pytest.mark.parametrize("source", [*SOURCES, "inherited"])
def test_advice_names_only_what_there_is_and_is_not_in_use(files, source):
    program = load_program("p.xbar")
    text = advice(program, program.network.layers[0], source)
    known, used = set(pass_names()), {each.name for each in parse_pipeline(program.pipeline)}
    for name, options in re.findall(r"([a-z]+(?:-[a-z]+)*)(\{[^}]*\})", text):
        assert name in known
        parse_pipeline(name + options)
    named = {word for word in re.findall(r"[a-z-]+", text) if word in known and "-" in word}
    assert not named & used


def test_advice_compares_noise_powers(files):
    """3 bits in series carry 1 + 4 + 16 s^2, the thermometer code of as many steps 7 s^2."""
    program = load_program("p.xbar")
    text = advice(program, program.network.layers[0], "random")
    assert "thermometer{bits=7} (noise power 7 s² against 21 s²)" in text


def test_inspect_shows_noise_powers_and_notes(done, files):
    """The 3-bit code has 21 s^2; a network whose inputs drive the rows as they are has none."""
    assert "bitserial 3 (21 s²), 0" in done("inspect", "p.xbar").out
    assert json.loads(done("inspect", "p.xbar", "--json").out)["layers"][0]["noise_power"] == 21
    passes = "quantize{scheme=binary},choose-coding{reads=7}"
    compiled = json.loads(done("compile", "model.onnx", "-o", "c.xbar", "--passes", passes, "--json").out)
    assert [layer["noise_power"] for layer in compiled["layers"]] == [7, 7]
    (note,) = compiled["notes"]
    assert note.endswith("takes thermometer for at most 7 reads")
    assert "takes thermometer for at most 7 reads" in done("inspect", "c.xbar").out.replace("\n", " ")
    done("compile", "model.onnx", "-o", "i.xbar", "--target", "ideal")
    exact = json.loads(done("inspect", "i.xbar", "--json").out)
    assert (exact["layers"][0]["noise_power"], exact["notes"]) == (None, [])
