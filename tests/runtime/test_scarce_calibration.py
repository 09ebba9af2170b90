"""Corrections fitted on few samples: on chips of several targets never worse than none, by more than noise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import xbcompile
from tests.support.model_kit import MODELS, run_onnxruntime
from tests.support.small_programs import convolution_program
from xbcompile.data.datasets import load_set
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.chip_view import MeasuredLayer
from xbcompile.runtime.commissioning import chip_name
from xbcompile.runtime.placed import no_corrections

MODEL = onnx.load(MODELS / "digits_mlp.onnx")
TRAIN, TEST = load_set("digits", "train")[0], load_set("digits", "test")[0][:100]
(OUTPUT,) = (value.name for value in MODEL.graph.output)
RIGHT = run_onnxruntime(MODEL, {"input": TEST})[OUTPUT]
CASES = [
    ("sot-single", "quantize{scheme=binary},analogue,recalibrate", 0.7, 3),
    ("sot-single", "quantize{scheme=binary},analogue,recalibrate{per=tile}", 0.7, 3),
    ("memristor20", "quantize{scheme=continuous per=matrix},analogue,recalibrate", 0.5, 3),
    ("mram64", "quantize{scheme=binary},thermometer,recalibrate", 0.7, 3),
    ("mram64", "quantize{scheme=binary},thermometer,calibrate-offsets", 1.05, 6),
]


def error(program: Program, chip: int, corrected: bool = True) -> float:
    """Root mean square error of the outputs: offsets of columns are those of the device alone, not of its codes."""
    right = Session(program, "ideal").run_samples({"input": TEST})[OUTPUT] if "offsets" in program.pipeline else RIGHT
    none = replace(no_corrections(program), program=program.digest, chip=chip_name(program, None, chip))
    outputs = Session(program, seed=chip, corrections=None if corrected else none).run_samples({"input": TEST})
    return float(np.sqrt(np.mean((outputs[OUTPUT] - right) ** 2)))


@pytest.mark.parametrize(("target", "passes", "most", "chips"), CASES)
def test_few_samples_do_no_harm(target: str, passes: str, most: float, chips: int) -> None:
    """Ranges of inputs are those of 300 samples; the device passes see 1, 2, 3, 5, 10 of them, others on each chip."""
    program = xbcompile.compile(MODEL, target, passes=passes, calibration={"input": TRAIN[:300]}, arrays=0, effort=0)
    none = np.array([error(program, chip, corrected=False) for chip in range(chips)])
    found = []
    for samples in (1, 2, 3, 5, 10, 300):
        parts = [{"input": TRAIN[chip * samples % (len(TRAIN) - samples) :][:samples]} for chip in range(chips)]
        found.append(
            [error(replace(program, calibration=part), chip) for chip, part in zip(range(chips), parts, strict=True)]
        )
    relative = np.array(found) / none
    assert (relative <= 1.08).all()
    assert (relative[-1] < most).all()
    assert (np.diff(relative.mean(axis=1)) < 0.06).all()  # more samples are hardly ever worse


def test_vectors_know_their_sample() -> None:
    """Patches of a sample are neighbours; inside a recurrence all samples come step by step, chunk by chunk."""
    convolution = convolution_program().network.layers[0]  # 4 vectors of each sample
    chunks = [np.zeros((n, 2, 4, 4), np.float32) for n in (2, 1)]
    executor = SimpleNamespace(layer=convolution)
    assert MeasuredLayer(executor, chunks, [], 3).sample.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    dense = convolution_program().network.layers[1]
    steps = [np.zeros((3, n, 24), np.float32) for n in (2, 1)]
    found = MeasuredLayer(SimpleNamespace(layer=dense), steps, [], 3, stacked=True).sample
    assert found.tolist() == [0, 1, 0, 1, 0, 1, 2, 2, 2]
