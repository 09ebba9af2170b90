"""One verdict on a model: whoever looks at it refuses what `compile` refuses, in the same words."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of
from xbcompile.errors import XbcompileError
from xbcompile.interop.onnx_backend import is_compatible

node = helper.make_node
# Behind a layer that writes p [n, 3]: what onnx lets pass and onnxruntime does not, and what neither knows.
REFUSED = {
    "no kernel": ([node("Cast", ["p"], ["b"], to=TensorProto.BFLOAT16), node("Tanh", ["b"], ["z"])], 17),
    "no kernel at all": ([node("ImageDecoder", ["bytes"], ["z"])], 20),
    "types that differ": ([node("Cast", ["p"], ["d"], to=TensorProto.DOUBLE), node("Add", ["p", "d"], ["z"])], 17),
    "a type of no kernel": ([node("Cast", ["p"], ["z"], to=TensorProto.COMPLEX64)], 17),
    "an axis that is none": ([node("Softmax", ["p"], ["z"], axis=7)], 17),
    "another's operator": ([node("Foo", ["p"], ["z"], domain="acme")], 17),
    "an opset to come": ([node("Relu", ["p"], ["z"])], 99),
    "weights that are no numbers": ([node("MatMul", ["p", "nan"], ["z"])], 17),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_verdict(name):
    extra, opset = REFUSED[name]
    constants = {"w": np.eye(3), "nan": np.full((3, 3), np.nan), "bytes": np.zeros(4, np.uint8)}
    nodes = [node("MatMul", ["x", "w"], ["p"], "fc"), *extra]
    model = model_of(nodes, {"x": ["n", 3]}, ["p", "z"], constants, opset=opset, domains={"acme": 1})
    said = []
    for ask in (xbcompile.compile, xbcompile.explain, xbcompile.plan):
        with pytest.raises(XbcompileError) as refusal:
            ask(model)
        said.append((type(refusal.value), str(refusal.value)))
    assert said[1:] == said[:1] * 2
    assert not is_compatible(model)
