"""`mram64`: Jung et al., "A crossbar array of magnetoresistive memory devices for in-memory computing",
Nature 601, 211 (2022).
"""

from __future__ import annotations

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

_BINARY_AWARE = "quantize{scheme=binary method=data-aware}"
_BNN = "fold-batchnorm,quantize{scheme=binary},use-spare-cells,thermometer{bits=8},recalibrate{samples=1000}"
_PLAIN = f"fold-batchnorm,order-rows,{_BINARY_AWARE},use-spare-cells,thermometer{{bits=8}},recalibrate{{samples=1000}}"

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "mram64-mlp",
        "mnist_bnn on mram64, physics",
        "mnist_bnn",
        "mram64",
        Goal(drop=0.5, array=97.0, weight_updates=28),
        (95.24, 93.23),
        _BNN,
        weight=30,
    ),
    Experiment(
        "mram64-mlp-emulator",
        "the same on the emulator",
        "mnist_bnn",
        "mram64",
        None,
        (95.24, 93.18),
        _BNN,
        device="emulator",
        weight=30,
    ),
    Experiment(
        "mram64-mlp-spare",
        "mnist_bnn_spare on mram64: trained for spare cells",
        "mnist_bnn_spare",
        "mram64",
        Goal(drop=0.5, array=97.0, weight_updates=28),
        weight=30,
    ),
    Experiment(
        "mram64-mlp-22",
        "mnist_bnn_live on mram64: live pixels, spare cells",
        "mnist_bnn_live",
        "mram64",
        Goal(array=96.7, weight_updates=22),
        weight=30,
    ),
    Experiment(
        "mram64-mlp-plain",
        "mnist_bnn_plain, not trained for this array",
        "mnist_bnn_plain",
        "mram64",
        Goal(drop=1.2),
        passes=_PLAIN,
        calibration="mnist:train:10000",
        weight=60,
    ),
    Experiment(
        "mram64-vgg8",
        "VGG-8 binary on mram64",
        "mnist_vgg8",
        "mram64",
        Goal(drop=0.2, software=99.2),
        (99.28, 98.86),
        "fold-batchnorm,quantize{scheme=binary},thermometer{bits=2},recalibrate{samples=1000}",
        weight=500,
    ),
    Experiment(
        "mram64-detector",
        "one 128x128 layer of a detector on four arrays",
        "scenes_detector",
        "mram64",
        Goal(drop=1.0),
        (95.7, 93.4),
        calibration="scenes:train:500",
        data="scenes:test",
        options={"digital": ("conv[!6]*",), "arrays": 4},
        weight=100,
    ),
)

MEASUREMENTS: tuple[Measurement, ...] = ()

FIGURES: tuple[PaperFigure, ...] = ()
