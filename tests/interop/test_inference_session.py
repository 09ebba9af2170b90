"""`xbcompile.InferenceSession` in onnxruntime's place, and models of any kind, also without any matrix.

The reference is onnxruntime.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

import xbcompile
from tests.support.handed_over import SAME, WHOLE, WRONG
from tests.support.integer_sums import precise_session
from tests.support.model_kit import model_of
from xbcompile.cli import command
from xbcompile.errors import DataError, ModelError
from xbcompile.verification.probes import probe_inputs

FLOAT = TensorProto.FLOAT


def reference(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return precise_session(model.SerializeToString(), options)


def model_with(nodes, inputs, outputs, constants=None, opset=17, domains=()):
    """A model whose inputs and outputs are given as name and TypeProto (None: the type is not declared)."""
    given, wanted = (
        [onnx.ValueInfoProto(name=name, type=type_proto) for name, type_proto in each.items()]
        for each in (inputs, outputs)
    )
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 3) for domain in domains)]
    return helper.make_model(
        helper.make_graph(nodes, "test", given, wanted, initializers), opset_imports=opsets, ir_version=9
    )


def tensor(shape, element_type=FLOAT):
    return helper.make_tensor_type_proto(element_type, shape)


def perceptron(rng=None):
    rng = rng or np.random.default_rng(0)
    constants = {"w": rng.normal(size=(5, 4)), "v": rng.normal(size=(4, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc1"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"], "fc2"),
    ]
    return model_of(nodes, {"x": ["batch", 5]}, ["y", "r"], constants)


X = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)


# --- what may be given


def test_path_bytes_model_program_and_program_file_give_the_same(tmp_path):
    model = perceptron()
    expected = reference(model).run(None, {"x": X})
    onnx.save(model, tmp_path / "m.onnx")
    program = xbcompile.compile(model, "ideal")
    program.save(tmp_path / "m.xbar")
    sources = [
        tmp_path / "m.onnx",
        str(tmp_path / "m.onnx"),
        model.SerializeToString(),
        model,
        program,
        tmp_path / "m.xbar",
    ]
    for source in sources:
        for value, wanted in zip(xbcompile.InferenceSession(source).run(None, {"x": X}), expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_target_device_seed_and_options_are_those_of_compile_and_session():
    model = perceptron()
    session = xbcompile.InferenceSession(model, target="mram64", device="mram64-emulator", seed=3, packing="none")
    program = xbcompile.compile(model, "mram64", packing="none")
    assert session.program.target.name == "mram64"
    assert session.program.schedule == program.schedule
    assert session.program.source is None
    assert xbcompile.InferenceSession(model, embed_model=True).program.source is not None
    expected = xbcompile.Session(program, "mram64-emulator", 3).run({"x": X})
    np.testing.assert_array_equal(session.run(["y"], {"x": X})[0], expected["y"])
    other = xbcompile.InferenceSession(program, device="mram64-emulator", seed=4).run(["y"], {"x": X})[0]
    assert not np.array_equal(other, expected["y"])


def test_a_program_has_its_target():
    program = xbcompile.compile(perceptron(), "ideal")
    with pytest.raises(TypeError, match="target, packing: a program is compiled already, for 'ideal'; give the model"):
        xbcompile.InferenceSession(program, target="mram64", packing="none")


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match="the 7 bytes are not an ONNX model, or a truncated one"):
        xbcompile.InferenceSession(b"\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(ModelError, match="no such file"):
        xbcompile.InferenceSession(tmp_path / "nothing.onnx")


# --- what it says of inputs and outputs

DIMENSIONS = st.lists(st.one_of(st.none(), st.sampled_from(["N", "M", ""]), st.integers(1, 4)), max_size=3)


@example(inputs=[2, 4], outputs=[3, "N"], element_type=FLOAT)
@example(inputs=["N", 4], outputs=["N", 3], element_type=FLOAT)
@example(inputs=[2, 4], outputs=["M", 3], element_type=FLOAT)
@example(inputs=[2, "N"], outputs=[2], element_type=FLOAT)
@example(inputs=[None, "N"], outputs=None, element_type=FLOAT)
@given(
    inputs=st.one_of(st.none(), DIMENSIONS),
    outputs=st.one_of(st.none(), DIMENSIONS),
    element_type=st.sampled_from([FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT8]),
)
@settings(max_examples=60, deadline=None)
def test_inputs_and_outputs_are_described_as_onnxruntime_does(inputs, outputs, element_type):
    """Whatever is declared of them, right or wrong, and whatever is inferred."""
    nodes = [helper.make_node("Abs", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    model = model_with(nodes, {"x": tensor(inputs, element_type)}, {"y": tensor(outputs, element_type)})
    assert_same_description(model)


def assert_same_description(model, session=None):
    theirs, ours = reference(model), session or xbcompile.InferenceSession(model)
    for method in ("get_inputs", "get_outputs"):
        wanted = [(v.name, v.type, v.shape) for v in getattr(theirs, method)()]
        assert [(v.name, v.type, v.shape) for v in getattr(ours, method)()] == wanted
        assert [str(v) for v in getattr(ours, method)()] == [str(v) for v in getattr(theirs, method)()]


def test_types_that_are_no_tensors(tmp_path):
    sequence = helper.make_sequence_type_proto(tensor([2]))
    optional = helper.make_optional_type_proto(tensor([2]))
    nested = helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor(None, TensorProto.INT64)))
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Identity", ["o"], ["p"]),
        helper.make_node("OptionalHasElement", ["n"], ["has"]),
    ]
    outputs = {"t": sequence, "p": optional, "has": tensor([], TensorProto.BOOL)}
    model = model_with(nodes, {"s": sequence, "o": optional, "n": nested}, outputs, opset=18)
    assert_same_description(model)
    assert [v.type for v in xbcompile.InferenceSession(model).get_inputs()] == [
        "seq(tensor(float))",
        "optional(tensor(float))",
        "optional(seq(tensor(int64)))",
    ]
    xbcompile.compile(model).save(tmp_path / "p.xbar")
    assert_same_description(model, xbcompile.InferenceSession(tmp_path / "p.xbar"))


# --- what run gives


@pytest.mark.parametrize("names", [None, [], ["y"], ["r", "y"], ["y", "y"]])
def test_output_names(names):
    model = perceptron()
    values = xbcompile.InferenceSession(model).run(names, {"x": X}, None)
    expected = reference(model).run(names, {"x": X}, None)
    assert len(values) == len(expected)
    for value, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_wrong_names_types_and_shapes():
    session = xbcompile.InferenceSession(perceptron())
    with pytest.raises(DataError, match="the model has no output 'z'; its outputs are: y, r"):
        session.run(["y", "z"], {"x": X})
    with pytest.raises(DataError, match="model input 'x' is missing; given: none"):
        session.run(None, {})
    with pytest.raises(DataError, match="the program has no input 'u'"):
        session.run(None, {"x": X, "u": X})
    with pytest.raises(DataError, match="input 'x' has type float64; the model wants float32"):
        session.run(None, {"x": X.astype(float)})
    with pytest.raises(DataError, match=r"input 'x' has shape 5x3; the model wants \?x5"):
        session.run(None, {"x": X.T})


def test_errors_are_of_the_kinds_that_onnxruntime_raises():
    """Whoever catches onnxruntime's exceptions catches ours: of each value that it refuses, its own says which."""
    model = perceptron()
    ours, theirs = xbcompile.InferenceSession(model), reference(model)
    cases = [
        (None, {}),
        (None, {"q": X}),
        (None, {1: X}),
        (None, {"x": X, "q": X}),
        (["q"], {"x": X}),
        (None, {"x": X.astype(float)}),
        (None, {"x": X.astype(np.float16)}),
        (None, {"x": X.astype(int)}),
        (None, {"x": X.astype(object)}),
        (None, {"x": X[0]}),
        (None, {"x": X.T}),
    ]
    for names, feeds in cases:
        with pytest.raises(Exception) as wanted:  # its kind is what is compared
            theirs.run(names, feeds)
        with pytest.raises(DataError) as found:
            ours.run(names, feeds)
        assert isinstance(found.value, type(wanted.value)), (names, feeds, wanted.value)
    for wrong in ("y", 3, [3], [None], "q"):
        with pytest.raises(DataError, match=r"the outputs wanted are|the model has no output"):
            ours.run(wrong, {"x": X})


