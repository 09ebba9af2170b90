"""Fixed dimensions: the same as an export with that size, and clear refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.fuzz.mutated_models import attention, control_flow, convolutional, recurrent
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.dims import LARGEST_SIZE, fix_dimensions, parse_dims
from xbcompile.ir import SampleAxes
from xbcompile.onnx_graph.dimensions import advice, open_dimensions, open_samples
from xbcompile.verification.probes import probe_inputs


def dense(*shape):
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": shape}, ["y"], {"w": np.ones((4, 3))})


def sizes(value):
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim]


def test_a_fixed_model_is_what_an_export_with_that_size_would_be():
    fixed = fix_dimensions(load_model(dense("batch", "rows", 4)), {"batch": 2, "rows": 5})
    assert fixed == load_model(dense(2, 5, 4))
    assert import_network(fixed).layers[0].vectors_per_inference == 5


def test_a_symbol_is_fixed_everywhere():
    """In inputs, outputs, annotations and bodies; the model given is not changed."""
    model = attention()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3]))
    model.graph.value_info.append(helper.make_tensor_value_info("q", TensorProto.FLOAT, ["batch", "sequence", 4]))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["rows", "sequence"]))
    before = model.SerializeToString()
    fixed = fix_dimensions(model, {"sequence": 6})
    assert model.SerializeToString() == before
    assert [sizes(value) for value in fixed.graph.input] == [["batch", 6, 4], ["rows", 6]]
    assert sizes(fixed.graph.value_info[0]) == ["batch", 6, 4]
    assert sizes(fixed.graph.output[0]) == ["rows", 3]
    inner = control_flow()
    branch = next(n for n in inner.graph.node if n.op_type == "If").attribute[0].g
    branch.output[0].CopyFrom(helper.make_tensor_value_info(branch.output[0].name, TensorProto.FLOAT, ["n", 4]))
    changed = fix_dimensions(inner, {"n": 3})
    assert sizes(next(n for n in changed.graph.node if n.op_type == "If").attribute[0].g.output[0]) == [3, 4]


def test_unnamed_axes():
    model = dense(None, None, 4)
    assert open_dimensions(model.graph.input) == {"x:0": (("x", 0),), "x:1": (("x", 1),)}
    assert sizes(fix_dimensions(model, {"x:1": 5}).graph.input[0]) == ["", 5, 4]
    assert sizes(fix_dimensions(dense("n", "n", 4), {"x:0": 5}).graph.input[0]) == [5, 5, 4]  # one symbol, one size
    assert sizes(fix_dimensions(dense("n", 4), {"x:1": 4}).graph.input[0]) == ["n", 4]


def test_negative_sizes_are_open():
    """onnxruntime takes them so."""
    model = dense(-1, 4)
    assert list(open_dimensions(model.graph.input)) == ["x:0"]
    x = np.ones((3, 4), np.float32)
    program = xbcompile.compile(model, "ideal")
    np.testing.assert_allclose(xbcompile.Session(program).run({"x": x})["y"], run_onnxruntime(model, {"x": x})["y"])
    assert sizes(fix_dimensions(model, {"x:0": 2}).graph.input[0]) == [2, 4]


REFUSED = {
    "unknown": (
        {"batsch": 1},
        'the model has no dimension "batsch"; its open dimensions are: n (axis 0 of x), m (axis 1',
    ),
    "unknown input": ({"z:0": 1}, 'no dimension "z:0"'),
    "no axis": ({"x:first": 1}, 'no dimension "x:first"'),
    "axis": ({"x:3": 1}, 'input "x" has 3 axes'),
    "zero": ({"n": 0}, f"dimension n=0: sizes are whole numbers from 1 to {LARGEST_SIZE}"),
    "negative": ({"n": -2}, "dimension n=-2"),
    "absurd": ({"n": 2**40}, "dimension n=1099511627776"),
    "fraction": ({"n": 1.5}, "dimension n=1.5"),
    "truth": ({"n": True}, "dimension n=True"),
    "contradiction": ({"x:2": 5}, "dimension x:2=5: the model fixes it to 4"),
    "two sizes": ({"n": 1, "x:0": 2}, 'dimension x:0=2: it is "n", which is given 1 too'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    dims, text = REFUSED[case]
    with pytest.raises(ModelError) as error:
        fix_dimensions(dense("n", "m", 4), dims)
    assert text in str(error.value)


def test_parse():
    assert parse_dims(["a=1", "x:0=2", "b=c=3", "a=1"]) == {"a": 1, "x:0": 2, "b=c": 3}
    for text in ("a", "a=", "=1", "a=one", "a=1.5"):
        with pytest.raises(ModelError, match="write --dim NAME=SIZE"):
            parse_dims([text])
    with pytest.raises(ModelError, match="--dim a is given twice, as 1 and 2"):
        parse_dims(["a=1", "a=2"])


def test_compile_with_dims():
    """The batch is fixed as if exported so; results stay onnxruntime's."""
    model = attention()
    program = xbcompile.compile(model, "ideal", dims={"batch": 2, "sequence": 5})
    assert sizes(program.network.inputs[0]) == [2, 5, 4]
    assert [layer.vectors_per_inference for layer in program.network.layers] == [5, 5, 5, 5]
    assert [layer.vectors_per_inference for layer in xbcompile.compile(model, "ideal").network.layers] == [None] * 4
    x = np.random.default_rng(1).random((2, 5, 4), np.float32)
    found = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": x})["y"], rtol=1e-5, atol=1e-5)
    with pytest.raises(xbcompile.XbcompileError, match="shape 3x5x4; the model wants 2x5x4"):
        xbcompile.Session(program).run({"x": np.ones((3, 5, 4), np.float32)})


