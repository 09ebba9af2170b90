"""Random chains and DAGs, equal to onnxruntime within float rounding."""

from __future__ import annotations

import onnx
from hypothesis import HealthCheck, given, settings

from tests.support.random_models import models


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=models())
def test_random_graphs(build, check, case):
    graph, declared, outputs, x = case
    model: onnx.ModelProto = build(graph.nodes, {"x": declared}, outputs, graph.constants)
    network = check(model, {"x": x})
    assert network.layers
