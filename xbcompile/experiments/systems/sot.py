"""`sot` and `sot-single`: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications"."""

from __future__ import annotations

from xbcompile.experiments.device_spread import networks
from xbcompile.experiments.device_spread.figures import SPREAD_FIGURES, SPREAD_MEASUREMENTS
from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.graphs.figures import GRAPH_FIGURES, GRAPH_MEASUREMENTS
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, Goal
from xbcompile.experiments.switching import figures as switching_figures
from xbcompile.experiments.switching import measurements as switching_measurements

# Their papers' arrays hold the whole network: weights are written once, and what writing draws at random stays.
_STAYS = {"arrays": 0}

EXPERIMENTS: tuple[Experiment, ...] = (
    *networks.EXPERIMENTS,
    Experiment(
        "sot-lenet5-ternary",
        "LeNet-5 ternary on sot, full spread",
        "mnist_lenet5_ternary",
        "sot",
        Goal(array=98.7, worst=98.6),
        (98.2, 88.0),
        "quantize{scheme=ternary},analogue,recalibrate{samples=500}",
        options=_STAYS,
        weight=200,
    ),
    Experiment(
        "sot-lenet5-float",
        "LeNet-5 float, ternary without retraining, sot",
        "mnist_lenet5",
        "sot",
        Goal(array=98.2),
        passes="quantize{scheme=ternary method=data-aware},analogue,recalibrate{samples=1000}",
        calibration="mnist:train:4000",
        options=_STAYS,
        weight=200,
    ),
    Experiment(
        "sot-single-fashion",
        "784-200-200-10 binary, Fashion-MNIST, trained in software, sot-single",
        "fashion_bnn",
        "sot-single",
        Goal(array=85.0),
        calibration="fashion-mnist:train:1000",
        data="fashion-mnist:test",
        options=_STAYS,
        weight=60,
    ),
)

MEASUREMENTS: tuple[Measurement, ...] = (
    *SPREAD_MEASUREMENTS,
    *switching_measurements.MEASUREMENTS,
    *GRAPH_MEASUREMENTS,
)

FIGURES: tuple[PaperFigure, ...] = (*SPREAD_FIGURES, *switching_figures.FIGURES, *GRAPH_FIGURES)
