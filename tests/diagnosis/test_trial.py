"""Advice is tried before it is given: what it gains is what the program compiled with it shows by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.model_kit import run_onnxruntime
from tests.support.small_programs import dense_model, images
from xbcompile.diagnosis.advice import advice
from xbcompile.diagnosis.trial import Figures, Trial, TrialRuns
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import Program

MODEL, X = dense_model(20, 12, 4), images(120, 20)
PIPELINE = "quantize{scheme=binary},thermometer{low=0 high=2}"
COMPILED: list[str] = []


def recompile(pipeline: str, calibration: dict[str, np.ndarray]) -> Program:
    COMPILED.append(pipeline)
    return xbcompile.compile(MODEL, "mram64", passes=pipeline, calibration=calibration, effort=0)


@pytest.fixture(scope="module")
def program() -> Program:
    return xbcompile.compile(MODEL, "mram64", passes=PIPELINE, effort=0)


def test_what_a_trial_shows(program) -> None:
    """Half of the data is run, on the chip that is meant; the other half calibrates."""
    (each,) = parse_pipeline("recalibrate")
    trials = TrialRuns(program, {"x": X}, recompile, lambda output: float(output[:, 0].mean()), seed=2)
    found = trials.try_out(each)
    assert (found.pipeline, found.samples) == (f"{PIPELINE},recalibrate", 60)
    right = run_onnxruntime(MODEL, {"x": X[:60]})["y"]
    for figures, passes in ((found.before, PIPELINE), (found.after, f"{PIPELINE},recalibrate")):
        other = xbcompile.compile(MODEL, "mram64", passes=passes, calibration={"x": X[60:]}, effort=0)
        y = xbcompile.Session(other, seed=2).run_samples({"x": X[:60]})["y"]
        assert figures.relative_error == pytest.approx(np.sqrt(np.mean((y - right) ** 2) / right.var(axis=0).mean()))
        assert figures.score == pytest.approx(y[:, 0].mean())
    assert found.helps
    assert found.after.relative_error < 0.8 * found.before.relative_error
    count = len(COMPILED)
    assert trials.try_out(each) is found
    assert len(COMPILED) == count


def test_advice_that_gains_nothing_is_left_out(program) -> None:
    """Inputs are coded without an error to speak of: more slices bring nothing."""
    (layer, _), trials = program.network.layers, TrialRuns(program, {"x": X}, recompile)
    assert advice(program, layer, "coding").startswith("try more slices (thermometer{low=0 high=2 bits=16}), or ")
    assert advice(program, layer, "coding", trials).startswith("try calibration inputs, or low= and high=")
    text = advice(program, layer, "weights", trials)
    tried = {name: trial for name, trial in trials.trials.items() if trial is not None}
    for name, trial in tried.items():
        assert (f"{name} (output error " in text) <= trial.helps
    assert "(output error" in text


def test_what_compiles_nowhere_and_too_few_samples(program) -> None:
    (each,) = parse_pipeline("join-groups")  # changes nothing on this model
    assert not TrialRuns(program, {"x": X}, recompile).try_out(each).helps
    (planes,) = parse_pipeline("planes{k=8 levels=2}")
    assert TrialRuns(replace(program, pipeline=""), {"x": X}, recompile).try_out(planes) is None  # inputs stay uncoded
    assert TrialRuns(program, {"x": X[:1]}, recompile).try_out(each) is None


@pytest.mark.parametrize(
    ("before", "after", "helps", "text"),
    [
        ((0.5, None), (0.4, None), True, "output error 50.00 % -> 40.00 % on 200 samples"),
        ((0.5, None), (0.495, None), False, None),
        ((0.5, 0.8), (0.498, 0.85), True, "output error 50.00 % -> 49.80 %, accuracy +5.0 points on 200 samples"),
        ((0.5, 0.8), (0.52, 0.85), False, None),
        ((None, 0.8), (None, 0.812), False, None),
        ((None, 0.8), (None, 0.83), True, "accuracy +3.0 points on 200 samples"),
        ((0.0, None), (0.0, None), False, None),
    ],
)
def test_what_helps(before, after, helps: bool, text: str | None) -> None:
    trial = Trial("recalibrate", 200, Figures(*before), Figures(*after))
    assert trial.helps == helps
    assert text is None or str(trial) == text
