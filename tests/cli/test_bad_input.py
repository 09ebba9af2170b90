"""Every fault of the user is one clear line on standard error, status 1, and touches no file."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of
from tests.support.small_programs import dense_model
from xbcompile.program.archive import sealed
from xbcompile.program.program import FORMAT_VERSION

EXTENDS = 'extends = "mram64"\n'
NO_CALIBRATION = "quantize{scheme=binary},thermometer{low=0 high=1}"


def external(location):
    model = dense_model(6, 4, 3)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model.SerializeToString()


def with_weight(value):
    model = dense_model(6, 4, 3)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[1, 2] = value
    model.graph.initializer[0].raw_data = weights.tobytes()
    return model.SerializeToString()


def with_opset(version):
    model = dense_model(6, 4, 3)
    model.opset_import[0].version = version
    return model.SerializeToString()


BAD_MODELS = {
    "not_onnx": (lambda: b"\x80\x02}q\x00." * 9, "not an ONNX model"),
    "text": (lambda: b"<html>not found</html>", "not an ONNX model"),
    "truncated": (lambda: dense_model(6, 4, 3).SerializeToString()[:200], "or a truncated one"),
    "empty": (lambda: b"", "the file is empty"),
    "missing_data": (lambda: external("weights.bin"), 'external data "weights.bin" of tensor "w0" is missing'),
    "escaping_data": (lambda: external("../../etc/passwd"), "lies outside the model's folder"),
    "absolute_data": (lambda: external("/etc/passwd"), "lies outside the model's folder"),
    "old_opset": (lambda: with_opset(1), "opset 1 is not supported"),
    "future_opset": (lambda: with_opset(999), "opset 999 is not supported"),
    "nan": (lambda: with_weight(np.nan), 'initializer "w0" holds NaN or infinite values'),
    "infinite": (lambda: with_weight(np.inf), 'initializer "w0" holds NaN or infinite values'),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_model(refused, folder, case):
    make, text = BAD_MODELS[case]
    (folder / "bad.onnx").write_bytes(make())
    assert text in refused("compile", "bad.onnx", "-o", "p.xbar", "--passes", NO_CALIBRATION)


def test_model_is_missing_or_a_folder(refused, folder):
    (folder / "folder.onnx").mkdir()
    assert "folder.onnx: not a file" in refused("compile", "folder.onnx", "-o", "p.xbar")
    assert "none.onnx: no such file" in refused("compile", "none.onnx", "-o", "p.xbar")


def test_digital_pattern_without_a_node(refused, model):
    compiled = ("compile", model, "-o", "p.xbar", "--target", "ideal", "--digital")
    assert 'digital "nothing*" matches no node' in refused(*compiled, "nothing*")


BAD_ARRAYS = {
    "shape": ({"x": np.ones((4, 5))}, "samples have shape 5; the model's input 'x' wants 6"),
    "name": ({"x": np.ones((4, 6)), "z": np.ones((4, 6))}, "has arrays x, z; the model's inputs are x"),
    "nan": ({"x": np.full((4, 6), np.nan)}, "there are NaN or infinite values"),
    "infinite": ({"x": np.full((4, 6), np.inf)}, "there are NaN or infinite values"),
    "overflow": ({"x": np.full((4, 6), 1e300)}, "values outside the range of the model's input 'x', float32"),
    "empty": ({"x": np.ones((0, 6))}, "there are no samples"),
    "scalar": ({"x": np.float32(3)}, "there are no samples"),
    "text": ({"x": np.full((4, 6), "a")}, "type <U1 is not numeric"),
    "no_array": ({}, "has arrays none"),
    "labels": ({"x": np.ones((4, 6)), "labels": np.float32(1)}, "labels must be whole numbers, one per sample"),
    "label_count": ({"x": np.ones((4, 6)), "labels": np.arange(3)}, "different numbers of samples"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_calibration(refused, folder, model, case):
    arrays, text = BAD_ARRAYS[case]
    np.savez(folder / "c.npz", **arrays)
    assert text in refused("compile", model, "-o", "p.xbar", "--calibration", "c.npz")


@pytest.mark.parametrize("case", sorted(BAD_ARRAYS.keys() - {"nan", "infinite"}))  # which are run
def test_data(refused, folder, program, case):
    arrays, text = BAD_ARRAYS[case]
    np.savez(folder / "c.npz", **arrays)
    assert text in refused("run", program, "--data", "c.npz", "-o", "out.npz")


def test_too_few_calibration_samples(refused, folder, model):
    np.savez(folder / "c.npz", x=np.random.default_rng(1).random((4, 6), np.float32))
    text = refused("compile", model, "-o", "p.xbar", "--calibration", "c.npz", "--passes", "pca{components=5}")
    assert "5 components cannot be estimated from 4 calibration vectors" in text
    text = refused("compile", model, "-o", "p.xbar", "--passes", "pca{components=5}")
    assert "pass pca needs calibration inputs" in text


BAD_SPECS = {
    "": "unknown data ''",
    "none.npz": "data file 'none.npz' does not exist",
    "model.onnx": "unknown data 'model.onnx'; allowed: mnist:test[:N]",
    "cifar:test": "unknown data 'cifar:test'; allowed: mnist:test[:N]",
    "digits": "part '' is unknown; allowed: train, test",
    "digits:validation": "part 'validation' is unknown; allowed: train, test",
    "digits:test:0": "'0' samples; allowed: 1 to 360",
    "digits:test:361": "'361' samples; allowed: 1 to 360",
    "digits:test:-1": "'-1' samples",
    "digits:test:²": "'²' samples",
    "digits:test:5:4": "'5:4' samples",
    "digits:test": "samples have shape 64; the model's input 'x' wants 6",
}


@pytest.mark.parametrize("spec", BAD_SPECS)
def test_data_spec(refused, model, program, spec):
    assert BAD_SPECS[spec] in refused("run", program, "--data", spec)
    assert BAD_SPECS[spec] in refused("compile", model, "-o", "p.xbar", "--calibration", spec)


BAD_TARGETS = {
    EXTENDS + '[quantities]\nrow = { value = 1, unit = "1", source = "x" }': "unknown quantity 'row'",
    EXTENDS + '[quantities]\nrows = { value = 1, unit = "m", source = "x" }': "rows has unit 'm'; allowed: '1'",
    EXTENDS + '[quantities]\nrows = { value = -1, unit = "1", source = "x" }': "rows = -1 is out of range",
    EXTENDS + "[quantities]\nrows = 64": "rows must be written as",
    EXTENDS + 'colour = "red"': "unknown key 'colour'",
    EXTENDS + 'model = "abacus"': "unknown model 'abacus'",
    EXTENDS + 'pipeline = "quantise"': "unknown pass 'quantise' (did you mean 'quantize'?)",
    'extends = "mram65"': "extends = 'mram65' is unknown",
    'name = "x"': "key 'model' is missing",
    "][": "is not valid TOML",
}


@pytest.mark.parametrize("text", BAD_TARGETS)
def test_target_file(refused, folder, model, text):
    (folder / "t.toml").write_text(text)
    assert BAD_TARGETS[text] in refused("compile", model, "-o", "p.xbar", "--target", "t.toml")


def test_unknown_target(refused, folder, model):
    (folder / "d.toml").mkdir()
    assert "unknown target 'mram65'; allowed: ideal" in refused("compile", model, "-o", "p", "--target", "mram65")
    assert "'d.toml' cannot be read: Is a directory" in refused("compile", model, "-o", "p", "--target", "d.toml")
    assert "'n.toml' does not exist" in refused("compile", model, "-o", "p", "--target", "n.toml")
    assert "unknown target 'mram65'" in refused("targets", "mram65")
    assert "unknown target 'mram65'" in refused("characterize", "mram65")
    assert "characterize works on model resistance_sum" in refused("characterize", "m2tj4")


BAD_PIPELINES = {
    "quantise": "unknown pass 'quantise' (did you mean 'quantize'?); allowed: analogue, avoid-defects",
    "quantize{lvels=4}": "pass quantize has no option 'lvels' (did you mean 'levels'?); allowed: scheme, levels, per",
    "quantize{levels=4": "pipeline text cannot be read at 'quantize{levels=4'",
    "quantize{levels=x}": "pass quantize: levels=x is not a whole number",
    "recalibrate,quantize": "recalibrate is fitted on the device and must come after quantize",
    "": "layer 'fc0' has real-valued weights, but cells of target 'mram64' hold 2 levels; add quantize{}",
    "quantize": "layer 'fc0' has uncoded inputs, but rows of target 'mram64' take bipolar drives; add thermometer",
    "quantize{levels=4}": "pass quantize{levels=4}: 4 levels do not fit the target's 2 cell states",
    "fold-batchnorm,analogue": "pass analogue (after fold-batchnorm): the target's rows take bipolar drives only",
}


@pytest.mark.parametrize("passes", BAD_PIPELINES)
def test_pipeline(refused, model, passes):
    assert BAD_PIPELINES[passes] in refused("compile", model, "-o", "p.xbar", "--passes", passes)


def test_print_after(refused, model):
    text = refused("compile", model, "-o", "p.xbar", "--print-after", "pca")
    assert "'pca' is no network pass of the pipeline; allowed: all, fold-batchnorm, quantize, thermometer" in text
    assert "'recalibrate' is no network pass" in refused(
        "compile", model, "-o", "p.xbar", "--print-after", "recalibrate"
    )


def test_numbers(refused, cli, model):
    compiled = ("compile", model, "-o", "p.xbar", "--target", "ideal")
    assert "arrays=-1" in refused(*compiled, "--arrays", -1)
    assert "batch=0" in refused(*compiled, "--batch", 0)
    assert "cuts='long' is unknown: use one of auto, greedy" in refused(*compiled, "--cuts", "long")
    for wrong in (("--seed", -1), ("--arrays", "many"), ("--unknown",)):
        result = cli(*compiled, *wrong)
        assert result.status == 2  # usage, as every command line has it
        assert wrong[0] in result.err
        assert result.out == ""


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["run", "--data", "digits:test"]], ids=lambda c: c[0])
def test_program(refused, folder, program, command):
    content = (folder / program).read_bytes()
    command, *options = command

    def asked(changed):
        (folder / "bad.xbar").write_bytes(changed)
        return refused(command, "bad.xbar", *options)

    for position in (300, len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[position] ^= 1
        assert "is damaged: its digest does not match" in asked(flipped)
    assert "is damaged" in asked(content[: len(content) // 2])
    assert "is no program file of xbcompile" in asked(b"")
    assert "is no program file of xbcompile" in asked(b"hello")
    assert f"has format version 9; this xbcompile reads {FORMAT_VERSION}" in asked(of_version(content, 9))
    assert "'none.xbar' does not exist" in refused(command, "none.xbar", *options)
    assert "cannot be read: Is a directory" in refused(command, ".", *options)


def of_version(content, version):
    """The same program as another format version would have written it, with a right digest."""
    result = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                data = data.replace(b'"format_version": %d' % FORMAT_VERSION, b'"format_version": %d' % version)
            new.writestr(name, data)
        new.comment = old.comment
    return sealed(result.getvalue())


def test_image_out_of_range(refused, program):
    for image in (-1, 1, 10**20):
        assert f"image {image} does not exist; allowed: 0 to 0" in refused("inspect", program, "--image", image)


def test_unknown_device(refused, folder, program):
    np.savez(folder / "c.npz", x=np.ones((4, 6), np.float32))
    text = refused("run", program, "--data", "c.npz", "--device", "mram64")
    assert "target 'ideal' has no device 'mram64'; allowed: ideal" in text


def test_fixed_batch(refused, done, folder):
    onnx.save(dense_model(6, 4, 3, batch=3), folder / "batch.onnx")
    np.savez(folder / "c.npz", x=np.ones((7, 6), np.float32))
    np.savez(folder / "two.npz", x=np.ones((2, 6), np.float32))
    compiled = ("compile", "batch.onnx", "-o", "p.xbar", "--calibration")
    assert "7 samples do not fill the model's fixed batch of 3" in refused(*compiled, "c.npz")
    ranges = ("--passes", NO_CALIBRATION + ",recalibrate")
    assert "device passes use 2 of 2 calibration samples" in refused(*compiled, "two.npz", *ranges)
    done(*compiled, "c.npz", *ranges)
    assert "7 samples do not fill the model's fixed batch of 3" in refused("run", "p.xbar", "--data", "c.npz")


@pytest.mark.parametrize("name", ["none/p.xbar", "model.onnx/p.xbar"])
def test_output_folder(refused, folder, model, program, name):
    assert "cannot write into folder" in refused("compile", model, "-o", name, "--target", "ideal")
    np.savez(folder / "c.npz", x=np.ones((4, 6), np.float32))
    assert "cannot write into folder" in refused("run", program, "--data", "c.npz", "-o", name)


def test_output_folder_without_permission(refused, model, monkeypatch):
    # Tests may run as root, whom nothing is denied.
    monkeypatch.setattr("xbcompile.files.os.access", lambda path, mode, **options: not mode & os.W_OK)
    assert "permission denied" in refused("compile", model, "-o", "p.xbar", "--target", "ideal")


def test_output_is_a_folder(refused, model):
    assert "is a folder; give the name of a file" in refused("compile", model, "-o", ".", "--target", "ideal")
    assert "is a folder; give the name of a file" in refused("compile", model, "-o", "", "--target", "ideal")


def test_output_is_an_input(refused, folder, model, program):
    np.savez(folder / "c.npz", x=np.ones((4, 6), np.float32))
    (folder / "t.toml").write_text('extends = "ideal"')
    compiled = ("compile", model, "--target", "t.toml", "--calibration", "c.npz", "-o")
    assert "would overwrite the input" in refused(*compiled, "model.onnx")
    assert "would overwrite the input 'c.npz'" in refused(*compiled, "c.npz")
    assert "would overwrite the input 't.toml'" in refused(*compiled, "t.toml")
    assert "would overwrite the input" in refused("run", program, "--data", "c.npz", "-o", program)
    assert "would overwrite the input" in refused("run", program, "--data", "c.npz", "-o", "c.npz")


def test_disk_full(refused, model, monkeypatch):
    opened = os.open

    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "p.xbar")

    def full_for_new_files(path, *arguments, **options):
        return (full if ".xbcompile-" in str(path) else opened)(path, *arguments, **options)

    monkeypatch.setattr("xbcompile.files.os.open", full_for_new_files)
    assert "No space left on device" in refused("compile", model, "-o", "p.xbar", "--target", "ideal")
    monkeypatch.setattr("xbcompile.program.program.Program.save", full)
    assert refused("compile", model, "-o", "p.xbar", "--target", "ideal").endswith("'p.xbar': No space left on device")


def test_onnxruntime_refuses(refused, folder):
    """A digital part that fails only when it runs: 4 samples of 3 outputs do not reshape to rows of 5."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    constants = {"w": np.ones((6, 3)), "shape": np.array([-1, 5]), "v": np.ones((5, 2))}
    onnx.save(model_of(nodes, {"x": ["n", 6]}, ["y"], constants), folder / "bad.onnx")
    xbcompile.compile("bad.onnx", "ideal").save("odd.xbar")  # five samples would do
    np.savez("four.npz", x=np.ones((4, 6), np.float32))
    assert "onnxruntime cannot run the model" in refused("run", "odd.xbar", "--data", "four.npz")


