"""`multicell`: Rzeszut et al., "Multi-state MRAM cells for hardware neuromorphic computing", Scientific Reports 12 (2022)."""

from __future__ import annotations

from typing import Any

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

# Every layer has an array of its own, as in the paper: weights are written once.
_STAYS = {"arrays": 0}
_PAPER = "quantize{per=matrix},analogue"
_PER_COLUMN = "quantize,analogue"
_DATA_AWARE = "quantize{method=data-aware},analogue"
_OURS = "quantize{method=data-aware},analogue,recalibrate{samples=1000}"


def _multicell(name: str, junctions: int, spread: float, words: str, passes: str, **fields: Any) -> Experiment:
    """The published error is below 3 % from four junctions on, comparable to software; it is not given for fewer."""
    defaults: dict[str, Any] = {
        "goal": None,
        "published": (None, 97.0) if junctions >= 4 else (None, None),
        "weight": 40,
    }
    plural = "s" * (junctions > 1)
    return Experiment(
        f"multicell-{name}",
        f"tanh 400-100-100-10 on multicell, {junctions} junction{plural}, {100 * spread:g} % spread{words}",
        "mnist_tanh",
        "multicell",
        passes=passes,
        calibration="mnist:train:4000",
        quantities={"junctions": junctions, "resistance_sigma": spread, "slope_sigma": spread},
        options=_STAYS,
        has_spread=spread > 0,
        **(defaults | fields),
    )


def _paper(junctions: int) -> Experiment:
    """One scale and offset per matrix, least squares, and no correction: weights rescaled by the amplifiers' gain."""
    words = ", one fit per matrix"
    return _multicell(f"{junctions}-paper", junctions, 0.05, words, _PAPER, procedure="paper")


EXPERIMENTS: tuple[Experiment, ...] = (
    *(_paper(junctions) for junctions in (1, 2, 3, 4, 7)),
    _multicell("1-columns", 1, 0.05, ", a fit per column", _PER_COLUMN),
    _multicell("1-data-aware", 1, 0.05, ", data-aware", _DATA_AWARE),
    _multicell("1", 1, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(array=96.8)),
    _multicell("2", 2, 0.0, ", data-aware, recalibrated", _OURS, goal=Goal(drop=0.2)),
    _multicell("3", 3, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(drop=0.3)),
    _multicell("4-columns", 4, 0.05, ", a fit per column", _PER_COLUMN),
    _multicell("4-data-aware", 4, 0.05, ", data-aware", _DATA_AWARE),
    _multicell("4", 4, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(array=97.0)),
)

MEASUREMENTS: tuple[Measurement, ...] = ()

FIGURES: tuple[PaperFigure, ...] = ()
