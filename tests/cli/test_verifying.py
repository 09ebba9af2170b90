"""Comparing a program with its model, whatever kinds of values go in and come out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from xbcompile.cli.verifying import compare_with_model
from xbcompile.errors import DataError
from xbcompile.interop.inference_session import InferenceSession

node = helper.make_node
ROWS = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
SCALAR = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
ML = "ai.onnx.ml"
NUMBERS = "largest difference from the model 0, of"
# By kind of input: its type, and the node that makes rows [n, 3] of it.
INPUTS = {
    "tensor": (ROWS, node("Identity", ["x"], ["rows"])),
    "map": (
        helper.make_map_type_proto(TensorProto.STRING, SCALAR),
        node("DictVectorizer", ["x"], ["rows"], domain=ML, string_vocabulary=["a", "text", "b"]),
    ),
    "sequence": (helper.make_sequence_type_proto(ROWS), node("ConcatFromSequence", ["x"], ["rows"], axis=0)),
    "optional": (helper.make_optional_type_proto(ROWS), node("OptionalGetElement", ["x"], ["rows"])),
    "texts": (
        helper.make_tensor_type_proto(TensorProto.STRING, ["n", 3]),
        node("LabelEncoder", ["x"], ["rows"], domain=ML, keys_strings=["text"], values_floats=[0.5]),
    ),
}
# By kind of output: the node that makes it of p [n, 3], and what is said of it.
OUTPUTS = {
    "tensor": (node("Relu", ["p"], ["y"]), [NUMBERS]),
    "sequence": (node("SequenceConstruct", ["p", "p"], ["y"]), [NUMBERS]),
    "maps": (
        node("ZipMap", ["p"], ["y"], domain=ML, classlabels_strings=["a", "b", "c"]),
        [NUMBERS, "0 of {} values are not the model's"],
    ),
    "whole numbers": (node("ArgMax", ["p"], ["y"], axis=1, keepdims=0), ["0 of {} values are not the model's"]),
    "booleans": (node("Greater", ["p", "p"], ["y"]), ["0 of {} values are not the model's"]),
}


def model_between(taken: str, given: str) -> onnx.ModelProto:
    type_proto, first = INPUTS[taken]
    nodes = [first, node("MatMul", ["rows", "w"], ["p"], "fc"), OUTPUTS[given][0]]
    w = numpy_helper.from_array(np.diag([0.5, 1.0, 2.0]).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "test", [helper.make_value_info("x", type_proto)], [], [w])
    graph.output.append(onnx.ValueInfoProto(name="y"))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(ML, 3)], ir_version=9
    )


@pytest.mark.parametrize(
    ("taken", "given"), [(taken, "tensor") for taken in INPUTS] + [("tensor", given) for given in OUTPUTS][1:]
)
def test_every_kind_of_value(folder, taken, given):
    onnx.save(model_between(taken, given), folder / "m.onnx")
    findings, notes = compare_with_model(xbcompile.compile(folder / "m.onnx", "ideal"), folder / "m.onnx")
    assert not findings
    for note, text in zip(notes, OUTPUTS[given][1], strict=True):
        before, _, after = text.partition("{}")
        assert note.startswith(f"output 'y': {before}")
        assert note.endswith(after) or not after


def test_an_output_that_differs(folder):
    """The same interface with other weights: of inputs above 0, the first class wins, where in the program the third does."""
    model = model_between("tensor", "whole numbers")
    (weights,) = model.graph.initializer
    weights.CopyFrom(numpy_helper.from_array(np.diag([0, 0, 1]).astype(np.float32), "w"))
    program = xbcompile.compile(model, "ideal")
    weights.CopyFrom(numpy_helper.from_array(np.diag([1, 0, 0]).astype(np.float32), "w"))
    onnx.save(model, folder / "other.onnx")
    findings, notes = compare_with_model(program, folder / "other.onnx")
    assert not findings
    assert notes == ["output 'y': 4 of 4 values are not the model's"]
    onnx.save(model_between("tensor", "booleans"), folder / "wide.onnx")
    findings, _ = compare_with_model(program, folder / "wide.onnx")
    assert findings == ["model: output 'y' has shape (4, 3), the program's (4,)"]


@pytest.mark.parametrize("taken", ["map", "sequence", "texts"])
def test_what_no_input_takes(taken):
    session = InferenceSession(model_between(taken, "tensor"))
    with pytest.raises(DataError, match="input 'x' takes"):
        session.run(None, {"x": np.ones((2, 3), np.float32)})
    with pytest.raises(DataError, match=r"input 'x' (takes|is no array whose axis 0 counts samples)"):
        session.session.run_samples({"x": 3})  # type: ignore[dict-item]  # what this test is about


def test_sizes_of_minus_one_are_open():
    model = model_between("tensor", "tensor")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [-1, 3]))
    session = InferenceSession(model)
    assert [value.shape for value in (*session.get_inputs(), *session.get_outputs())] == [[None, 3], [None, 3]]
