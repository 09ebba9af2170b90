"""Small models and programs for tests of everything behind the frontend."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of
from xbcompile.program.program import Program

CODED = "quantize{scheme=levels},analogue{low=0 high=1}"


def convolution_model() -> onnx.ModelProto:
    """Two groups of 9 x 3 (4 vectors from padded patches), then 24 x 5, with ReLU between."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=2, name="conv", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "h"], ["y"], name="fc"),
    ]
    constants = {
        "w": rng.normal(size=(6, 1, 3, 3)),
        "b": rng.normal(size=6),
        "g": rng.normal(size=(24, 5)),
        "h": rng.normal(size=5),
    }
    return model_of(nodes, {"x": ["n", 2, 4, 4]}, ["y"], constants)


def dense_model(*sizes: int, seed: int = 2, batch: int | str = "n") -> onnx.ModelProto:
    """A chain of Gemm and ReLU; inputs x, output y."""
    rng = np.random.default_rng(seed)
    nodes, constants, name = [], {}, "x"
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        constants[f"w{i}"] = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        constants[f"b{i}"] = rng.normal(size=outputs)
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], ["y" if last else f"a{i}"], name=f"fc{i}"))
        if not last:
            nodes.append(helper.make_node("Relu", [f"a{i}"], [f"r{i}"]))
        name = f"r{i}"
    return model_of(nodes, {"x": [batch, sizes[0]]}, ["y"], constants)


def images(count: int, *shape: int, seed: int = 3) -> np.ndarray:
    """Inputs in 0..1."""
    return np.random.default_rng(seed).random((count, *shape), dtype=np.float32)


@cache
def convolution_program(target: str = "m2tj4", passes: str | None = CODED, **options: Any) -> Program:
    """The convolution compiled; 18 tiles and several images on two arrays of m2tj4."""
    return xbcompile.compile(convolution_model(), target, passes=passes, **{"arrays": 2, "effort": 0, **options})
