"""Acceptance: the shipped networks on real data, and each of them exactly as onnxruntime has it."""

from __future__ import annotations

from math import sqrt

import numpy as np
import onnx
import pytest

import xbcompile
from tests.support.model_kit import MODELS, run_onnxruntime
from xbcompile.data.datasets import load_data
from xbcompile.experiments.systems import EXPERIMENTS
from xbcompile.program.program import Program

NAMES = sorted(path.stem for path in MODELS.glob("*.onnx"))
DIGITAL = {"scenes_detector": ("conv[!6]*",)}  # elsewhere their rounding may cross a threshold of the activations


def assert_drop(program: Program, inputs: dict[str, np.ndarray], labels: np.ndarray, points: float) -> None:
    """Chip 0 loses at most so many percentage points against the user's model, plus three standard deviations.

    The drop is the mean over the samples of +1 where only the software is right, -1 where only the chip is, else 0.
    Where the share `changed` is not 0, its variance is at most `changed / samples`.
    """
    name = program.network.outputs[0].name
    chip = xbcompile.Session(program).run_samples(inputs)[name].argmax(axis=1) == labels
    software = run_onnxruntime(program.source.joined(), inputs)[name].argmax(axis=1) == labels
    margin = 3 * sqrt(np.mean(chip != software) / len(labels))
    assert 100 * (software.mean() - chip.mean()) <= points + 100 * margin


def test_names():
    expected = {"digits_mlp", "mnist_bnn", "mnist_bnn_plain", "mnist_mlp", "mnist_mlp_pca87", "xor"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exact_array_equals_onnxruntime(name):
    model = onnx.load(MODELS / f"{name}.onnx")
    (value,) = model.graph.input
    x = np.random.default_rng(1).random((64, value.type.tensor_type.shape.dim[1].dim_value), np.float32)
    program = xbcompile.compile(model, "ideal", digital=DIGITAL.get(name, ()))
    found = xbcompile.Session(program).run_samples({value.name: x})
    expected = run_onnxruntime(model, {value.name: x})
    assert found.keys() == expected.keys()
    for output, reference in expected.items():
        np.testing.assert_allclose(found[output], reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())


def test_binary_network_on_the_binary_array(mnist):
    """1.0 point; on 2,000 images some 1.2 % of the answers are right on one side only: 0.7 more for chance."""
    calibration, _ = mnist("train", 1000)
    images, labels = mnist("test", 2000)
    program = xbcompile.compile(MODELS / "mnist_bnn.onnx", "mram64", calibration={"input": calibration})
    assert_drop(program, {"input": images}, labels, 1.0)


def test_float_network_on_the_multistate_array(mnist):
    """2.0 points on the full test set."""
    calibration, _ = mnist("train", 1000)
    images, labels = mnist("test", 10_000)
    program = xbcompile.compile(MODELS / "mnist_mlp.onnx", "m2tj4", calibration={"input": calibration})
    assert_drop(program, {"input": images}, labels, 2.0)


@pytest.mark.parametrize(("target", "points"), [("m2tj4", 2.0), ("mram64", 30.0)])
def test_digits(target, points):
    """The bundled digits need no data folder. Float weights on binary cells lose much: they were not trained for them."""
    program = xbcompile.compile(MODELS / "digits_mlp.onnx", target, calibration="digits:train:1000")
    data = load_data("digits:test", program.network.inputs)
    assert_drop(program, data.inputs, data.labels, points)


@pytest.mark.parametrize(
    ("name", "samples", "points"),
    [
        ("mram64-mlp-22", 1000, 0.5),
        ("mram64-mlp-plain", 1000, 1.2),
        ("mram64-vgg8", 300, 0.3),
        ("mram64-detector", 200, 1.0),
        ("m2tj4-reduced-480", 2000, 0.5),
        ("m2tj4-2-levels", 2000, 2.2),
        ("sot-lenet5-ternary", 1000, 0.4),
        ("sot-lenet5-float", 1000, 0.8),
        ("multicell-3", 1000, 0.4),
        ("sot-single-fashion", 1000, 1.2),
    ],
)
def test_experiments_on_part_of_their_data(mnist, name, samples, points):
    """Chip 0 on the first test samples, within the experiment's goal and what its full runs leave in hand."""
    (experiment,) = (each for each in EXPERIMENTS if each.name == name)
    program = experiment.compiled(MODELS, experiment.quantities)
    data = load_data(f"{experiment.data}:{samples}", program.network.inputs)
    assert_drop(program, data.inputs, data.labels, points)


def test_live_pixels_take_22_weight_updates():
    """20 tiles of 64x64 for 640 x 128 weights, two for 128 x 60."""
    (experiment,) = (each for each in EXPERIMENTS if each.name == "mram64-mlp-22")
    program = xbcompile.compile(MODELS / f"{experiment.model}.onnx", "mram64", packing="none")
    assert program.schedule.weight_updates == 22
