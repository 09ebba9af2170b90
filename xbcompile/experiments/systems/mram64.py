"""`mram64`: Jung et al., "A crossbar array of magnetoresistive memory devices for in-memory computing",
Nature 601, 211 (2022).
"""

from __future__ import annotations

from typing import Any

from xbcompile.experiments.figure import PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

_RECALIBRATE = "recalibrate{samples=1000}"
_BINARY_AWARE = "quantize{scheme=binary method=data-aware}"
_BNN = "fold-batchnorm,quantize{scheme=binary},use-spare-cells,thermometer{bits=8},recalibrate{samples=1000}"
_PLAIN = f"fold-batchnorm,order-rows,{_BINARY_AWARE},use-spare-cells,thermometer{{bits=8}},recalibrate{{samples=1000}}"

# Three networks from the seeds 0, 1 and 2 of one recipe: weights +-1, no knowledge of the rows, trained under Gaussian noise
# whose size was chosen so that the software accuracy is the paper's.
_PAPER = ("mnist_bnn_paper", "mnist_bnn_paper_1", "mnist_bnn_paper_2")
_AS_PUBLISHED = "fold-batchnorm,quantize{scheme=binary},thermometer{bits=8}"
_OFFSETS = "calibrate-offsets{at=high samples=6500}"  # 100 drives for each number of high rows; the paper's 1,000 change nothing


def _step(suffix: str, title: str, passes: str, goal: Goal | None = None, **options: Any) -> Experiment:
    """The paper's networks on the array: its own procedure, or one step away from it."""
    defaults: dict[str, Any] = {"published": (95.24, 93.23), "weight": 100, "networks": _PAPER[1:]}
    return Experiment(f"mram64-mlp-{suffix}", title, _PAPER[0], "mram64", goal, passes=passes, **(defaults | options))


_PUBLISHED_STEPS: tuple[Experiment, ...] = (
    # Asked for: no larger drop than the published 2.01 points, plus 0.5, the spread from chip to chip.
    _step(
        "paper",
        "784-128-10 of +-1, scrambled columns, integer column offsets at W = R_H",
        f"{_AS_PUBLISHED},{_OFFSETS}",
        Goal(drop=2.5, software=95.0, weight_updates=28),
        procedure="paper",
    ),
    _step(
        "paper-emulator",
        "the same networks on the emulator, uncorrected",
        _AS_PUBLISHED,
        Goal(drop=3.0),
        published=(95.24, 93.18),
        device="emulator",
        procedure="paper",
    ),
    _step("paper-raw", "the same networks, no offsets", _AS_PUBLISHED),
    _step(
        "paper-unscrambled",
        "offsets at W = R_H, columns not scrambled",
        f"{_AS_PUBLISHED},{_OFFSETS}",
        options={"scramble": False},
    ),
    _step(
        "paper-own-offsets",
        "integer column offsets at the network's own weights",
        f"{_AS_PUBLISHED},calibrate-offsets{{samples=1000}}",
    ),
    _step("paper-recalibrated", "gain and offset of each output recalibrated", f"{_AS_PUBLISHED},{_RECALIBRATE}"),
    _step(
        "paper-spare",
        "recalibrated, spare columns filled with copies",
        f"fold-batchnorm,quantize{{scheme=binary}},use-spare-cells,thermometer{{bits=8}},{_RECALIBRATE}",
    ),
    _step(
        "paper-rows",
        "the same, pixels ordered by row weight, signs chosen for it",
        _PLAIN,
        calibration="mnist:train:10000",
    ),
)

EXPERIMENTS: tuple[Experiment, ...] = (
    *_PUBLISHED_STEPS,
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
