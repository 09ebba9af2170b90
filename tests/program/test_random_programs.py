"""Random ONNX graphs through the whole way: compiled, saved, loaded and run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.random_models import models
from xbcompile.program.program import load_program
from xbcompile.runtime import Session

SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def assert_close(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Equal to the rounding of float32 sums, relative to the largest value."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * max(1.0, np.abs(value).max(initial=0)))


@settings(max_examples=200, **SETTINGS)
@given(models())
def test_programs_for_ideal_equal_onnxruntime(case: Any) -> None:
    """The session, and the host graph as it is in the file, both equal plain onnxruntime on the model as given."""
    graph, declared, outputs, x = case
    model: onnx.ModelProto = model_of(graph.nodes, {"x": declared}, outputs, graph.constants)
    expected = run_onnxruntime(model, {"x": x})
    program = xbcompile.compile(model, "ideal")
    assert program.network.layers
    with TemporaryDirectory() as folder:
        program.save(Path(folder) / "p.xbar")
        loaded = load_program(Path(folder) / "p.xbar")
    assert loaded == program
    assert_close(run_onnxruntime(loaded.host, {"x": x}), expected)
    assert_close(Session(loaded, threads=1).run({"x": x}), expected)


@settings(max_examples=60, **SETTINGS)
@given(models())
def test_coded_programs_verify_and_come_back_equal(case: Any) -> None:
    """Binary weights with row weights, drives of each vector's own range: compiling verifies each layer's equivalence."""
    graph, declared, outputs, _ = case
    model: onnx.ModelProto = model_of(graph.nodes, {"x": declared}, outputs, graph.constants)
    program = xbcompile.compile(model, "mram64", passes="quantize{scheme=binary},bitserial{bits=4}", arrays=2)
    with TemporaryDirectory() as folder:
        program.save(Path(folder) / "p.xbar")
        assert load_program(Path(folder) / "p.xbar") == program