def test_names_and_advice():
    inputs = attention().graph.input
    samples = SampleAxes({"x": 0})
    assert open_samples(inputs, samples) == {"batch"}
    assert "--dim sequence=SIZE" in advice(inputs, samples)
    assert "batch" not in advice(inputs, samples)
    assert "--dim batch=SIZE --dim sequence=SIZE" in advice(inputs, SampleAxes())
    assert advice(convolutional().graph.input, SampleAxes({"x": 0})) == ""


def test_probe_inputs_give_one_name_one_size():
    """A state [2, n, 3] beside sequences [t, n, 4]: n is the same in both; so it is where it stands for samples."""
    info = helper.make_tensor_value_info
    model = recurrent()
    model.graph.node[0].input.extend(["", "h0"])
    model.graph.input.append(info("h0", TensorProto.FLOAT, [2, "n", 3]))
    probes = probe_inputs(xbcompile.compile(model, "ideal"))
    assert probes["x"].shape[1] == probes["h0"].shape[1]
    crossed = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["m", "a"], ["y"])],
        {"x": ["n", 4], "m": [3, "n"]},
        ["y"],
        {"w": np.ones((4, 3))},
    )
    probes = probe_inputs(xbcompile.compile(crossed, "ideal"))
    assert probes["x"].shape[0] == probes["m"].shape[1]


def test_sizes_that_no_memory_holds_do_not_stop_the_compiler():
    program = xbcompile.compile(dense(2**40, 4), "ideal")
    with pytest.raises(xbcompile.XbcompileError, match="1099511627776x4 does not fit into memory"):
        probe_inputs(program)
    onnx.checker.check_model(program.host)


def test_large_batches_are_compared_on_a_few_samples(monkeypatch):
    """A batch of 1,000 costs no more than one of 2, and the layer is still compared."""
    from xbcompile.verification import verify as verification

    shapes = []
    run_alone = verification._run_alone

    def spy(program, layer):
        x, y = run_alone(program, layer)
        shapes.append(x.shape)
        return x, y

    monkeypatch.setattr(verification, "LARGEST_COMPARED", 100)
    monkeypatch.setattr(verification, "_run_alone", spy)
    xbcompile.compile(dense(1000, 5, 4), "ideal")
    xbcompile.compile(dense(2, 5, 4), "ideal")
    assert shapes == [(2, 5, 4)]
