"""What neither protobuf nor onnx's checker finds; and what they refuse but onnxruntime knows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError, ModelError
from xbcompile.frontend import load_model
from xbcompile.frontend.soundness import check_bodies, check_soundness
from xbcompile.onnx_graph.engine import RAW_ERRORS


def dense(**options):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], name="fc_name", alpha=2.0),
        helper.make_node("Relu", ["g"], ["y"], name="relu_name"),
    ]
    rng = np.random.default_rng(1)
    constants = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    return model_of(nodes, {"x": ["n_dim", 4]}, ["y"], constants, **options)


@pytest.mark.parametrize("text", ["fc_name", "relu_name", "Relu", "alpha", "test", "n_dim"])
def test_text_that_is_no_utf_8(text):
    content = dense().SerializeToString()
    assert content.count(text.encode()) == 1
    damaged = ModelProto.FromString(content.replace(text.encode(), b"\xff" + text.encode()[1:]))
    with pytest.raises(ModelError, match="not UTF-8"):
        check_soundness(damaged, "m.onnx")
    check_soundness(ModelProto.FromString(content), "m.onnx")


def test_text_in_lists_and_bodies():
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["inner_out"])], "body_name", [], [])
    node = helper.make_node("If", ["c"], ["out_name"], then_branch=body, else_branch=body)
    content = helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString()
    for text in (b"out_name", b"inner_out", b"body_name"):
        with pytest.raises(ModelError, match="not UTF-8"):
            check_soundness(ModelProto.FromString(content.replace(text, b"\xfe" + text[1:])), "m.onnx")


def test_unknown_element_types():
    model = dense()
    model.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelError, match="element type 99, which ONNX does not have"):
        load_model(model)


def test_references_outside_of_functions():
    model = dense()
    model.graph.node[0].attribute[0].ref_attr_name = "scale"
    with pytest.raises(ModelError, match="attribute alpha of node 'fc_name' refers to attribute 'scale'"):
        load_model(model)
    inner = helper.make_node("LeakyRelu", ["a"], ["b"])
    inner.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    function = helper.make_function("local", "Leak", ["a"], ["b"], [inner], [helper.make_opsetid("", 17)], ["slope"])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Leak", ["h"], ["y"], domain="local", slope=0.3),
    ]
    inside = model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": np.ones((4, 3))}, functions=[function], domains={"local": 1})
    check(inside, {"x": np.random.default_rng(1).normal(size=(2, 4)).astype("f")})


def check(model, feeds):
    expected = run_onnxruntime(model, feeds)
    found = xbcompile.Session(xbcompile.compile(model, "ideal")).run(feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("operator", "opset"), [("SimplifiedLayerNormalization", 14), ("LayerNormalization", 12)])
def test_operators_that_onnxruntime_adds_to_the_domain_of_onnx(operator, opset):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(operator, ["h", "s"], ["y"], axis=-1, epsilon=1e-5),
    ]
    rng = np.random.default_rng(2)
    constants = {"w": rng.normal(size=(4, 6)), "s": rng.normal(size=6)}
    check(model_of(nodes, {"x": ["n", 4]}, ["y"], constants, opset=opset), {"x": rng.normal(size=(3, 4)).astype("f")})


def test_the_other_name_of_the_domain_of_onnx():
    model = dense()
    model.graph.node[0].domain = "ai.onnx"
    check(model, {"x": np.ones((2, 4), np.float32)})


def test_unknown_operators_stay_refused():
    with pytest.raises(ModelError, match="No Op registered for Nonsense"):
        load_model(model_of([helper.make_node("Nonsense", ["x"], ["y"])], {"x": ["n", 4]}, ["y"]))


def test_functions_of_one_domain_in_two_versions():
    """onnxruntime runs them: the number says nothing of what the model itself defines."""
    opset = [helper.make_opsetid("", 17)]
    inner = helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset)
    call = helper.make_node("F", ["a"], ["b"], domain="local")
    outer = helper.make_function("local", "G", ["a"], ["b"], [call], [*opset, helper.make_opsetid("local", 1)])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("G", ["h"], ["y"], domain="local")]
    rng = np.random.default_rng(3)
    constants = {"w": rng.normal(size=(4, 3))}
    model = model_of(nodes, {"x": ["n", 4]}, ["y"], constants, functions=[inner, outer], domains={"local": 9})
    check(model, {"x": rng.normal(size=(2, 4)).astype("f")})


BAD_CONVOLUTIONS = [
    {"group": 0},
    {"strides": [0, 1]},
    {"strides": [1]},
    {"dilations": [-1, 1]},
    {"pads": [-1, 0, 0, 0]},
    {"pads": [1, 1]},
    {"kernel_shape": [2, 2]},
    {"auto_pad": "SIDEWAYS"},
]


@pytest.mark.parametrize("attributes", BAD_CONVOLUTIONS)
def test_attributes_that_no_convolution_has(attributes):
    """onnxruntime refuses the model when it is loaded or when it runs; no matrix is made of it."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    model = model_of([node], {"x": ["n", 2, 5, 5]}, ["y"], {"w": np.ones((3, 2, 3, 3))})
    try:
        program = xbcompile.compile(model, "ideal")
    except xbcompile.XbcompileError:
        return
    assert not program.network.layers
    with pytest.raises(RAW_ERRORS):
        run_onnxruntime(model, {"x": np.ones((1, 2, 5, 5), np.float32)})