@pytest.mark.parametrize("name", [*SAME, *WHOLE])
def test_what_holds_numbers_is_taken(name):
    """Of the model's own type, or without a type as lists are; another type is refused as in onnxruntime."""
    whole = np.arange(15, dtype=np.float32).reshape(3, 5) % 4
    session = xbcompile.InferenceSession(perceptron())
    value = {**SAME, **WHOLE}[name](whole)
    kind = np.asarray(value).dtype.newbyteorder("=") if hasattr(value, "dtype") else np.float32
    if kind != np.float32:
        with pytest.raises(DataError, match=r"input 'x' has type .*; the model wants float32"):
            session.run(None, {"x": value})
        return
    np.testing.assert_array_equal(session.run(None, {"x": value})[0], session.run(None, {"x": whole})[0])


@pytest.mark.parametrize("name", WRONG)
def test_what_holds_none_is_refused(name):
    session = xbcompile.InferenceSession(perceptron())
    with pytest.raises(DataError) as caught:
        session.run(None, {"x": WRONG[name](np.ones((3, 5), np.float32))})
    assert isinstance(caught.value, InvalidArgument)
    assert "\n" not in str(caught.value)


def test_what_onnxruntime_cannot_run():
    """A Reshape that does not divide, and a sequence that is none."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = model_with(nodes, {"x": tensor(["N"])}, {"y": tensor([None, 3])}, {"shape": np.array([-1, 3])})
    with pytest.raises(DataError, match=r"onnxruntime cannot run the model on these inputs: .*reshape"):
        xbcompile.InferenceSession(model).run(None, {"x": np.ones(4, np.float32)})
    sequence = helper.make_sequence_type_proto(tensor(None))
    model = model_with(
        [helper.make_node("SequenceLength", ["s"], ["n"])], {"s": sequence}, {"n": tensor([], TensorProto.INT64)}
    )
    with pytest.raises(DataError, match="input 's' takes a list with one value per entry, not a dict"):
        xbcompile.InferenceSession(model).run(None, {"s": {"a": 1}})


@pytest.mark.parametrize("ir_version", [3, 9])
def test_a_default_value_of_an_input_is_compiled_in(ir_version):
    """`b` is an input with an initializer: left out, it has that value; before IR version 4 every initializer is an input."""
    model = perceptron()
    model.graph.node.append(helper.make_node("Add", ["y", "b"], ["z"]))
    model.graph.output[0].name = "z"
    model.graph.input.append(helper.make_tensor_value_info("b", FLOAT, [3]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3], np.float32), "b"))
    model.ir_version = ir_version
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, FLOAT, tensor.dims)
        for tensor in model.graph.initializer
        if ir_version < 4 and tensor.name != "b"
    )
    session = xbcompile.InferenceSession(model)
    assert [value.name for value in session.get_inputs()] == ["x"]
    expected = reference(model).run(None, {"x": X})[0]
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-5, atol=1e-6)
    if ir_version >= 4:
        with pytest.raises(
            DataError, match=r"the program has no input 'b'; .* unless it is compiled with --keep-input b"
        ):
            session.run(None, {"x": X, "b": np.zeros(3, np.float32)})


def test_numbers_lists_and_ort_values_are_taken_as_arrays():
    session = xbcompile.InferenceSession(perceptron())
    expected = session.run(None, {"x": X})[0]
    for x in (X.tolist(), onnxruntime.OrtValue.ortvalue_from_numpy(X), X[::-1][::-1], np.asfortranarray(X)):
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)
    scalar = model_with([helper.make_node("Neg", ["x"], ["y"])], {"x": tensor([])}, {"y": tensor([])})
    for x in (3.0, np.float32(3), np.array(3, np.float32)):
        assert xbcompile.InferenceSession(scalar).run(None, {"x": x}) == [-3]


def test_lists_that_do_not_fit_are_refused():
    small = model_with(
        [helper.make_node("Cast", ["x"], ["y"], to=1)], {"x": tensor([None], TensorProto.UINT8)}, {"y": tensor([None])}
    )
    session = xbcompile.InferenceSession(small)
    assert session.run(None, {"x": [3, 255]})[0].tolist() == [3, 255]
    assert session.run(None, {"x": []})[0].tolist() == []
    for x, text in (
        ([300], "outside the range"),
        ([-1], "outside"),
        ([1.5], "does not fit"),
        ([[1], [1, 2]], "no array"),
    ):
        with pytest.raises(DataError, match=f"input 'x': .*{text}"):
            session.run(None, {"x": x})


def test_another_layout_is_told():
    session = xbcompile.InferenceSession(
        model_with([helper.make_node("Relu", ["x"], ["y"])], {"x": tensor([1, 3, 4, 4])}, {"y": tensor([1, 3, 4, 4])})
    )
    with pytest.raises(DataError, match=r"the model wants 1x3x4x4; they look channels last \(NHWC\): use .transpose"):
        session.run(None, {"x": np.zeros((1, 4, 4, 3), np.float32)})


def test_one_feed_is_one_run():
    """Axis 0 may be time: sums over it would differ if a feed were run in pieces (of 500, as data sets are)."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["y"], axis=0),
        helper.make_node("ReduceMean", ["h"], ["mean"], axes=[0], keepdims=0),
    ]
    model = model_of(nodes, {"x": ["time", 4]}, ["y", "mean"], {"w": rng.normal(size=(4, 3)), "axis": np.int64(0)})
    x = rng.normal(size=(1203, 4)).astype(np.float32)
    for value, wanted in zip(
        xbcompile.InferenceSession(model).run(None, {"x": x}), reference(model).run(None, {"x": x}), strict=True
    ):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)


