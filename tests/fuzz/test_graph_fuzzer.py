"""A short run of the random-graph fuzzer, and proof that it finds what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fuzz import graph_check
from tests.fuzz.graph_check import NOTES, Case, check, describe, reduced
from tests.fuzz.random_graphs import generate
from xbcompile import InferenceSession

SEED = 2024
GRAPHS = 60


@pytest.mark.parametrize("first", range(0, GRAPHS, 10))
def test_random_graphs_equal_onnxruntime(first: int) -> None:
    """Each graph compiles, is lowered where it must be, comes back from its file and equals onnxruntime."""
    for index in range(first, first + 10):
        case = generate(SEED, index)
        failure = check(case)
        assert failure is None or failure.kind in NOTES, f"graph {index}: {failure}\n{describe(case)}"


def test_graphs_depend_on_seed_and_index_alone() -> None:
    first, again = (generate(SEED, 3) for _ in range(2))
    assert first.model == again.model
    assert all(np.array_equal(first.feeds[name], again.feeds[name]) for name in first.feeds)
    assert first.model != generate(SEED, 4).model
    assert first.model != generate(SEED + 1, 3).model


def test_a_wrong_element_is_found_and_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that errs in one element of one output, by a part in a thousand of the largest value."""

    class Wrong(InferenceSession):
        def run(self, *args: Any, **kwargs: Any) -> list[Any]:
            outputs = super().run(*args, **kwargs)
            for value in outputs:
                if value.dtype.kind == "f" and value.size:
                    value[(0,) * value.ndim] += 1e-3 * max(1.0, float(np.abs(value).max()))
            return outputs

    case = _case_with("Conv")
    assert check(case) is None
    monkeypatch.setattr(graph_check, "InferenceSession", Wrong)
    failure = check(case)
    assert failure is not None
    assert failure.kind == "values"
    smaller, again = reduced(case, failure)
    assert again.kind == "values"
    assert len(smaller.model.graph.node) <= len(case.model.graph.node)
    assert len(smaller.model.graph.output) == 1


def test_a_product_left_digital_is_found() -> None:
    case = _case_with("Conv")
    for node in case.model.graph.node:
        node.metadata_props.add(key="xbcompile", value="digital")
    failure = check(case)
    assert failure is not None
    assert failure.kind.startswith("digital")


def _case_with(operator: str) -> Case:
    """The first float32 graph that must lower this operator and has rounding errors only."""
    cases = (generate(SEED, index) for index in range(200))
    return next(
        replace(case, again=False)
        for case in cases
        if operator in case.must_lower.values() and all(error < 1e-4 for error in case.errors.values())
    )
