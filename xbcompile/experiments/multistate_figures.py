"""Figures and numbers of the multistate report that are no accuracies: XOR maps, components, errors of random products.

Source: MultiSpin.AI deliverable D4.2, "Standard ML tasks" (2026), sections 3.1, 3.2.3 and 4.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xbcompile.api import compile as compile_model
from xbcompile.data.datasets import load_set
from xbcompile.experiments.figure import Effort, Figure, Map, Panel, Series, numbers
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.random_products import RandomProducts, StudySettings
from xbcompile.experiments.reproduction import model_path
from xbcompile.reference.evaluate import evaluate
from xbcompile.runtime import Session
from xbcompile.targets import load_target

# Curves over these are assumed to be those of Figs. 15 to 17, whose axes the text does not give.
_SIGMA_OHM = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0)
_HELD_NL_OHM = (0.0, 10.0, 50.0)  # section 4.4
_BEST_NL_OHM, _BEST_PERP_OHM = 50.0, (5.0, 30.0, 60.0)  # Fig. 18
_COMPONENTS, _SHARE = 87, 0.90  # section 3.2.3


_STATES = tuple(range(2, 33))


def _products(effort: Effort) -> RandomProducts:
    return _products_of(min(effort.seeds, 2) if effort.quick else effort.seeds, 20 if effort.quick else 50)


@lru_cache(maxsize=2)
def _products_of(seeds: int, matrices: int) -> RandomProducts:
    return RandomProducts(StudySettings(load_target("m2tj4"), seeds=seeds, states=_STATES, matrices=matrices))


def xor_outputs(effort: Effort, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the XOR network on a grid of inputs, software and array, float64 [points (input 2), points (input 1)].

    The array quantizes each matrix by one least-squares fit to four equidistant levels and has no errors of its own (3.1.2).

    Args:
        effort: models and threads.
        points: along each side of 0..1.
    """
    side = np.linspace(0, 1, points, dtype=np.float32)
    x = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    passes = "quantize{scheme=levels per=matrix},analogue{low=0 high=1}"
    program = compile_model(model_path(effort.models, "xor"), load_target("m2tj4"), passes=passes)
    name = program.network.outputs[0].name
    found = Session(program, threads=effort.threads).run_samples({"input": x}, observe=False)[name]
    assert program.source is not None
    exact = np.concatenate(_software(effort, x))
    shape = (points, points)
    return exact.astype(np.float64).reshape(shape), found.astype(np.float64).reshape(shape)


