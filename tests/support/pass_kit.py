"""Networks and contexts for tests of passes, and the reference that they are compared with: plain onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.support.model_kit import run_onnxruntime
from xbcompile.cli.printing import network_text
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import ArraySpec, Network
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.reference.evaluate import evaluate
from xbcompile.targets import load_target


def network_of(model: onnx.ModelProto) -> Network:
    return import_network(load_model(model))


def spec_with(levels: Any, drive: str = "analogue", target: str = "m2tj4") -> ArraySpec:
    """The array of a target with another level table and another drive."""
    from dataclasses import replace

    spec = load_target(target).array_spec
    table = None if levels is None else np.asarray(levels, np.float32)
    neutral = np.full(spec.rows, 0 if table is None else np.abs(table).argmin(), np.uint8)
    return replace(
        spec, levels=table, drive=drive, neutral_level=neutral, cell_limit=None if levels else spec.cell_limit
    )


def context_of(
    target: str | ArraySpec = "ideal", calibration: dict[str, np.ndarray] | None = None, row_weights: Any = None
) -> PassContext:
    """A context; `row_weights` gives one array, or None, per layer."""
    spec = load_target(target).array_spec if isinstance(target, str) else target
    return PassContext(spec, calibration, row_weights or (lambda network: [None] * len(network.layers)))


def outputs_of(network: Network, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's outputs by its ideal meaning."""
    names = [value.name for value in network.outputs]
    return {n: np.concatenate(chunks) for n, chunks in zip(names, evaluate(network, feeds, names), strict=True)}


def assert_equals_model(
    network: Network, model: onnx.ModelProto, feeds: dict[str, np.ndarray], tolerance: float = 2e-5
) -> None:
    """The network gives what onnxruntime gives on the model as the user wrote it."""
    expected, found = run_onnxruntime(model, feeds, optimized=False), outputs_of(network, feeds)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * np.abs(value).max(initial=1))


def assert_idempotent(each: NetworkPass, network: Network, context: PassContext) -> None:
    """Running the pass on its own result gives the same object back."""
    assert each(network, context) is network


def text_of(network: Network) -> list[str]:
    """One line per node, without the geometry."""
    return [
        line.strip().rsplit(", Contraction", 1)[0].rsplit(", Patches", 1)[0]
        for line in network_text(network).splitlines()
    ]