def test_verify_with_another_model(cli, folder, program):
    for name, model, text in (
        ("narrow", dense_model(5, 4, 3), "inputs have shapes {'x': ['n', 5]}, the program takes {'x': [4, 6]}"),
        ("wide", dense_model(6, 4, 2), "output 'y' has shape (4, 2), the program's (4, 3)"),
        ("renamed", model_of([helper.make_node("Relu", ["x"], ["z"])], {"x": ["n", 6]}, ["z"]), "outputs are ['z']"),
        ("input", model_of([helper.make_node("Relu", ["q"], ["y"])], {"q": ["n", 6]}, ["y"]), "inputs are ['q']"),
    ):
        onnx.save(model, folder / f"{name}.onnx")
        result = cli("verify", program, "--model", f"{name}.onnx")
        assert result.status == 1
        assert text in result.out
        assert result.out.endswith("wrong\n")


def test_reproduce_names_every_unknown_experiment(cli):
    """A mistyped name among right ones must not pass unseen."""
    status, out, err = cli("reproduce", "multicell-1", "multicel-2", "--models", "nowhere")
    assert (status, out) == (1, "")
    assert err.startswith("xbcompile: error: no experiment is called multicel-2; allowed: mram64-mlp")


@pytest.mark.parametrize("option", ["--seeds", "--matrices"])
def test_study_of_absurd_size(cli, option):
    status, out, err = cli("study", option, 10**18)
    assert (status, out) == (1, "")
    assert err == f"xbcompile: error: study: {option[2:]} = {10**18} is out of range; allowed: 1 to 1,000,000\n"


def test_want_of_memory(cli, monkeypatch):
    def greedy():
        raise MemoryError("Unable to allocate 119 GiB")

    monkeypatch.setattr("xbcompile.cli._run", greedy)
    assert cli("passes") == (1, "", "xbcompile: error: not enough memory: Unable to allocate 119 GiB\n")


def test_help_shows_data_as_they_are_typed(cli):
    """Rich would put a picture of a train for `:train:`."""
    status, out, _ = cli("diagnose", "--help")
    assert status == 0
    assert "mnist:train:500" in out
