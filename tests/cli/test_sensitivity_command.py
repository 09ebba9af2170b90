"""`xbcompile sensitivity`: each assumed number at both ends of its range, as compile and run would have it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import xbcompile
import xbcompile.cli.sensitivity as command
from tests.support.small_programs import dense_model
from xbcompile.experiments.sensitivity import Accuracies, Ends, ends_to_run, noise_of, sensitivity_rows
from xbcompile.report.sensitivity import plot_sensitivity, print_sensitivity
from xbcompile.runtime import Session
from xbcompile.targets import load_target

CHIP = """extends = "m2tj4"
name = "mine"
[quantities]
sigma_perp_ohm = { value = 40, unit = "Ohm", source = "assumed" }
states = { value = 4, unit = "1", source = "assumed" }
t_read_s = { value = 1e-6, unit = "s", source = "measured" }
t_write_row_s = { value = 1e-6, unit = "s", source = "measured" }
e_write_row_j = { value = 0, unit = "J", source = "assumed" }
[assumed]
sigma_perp_ohm = [0, 300]
"""
PASSES = "quantize{scheme=levels per=matrix},analogue{low=-3 high=3}"


@pytest.fixture
def model(folder: Path) -> Path:
    """A network 6-4-3 that tells its three classes apart."""
    path = folder / "model.onnx"
    onnx.save(dense_model(6, 4, 3, seed=8), path)
    return path


@pytest.fixture
def chip(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A target, with data of random inputs that carry the network's own classes; all in this process."""
    from xbcompile.onnx_graph.engine import open_session

    monkeypatch.setattr(command, "done_in_processes", lambda tasks, jobs: ((i, task()) for i, task in enumerate(tasks)))
    inputs = np.random.default_rng(5).normal(size=(64, 6)).astype(np.float32)
    classes = open_session(onnx.load(model)).run(None, {"x": inputs})[0].argmax(axis=1)
    np.savez(folder / "d.npz", x=inputs, labels=classes)
    (folder / "mine.toml").write_text(CHIP)
    return folder / "mine.toml"


def accuracies(model: Path, target: Any, seeds: int) -> list[float]:
    """By hand: per cent on each chip."""
    program = xbcompile.compile(model, target, passes=PASSES)
    data = np.load("d.npz")
    outputs = [Session(program, seed=seed).run({"x": data["x"]})["y"] for seed in range(seeds)]
    return [100 * float(np.mean(output.argmax(axis=1) == data["labels"])) for output in outputs]


