"""`plan` and `compile` are one engine: the same tables, figures and choices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import MODELS, model_of
from xbcompile.api import compiling
from xbcompile.errors import ModelError
from xbcompile.report.summary import summarize
from xbcompile.targets import target_names

# Some ten seconds each: passes and layouts of many tiles.
LONG = {
    ("mnist_lstm", "m2tj4"),
    ("mnist_vgg8", "m2tj4"),
    ("mnist_vgg8", "memristor20"),
    ("scenes_detector", "m2tj4"),
    ("scenes_detector", "memristor20"),
}


@pytest.mark.parametrize(
    ("model", "target", "options"),
    [
        ("mnist_bnn", "mram64", {"batch": 100}),
        ("mnist_bnn", "mram64", {"arrays": 4, "cuts": "free", "objective": "energy"}),
        ("mnist_lenet5", "mram64", {"arrays": 0}),
        ("mnist_lenet5", "mram64", {"packing": "in-order"}),
        ("digits_mlp", "m2tj4", {"arrays": 2}),
        ("mnist_lstm", "mram64", {"arrays": 3, "effort": 0.05}),
        ("scenes_detector", "ideal", {}),
        ("xor", "m2tj4", {}),
    ],
)
def test_a_plan_has_the_figures_of_the_compiled_program(model, target, options):
    """Passes that change no shape change none of them: images, writes, reads, times, energies and bounds are equal."""
    path = MODELS / f"{model}.onnx"
    compiled = summarize(xbcompile.compile(path, target, **options))
    planned = xbcompile.plan(path, target, **options).summary
    assert compiled["totals"].keys() <= planned["totals"].keys()
    for key, value in compiled["totals"].items():
        assert planned["totals"][key] == (value if value is None else pytest.approx(value, rel=1e-12)), key
    for ours, theirs in zip(planned["layers"], compiled["layers"], strict=True):
        common = ours.keys() & theirs.keys()
        assert len(common) >= 16
        assert {key: ours[key] for key in common} == {key: theirs[key] for key in common}
    assert planned["plan"]["packing_status"] == compiled["program"]["packing_status"]
    assert planned["plan"]["stationary"] == compiled["program"]["stationary"]


@pytest.mark.parametrize(("index", "model"), list(enumerate(sorted(path.stem for path in MODELS.glob("*.onnx")))))
def test_plan_and_compile_agree(index, model, monkeypatch):
    """One engine: all tables are equal for every network, on targets whose own passes change no shape.

    Of targets and numbers of arrays each network meets two, in turn, as all take minutes; without search, as that is one code.
    """
    monkeypatch.setattr(compiling, "_verify", lambda program: None)  # tests of their own compare programs with networks
    path = MODELS / f"{model}.onnx"
    for i, target in enumerate(target_names()[index % 4 :: 4]):
        if (model, target) in LONG:
            continue
        options = {"arrays": (1, 2, 4, 0)[(index // 4 + 2 * i) % 4], "effort": 0.0}
        planned = xbcompile.plan(path, target, **options)
        compiled = xbcompile.compile(path, target, **options, scramble=False, embed_model=False)
        assert planned.schedule == compiled.schedule, (target, options)
        found = planned.summary["plan"]
        assert (found["cuts"], found["packing"]) == (compiled.cuts, compiled.packing)


@pytest.mark.parametrize("arrays", [1, 2, 4, 0])
def test_plan_and_compile_agree_with_search(arrays):
    """Where rows weigh differently, the layout is chosen before weights and inputs are coded, and kept."""
    options = {"arrays": arrays, "effort": 0.2, "objective": "latency=1,weight-updates=1"}
    planned = xbcompile.plan(MODELS / "mnist_lenet5.onnx", "mram64", **options)
    compiled = xbcompile.compile(MODELS / "mnist_lenet5.onnx", "mram64", **options, scramble=False)
    assert planned.schedule == compiled.schedule
    assert xbcompile.plan(compiled, **options).schedule == planned.schedule


def test_a_program_is_planned_as_passes_left_it():
    """PCA to 5 components of 40 inputs: 5 x 20 weights, whatever the model has."""
    rng = np.random.default_rng(0)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["n", 40]},
        ["y"],
        {"w": rng.normal(size=(40, 20))},
    )
    passes = "pca{components=5},quantize,analogue"
    program = xbcompile.compile(model, "m2tj4", passes=passes, calibration={"x": rng.normal(size=(60, 40)).astype("f")})
    plan = xbcompile.plan(program)
    assert plan.target == program.target
    assert plan.summary["totals"]["weights"] == 100
    assert plan.schedule == replace(program.schedule, column_permutation=plan.schedule.column_permutation)
    with pytest.raises(ModelError, match="a program is compiled already"):
        xbcompile.plan(program, digital="fc")
