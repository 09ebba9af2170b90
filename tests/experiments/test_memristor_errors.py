"""The letters' perceptron in software: what training reaches, and the published model of import errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xbcompile.experiments.memristor_errors import SoftwareTraining, import_errors


def test_ten_hidden_neurons_learn_all_training_patterns() -> None:
    """Published: 100 % of the training set; two hidden neurons cannot."""
    few, enough = (SoftwareTraining(hidden, epochs=400) for hidden in (2, 10))
    found = [each.task("train").fidelity(each.task("train").outputs(each.train(3))[1]) for each in (few, enough)]
    assert found[1].max() == 100
    assert found[0].mean() < found[1].mean() - 5
    assert max(np.abs(each).max() for each in enough.train(2)) <= 1
    alone = enough.train(1)
    np.testing.assert_allclose(enough.train(2)[0][:1], alone[0], rtol=0, atol=1e-9)


def test_import_errors_are_uniform_and_relative() -> None:
    weights = np.full((17, 10), 0.5), np.full((11, 4), -0.25)
    first, second = import_errors(weights, 0.3, 20)
    assert (first.shape, second.shape) == ((20, 17, 10), (20, 11, 4))
    for found, weight in ((first, 0.5), (second, -0.25)):
        assert stats.kstest((found / weight - 1).ravel(), stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-4
    assert import_errors(weights, 0.0, 2)[0] == pytest.approx(np.broadcast_to(weights[0], (2, 17, 10)))
