"""Training around stuck devices: what pairs hold is the device's, weights go no further than pairs do, and accuracy gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xbcompile.data.datasets import load_set
from xbcompile.experiments.defect_training import DefectTraining, Pairs, network_of, pairs_of
from xbcompile.experiments.systems import EXPERIMENTS
from xbcompile.experiments.systems.memristor20 import DefectExperiment
from xbcompile.experiments.tanh_network import TanhNetwork
from xbcompile.program.cells import CellImages
from xbcompile.program.program import Program
from xbcompile.targets.families.differential_memristor import MemristorArray

MODELS = Path(__file__).parents[2] / "models"
BY_NAME = {each.name: each for each in EXPERIMENTS if isinstance(each, DefectExperiment)}


@pytest.fixture(scope="module")
def program() -> Program:
    return BY_NAME["memristor20-letters-retrained"].compiled(MODELS, {"stuck_fraction": 0.2, "tuning_tolerance": 0.0})


def test_pairs_by_hand() -> None:
    """S = 2: both whole, plus stuck at 0.75, minus stuck at 0.25, both stuck; tuned devices are off by half."""
    nan = np.nan
    pairs = Pairs(np.array([[[nan, 0.75, nan, 0.75]], [[nan, nan, 0.25, 0.25]]], np.float32), 2.0)
    low, high = pairs.limits
    assert low.tolist() == [[-2, -0.5, -0.5, 1]]
    assert high.tolist() == [[2, 1.5, 1.5, 1]]
    held, slope = pairs.seen(np.array([[1, 1, 1, 1]], np.float32), np.full((1, 4), 1.5, np.float32))
    # 1.5 * 1; 1.5 - 1.5 * 0.5; -0.5 + 1.5 * 1.5; stuck
    assert held.tolist() == [[1.5, 0.75, 1.75, 1]]
    assert slope.tolist() == [[1.5, 1.5, 1.5, 0]]
    exact, _ = pairs.seen(np.array([[9, 9, -9, 9]], np.float32), np.ones((1, 4), np.float32))
    assert exact.tolist() == [[2, 1.5, -0.5, 1]]


def test_pairs_hold_what_the_device_does(program: Program) -> None:
    """Written by the device with its defects known, read back from its conductances; a fifth of the devices is stuck."""
    p, chip = program.target.parameters, 3
    device = MemristorArray(p, chip)
    device.defects_known = True
    cells = CellImages(program.network, program.schedule, program.spec, None, None)
    for tile in program.schedule.tiles:
        pairs = pairs_of(program, chip)[tile["layer"]]
        image = np.array([tile["image"]])
        array = int(program.schedule.arrays_of(image)[0][0])
        plus, minus = device.conductances(array, np.zeros(1, int), cells.of(image)[0])
        columns = program.schedule.column_permutation[tile["image"]][tile["column"] :][: tile["m1"] - tile["m0"]]
        rows = slice(tile["row"], tile["row"] + tile["k1"] - tile["k0"])
        held = pairs.scale * ((plus - minus) / p.level_siemens)[rows][:, columns]
        weights = program.network.layers[tile["layer"]].weights[0]
        seen, _ = pairs.seen(weights, np.ones_like(weights))
        np.testing.assert_allclose(seen, held, atol=2e-6)
        assert np.isfinite(pairs.stuck).any()


def test_weights_stay_where_pairs_reach_and_loss_falls(program: Program) -> None:
    inputs, labels = load_set("letters", "train")
    network, pairs = network_of(program), pairs_of(program, 3)
    found = DefectTraining(steps=60).train(network, pairs, inputs, labels, seed=3)

    def loss(of: TanhNetwork) -> float:
        held = [pair.seen(each, np.ones_like(each))[0] for pair, each in zip(pairs, of.weights, strict=True)]
        logits = of.outputs(inputs, held)[-1].astype(np.float64)
        right = logits[np.arange(len(labels)), labels]
        return float((np.log(np.exp(logits).sum(axis=1)) - right).mean())

    for before, after, pair in zip(network.weights, found.weights, pairs, strict=True):
        largest = np.abs(before) == np.abs(before).max()
        low, high = pair.limits
        assert np.all((after >= low) & (after <= high) | largest)
        assert np.array_equal(after[largest], before[largest])
        assert np.abs(after).max() == np.abs(before).max() == pair.scale
        assert not np.array_equal(after, before)
    assert loss(found) < 0.8 * loss(network)


def test_chips_of_many_stuck_devices_gain() -> None:
    """A fifth of all devices stuck, no tuning errors: partners alone against training around them, the same chips."""
    quantities = {"stuck_fraction": 0.2, "tuning_tolerance": 0.0}
    partners, retrained = (
        replace(BY_NAME[name], chips=3, quantities=quantities, training=None, within=None).run(MODELS, 1, 1)
        for name in ("memristor20-letters-partners", "memristor20-letters-retrained")
    )
    assert retrained["array_mean"] > partners["array_mean"]
    assert retrained["array_worst"] > partners["array_worst"]
    assert retrained["software"] == partners["software"]