@pytest.mark.parametrize("attributes", [{"alpha": float("nan")}, {"alpha": 1e39}, {"beta": float("inf")}])
def test_factors_that_are_not_finite_stay_digital(attributes):
    model = dense()
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    (record,) = xbcompile.compile(model, "ideal").network.records
    assert not record.lowered
    assert "not finite" in record.reason


def test_weights_that_overflow_are_no_finding():
    """Their sums are infinite in float32, in the host graph and in onnxruntime."""
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, ["y"], {"w": np.full((8, 3), 3e38)}
    )
    program = xbcompile.compile(model, "ideal")
    x = np.ones((2, 8), np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            xbcompile.Session(program).run({"x": x})["y"], run_onnxruntime(model, {"x": x})["y"]
        )


WRONG_INPUTS = {
    "features": (
        helper.make_node("MatMul", ["x", "w"], ["y"], "fc"),
        (4, 3),
        (2, 5),
        "layer 'fc' wants 4 values along axis -1",
    ),
    "rank": (helper.make_node("MatMul", ["x", "w"], ["y"], "fc"), (4, 3), (), "its input has shape scalar"),
    "channels": (
        helper.make_node("Conv", ["x", "w"], ["y"], "c"),
        (3, 2, 3),
        (1, 4, 9),
        "layer 'c' wants 2 channels on axis 1 of 3",
    ),
    "window": (helper.make_node("Conv", ["x", "w"], ["y"], "c"), (3, 2, 3), (1, 2, 2), "room for a 3 kernel"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_inputs_of_another_size_than_an_undeclared_one(case):
    node, weights, shape, text = WRONG_INPUTS[case]
    model = model_of([node], {"x": None}, ["y"], {"w": np.ones(weights)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    program = xbcompile.compile(model, "ideal")
    with pytest.raises(DataError) as error:
        xbcompile.Session(program).run({"x": np.ones(shape, np.float32)})
    assert text in str(error.value)


def test_endless_loops_do_not_hold_up_the_compiler(monkeypatch):
    """A loop of 2**60 rounds: the layers are checked one by one instead."""
    from onnx import numpy_helper

    from tests.fuzz.mutated_models import control_flow
    from xbcompile.onnx_graph import engine

    model = control_flow()
    count = next(tensor for tensor in model.graph.initializer if tensor.name == "count")
    count.CopyFrom(numpy_helper.from_array(np.array(2**60), "count"))
    monkeypatch.setattr(engine, "PROBE_SECONDS", 0.2)
    assert len(xbcompile.compile(model, "ideal").network.layers) == 2


def test_recurrences_of_more_steps_than_a_schedule_lists():
    from tests.fuzz.mutated_models import recurrent

    with pytest.raises(xbcompile.XbcompileError, match="has 1,000,000 steps, and a schedule lists at most"):
        xbcompile.compile(recurrent(), "ideal", dims={"t": 1_000_000})


def control_flow(kind, inputs, outputs, body_inputs, body_outputs, **attributes):
    """A node of so many inputs and outputs, with a body of so many."""
    value = [
        helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, [1]) for i in range(max(body_inputs, body_outputs))
    ]
    body = helper.make_graph([], "body", value[:body_inputs], value[:body_outputs])
    names = ["then_branch", "else_branch"] if kind == "If" else ["body"]
    attributes |= dict.fromkeys(names, body)
    return helper.make_node(
        kind, [f"i{i}" for i in range(inputs)], [f"o{i}" for i in range(outputs)], name="flow", **attributes
    )


@pytest.mark.parametrize(
    ("node", "fits"),
    [
        (control_flow("If", 1, 2, 0, 2), True),
        (control_flow("If", 1, 2, 0, 1), False),
        (control_flow("If", 1, 1, 1, 1), False),
        (control_flow("Loop", 4, 3, 4, 4), True),  # two states, one stacked output
        (control_flow("Loop", 0, 1, 2, 2), True),  # nothing but a stacked output
        (control_flow("Loop", 4, 1, 4, 3), True),  # outputs may be left out
        (control_flow("Loop", 3, 1, 4, 4), False),
        (control_flow("Loop", 4, 3, 4, 3), False),
        (control_flow("Loop", 4, 2, 4, 2), False),
        (control_flow("Scan", 2, 2, 2, 2, num_scan_inputs=1), True),
        (control_flow("Scan", 3, 2, 2, 2, num_scan_inputs=1), True),  # of opset 8, with lengths
        (control_flow("Scan", 1, 2, 2, 2, num_scan_inputs=1), False),
        (control_flow("Scan", 2, 3, 2, 2, num_scan_inputs=1), False),
        (control_flow("Scan", 2, 2, 2, 2, num_scan_inputs=3), False),
        (control_flow("Scan", 2, 2, 2, 2, num_scan_inputs=0), False),
        (control_flow("Scan", 3, 1, 3, 1, num_scan_inputs=1), False),  # fewer outputs than states
        (control_flow("Scan", 2, 2, 2, 2, num_scan_inputs=1, scan_input_axes=[0, 1]), False),
        (control_flow("Scan", 2, 2, 2, 2, num_scan_inputs=1, scan_output_directions=[0, 1]), False),
    ],
)
def test_bodies_take_and_give_what_their_nodes_do(node, fits):
    """The signatures of If, Loop (opset 11) and Scan (opsets 8 and 9) in onnx's operators."""
    outer = helper.make_graph([node], "g", [], [])
    for nodes in (
        [node],
        [helper.make_node("If", ["c"], [], then_branch=outer, else_branch=helper.make_graph([], "g", [], []))],
    ):
        if fits:
            check_bodies(nodes, "m.onnx")
            continue
        with pytest.raises(ModelError, match=r"m.onnx: not a valid ONNX model: node 'flow' .*body 'body' .*do not fit"):
            check_bodies(nodes, "m.onnx")


def test_models_whose_loop_lacks_a_state_are_refused_when_loaded():
    node = control_flow("Loop", 3, 1, 4, 4)
    model = model_of([node], {"i0": [1], "i1": [1], "i2": [1]}, ["o0"], {})
    with pytest.raises(ModelError, match="do not fit"):
        load_model(model)