def test_rows_are_what_compile_and_run_give(cli: Any, model: Path, chip: Path) -> None:
    arguments = ("--target", chip, "--data", "d.npz", "--passes", PASSES, "--repeat", 2)
    result = cli("sensitivity", model, *arguments, "-o", "t.json", "-o", "t.svg", "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert found == json.loads(Path("t.json").read_text())
    assert b"sigma_perp_ohm" not in Path("t.svg").read_bytes()[:100]
    target = load_target(chip)
    assert found["baseline"]["per_seed"] == accuracies(model, target, 2)
    assert (found["software"], found["samples"], found["repeat"]) == (100.0, 64, 2)
    rows = {row["name"]: row for row in found["numbers"]}
    assert sorted(rows) == ["e_write_row_j", "sigma_perp_ohm", "states"]  # the measured ones stay
    for name, low, high, given, key in (("sigma_perp_ohm", 0, 300, True, "high"), ("states", 2, 6, False, "low")):
        row = rows[name]
        assert (row["low"]["value"], row["high"]["value"], row["range_given"]) == (low, high, given)
        changed = target.with_quantities("a test", **{name: row[key]["value"]})
        assert row[key]["accuracy"]["per_seed"] == accuracies(model, changed, 2)
    assert rows["e_write_row_j"]["swing"] == 0  # 0 has no range: it is not run again
    assert rows["sigma_perp_ohm"]["swing"] > 0
    text = cli("sensitivity", model, "e_*", *arguments).out
    assert "2 chips: software 100.00 %" in text
    assert "states" not in text


def test_what_is_wrong_is_told_before_the_work(
    cli: Any, model: Path, chip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "done_in_processes", lambda tasks, jobs: pytest.fail("it ran"))
    wanted = ("sensitivity", model, "--data", "d.npz", "--target")
    measured = chip.with_name("measured.toml")
    measured.write_text(chip.read_text().replace('"assumed"', '"measured"').partition("[assumed]")[0])
    for arguments, message in (
        ((chip, "-o", "t.pdf"), "output 't.pdf' is of no kind that is written; allowed endings: .png, .svg, .json"),
        ((chip, "-o", "none/t.png"), "/none': it does not exist or is no folder"),
        ((chip, "-o", model), "is of no kind that is written"),
        ((measured,), "target 'mine': no number says that it is assumed"),
    ):
        result = cli(*wanted, *arguments)
        assert (result.status, result.out) == (1, "")
        assert message in result.err
        assert len(result.err.splitlines()) == 1
    result = cli("sensitivity", model, "t_read_s", "--data", "d.npz", "--target", chip)
    assert "no assumed number is called t_read_s; allowed: states, sigma_perp_ohm, e_write_row_j, or" in result.err


def synthetic() -> dict[str, Any]:
    """A baseline of 90 and 92: noise of 2 sqrt(2 / 2) sqrt(2) = 2.83 points."""
    target = load_target("memristor20")
    names = ["r_row_contact_ohm", "v_amplifier_max_volt", "read_noise", "t_write_pulse_s"]
    baseline = Accuracies([90.0, 92.0], 95.0, 1000, [])
    ends: Ends = {
        ("r_row_contact_ohm", 0.0): Accuracies([94.0, 94.0], 95.0, 1000, []),
        ("r_row_contact_ohm", 740.0): Accuracies([80.0, 90.0], 95.0, 1000, []),
        ("v_amplifier_max_volt", 200.0): "no amplifier is so weak",
        ("v_amplifier_max_volt", 600.0): Accuracies([90.0, 93.0], 95.0, 1000, []),
        ("read_noise", 0.01): Accuracies([88.0, 91.0], 95.0, 1000, []),
        ("t_write_pulse_s", 0.00025): baseline,
        ("t_write_pulse_s", 0.00075): baseline,
    }
    assert ends_to_run(target, names) == list(ends)  # read_noise is 0 as it is
    return {
        "model": "letters.onnx",
        "target": "memristor20",
        "data": "letters:test",
        "samples": 1000,
        "repeat": 2,
        "software": 95.0,
        "baseline": {"mean": 91.0, "std": 1.414, "per_seed": [90.0, 92.0]},
        "noise": noise_of(baseline.arrays),
        "numbers": sensitivity_rows(target, names, baseline, ends),
        "seconds": 1.0,
    }


def test_swings_are_sorted_and_compared_with_the_noise_of_the_chips() -> None:
    """A swing spans baseline and both ends: 85 to 94, 89.5 to 91, 91 to 91.5."""
    result = synthetic()
    assert [(row["name"], row["swing"], row["within_noise"]) for row in result["numbers"]] == [
        ("r_row_contact_ohm", 9.0, False),
        ("read_noise", 1.5, True),
        ("v_amplifier_max_volt", 0.5, True),
        ("t_write_pulse_s", 0.0, True),
    ]
    assert result["noise"] == pytest.approx(2 * np.sqrt(2))
    assert noise_of([90.0]) is None
    assert noise_of([90.0, 90.0]) == 0


def test_table_and_plot_show_every_number() -> None:
    result = synthetic()
    stream = StringIO()
    print_sensitivity(Console(file=stream, width=80), result)
    text = stream.getvalue()
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["r_row_contact_ohm"] == ["r_row_contact_ohm", "370", "0", "94.00", "740", "85.00", "9.00"]
    assert lines["read_noise"] == ["read_noise", "0", "0", "91.00", "0.01", "89.50", "1.50", "noise"]
    assert lines["t_write_pulse_s"][-2:] == ["0.00", "none"]
    assert "v_amplifier_max_volt = 200 cannot be: no amplifier is so weak" in text
    assert "up to 2.83 may be noise" in text
    assert max(map(len, text.splitlines())) <= 100
    files = plot_sensitivity(result)
    assert sorted(files) == ["png", "svg"]
    assert files["png"].startswith(b"\x89PNG")
