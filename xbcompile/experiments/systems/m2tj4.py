"""`m2tj4`: MultiSpin.AI deliverable D4.2, "Standard ML tasks" (2026)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from xbcompile.experiments import multistate_figures
from xbcompile.experiments.figure import Effort, PaperFigure
from xbcompile.experiments.measurement import Measured, Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

_DATA_AWARE = "quantize{method=data-aware}"
_M2TJ = f"fold-batchnorm,{_DATA_AWARE},analogue,recalibrate{{samples=1000}}"
_TRAINED_MLP = "mnist_mlp on m2tj4, data-aware"
_LEVEL_OHM = (9918.9859 - 9402.4622) / 3  # spacing of the four published levels


def _m2tj(name: str, title: str, goal: Goal, **options: Any) -> Experiment:
    """`mnist_mlp` on `m2tj4` without device errors, calibrated on 10,000 training images, never retrained."""
    defaults: dict[str, Any] = {"passes": _M2TJ, "calibration": "mnist:train:10000", "has_spread": False, "weight": 20}
    return Experiment(name, title, "mnist_mlp", "m2tj4", goal, **(defaults | options))


def _reduced(components: int, reads: int, drop: float, published: tuple[float | None, float | None]) -> Experiment:
    passes = f"fold-batchnorm,reduce{{components={components}}},{_DATA_AWARE},analogue,recalibrate{{samples=1000}}"
    title = f"{_TRAINED_MLP}, inputs reduced to {components} at compile time"
    return _m2tj(f"m2tj4-reduced-{reads}", title, Goal(drop=drop, reads=reads), passes=passes, published=published)


# Three networks each, from the seeds 0, 1 and 2 of the recipe that gives the report's software accuracy.
_PAPER = ("mnist_mlp_paper", "mnist_mlp_paper_1", "mnist_mlp_paper_2")
_PAPER_PCA = ("mnist_mlp_pca87_paper", "mnist_mlp_pca87_paper_1", "mnist_mlp_pca87_paper_2")
_PUBLISHED, _PUBLISHED_PCA = (97.56, 94.48), (98.03, 95.24)


def _steps(
    name: str, what: str, networks: tuple[str, ...], published: tuple[float, float], goal: Goal
) -> tuple[Experiment, ...]:
    """The report's own procedure on its own networks, without any error of the devices, then what is gained step by step."""

    def row(suffix: str, title: str, quantize: str, goal: Goal | None, correction: str = "") -> Experiment:
        passes = f"fold-batchnorm,{quantize},analogue{correction}"
        own = suffix == "paper"
        return Experiment(
            f"{name}-{suffix}",
            title,
            networks[0],
            "m2tj4",
            goal,
            published,
            passes,
            "mnist:train:10000",
            has_spread=False,
            weight=60 if networks == _PAPER else 15,
            procedure="paper" if own else "ours",
            networks=networks[1:],
        )

    return (
        row("paper", f"{what}, one least-squares fit per matrix", "quantize{scheme=levels per=matrix}", goal),
        row("per-column", "the same networks, scale and offset per column", "quantize{scheme=levels per=column}", None),
        row("data-aware", "the same, levels chosen for the inputs' statistics", _DATA_AWARE, None),
        row(
            "recalibrated",
            "the same, gain and offset of each output recalibrated",
            _DATA_AWARE,
            None,
            ",recalibrate{samples=1000}",
        ),
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    # Asked for: no larger drop than the published 3.08 and 2.79 points, plus 0.4, about the spread from network to network.
    *_steps("m2tj4", "784-128-10, 4 levels", _PAPER, _PUBLISHED, Goal(drop=3.5, software=97.0, reads=6368)),
    *_steps(
        "m2tj4-pca", "87 components, retrained", _PAPER_PCA, _PUBLISHED_PCA, Goal(drop=3.2, software=97.4, reads=800)
    ),
    _m2tj("m2tj4", f"{_TRAINED_MLP}, 4 levels", Goal(drop=0.4, reads=6368), published=(97.56, 94.48)),
    _m2tj(
        "m2tj4-noise",
        "the same, 5 % cell noise",
        Goal(drop=0.5, reads=6368),
        quantities={"sigma_perp_ohm": 0.05 * _LEVEL_OHM},
        has_spread=True,
        weight=60,
    ),
    _m2tj(
        "m2tj4-live",
        "the same, dead pixels dropped",
        Goal(drop=0.4, reads=5856),
        passes=f"fold-batchnorm,reduce{{inputs=dead}},{_DATA_AWARE},analogue,recalibrate{{samples=1000}}",
        calibration="mnist:train:60000",
    ),
    _reduced(88, 800, 0.35, (98.03, 95.24)),
    _reduced(48, 480, 0.45, (None, None)),
    _reduced(32, 352, 0.7, (None, None)),
    *(
        _m2tj(
            f"m2tj4-{levels}-levels", f"{_TRAINED_MLP}, {levels} levels", Goal(drop=drop), quantities={"states": levels}
        )
        for levels, drop in ((2, 2.0), (3, 0.9), (8, 0.15))
    ),
)


def _measured(
    name: str, title: str, published: float | None, measure: Callable[[Effort], Measured], weight: float, **options: Any
) -> Measurement:
    """A number of the report; the distributions of weights and inputs are assumed where random products are meant."""
    defaults: dict[str, Any] = {"unit": "", "basis": "assumed"}
    return Measurement(
        name=f"m2tj4-{name}",
        title=title,
        target="m2tj4",
        published=published,
        procedure="paper",
        measure=measure,
        weight=weight,
        **(defaults | options),
    )


MEASUREMENTS: tuple[Measurement, ...] = (
    _measured(
        "components",
        "principal components for 90 % of the variance (section 3.2.3)",
        87,
        multistate_figures.components_needed,
        10,
        basis="predicted",
        low=87,
        high=87,
    ),
    _measured(
        "xor-corners",
        "XOR: largest difference from software at the four points that matter (section 3.1.3)",
        None,
        multistate_figures.xor_difference,
        3,
        basis="predicted",
        high=0.01,
    ),
    _measured(
        "plateau",
        "error of random products at 4 states, no offsets (section 4.4)",
        0.25,
        partial(multistate_figures.plateau, 0.0),
        5,
        low=0.2,
        high=0.3,
    ),
    _measured(
        "plateau-10-ohm", "the same, shared offsets of 10 Ohm", 0.3, partial(multistate_figures.plateau, 10.0), 5
    ),
    *(
        _measured(
            f"best-states-{sigma:g}-ohm",
            f"states of the least error, median, sigma_perp = {sigma:g} Ohm (Fig. 18)",
            None,
            partial(multistate_figures.median_best_states, sigma),
            30,
        )
        for sigma in (5.0, 30.0, 60.0)
    ),
)

FIGURES: tuple[PaperFigure, ...] = (
    PaperFigure("m2tj4-fig4-8-9", "XOR in software and on the array (Figs. 4, 8, 9)", multistate_figures.figure_xor, 3),
    PaperFigure("m2tj4-fig12", "variance that components keep (Fig. 12)", multistate_figures.figure_12, 10),
    PaperFigure("m2tj4-fig13", "error against the number of states (Fig. 13)", multistate_figures.figure_13, 10),
    PaperFigure(
        "m2tj4-fig15-16-17", "error against offsets (Figs. 15, 16, 17)", multistate_figures.figures_15_to_17, 30
    ),
    PaperFigure("m2tj4-fig18", "number of states of the least error (Fig. 18)", multistate_figures.figure_18, 90),
)
