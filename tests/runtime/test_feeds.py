"""What Python callers hand over as data: taken as the plain float32 array is, or refused with one clear error.

What is right of a value follows from the array that it was made of, see `tests.support.handed_over`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.handed_over import SAME, WHOLE, WRONG
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.accuracy import Classifier, software_accuracy

CODED = "quantize{scheme=levels},analogue"
X = np.random.default_rng(0).integers(0, 4, (5, 6)).astype(np.float32)
LABELS = [0, 1, 2, 0, 1]


@cache
def dense() -> onnx.ModelProto:
    weights = np.random.default_rng(1).normal(size=(6, 3))
    return model_of([helper.make_node("Gemm", ["x", "w"], ["y"], name="fc")], {"x": ["n", 6]}, ["y"], {"w": weights})


@cache
def program() -> Program:
    return xbcompile.compile(dense(), "m2tj4", calibration={"x": X}, passes=CODED, effort=0)


def calibrated(given: Any) -> Any:
    """What calibration with a value gives: the codes of inputs, as a session shows them."""
    found = xbcompile.compile(dense(), "m2tj4", calibration=given, passes=CODED, effort=0)
    return Session(found).run({"x": X})["y"]


ENTRIES: dict[str, Callable[[Any], Any]] = {
    "calibration": calibrated,
    "run": lambda given: Session(program()).run(given)["y"],
    "run_samples": lambda given: Session(program()).run_samples(given)["y"],
    "run_parts": lambda given: next(Session(program()).run_parts(given))["y"],
    "software_accuracy": lambda given: software_accuracy(program(), given, LABELS),
    "diagnose": lambda given: [row.relative_error or 0.0 for row in xbcompile.diagnose(program(), given).end_to_end],
}


QUICK = ("run", "run_samples", "run_parts", "software_accuracy")


@cache
def expected(entry: str) -> Any:
    return ENTRIES[entry]({"x": X})


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_same_numbers_give_the_same(entry: str) -> None:
    """Whatever holds them, by name or as the only input, in any mapping; the value itself stays as it was."""
    every = {**SAME, **WHOLE}
    few = ("float64", "big-endian", "tensor", "list of ints")  # of entries that take long
    for name, make in every.items() if entry in QUICK else ((name, every[name]) for name in few):
        np.testing.assert_array_equal(ENTRIES[entry]({"x": make(X)}), expected(entry), err_msg=name)
    for given in (X, MappingProxyType({"x": X}), *((SAME["tensor"](X), X.tolist()) if entry in QUICK else ())):
        np.testing.assert_array_equal(ENTRIES[entry](given), expected(entry))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_array_is_refused(entry: str, name: str) -> None:
    with pytest.raises(DataError) as caught:
        ENTRIES[entry]({"x": WRONG[name](X)})
    message = str(caught.value)
    assert "\n" not in message
    assert "x" in message
    assert len(message) < 500


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "missing; given: none|has arrays none; the model's inputs are x"),
        ({"x": X, "q": X}, "no input 'q'; its inputs are: x|has arrays q, x; the model's inputs are x"),
        ({1: X}, "the input name 1 is no text"),
        ({"x": X, None: X}, "the input name None is no text"),
        ("mnist", "unknown data 'mnist'|data 'mnist': part ''|an array of numbers, not of <U5"),
        (3, "shape scalar|there are no samples"),
        ([X], "has shape 1x5x6|samples have shape 5x6"),
        ({"x": {"x": X}}, "takes an array, not a dict|no array but a dict"),
    ],
)
def test_names_that_do_not_fit(entry: str, given: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        ENTRIES[entry](given)


@pytest.mark.parametrize("entry", QUICK)
def test_an_array_of_another_name_is_none_of_a_sessions_inputs(entry: str) -> None:
    with pytest.raises(DataError, match=r"missing; given: q|has arrays q; the model's inputs are x"):
        ENTRIES[entry]({"q": X})


@pytest.mark.parametrize("entry", ["calibration", "diagnose"])
def test_data_of_one_array_are_the_only_inputs_whatever_its_name(entry: str) -> None:
    """As Hugging Face's `pixel_values` are; sessions take the model's own names alone, as onnxruntime's do."""
    assert np.array_equal(ENTRIES[entry]({"pixel_values": X}), ENTRIES[entry]({"x": X}))


