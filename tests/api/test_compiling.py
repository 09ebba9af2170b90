"""xbcompile.compile: every option, every fault, and the exact array against onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from setuptools.config.pyprojecttoml import read_configuration

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.api.compiling import check_fits, choose_pipeline
from xbcompile.errors import DataError, ModelError, PassError, ScheduleError, TargetError, VerifyError
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import InputCode, WeightCode
from xbcompile.options import CompileOptions
from xbcompile.passes.pipeline import print_pipeline
from xbcompile.targets import load_target

CODED = "quantize,analogue{low=0 high=1}"
X = np.random.default_rng(3).random((20, 6), np.float32)


def network_of(model):
    return import_network(load_model(model))


def compiled(*arguments, **options):
    return xbcompile.compile(*arguments, **{"passes": CODED, "target": "m2tj4", **options})


def test_ways_to_name_a_model(tmp_path):
    model = dense_model(6, 4, 3)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    digests = {compiled(each).digest for each in (model, path, str(path))}
    assert len(digests) == 1
    with pytest.raises(ModelError, match="no such file"):
        compiled(tmp_path / "none.onnx")


def test_ways_to_name_a_target(tmp_path):
    (tmp_path / "t.toml").write_text('extends = "m2tj4"')
    target = load_target("m2tj4")
    targets = ("m2tj4", target, tmp_path / "t.toml", str(tmp_path / "t.toml"))
    assert len({compiled(dense_model(6, 4), target=each).digest for each in targets}) == 1
    with pytest.raises(TargetError, match="unknown target 'mram65'"):
        compiled(dense_model(6, 4), target="mram65")


def test_ways_to_give_calibration_inputs(tmp_path):
    np.savez(tmp_path / "c.npz", x=X)
    ways = ({"x": X}, {"x": X.astype(float)}, tmp_path / "c.npz", str(tmp_path / "c.npz"))
    programs = [compiled(dense_model(6, 4), calibration=each, passes=None) for each in ways]
    assert len({program.digest for program in programs}) == 1
    assert programs[0].network.layers[0].input_code == InputCode("analogue", 1, float(X.min()), float(X.max()))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "has arrays none; the model's inputs are x"),
        ({"z": X, "w": X}, "has arrays w, z; the model's inputs are x"),
        ({"x": X[:, :5]}, "calibration, array 'x': samples have shape 5"),
        ({"x": X * np.nan}, "there are NaN or infinite values"),
        ({"x": X[:0]}, "there are no samples"),
        ("none.npz", "data file 'none.npz' does not exist"),
        ("mnist", "part '' is unknown"),
    ],
)
def test_bad_calibration(given, text):
    with pytest.raises(DataError) as caught:
        compiled(dense_model(6, 4), calibration=given)
    assert text in str(caught.value)


def test_options_reach_the_program():
    model = dense_model(9, 9)
    given = {"arrays": 2, "batch": 3, "packing": "none", "cuts": "greedy", "scramble": False, "seed": 4}
    program = compiled(model, **given, embed_model=False)
    assert (program.schedule.arrays, program.schedule.batch, program.schedule.images) == (2, 3, 9)
    assert (program.schedule.column_permutation == np.arange(4)).all()
    assert program.options == CompileOptions(**given, passes=CODED, embed_model=False)
    assert (program.cuts, program.packing) == ("greedy", "none")
    assert program.source is None
    assert program.pipeline == CODED
    kept = compiled(model)
    assert kept.source.joined() == load_model(model)
    # 81 weights fill 5.06 arrays of 16 cells; plain cutting leaves 9 tiles, which share images where they fit.
    assert kept.schedule.images_lower_bound == 6 <= kept.schedule.images < 9
    assert compiled(model, arrays=0).schedule.stationary
    assert compiled(model, cuts="free").schedule.images == 6


def test_digital():
    model = dense_model(6, 4, 3)
    for pattern in ("fc0", ("fc0",), ["f*0"]):  # a single name is not a list of letters
        assert [layer.name for layer in compiled(model, digital=pattern).network.layers] == ["fc1"]
    with pytest.raises(ModelError, match='digital "fc9" matches no node'):
        compiled(model, digital="fc9")


def test_bad_options():
    model = dense_model(6, 4)
    for options, text in (
        ({"arrays": -1}, "arrays=-1"),
        ({"batch": 0}, "batch=0"),
        ({"cuts": "short"}, "short"),
    ):
        with pytest.raises(ScheduleError) as caught:
            compiled(model, **options)
        assert text in str(caught.value)


def test_after_pass_sees_every_network_pass():
    seen = []
    compiled(dense_model(6, 4), passes="fold-batchnorm," + CODED, after_pass=lambda p, network: seen.append(str(p)))
    assert seen == ["fold-batchnorm", "quantize", "analogue{low=0 high=1}"]


def test_passes_that_need_calibration_inputs():
    target, told = load_target("mram64"), []
    assert print_pipeline(choose_pipeline(target, None, True, told.append)) == (
        "fold-batchnorm,quantize{scheme=binary},thermometer,recalibrate"
    )
    assert told == []
    left = choose_pipeline(target, None, False, told.append)
    assert print_pipeline(left) == "fold-batchnorm,quantize{scheme=binary},thermometer"
    assert len(told) == 1
    assert told[0].startswith("no calibration inputs: recalibrate left out")
    assert choose_pipeline(target, None, False) == left  # nobody to tell
    with pytest.raises(PassError, match="pass pca, recalibrate needs calibration inputs"):
        choose_pipeline(target, "pca{components=2},recalibrate", False)
    assert choose_pipeline(target, "thermometer", False, told.append)[0].name == "thermometer"
    assert len(told) == 1


def test_calibration_inputs_kept_for_devices():
    """As many as the most demanding device pass takes, and none without one."""
    model = dense_model(6, 4)
    for passes, count in (
        ("", 0),
        (",recalibrate{samples=7}", 7),
        (",calibrate-offsets{samples=9},recalibrate{samples=7}", 9),
        (",recalibrate{samples=500}", 20),
    ):
        program = compiled(model, calibration={"x": X}, passes=CODED + passes)
        assert {name: len(value) for name, value in program.calibration.items()} == ({"x": count} if count else {})
        assert all(np.array_equal(value, X[:count]) for value in program.calibration.values())


def test_calibration_inputs_of_a_fixed_batch():
    """Whole batches are kept, so that the device pass can run the model on them."""
    program = compiled(
        dense_model(6, 4, 3, batch=3), calibration={"x": X[:18]}, passes=CODED + ",recalibrate{samples=10}"
    )
    assert len(program.calibration["x"]) == 9
    assert xbcompile.Session(program).run_samples({"x": X[:6]})["y"].shape == (6, 3)
    with pytest.raises(
        DataError, match=r"device passes use 10 of 20 .* fixed batch of 20; give more samples, and samples=20"
    ):
        compiled(dense_model(6, 4, batch=20), calibration={"x": X}, passes=CODED + ",recalibrate{samples=10}")


def test_what_does_not_verify_is_not_returned(monkeypatch):
    monkeypatch.setattr("xbcompile.api.compiling.verify", lambda program: ["tiles: one", "steps: two"])
    with pytest.raises(VerifyError) as caught:
        compiled(dense_model(6, 4))
    assert caught.value.findings == ["tiles: one", "steps: two"]
    assert str(caught.value) == "tiles: one; steps: two"


def test_check_fits():
    network, target = network_of(dense_model(6, 4)), load_target("m2tj4")
    layer = network.layers[0]

    def asked(target=target, **changes):
        check_fits(network.with_layers([replace(layer, **changes)]), target)

    code = WeightCode(
        target.array_spec.levels, np.zeros(layer.weights.shape, np.uint8), np.ones((1, 4), "f"), np.zeros((1, 4), "f")
    )
    asked(weight_code=code, input_code=InputCode("analogue"))
    with pytest.raises(
        TargetError, match=r"layer 'fc0' has real-valued weights, but cells of target 'm2tj4' hold 4 levels"
    ):
        asked()
    with pytest.raises(TargetError, match="layer 'fc0': its levels are not those of target 'm2tj4'"):
        asked(weight_code=replace(code, levels=np.linspace(0, 1, 4, dtype="f")))
    with pytest.raises(TargetError, match="layer 'fc0': its levels are not those of target 'm2tj4'"):
        asked(weight_code=WeightCode.continuous(layer.weights), input_code=InputCode("analogue"))
    with pytest.raises(TargetError, match="rows of target 'm2tj4' take analogue drives; add analogue to the passes"):
        asked(weight_code=code)
    binary = replace(code, levels=load_target("mram64").array_spec.levels)
    with pytest.raises(TargetError, match=r"take bipolar drives; add thermometer\{bits=8\} to the passes"):
        asked(load_target("mram64"), weight_code=binary)
    asked(load_target("ideal"), weight_code=WeightCode.continuous(layer.weights))


@pytest.mark.parametrize("model", [dense_model(6, 4, 3), convolution_model()], ids=["dense", "convolution"])
@pytest.mark.parametrize("options", [{}, {"packing": "none"}, {"cuts": "free"}, {"arrays": 0}, {"batch": 4}], ids=str)
def test_exact_array_equals_onnxruntime(model, options):
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(1).normal(size=(30, *shape)).astype("f")
    program = xbcompile.compile(model, "ideal", **options)
    found = xbcompile.Session(program).run_samples({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": x})["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (1, 200), (200, 1), (65, 65), (64, 64), (300, 200)])
@pytest.mark.parametrize("target", ["ideal", "m2tj4", "mram64"])
def test_odd_shapes(shape, target):
    """The exact device gives what onnxruntime gives on the program's own host graph; on `ideal` also the model's own."""
    model = dense_model(*shape)
    x = np.random.default_rng(1).random((3, shape[0]), np.float32)
    program = xbcompile.compile(model, target, passes=None)
    found = xbcompile.Session(program, "ideal").run_samples({"x": x})["y"]
    reference = run_onnxruntime(program.host if target != "ideal" else model, {"x": x})["y"]
    np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-4)
    assert program.schedule.tiles.size >= -(-shape[0] // program.spec.rows) * -(-shape[1] // program.spec.columns)


@pytest.mark.parametrize(
    "passes", ["quantize{scheme=binary}", "quantize{levels=4}", "quantize{scheme=ternary},thermometer"]
)
def test_quantized_on_the_exact_array(tmp_path, passes):
    """Cells of any value hold the levels; the program means the same after it was saved."""
    program = xbcompile.compile(convolution_model(), "ideal", passes=passes)
    program.save(tmp_path / "p.xbar")
    loaded = xbcompile.load_program(tmp_path / "p.xbar")
    x = np.random.default_rng(1).random((5, 2, 4, 4), np.float32)
    expected = run_onnxruntime(program.host, {"x": x})["y"]
    for each in (program, loaded):
        np.testing.assert_allclose(xbcompile.Session(each).run_samples({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)
    assert loaded.digest == program.digest


def test_model_with_the_branch_s_layer_digital():
    """A constant matrix product inside the digital part stays there; the program still equals onnxruntime."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
        helper.make_node("MatMul", ["h", "h2"], ["q"], "both_vary"),
        helper.make_node("Softmax", ["q"], ["y"]),
        helper.make_node("Transpose", ["h"], ["h2"], perm=[1, 0]),
    ]
    nodes.insert(1, nodes.pop())
    model = model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": np.random.default_rng(2).normal(size=(6, 4))})
    program = xbcompile.compile(model, "ideal")
    assert [(r.node, r.lowered) for r in program.network.records] == [("fc", True), ("both_vary", False)]
    found = xbcompile.Session(program).run({"x": X})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": X})["y"], rtol=1e-4, atol=1e-6)


def test_public_names():
    assert all(getattr(xbcompile, name).__name__ == name for name in xbcompile.__all__)
    with pytest.raises(AttributeError, match="module 'xbcompile' has no attribute 'nothing'"):
        xbcompile.nothing  # noqa: B018  # the access is the test


def test_the_built_metadata_has_the_version():
    """`pyproject.toml` names no version of its own: what setuptools builds takes the package's."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert read_configuration(project, expand=True)["project"]["version"] == xbcompile.__version__


def test_verify_is_a_function():
    assert xbcompile.verify(compiled(dense_model(6, 4))) == []
