"""Random splits: no image in both parts, each split another one; what is measured is what such networks answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xbcompile.experiments import multicell_splits as splits
from xbcompile.experiments.figure import Effort
from xbcompile.experiments.systems.multicell import EXPERIMENTS
from xbcompile.experiments.tanh_network import TanhNetwork


def test_splits_share_no_image_and_differ() -> None:
    kept, tested = splits.split(70_000, 3)
    assert (len(kept), len(tested)) == (65_000, 5_000)
    assert np.array_equal(np.sort(np.concatenate([kept, tested])), np.arange(70_000))
    other = splits.split(70_000, 4)[1]
    assert 250 < len(np.intersect1d(tested, other)) < 470  # 5,000 of 5,000 / 70,000: 357 expected


def test_ten_chips_are_the_papers_fifty_splits() -> None:
    efforts = [Effort(Path("models"), seeds) for seeds in (1, 3, 10)]
    assert [splits.splits_of(each) for each in efforts] == [5, 15, 50]
    assert splits.splits_of(Effort(Path("models"), 10, 1, quick=True)) == 2


def test_errors_are_those_of_the_tested_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes that one input tells apart, every fifth image with the other one's label: 20 % are answered wrongly, in
    software and on exact cells of seven junctions, whichever images a split tests.
    """
    rng = np.random.default_rng(0)
    images = rng.random((5_600, 400)).astype(np.float32)
    labels = (images[:, 0] > 0.5).astype(np.int64)
    labels[::5] = 1 - labels[::5]
    weights = np.zeros((400, 2), np.float32)
    weights[0] = -1, 1
    network = TanhNetwork((weights,), (np.array([0.5, -0.5], np.float32),))
    monkeypatch.setattr(splits, "all_images", lambda: (images, labels))
    monkeypatch.setattr(splits, "trained", lambda number: network)
    effort = Effort(Path("models"), 2, 1, quick=True)
    software = splits.software_error(effort)
    assert (software.value, software.repetitions) == (pytest.approx(20, abs=0.5), 2)
    seven = next(each for each in EXPERIMENTS if each.name == "multicell-7-paper")
    exact = {"junctions": 7, "resistance_sigma": 0.0, "slope_sigma": 0.0}
    assert splits.array_error(effort, replace(seven, quantities=exact)).value == pytest.approx(software.value, abs=1)
