"""The networks of Fig. 2 are what the rows say that they are: ternary, one scale a layer; rounding to bits by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import xbcompile
from tests.support.model_kit import run_onnxruntime
from xbcompile.experiments.device_spread.figures import rounded
from xbcompile.experiments.device_spread.networks import EXPERIMENTS, MORE_NETWORKS, NETWORK, NOISE_TRAINED, PLAIN
from xbcompile.targets import load_target

MODELS = Path(__file__).parents[3] / "models"
NETWORKS = sorted({NETWORK, *MORE_NETWORKS, *NOISE_TRAINED.values()})


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_ternary_with_one_scale_a_layer(name: str) -> None:
    tensors = {each.name: numpy_helper.to_array(each) for each in onnx.load(MODELS / f"{name}.onnx").graph.initializer}
    for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        assert set(np.unique(tensors[f"{layer}.codes"])) == {-1, 0, 1}
        assert len(np.unique(tensors[f"{layer}.scale"])) == 1


def test_the_array_holds_the_networks_own_codes() -> None:
    """Without spread nothing is lost: the program's outputs are the model's, to float rounding."""
    target = load_target("sot").with_quantities("a test", low_sigma=0.0, high_sigma=0.0, write_noise=0.0)
    path = MODELS / f"{NETWORK}.onnx"
    program = xbcompile.compile(path, target, passes=PLAIN, packing="none", arrays=0)
    images = np.random.default_rng(0).random((3, 784), np.float32)
    found = xbcompile.Session(program).run_samples({"input": images})["logits"]
    np.testing.assert_allclose(found, run_onnxruntime(onnx.load(path), {"input": images})["logits"], atol=1e-3)


def test_rows_of_the_papers_procedure_correct_nothing() -> None:
    for each in EXPERIMENTS:
        assert each.procedure == ("ours" if "recalibrate" in each.passes or "ternary" in each.model else "paper")


def test_rounding_by_hand() -> None:
    weights = np.array([1.0, 0.51, 0.49, -0.6, -0.2], np.float32)
    np.testing.assert_array_equal(rounded(2 * weights, 2), np.array([2, 2, 0, -2, 0], np.float32))
    np.testing.assert_allclose(rounded(weights, 3), np.array([3, 2, 1, -2, -1]) / 3, rtol=1e-6)
    assert len(np.unique(rounded(np.linspace(-1, 1, 999), 4))) == 15