def test_a_model_that_has_no_finite_values_for_random_inputs():
    """Verification draws inputs from 0..1, of which no logarithm of the negative is a number; the model runs on others."""
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Log", ["n"], ["l"]),
        helper.make_node("MatMul", ["l", "w"], ["y"], "m"),
    ]
    model = model_of(nodes, {"x": ["N", 2]}, ["y"], {"w": np.array([[1, 2], [3, 4]], np.float32)})
    (y,) = xbcompile.InferenceSession(model).run(None, {"x": -np.exp(np.array([[1, 0], [0, 1]], np.float32))})
    np.testing.assert_allclose(y, [[1, 2], [3, 4]], rtol=1e-6)


def test_inputs_of_which_axis_0_counts_different_things():
    """A scalar, a vector and a batch; the model has no common batch, and runs."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "factor"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["y"]),
    ]
    inputs = {"x": tensor(["N", 2]), "factor": tensor([]), "shift": tensor([3])}
    model = model_with(nodes, inputs, {"y": None}, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    feeds = {"x": np.ones((5, 2), np.float32), "factor": np.float32(2), "shift": np.array([1, 2, 3], np.float32)}
    (y,) = xbcompile.InferenceSession(model).run(None, feeds)
    np.testing.assert_array_equal(y, np.tile([2 * 3 + 1, 2 * 5 + 2, 2 * 7 + 3], (5, 1)))


def test_sequences_go_in_and_out():
    sequence = helper.make_sequence_type_proto(tensor(None))
    nodes = [
        helper.make_node("SequenceAt", ["s", "one"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("SequenceInsert", ["s", "h"], ["t"]),
    ]
    constants = {"one": np.int64(1), "w": np.eye(2, dtype=np.float32)[::-1].copy()}
    model = model_with(nodes, {"s": sequence}, {"t": sequence}, constants)
    session = xbcompile.InferenceSession(model)
    s = [np.zeros((3, 1), np.float32), np.array([[1, 2], [3, 4]], np.float32)]
    (t,) = session.run(None, {"s": s})
    assert len(session.program.network.layers) == 1
    assert [value.tolist() for value in t] == [[[0], [0], [0]], [[1, 2], [3, 4]], [[2, 1], [4, 3]]]


def test_an_optional_may_be_none_or_left_out():
    optional = helper.make_optional_type_proto(tensor([2]))
    model = model_with(
        [helper.make_node("OptionalHasElement", ["o"], ["has"])],
        {"o": optional},
        {"has": tensor([], TensorProto.BOOL)},
        opset=18,
    )
    session, theirs = xbcompile.InferenceSession(model), reference(model)
    for feeds in ({"o": np.ones(2, np.float32)}, {"o": None}):
        assert session.run(None, feeds) == theirs.run(None, feeds) == [feeds["o"] is not None]
    assert session.run(None, {}) == [False]


def test_texts_and_maps():
    """A dict goes in (ai.onnx.ml DictVectorizer), texts go through, dicts come out (ZipMap)."""
    words = helper.make_map_type_proto(TensorProto.STRING, tensor(None))
    nodes = [
        helper.make_node("DictVectorizer", ["d"], ["x"], domain="ai.onnx.ml", string_vocabulary=["a", "b"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ZipMap", ["h"], ["z"], domain="ai.onnx.ml", classlabels_strings=["p", "q"]),
        helper.make_node("Identity", ["t"], ["u"]),
    ]
    texts = tensor(["N"], TensorProto.STRING)
    outputs = {"z": helper.make_sequence_type_proto(words), "u": texts}
    constants = {"w": np.array([[1, 2], [3, 4]], np.float32)}
    model = model_with(nodes, {"d": words, "t": texts}, outputs, constants, domains=["ai.onnx.ml"])
    session = xbcompile.InferenceSession(model)
    assert len(session.program.network.layers) == 1
    probe = probe_inputs(session.program)  # what the program was verified with
    assert [type(value) for value in probe["d"].values()] == [float]
    z, u = session.run(None, {"d": {"a": 1.0, "b": 10.0}, "t": np.array(["one", "two"])})
    assert z == [{"p": 31, "q": 42}]
    assert u.tolist() == ["one", "two"]
    assert_same_description(model)


# --- models without any matrix on arrays

PRODUCT = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "x"], ["y"], "mm")]
DIGITAL = model_of(PRODUCT, {"x": ["N", 3, 3]}, ["y"])


@pytest.mark.parametrize("target", ["ideal", "mram64", "m2tj4", "memristor20", "sot", "multicell"])
def test_a_digital_program_compiles_saves_and_runs(tmp_path, target):
    warnings = []
    program = xbcompile.compile(DIGITAL, target, warn=warnings.append)
    assert warnings == [
        'no matrix of the model can be put on arrays: MatMul mm: both operands are activations: "x" is a graph input; '
        "everything runs digitally"
    ]
    assert (len(program.schedule.tiles), len(program.schedule.steps), program.schedule.images) == (0, 0, 0)
    program.save(tmp_path / "d.xbar")
    loaded = xbcompile.load_program(tmp_path / "d.xbar")
    assert loaded.digest == program.digest
    assert xbcompile.verify(loaded) == []
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    expected = reference(DIGITAL).run(None, {"x": x})[0]
    np.testing.assert_allclose(xbcompile.InferenceSession(loaded).run(None, {"x": x})[0], expected, rtol=1e-6)
    many = np.concatenate([x] * 600)
    outputs = xbcompile.Session(loaded).run_samples({"x": many})
    np.testing.assert_allclose(outputs["y"], reference(DIGITAL).run(None, {"x": many})[0], rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"arrays": 0}, {"arrays": 3}, {"batch": 10}, {"cuts": "free"}, {"packing": "none"}, {"scramble": False}]
)
def test_a_digital_program_with_each_option(options):
    program = xbcompile.compile(DIGITAL, "mram64", **options)
    assert program.schedule.makespan_s == 0
    assert xbcompile.verify(program) == []


def test_a_model_without_inputs():
    model = model_with([helper.make_node("RandomUniform", [], ["y"], shape=[3], seed=1.0)], {}, {"y": tensor([3])})
    (y,) = xbcompile.InferenceSession(model).run(None, {})
    assert y.shape == (3,)


def test_a_model_of_constants_alone():
    constants = {"a": np.array([[1, 2], [3, 4]], np.float32)}
    model = model_with([helper.make_node("MatMul", ["a", "a"], ["y"])], {}, {"y": tensor([2, 2])}, constants)
    np.testing.assert_array_equal(xbcompile.InferenceSession(model).run(None, {})[0], [[7, 10], [15, 22]])


def test_commands_on_a_digital_model(tmp_path, monkeypatch, capsys):
    """Every command that takes a program, on one without layers."""
    onnx.save(DIGITAL, tmp_path / "d.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((4, 3, 3), np.float32))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["xbcompile", *arguments])
        with pytest.raises(SystemExit) as ended:
            command()
        assert ended.value.code == status
        return capsys.readouterr()

    compiled = run("compile", "d.onnx", "-o", "d.xbar")
    assert "no matrix of the model can be put on arrays: MatMul mm: both operands are activations" in compiled.err
    assert "calibration" not in compiled.err  # no advice that would change nothing
    assert "0 weights" in run("inspect", "d.xbar", "--schedule").out
    facts = json.loads(run("inspect", "d.xbar", "--json").out)
    assert (facts["layers"], facts["totals"]["images"], facts["totals"]["utilisation"]) == ([], 0, 0.0)
    assert facts["totals"]["images_gap"] == 0.0
    assert "image 0 does not exist; the program has none" in run("inspect", "d.xbar", "--image", "0", status=1).err
    run("verify", "d.xbar")
    assert "4 inferences: 0 dot products, 0 reads" in run("run", "d.xbar", "--data", "d.npz", "-o", "y.npz").out
    np.testing.assert_array_equal(np.load("y.npz")["y"], np.full((4, 3, 3), 3))
    run("diagnose", "d.xbar", "--data", "d.npz")
