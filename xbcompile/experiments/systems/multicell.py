"""`multicell`: Rzeszut et al., "Multi-state MRAM cells for hardware neuromorphic computing", Scientific Reports 12 (2022)."""

from __future__ import annotations

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

_DATA_AWARE = "quantize{method=data-aware}"
_MULTICELL = f"{_DATA_AWARE},analogue,recalibrate{{samples=1000}}"


def _multicell(junctions: int, spread: float, goal: Goal) -> Experiment:
    """The published error is below 3 % from four junctions on, comparable to software; it is not given for fewer."""
    return Experiment(
        f"multicell-{junctions}",
        f"tanh 400-100-100-10 on multicell, {junctions} junction{'s' * (junctions > 1)}, {100 * spread:g} % spread",
        "mnist_tanh",
        "multicell",
        goal,
        (None, 97.0) if junctions >= 4 else (None, None),
        _MULTICELL,
        "mnist:train:4000",
        quantities={"junctions": junctions, "resistance_sigma": spread, "slope_sigma": spread},
        has_spread=spread > 0,
        weight=40,
    )


EXPERIMENTS: tuple[Experiment, ...] = (
    _multicell(1, 0.05, Goal(array=96.8)),
    _multicell(2, 0.0, Goal(drop=0.2)),
    _multicell(3, 0.05, Goal(drop=0.3)),
    _multicell(4, 0.05, Goal(array=97.0)),
)

MEASUREMENTS: tuple[Measurement, ...] = ()

FIGURES: tuple[PaperFigure, ...] = ()
