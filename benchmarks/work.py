"""The pieces of work that are timed: a model, its inputs, a target with its errors, and how much of it one run takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import xbcompile
from benchmarks.networks import convolution, dense, resnet18, resnet50
from xbcompile.data.datasets import load_data

MODELS = Path(__file__).parent.parent / "models"
TARGETS = Path(__file__).parent / "targets"

ROWS = 64  # of all arrays

Inputs = Callable[[onnx.ModelProto, int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Work:
    """What each side of a row is asked to do.

    Args:
        model: makes the model.
        inputs: makes so many samples for it.
        samples: of one run.
        target: name or file of the target.
        device: of the target; None takes its own.
        calibration: samples given to the passes; 0: none.
        options: of the compilation.
        step_bound: the other simulators' converter: largest sum of either sign, as products of full weights and full inputs.
        codes: of that converter; 0: none.
        noise: standard deviation of a reading, as `step_bound`.
        programming_error: standard deviation of a weight, relative to itself.
        slices: binary reads per input; 0: one analogue read.
        batch: samples that the other simulators take in one call: what suits them best.
    """

    model: Callable[[], onnx.ModelProto]
    inputs: Inputs
    samples: int
    target: str
    device: str | None = None
    calibration: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    step_bound: float = 0.0
    codes: int = 0
    noise: float = 0.0
    programming_error: float = 0.0
    slices: int = 0
    batch: int = 500


def shipped(name: str) -> Callable[[], onnx.ModelProto]:
    """One of the repository's models."""
    return lambda: onnx.load(MODELS / f"{name}.onnx")


def mnist(model: onnx.ModelProto, samples: int, part: str = "test") -> dict[str, np.ndarray]:
    """So many images of MNIST; beyond its 10,000 test images they are repeated."""
    found = load_data(f"mnist:{part}:{min(samples, 10_000)}", tuple(model.graph.input)).inputs
    return {name: np.resize(x, (samples, *x.shape[1:])) for name, x in found.items()}


def uniform(model: onnx.ModelProto, samples: int) -> dict[str, np.ndarray]:
    """Uniform random inputs of either sign."""
    generator = np.random.default_rng(samples)
    shapes = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim[1:]] for each in model.graph.input}
    return {name: 2 * generator.random((samples, *shape), dtype=np.float32) - 1 for name, shape in shapes.items()}


def batches(feeds: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    """Inputs in parts of so many samples."""
    samples = len(next(iter(feeds.values())))
    return [{name: x[at : at + size] for name, x in feeds.items()} for at in range(0, samples, size)]


def calibration_of(work: Work, model: onnx.ModelProto) -> dict[str, np.ndarray] | None:
    """What the passes are fitted to; other images than those that are run."""
    if not work.calibration:
        return None
    return mnist(model, work.calibration, "train") if work.inputs is mnist else work.inputs(model, work.calibration)


STAYS = {"arrays": 0}  # every image keeps its array, as the other simulators have it
PLAIN = {**STAYS, "cuts": "greedy", "packing": "none"}  # no search: compiling is not what is timed
CONTINUOUS = {
    "target": str(TARGETS / "continuous64.toml"),
    "options": PLAIN,
    "step_bound": 16.0,
    "codes": 255,
    "noise": 0.005 * 16,
    "programming_error": 0.05,
}
BINARY = {
    "model": shipped("mnist_bnn"),
    "inputs": mnist,
    "samples": 10_000,
    "target": "mram64",
    "calibration": 1000,
    "options": PLAIN,
    "step_bound": 48 / 1.65,  # the largest weight of the model is the array's largest row weight, 1.65
    "codes": 16,
    "noise": 1.15 / 1.65,
    "programming_error": 0.1,  # cells of both states, relative to half of their distance
    "slices": 8,
    "batch": 1_000,
}
TERNARY = {
    "model": shipped("mnist_lenet5_ternary"),
    "inputs": mnist,
    "samples": 2_000,
    "calibration": 1000,
    "options": PLAIN,
    "programming_error": 0.1,
    "batch": 100,
}
DEPTHWISE = {"model": lambda: convolution(192, 192, 16, groups=192), "inputs": uniform, "options": PLAIN}

WORKS: dict[str, Work] = {
    "W1": Work(**BINARY),
    "W1e": Work(**BINARY, device="emulator"),
    "W2": Work(**TERNARY, target="sot"),
    "W2n": Work(**TERNARY, target=str(TARGETS / "sot_converter.toml"), step_bound=32.0, codes=255, noise=0.005 * 32),
    "W3": Work(model=resnet18, inputs=uniform, samples=8, calibration=8, **CONTINUOUS),
    "W4": Work(model=lambda: dense(4096, 4096), inputs=uniform, samples=256, calibration=256, **CONTINUOUS),
    "D1": Work(**DEPTHWISE, samples=16, target="sot"),
    "D2": Work(**DEPTHWISE, samples=2, target="mram64"),
    "chips": Work(**{**BINARY, "samples": 1_000}),
    "resnet50": Work(model=resnet50, inputs=uniform, samples=1, target="sot"),
    "M1": Work(**{**BINARY, "samples": 60_000}),
    "M1e": Work(**{**BINARY, "samples": 60_000}, device="emulator"),
    "M2": Work(**{**TERNARY, "samples": 10_000}, target="sot"),
    "M3": Work(model=resnet18, inputs=uniform, samples=16, calibration=8, **CONTINUOUS),
    "M4": Work(model=lambda: dense(4096, 4096), inputs=uniform, samples=1024, calibration=64, **CONTINUOUS),
    "C1": Work(model=lambda: convolution(64, 64, 32), inputs=uniform, samples=500, target="sot", options=PLAIN),
    "C2": Work(
        model=lambda: convolution(192, 192, 16, groups=192), inputs=uniform, samples=500, target="sot", options=PLAIN
    ),
}


def readings_of(program: xbcompile.Program) -> dict[str, int]:
    """Conversions of used columns, and products of used rows by used columns, that one sample takes."""
    readings = products = 0
    for owner, layer in zip(program.network.matrices, program.network.layers, strict=True):
        tiles = program.schedule.tiles[program.schedule.tiles_of(owner)]
        reads = layer.slices * (layer.vectors_per_inference or 1)
        columns = (tiles["m1"] - tiles["m0"]).astype(np.int64)
        readings += reads * int(columns.sum())
        products += reads * int((columns * (tiles["k1"] - tiles["k0"])).sum())
    return {"readings": readings, "products": products}
