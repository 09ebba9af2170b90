"""Sessions of onnxruntime: within a memory and a time of their own, and with errors that are the user's."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.fuzz import growing_models as growing
from tests.support.model_kit import model_of
from xbcompile.errors import DataError, ModelError
from xbcompile.onnx_graph import engine

node = helper.make_node


def expanding(size: int):
    """A sum over so many floats, made when it runs."""
    nodes = [node("Expand", ["x", "size"], ["e"]), node("ReduceSum", ["e"], ["y"], keepdims=0)]
    return model_of(nodes, {"x": [1]}, ["y"], {"size": np.array([size])})


ONE = {"x": np.ones(1, np.float32)}


def test_a_session_has_the_memory_that_it_is_given():
    """4 MB of floats in 16 MB, and 40 MB, which are refused; other sessions have all that there is."""
    limited = [engine.open_session(expanding(size), memory_bytes=2**24) for size in (10**6, 10**7)]
    assert limited[0].run(["y"], ONE) == [10**6]
    with pytest.raises(engine.NotRun, match=r"Available memory of \d+ is smaller than requested"):
        limited[1].run(["y"], ONE)
    assert engine.open_session(expanding(10**7)).run(["y"], ONE) == [10**7]
    assert engine.open_session(expanding(10**7), memory_bytes=2**27).run(["y"], ONE) == [10**7]


def test_what_no_memory_can_hold_is_refused():
    with pytest.raises(DataError, match="onnxruntime cannot run the model on these inputs: "):
        engine.open_session(expanding(2**44)).run(["y"], ONE)


def test_a_run_has_the_time_that_it_is_given():
    model = growing.loops(3, 2**20, "Loop", grows=False)
    start = time.monotonic()
    with pytest.raises(engine.NotRun, match="terminate"):
        engine.run_limited(engine.open_session(model), ["y"], {"x": np.ones((1, 4), np.float32)}, seconds=0.2)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("element_type", [TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.INT32])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Erf", "Gemm", "RNN", "Relu", "Resize", "Softmax"])
def test_operators_that_onnxruntime_has_not_in_a_type_are_named(operator, element_type):
    """All that `compile` raises is of this package, and names the node, or the one that onnxruntime makes of its operator."""
    model = growing.of_type(operator, element_type)
    model.graph.node[0].metadata_props.add(key="xbcompile", value="digital")
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    calibration = {"x": np.ones(shape)} if element_type == TensorProto.DOUBLE else None  # passes run the model then
    if engine.can_load(model):
        xbcompile.compile(model, "mram64", calibration=calibration, effort=0, embed_model=False)
        return
    with pytest.raises(
        ModelError, match=rf"onnxruntime cannot .*(node with name '|\({operator}\) in node \(n\))"
    ) as caught:
        xbcompile.compile(model, "mram64", calibration=calibration, effort=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [engine.NotLoaded, engine.NotRun])
def test_errors_go_from_process_to_process(kind):
    error = kind("onnxruntime cannot: why", "why")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.reason) == (str(error), "why")
    assert isinstance(again, xbcompile.XbcompileError)


def test_python_sessions_raise_no_error_of_onnxruntime():
    """A digital segment that refuses its inputs when it runs: a Reshape that does not divide."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Reshape", ["h", "s"], ["y"])]
    model = model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": np.eye(4), "s": np.array([-1, 7])})
    session = xbcompile.Session(xbcompile.compile(model, "ideal", effort=0))
    for run in (session.run, session.run_samples):
        with pytest.raises(DataError, match="onnxruntime cannot run the model on these inputs: "):
            run({"x": np.ones((3, 4), np.float32)})
