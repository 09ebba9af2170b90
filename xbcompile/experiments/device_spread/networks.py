"""LeNet-5 with 2-bit weights under the spread of devices: the paper's procedure, and row by row what ours adds.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications", Fig. 2. The paper's network has
ternary weights with one scale a layer (assumed: its largest magnitude, see models/train_mnist_lenet5_paper.py), is written once
into arrays of simulated devices, and read without any correction.
"""

from __future__ import annotations

from xbcompile.experiments.reproduction import Experiment

NETWORK = "mnist_lenet5_paper"
MORE_NETWORKS = ("mnist_lenet5_paper_b", "mnist_lenet5_paper_c")
NOISE_TRAINED = {0.0: NETWORK, 0.1: f"{NETWORK}_noise10", 0.2: f"{NETWORK}_noise20", 0.3: f"{NETWORK}_noise30"}
PLAIN = "quantize{scheme=ternary},analogue"
RECALIBRATED = f"{PLAIN},recalibrate{{samples=500}}"
STAYS = {"arrays": 0}  # the whole network is written once
PUBLISHED = (98.2, 88.0)
WRITE_NOISE_ALONE = {"low_sigma": 0.0, "high_sigma": 0.0}

EXPERIMENTS = (
    Experiment(
        "sot-lenet5-paper",
        "LeNet-5, ternary, a scale per layer, full spread, nothing corrected",
        NETWORK,
        "sot",
        None,
        PUBLISHED,
        PLAIN,
        options=STAYS,
        weight=100,
        procedure="paper",
        networks=MORE_NETWORKS,
    ),
    Experiment(
        "sot-lenet5-paper-write-noise",
        "the same, write noise alone",
        NETWORK,
        "sot",
        None,
        (98.2, 95.1),
        PLAIN,
        quantities=WRITE_NOISE_ALONE,
        options=STAYS,
        weight=100,
        procedure="paper",
        networks=MORE_NETWORKS,
    ),
    Experiment(
        "sot-lenet5-paper-recalibrated",
        "the same, full spread, recalibrated",
        NETWORK,
        "sot",
        None,
        PUBLISHED,
        RECALIBRATED,
        options=STAYS,
        weight=150,
        networks=MORE_NETWORKS,
    ),
    Experiment(
        "sot-lenet5-ternary-plain",
        "a scale per output, trained under the spread, nothing corrected",
        "mnist_lenet5_ternary",
        "sot",
        None,
        PUBLISHED,
        PLAIN,
        options=STAYS,
        weight=40,
    ),
)
