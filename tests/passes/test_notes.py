"""Passes that change nothing say so where they were asked for; passes with few calibration samples are named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import xbcompile
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.errors import PassError
from xbcompile.passes.pipeline import parse_pipeline, pipelines_with, print_pipeline
from xbcompile.program.program import load_program
from xbcompile.targets import load_target

MODEL = dense_model(8, 6, 3)
BINARY = "quantize{scheme=binary},thermometer{low=0 high=1}"
WIDE = dense_model(64, 60, 50)  # no columns to spare
CASES = [
    ("fold-batchnorm", BINARY, "mram64", MODEL, "it needs a BatchNormalization right behind a matrix layer"),
    ("use-spare-cells", BINARY, "mram64", WIDE, "it needs a layer with room for a copy at no more weight images"),
    ("order-rows", "quantize,analogue", "m2tj4", MODEL, "it needs an array whose rows weigh differently"),
    (
        "reduce{inputs=dead}",
        BINARY,
        "mram64",
        dense_model(8, 6),
        "it needs an uncoded dense layer with inputs that never vary",
    ),
]
LATE = [
    ("join-groups", "quantize{scheme=ternary},analogue", "sot", MODEL, "it needs a layer of several groups"),
    (
        "quantize",
        "quantize{scheme=binary},thermometer",
        "mram64",
        MODEL,
        "it needs a layer whose weights are not coded",
    ),
    ("planes", "quantize{scheme=binary},thermometer", "mram64", MODEL, "it needs a layer without a code"),
    ("thermometer", BINARY, "mram64", MODEL, "it needs a matrix layer whose inputs are not coded yet"),
    ("bitserial", BINARY, "mram64", MODEL, "it needs a matrix layer whose inputs are not coded yet"),
    ("analogue", "quantize,analogue", "m2tj4", MODEL, "it needs a matrix layer whose inputs are not coded yet"),
    ("avoid-defects", BINARY, "mram64", MODEL, "chips of this target have no defects"),
]


def calibration(model: onnx.ModelProto, samples: int = 40) -> dict[str, np.ndarray]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return {"x": images(samples, *shape)}


@pytest.mark.parametrize(("each", "others", "target", "model", "why"), [*CASES, *LATE], ids=lambda v: str(v)[:20])
def test_a_pass_that_changes_nothing_says_so(each: str, others: str, target: str, model: onnx.ModelProto, why: str):
    pipeline = f"{others},{each}" if (each, others, target, model, why) in LATE else f"{each},{others}"
    program = xbcompile.compile(model, target, passes=pipeline, calibration=calibration(model), effort=0)
    (note,) = program.notes
    assert note.startswith((f"{each} changed nothing: ", f"{each} changes nothing: "))
    assert why in note
    without = xbcompile.compile(model, target, passes=others, calibration=calibration(model), effort=0)
    assert (without.notes, without.network) == ((), program.network)


def test_passes_that_change_something_and_those_that_nobody_asked_for_say_nothing(tmp_path) -> None:
    grouped = xbcompile.compile(
        convolution_model(), "sot", passes="quantize{scheme=ternary},join-groups,analogue{low=0 high=1}", effort=0
    )
    assert grouped.notes == ()
    stuck = load_target("memristor20").with_quantities("test", stuck_fraction=0.02)
    passes = "quantize{scheme=continuous},analogue{low=-1 high=1},avoid-defects"
    assert xbcompile.compile(MODEL, stuck, passes=passes, effort=0).notes == ()
    assert xbcompile.compile(MODEL, "mram64", calibration=calibration(MODEL), effort=0).notes == ()


def test_a_projection_on_all_components_says_that_it_saves_nothing(tmp_path) -> None:
    passes = "pca{components=8},quantize,analogue"
    program = xbcompile.compile(MODEL, "m2tj4", passes=passes, calibration=calibration(MODEL), effort=0)
    assert program.notes == ("pca{components=8} saves no row: all 8 components of layer 'fc0' are kept",)
    program.save(tmp_path / "p.xbar")
    assert load_program(tmp_path / "p.xbar").notes == program.notes


@pytest.mark.parametrize(
    ("passes", "samples", "named"),
    [
        (f"{BINARY},recalibrate", 3, "recalibrate (3 of 20)"),
        (f"{BINARY},recalibrate{{samples=5}}", 40, "recalibrate (5 of 20)"),
        (f"{BINARY},recalibrate", 20, None),
        (f"order-rows,{BINARY}", 2, "order-rows (2 of 10)"),
        (f"use-spare-cells{{inputs=on}},{BINARY}", 4, "use-spare-cells (4 of 10)"),
        (f"reduce{{inputs=dead}},{BINARY}", 30, "reduce (30 of 100)"),
        ("quantize{scheme=binary method=data-aware},thermometer", 30, "quantize (30 of 100)"),
        ("quantize{scheme=binary},thermometer,calibrate-offsets", 1, None),
    ],
)
def test_passes_that_want_more_samples_are_named(passes: str, samples: int, named: str | None) -> None:
    told: list[str] = []
    xbcompile.compile(
        MODEL, "mram64", passes=passes, calibration=calibration(MODEL, samples), effort=0, warn=told.append
    )
    assert [text for text in told if named and named in text] == told
    assert len(told) == (named is not None)


def test_what_one_sample_cannot_tell() -> None:
    """Nothing varies on it: no input is dead for that, no bias is corrected by its error, and no order follows."""
    one = calibration(MODEL, 1)

    def compiled(passes: str, target: str = "mram64") -> xbcompile.Program:
        return xbcompile.compile(MODEL, target, passes=passes, calibration=one, effort=0)

    for passes in ("reduce{inputs=dead}", "reduce{components=2 levels=4}"):
        with pytest.raises(PassError, match="one calibration vector does not show which inputs of layer 'fc0' vary"):
            compiled(f"{passes},quantize,analogue", "m2tj4")
    with pytest.raises(PassError, match="one calibration vector shows no variance of the inputs of layer 'fc0'"):
        compiled("pca{variance=0.9},quantize,analogue", "m2tj4")
    by_weights, by_data = (
        compiled(f"quantize{{scheme=binary method={method}}},thermometer") for method in ("least-squares", "data-aware")
    )
    for one_layer, other in zip(by_weights.network.layers, by_data.network.layers, strict=True):
        np.testing.assert_array_equal(one_layer.bias, other.bias)


def test_components_that_do_not_hold_on_other_inputs_are_refused() -> None:
    """Of 12 vectors of 40 independent inputs, 9 components keep nine tenths; of others they keep 9 / 40."""
    model, x = dense_model(40, 6), np.random.default_rng(0).normal(size=(4000, 40)).astype(np.float32)
    passes = "pca{variance=0.9},quantize,analogue"
    with pytest.raises(
        PassError, match=r"components keep 90% .* of the 12 calibration vectors .* give more calibration inputs"
    ):
        xbcompile.compile(model, "m2tj4", passes=passes, calibration={"x": x[:12]}, effort=0)
    few = x * (np.arange(40) < 3)  # three inputs vary: these hold
    assert (
        xbcompile.compile(model, "m2tj4", passes=passes, calibration={"x": few[:12]}, effort=0).network.layers[0].inputs
        <= 3
    )
    kept = xbcompile.compile(model, "m2tj4", passes=passes, calibration={"x": x}, effort=0)
    assert kept.network.layers[0].inputs == pytest.approx(36, abs=1)


def test_pipelines_with_a_pass_more() -> None:
    """In the place of one that does the same, a device pass by its stage, another network pass anywhere, early first."""

    def places(pipeline: str, each: str) -> list[str]:
        return [print_pipeline(found) for found in pipelines_with(parse_pipeline(pipeline), parse_pipeline(each)[0])]

    now = "quantize,bitserial{bits=3},quiet-columns,recalibrate"
    assert places(now, "quantize{method=data-aware}") == [
        "quantize{method=data-aware},bitserial{bits=3},quiet-columns,recalibrate"
    ]
    assert places(now, "thermometer") == ["quantize,thermometer,quiet-columns,recalibrate"]
    assert places(now, "calibrate-offsets") == [
        "quantize,bitserial{bits=3},quiet-columns,calibrate-offsets,recalibrate"
    ]
    assert places("quantize,recalibrate", "planes") == ["planes,quantize,recalibrate", "quantize,planes,recalibrate"]