def _software(effort: Effort, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of the model itself, by the exact array that holds any value."""
    program = compile_model(model_path(effort.models, "xor"), load_target("ideal"), passes="")
    return evaluate(program.network, {"input": x}, [program.network.outputs[0].name])[0]


def figure_xor(effort: Effort) -> Figure:
    """Output of the XOR network in software, on the array, and their difference (Figs. 4, 8 and 9)."""
    points = 21 if effort.quick else 51
    exact, found = xor_outputs(effort, points)
    side: list[float | str] = list(numbers(np.linspace(0, 1, points)))

    def panel(title: str, values: np.ndarray) -> Panel:
        rows: list[list[float | None]] = [list(numbers(row)) for row in values]
        return Panel(title, "input 1", "input 2", map=Map("output", rows, side, side))

    difference = np.abs(found - exact)
    corners = difference[np.ix_([0, -1], [0, -1])].max()
    return Figure(
        [
            panel("Fig. 4: software", exact),
            panel("Fig. 8: array", found),
            panel("Fig. 9: absolute difference", difference),
        ],
        f"Published weights, biases of ours. Largest difference {difference.max():.3f}, at the four points that matter "
        f"{corners:.4f}.",
    )


def xor_difference(effort: Effort) -> Measured:
    """Largest difference of the array's output from the software's at the four corners (section 3.1.3)."""
    exact, found = xor_outputs(effort, 21)
    difference = np.abs(found - exact)
    right = int(((found[np.ix_([0, -1], [0, -1])] > 0.5) == np.array([[False, True], [True, False]])).sum())
    note = f"{right} of 4 right; largest difference anywhere {difference.max():.3f}"
    return Measured(float(difference[np.ix_([0, -1], [0, -1])].max()), note=note)


@lru_cache(maxsize=1)
def _explained() -> np.ndarray:
    """Share of the variance of the training images that so many components keep, float64 [pixels]."""
    images, _ = load_set("mnist", "train")
    variances = np.linalg.eigvalsh(np.cov(images.reshape(len(images), -1).T.astype(np.float64)))[::-1]
    return np.asarray(np.cumsum(variances) / variances.sum())


def components_needed(effort: Effort) -> Measured:
    """Principal components that keep 90 % of the variance of the training images (section 3.2.3)."""
    share = _explained()
    count = int(np.flatnonzero(share >= _SHARE)[0]) + 1
    return Measured(count, note=f"{100 * share[count - 1]:.2f} % of the variance")


def figure_12(effort: Effort) -> Figure:
    """Share of the variance against the number of components (Fig. 12)."""
    share = _explained()
    curve = Series("training images", numbers(np.arange(len(share)) + 1), numbers(share))
    mark = Series("87 components", [float(_COMPONENTS)], [_SHARE], marks="points", published=True)
    return Figure([Panel("", "components", "share of the variance", [curve, mark], x_scale="log")])


def plateau(sigma_nl_ohm: float, effort: Effort) -> Measured:
    """Root-mean-square error of random products at four states without cell-specific offsets (section 4.4, Fig. 17).

    Args:
        sigma_nl_ohm: of the offsets that all cells share.
        effort: how many seeds.
    """
    products = _products(effort)
    settings = products.settings
    error = products.measure(settings.target.parameters.states, sigma_nl_ohm, 0.0).product.mean(axis=1)
    deviation = float(error.std(ddof=1)) if len(error) > 1 else None
    return Measured(
        float(error.mean()), deviation, len(error), f"{settings.weights} weights of variance 1, inputs 0..1"
    )


def _curve(products: RandomProducts, name: str, pairs: list[tuple[float, float]]) -> Series:
    states = products.settings.target.parameters.states
    each = [products.measure(states, *pair).product.mean(axis=1) for pair in pairs]
    spread = numbers([e.std(ddof=1) for e in each]) if len(each[0]) > 1 else []
    return Series(name, list(_SIGMA_OHM), numbers([e.mean() for e in each]), spread)


def figure_13(effort: Effort) -> Figure:
    """Error of random products against the number of states, quantization alone (Fig. 13)."""
    states = (2, 3, 4, 6, 8, 12, 16) if effort.quick else (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
    each = [_products(effort).measure(n, 0.0, 0.0).product.mean(axis=1) for n in states]
    found = Series("here", numbers(states), numbers([e.mean() for e in each]))
    law = Series("1/N", numbers(states), [1 / n for n in states], published=True)
    return Figure(
        [Panel("", "states N", "root-mean-square error", [found, law], x_scale="log", y_scale="log")],
        "Normal weights of variance 1 and uniform inputs (assumed). Steeper than 1/N, as scale and offset fitted to 16 weights "
        "take up part of the error.",
    )


def figures_15_to_17(effort: Effort) -> Figure:
    """Error of random products at four states against shared and cell-specific offsets (Figs. 15, 16 and 17)."""
    products = _products(effort)
    shared = _curve(products, "shared (sigma_NL)", [(sigma, 0.0) for sigma in _SIGMA_OHM])
    own = _curve(products, "of each cell (sigma_perp)", [(0.0, sigma) for sigma in _SIGMA_OHM])
    held = [_curve(products, f"sigma_NL = {nl:g} Ohm", [(nl, sigma) for sigma in _SIGMA_OHM]) for nl in _HELD_NL_OHM]
    label = "root-mean-square error"
    return Figure(
        [
            Panel(
                "Figs. 15, 16", "sigma in Ohm", label, [shared, own], x_scale="log", lines=[("published plateau", 0.25)]
            ),
            Panel(
                "Fig. 17",
                "sigma_perp in Ohm",
                label,
                held,
                x_scale="log",
                lines=[("published plateau at 0 Ohm", 0.25), ("published plateau at 10 Ohm", 0.3)],
            ),
        ],
        "4x4 arrays, normal weights of variance 1, uniform inputs (assumed): the plateaus depend on these.",
    )


def best_states(sigma_perp_ohm: float, effort: Effort) -> np.ndarray:
    """The number of states of the least error of each random matrix (Fig. 18), whole numbers [seeds * matrices].

    Args:
        sigma_perp_ohm: of each cell's own offsets; shared ones are 50 Ohm.
        effort: how many seeds.
    """
    products = _products(effort)
    errors = [products.measure(n, _BEST_NL_OHM, sigma_perp_ohm).product for n in _STATES]
    return np.asarray(_STATES)[np.stack(errors).argmin(axis=0)].ravel()


def median_best_states(sigma_perp_ohm: float, effort: Effort) -> Measured:
    """Median over random matrices of the number of states of the least error (section 4.5)."""
    best = best_states(sigma_perp_ohm, effort)
    low, high = np.percentile(best, [25, 75])
    return Measured(
        float(np.median(best)), None, len(best), f"half of the matrices between {low:g} and {high:g}; up to 32"
    )


def figure_18(effort: Effort) -> Figure:
    """Histograms of the number of states that minimises the error of random products (Fig. 18)."""
    states = np.arange(2, 33)
    panels = []
    for sigma_ohm in _BEST_PERP_OHM:
        best = best_states(sigma_ohm, effort)
        share = np.bincount(best, minlength=33)[2:] / len(best)
        title = f"sigma_perp = {sigma_ohm:g} Ohm, median {np.median(best):g}"
        panels.append(
            Panel(
                title,
                "states N of the least error",
                "share of the matrices",
                [Series("", numbers(states), numbers(share), marks="bars")],
            )
        )
    return Figure(
        panels,
        "sigma_NL = 50 Ohm; normal weights, uniform inputs, 10 of them for each matrix, 2 to 32 states (assumed).",
    )
