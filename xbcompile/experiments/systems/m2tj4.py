"""`m2tj4`: MultiSpin.AI deliverable D4.2, "Standard ML tasks" (2026)."""

from __future__ import annotations

from typing import Any

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
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


EXPERIMENTS: tuple[Experiment, ...] = (
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

MEASUREMENTS: tuple[Measurement, ...] = ()

FIGURES: tuple[PaperFigure, ...] = ()
