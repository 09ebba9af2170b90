"""Many vectors: most by one product with the layer's code, some through the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.small_programs import convolution_program, images
from xbcompile.program.program import Program
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.layer_input import LayerInput
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.verification import exact_vectors as module
from xbcompile.verification.exact_vectors import exact_vectors
from xbcompile.verification.verify import check_equivalence


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW_VECTORS", 5)
    monkeypatch.setattr(module, "_TILED", 2)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 100)


def executors(program: Program) -> list[LayerExecutor]:
    placed, ideal = PlacedProgram(program, no_corrections(program)), IdealArray(program.spec)
    return [LayerExecutor(placed, i, ideal) for i in range(len(program.network.layers))]


CASES = [
    ("ideal", ""),
    ("m2tj4", "quantize,analogue"),
    ("m2tj4", "quantize,bitserial{bits=3 low=0 high=1}"),
    ("mram64", "quantize{scheme=binary},thermometer{low=0 high=1}"),
    ("sot", "quantize{scheme=ternary},analogue"),
]


@pytest.mark.parametrize(("target", "passes"), CASES)
def test_the_product_gives_what_the_tiles_give(target: str, passes: str) -> None:
    program = convolution_program(target, passes)
    assert check_equivalence(program) == []
    for executor, shape in zip(executors(program), [(2, 4, 4), (24,)], strict=True):
        x = images(8, *shape)
        found, shape = exact_vectors(executor, x)
        expected, expected_shape = executor.vectors(x)
        assert len(found) > module.FEW_VECTORS
        assert shape == expected_shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # row weights are float32 in codes


@pytest.mark.parametrize(
    ("at", "seen"), [(0, True), (1, True), (2, False), (3, True), (4, True), (5, False), (7, True)]
)
def test_faults_of_the_tiles_are_seen_in_the_first_middle_and_last_vectors(
    at: int, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the convolution's eight vectors; a real fault is in all of them."""
    program, right = convolution_program(), LayerExecutor.some

    def wrong(self: LayerExecutor, source: LayerInput, start: int, stop: int) -> np.ndarray:
        y = right(self, source, start, stop)
        if self.index == 0:
            y[np.arange(start, stop) == at] += 0.5
        return y

    monkeypatch.setattr(LayerExecutor, "some", wrong)
    findings = check_equivalence(program)
    assert len(findings) == seen
    assert all("equivalence: layer 'conv' differs from the host graph" in each for each in findings)
