"""Inputs of another kind than the model's: one error each, where onnxruntime has many, or ends the process."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

from xbcompile.errors import DataError
from xbcompile.onnx_graph.kinds import check_kind

NUMBERS = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
SCALAR = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
KINDS = {
    "tensor": NUMBERS,
    "texts": helper.make_tensor_type_proto(TensorProto.STRING, ["n"]),
    "sequence": helper.make_sequence_type_proto(NUMBERS),
    "map": helper.make_map_type_proto(TensorProto.INT64, SCALAR),
    "maps": helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, SCALAR)),
    "optional": helper.make_optional_type_proto(NUMBERS),
}
ROWS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("kind", "fed"),
    [
        ("tensor", ROWS),
        ("tensor", [[1.0, 2.0, 3.0]]),
        ("texts", np.array(["a", "b"])),
        ("texts", np.array(["a", None], object)),
        ("sequence", []),
        ("sequence", [ROWS, ROWS[:1]]),
        ("map", {0: 1.0, np.int64(2): 2.0}),
        ("maps", [{"a": 1.0}, {}]),
        ("optional", None),
        ("optional", ROWS),
    ],
)
def test_what_fits(kind, fed):
    check_kind(ValueInfoProto(name="x", type=KINDS[kind]), fed)


@pytest.mark.parametrize(
    ("kind", "fed", "text"),
    [
        ("tensor", {"a": 1.0}, "an array, not a dict"),
        ("tensor", None, "an array, not None"),
        ("tensor", np.array(["a"]), "an array of numbers, not of <U1"),
        ("tensor", [[1.0], [1.0, 2.0]], "an array, not a list of lists of different lengths"),
        ("texts", ROWS, "an array of texts, not of float32"),
        ("sequence", ROWS, "a list with one value per entry, not a ndarray"),
        ("sequence", [ROWS, None], "an array, not None"),
        ("map", ROWS, "a dict, not a ndarray"),
        ("map", None, "a dict, not None"),
        ("map", {"a": 1.0}, "a dict whose keys are whole numbers, not one with the key 'a'"),
        ("maps", [{0: 1.0}], "a dict whose keys are texts, not one with the key 0"),
        ("optional", np.array(["a"]), "an array of numbers, not of <U1"),
    ],
)
def test_what_does_not_fit(kind, fed, text):
    with pytest.raises(DataError, match=f"^input 'x' takes {text}$"):
        check_kind(ValueInfoProto(name="x", type=KINDS[kind]), fed)