def test_a_value_alone_is_for_a_single_input() -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"], name="fc")]
    two = model_of(nodes, {"a": ["n", 6], "b": ["n", 6]}, ["y"], {"w": np.ones((6, 3))})
    with pytest.raises(DataError, match=r"inputs: a ndarray alone is given for 2 inputs; give \{NAME: array\}"):
        Session(xbcompile.compile(two, "ideal", effort=0)).run(X)
    with pytest.raises(DataError, match="calibration: a list alone is given for 2 inputs"):
        xbcompile.compile(two, "ideal", calibration=[1.0], effort=0)


NUMBERS = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}  # fmt: skip


def cast_program(element_type: int) -> Program:
    """A model of one input of some type, cast to float32 in front of a matrix."""
    weights = numpy_helper.from_array(np.eye(6, dtype=np.float32)[:, :3], "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
    ]
    x = helper.make_tensor_value_info("x", element_type, ["n", 6])
    graph = helper.make_graph(nodes, "cast", [x], [onnx.ValueInfoProto(name="y")], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return xbcompile.compile(model, "ideal", effort=0)


@pytest.mark.parametrize("wanted", NUMBERS)
def test_numbers_are_taken_where_each_survives(wanted: str) -> None:
    """0 and 1 in any type that is no float for one that is not, and in any type for floats; never a float for whole numbers."""
    session = Session(cast_program(NUMBERS[wanted]))
    ones = (X > 1).astype(np.float32)
    for given in (*NUMBERS, "bfloat16"):
        value = ones.astype(ml_dtypes.bfloat16 if given == "bfloat16" else given)
        if "float" in given and "float" not in wanted:
            with pytest.raises(
                DataError, match=f"input 'x': type {given} does not fit the model's input 'x' of type {wanted}"
            ):
                session.run(value)
        else:
            np.testing.assert_array_equal(session.run(value)["y"], ones[:, :3])


@pytest.mark.parametrize(
    ("wanted", "value", "text"),
    [
        ("float32", np.full((1, 6), 1e39), "float32"),
        ("float16", np.full((1, 6), 1e5), "float16"),
        ("int8", np.full((1, 6), 128), "int8"),
        ("uint8", np.full((1, 6), -1), "uint8"),
        ("int64", np.full((1, 6), 2**63, np.uint64), "int64"),
        ("bool", np.full((1, 6), 2), "bool"),
    ],
)
def test_numbers_that_do_not_survive(wanted: str, value: np.ndarray, text: str) -> None:
    with pytest.raises(DataError, match=f"there are values outside the range of the model's input 'x', {text}"):
        Session(cast_program(NUMBERS[wanted])).run_samples({"x": value})


def test_types_that_onnxruntime_takes_from_no_array() -> None:
    session = Session(cast_program(TensorProto.BFLOAT16))
    for x in (X, X.astype(ml_dtypes.bfloat16)):
        with pytest.raises(DataError, match="input 'x' is of type bfloat16, which onnxruntime takes from no array"):
            session.run(x)


def test_values_that_are_not_finite_are_taken_as_they_are() -> None:
    """As in float32: see `tests.runtime.test_not_finite`."""
    x = X.copy()
    x[1, 2], x[3, 0] = np.nan, np.inf
    narrow = Session(program()).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(program()).run({"x": x.astype(np.float64)})["y"], narrow)


