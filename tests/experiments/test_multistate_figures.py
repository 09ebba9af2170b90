"""XOR on the multistate array by hand, and the errors of random products as the report defines them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support.model_kit import MODELS, run_onnxruntime
from xbcompile.experiments import multistate_figures
from xbcompile.experiments.figure import Effort

QUICK = Effort(MODELS, seeds=1, quick=True)


def test_xor_map_is_that_of_the_quantized_weights() -> None:
    """Software is onnxruntime's. On the array {8.57, 8.58, 11.97, 12.06} become {8.575, 8.575, 12.015, 12.015}, the two
    outermost of four equidistant levels (the report prints 8.58 and 12.01); the second matrix has two values, held exactly.
    """
    model = onnx.load(MODELS / "xor.onnx")
    side = np.linspace(0, 1, 5, dtype=np.float32)
    x = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    exact, found = multistate_figures.xor_outputs(QUICK, 5)
    np.testing.assert_allclose(exact.ravel(), run_onnxruntime(model, {"input": x})["output"].ravel(), atol=1e-6)
    held = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}
    first = np.where(held["fc1.weight"] > 10, 12.015, 8.575)
    hidden = 1 / (1 + np.exp(-(x @ first + held["fc1.bias"])))
    output = 1 / (1 + np.exp(-(hidden @ held["fc2.weight"] + held["fc2.bias"])))
    np.testing.assert_allclose(found.ravel(), output.ravel(), atol=1e-3)
    assert np.abs(found - exact).max() > 5e-3


def test_best_states_have_the_least_error() -> None:
    """Matrix by matrix, by enumeration; with larger offsets of each cell fewer states are best, as in Fig. 18."""
    best = multistate_figures.best_states(60.0, QUICK)
    products = multistate_figures._products(QUICK)
    assert best.shape == (20,)
    for matrix in (0, 7, 19):
        errors = {n: products.errors(0, n, 50.0, 60.0).product[matrix] for n in range(2, 33)}
        assert errors[int(best[matrix])] == min(errors.values())
    assert best.mean() < multistate_figures.best_states(5.0, QUICK).mean()
    (few, _, _) = multistate_figures.figure_18(QUICK).panels
    assert abs(sum(few.series[0].y) - 1) < 1e-12


def test_plateaus() -> None:
    """Shared offsets of 10 Ohm only add; the sweep of Fig. 17 starts at the plateau of its curve."""
    plain, offset = (multistate_figures.plateau(sigma, QUICK).value for sigma in (0.0, 10.0))
    assert plain < offset
    curves = multistate_figures.figures_15_to_17(QUICK).panels[1].series
    assert abs(curves[0].y[0] - plain) < 0.02 * plain
    assert abs(curves[1].y[0] - offset) < 0.02 * offset
