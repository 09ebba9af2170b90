"""Figures and numbers of Fig. 3, at their least effort and on few images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xbcompile.experiments.figure import Effort
from xbcompile.experiments.shared import shared_folder
from xbcompile.experiments.switching import figures, measurements, trainings
from xbcompile.experiments.switching.measurements import MEASUREMENTS
from xbcompile.experiments.switching.network import TrainingData
from xbcompile.experiments.switching.training import Recipe, train
from xbcompile.experiments.systems.sot import EXPERIMENTS
from xbcompile.targets.families.switching import SwitchingCurves

QUICK = Effort(Path("models"), seeds=2, quick=True)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Random patterns in place of Fashion-MNIST, every training anew, and nothing measured or searched at length."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    images = (rng.choice([-1.0, 1.0], (10, 784))[labels] + rng.normal(size=(500, 784))).astype(np.float32)
    data = TrainingData(images[:400], labels[:400], images[400:], labels[400:], 100)
    for module in (figures, trainings):
        monkeypatch.setattr(module, "training_data", lambda held_out, images: data)
    monkeypatch.setattr(trainings, "MEASURED_PULSES", 1)
    monkeypatch.setattr(trainings, "SEARCHED_BIAS_V", (0.2,))
    monkeypatch.setattr(trainings, "SEARCHED_GAIN_V", (0.03,))
    with shared_folder(tmp_path):
        yield


@pytest.mark.parametrize(("make", "window_v"), [(figures.figure_3c, 0.05), (figures.figure_3d, 0.5)])
def test_curves_mirror_and_their_windows_are_the_texts(make, window_v: float) -> None:
    (panel,) = make(Effort(Path("models"))).panels
    volts = np.array(panel.series[0].x)
    assert len(panel.series) == 21
    for line in panel.series:
        shares = np.array(line.y)
        np.testing.assert_allclose(shares, shares[::-1], atol=1e-9)
        inside = volts[(volts > 0) & (shares > 1) & (shares < 99)]
        assert np.ptp(inside) == pytest.approx(window_v, abs=2.1 * (volts[1] - volts[0]))


def test_longer_pulses_switch_at_less_voltage() -> None:
    (panel,) = figures.figure_3e(Effort(Path("models"))).panels
    assert len(panel.series) == 6
    for shorter, longer in zip(panel.series, panel.series[1:], strict=False):
        half = [float(np.interp(50, each.y, each.x)) for each in (shorter, longer)]
        assert half[1] < half[0]


def test_learning_curves_are_those_of_the_trainings(few_images: None) -> None:
    left, right = figures.figure_3f(QUICK).panels
    assert [each.y for each in left.series if each.published] == [[83.0], [76.0]]
    size = trainings.size_for(QUICK)
    assert size.chips == 1
    assert left.series[1].y == pytest.approx(trainings.trained("multiple", size, 0).accuracy)
    assert len(right.series) == 7
    found = next(each for each in MEASUREMENTS if each.name == "sot-training-multiple").run(QUICK)
    assert found["value"] == left.series[1].y[-1]
    assert (found["published"], found["basis"], found["repetitions"]) == (76.0, "calibrated", 1)


def test_map_of_bias_voltages(few_images: None) -> None:
    """Rows: towards -1; columns: towards +1."""
    (panel,) = figures.figure_3g(QUICK).panels
    assert panel.map.x == [0.13, 0.17, 0.21]
    assert panel.map.y == [-0.13, -0.17, -0.21]
    rule = trainings.spread_rule((0.21, 0.13), trainings.GAIN_V, 0)
    data = trainings.training_data(0, None)
    assert panel.map.values[0][2] == pytest.approx(train(data, rule, Recipe(1), 0).accuracy[-1])


def test_pulses_energy_and_endurance_tell_of_the_same_training(few_images: None) -> None:
    """Eight steps of a hundred images: as many pulses a device, of 350 fJ each, on 198,800 devices that stand 1e12."""
    found = {each.name.removeprefix("sot-training-"): each for each in MEASUREMENTS}
    value = {name: found[name].run(QUICK)["value"] for name in ("pulses", "pulses-most", "energy", "endurance")}
    assert value["pulses-most"] == 8
    assert value["pulses"] == pytest.approx(8, rel=0.01)
    assert value["energy"] == pytest.approx(value["pulses"] * (784 * 200 + 200 * 200 + 2000) * 350e-15 * 1e6)
    assert value["endurance"] == pytest.approx(8e-12 * 1e6)
    useful = found["pulses-useful"].run(QUICK)["value"]
    assert 0.3 * value["pulses"] < useful < 0.7 * value["pulses"]
    assert "of a device's pulses switch it" in found["pulses"].run(QUICK)["note"]


def test_share_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"single": 84.0, "multiple": 76.0, "per device": 82.0}
    monkeypatch.setattr(measurements, "accuracies", lambda rule, size: np.array([[50.0, given[rule]]]))
    assert measurements.recovered("per device", QUICK).value == pytest.approx(75)
    assert measurements.drop(QUICK).value == pytest.approx(8)


def test_measured_thresholds_bring_devices_back_to_one_curve() -> None:
    """What is left of a spread of 24 % is the error of the measurement, below a third of a curve's own deviation."""
    curves = trainings.parameters().curves()
    true = curves.thresholds(0, 1, (50, 40))
    left = true - trainings.measured_thresholds(curves, true, 0, 1)
    assert true.std() == pytest.approx(0.24 * 0.28, rel=0.1)
    assert left.std() < curves.sigma_v / 3


def test_measured_voltages_reach_around_every_curve() -> None:
    curves = SwitchingCurves(0.3, 0.05, 0.1)
    volts = trainings.measured_voltages(curves)
    assert curves.probability(volts[0], 0.0) < 1e-8
    assert curves.probability(volts[-1], 0.3 * 1.6) > 1 - 1e-8


def test_random_bits_pass_once_they_are_paired() -> None:
    found = {each.name: each.run(QUICK) for each in MEASUREMENTS if each.name.startswith("sot-random")}
    assert found["sot-random-bits"]["value"] < 60
    assert found["sot-random-bits-paired"]["met"]


def test_training_in_software_is_not_the_papers_number() -> None:
    (single,) = (each for each in EXPERIMENTS if each.name == "sot-single-fashion")
    assert single.published == (None, None)