def test_sequences_of_what_is_no_array_of_numpy() -> None:
    """Entries are taken one by one; without that, onnxruntime ends the process on some of them."""
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    nodes = [
        helper.make_node("SequenceAt", ["s", "one"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
    ]
    tensors = [numpy_helper.from_array(np.int64(1), "one"), numpy_helper.from_array(np.ones((6, 3), np.float32), "w")]
    inputs = [onnx.ValueInfoProto(name="s", type=sequence)]
    graph = helper.make_graph(nodes, "sequence", inputs, [onnx.ValueInfoProto(name="y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = Session(xbcompile.compile(model, "ideal", effort=0))
    for name, make in {**SAME, **WHOLE}.items():
        found = session.run({"s": [make(X), make(X)]})["y"]
        np.testing.assert_array_equal(found, X @ np.ones((6, 3), np.float32), err_msg=name)
    for name in ("None", "texts", "objects", "generator", "ragged", "broken (RuntimeError)", "masked"):
        with pytest.raises(DataError, match="input 's'"):
            session.run({"s": [X, WRONG[name](X)]})


def test_what_onnxruntime_refuses_is_an_error_of_the_data() -> None:
    """A Reshape that does not divide, in a run of one call, of samples, and in the reference of accuracy."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"], name="fc"),
    ]
    model = model_of(nodes, {"x": ["n"]}, ["y"], {"shape": np.array([-1, 3]), "w": np.ones((3, 2))})
    compiled = xbcompile.compile(model, "ideal", effort=0)
    four = {"x": np.ones(4, np.float32)}
    for run in (
        lambda: Session(compiled).run(four),
        lambda: Session(compiled).run_samples(four),
        lambda: software_accuracy(compiled, four, [0]),
    ):
        with pytest.raises(DataError, match=r"onnxruntime cannot run the model on these inputs: .*[Rr]eshape"):
            run()


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda x: np.array(x, ">u2"), lambda x: SAME["tensor"](np.array(x))]
)
def test_labels_of_any_make(make: Callable[[Any], Any]) -> None:
    """Right answers: of one-hot outputs, the labels themselves."""
    assert Classifier().accuracy(np.eye(3, dtype=np.float32)[LABELS], make(LABELS)) == 1
    reference = run_onnxruntime(dense(), {"x": X})["y"].argmax(axis=1)
    assert software_accuracy(program(), {"x": X}, make(reference.tolist())) == 1


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0.0, 1.0, 2.0, 0.0, 1.0], r"labels must be whole numbers, one per sample; found float64 \(5,\)"),
        (np.array([0, np.nan, 0, 0, 0]), "found float64"),
        (np.eye(5, dtype=int), r"found int64 \(5, 5\); of rows that hold a 1 in the place of the class take .argmax"),
        (3, r"found int64 \(\)"),
        (["a"] * 5, r"found <U1"),
        ([[1], [1, 2]], "labels: it is no array but a list"),
        (None, "labels: it is no array but a NoneType"),
        ([0, 1], r"has shape \(5, 3\), and there are 2 labels"),
        ([0, 1, 2, 3, 0], "labels go from 0 to 3; the model's first output has 3 values"),
        ([0, 1, 2, -1, 0], "labels go from -1 to 2"),
        (np.array([0, 1, 2, 0, 2**63], np.uint64), "labels go up to 9223372036854775808"),
        (np.ma.masked_array([0, 1, 2, 0, 1], [0, 0, 0, 0, 1]), "labels: 1 values are masked"),
    ],
)
def test_labels_that_are_none(labels: Any, text: str) -> None:
    for accuracy in (
        lambda: Classifier().accuracy(np.eye(3)[LABELS], labels),
        lambda: software_accuracy(program(), {"x": X}, labels),
    ):
        with pytest.raises(DataError, match=text):
            accuracy()


def test_no_samples_have_no_accuracy() -> None:
    with pytest.raises(DataError, match="there are no samples to be right"):
        Classifier().accuracy(np.zeros((0, 3)), np.zeros(0, int))
