from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.lower import nothing_lowered, one_per_node
from xbcompile.ir import LoweringRecord, MatrixLayer

node = helper.make_node


def feeds(rng, *shape):
    return {"x": rng.uniform(-1, 1, shape).astype("f")}


def kinds(network):
    return ["layer" if isinstance(n, MatrixLayer) else "segment" for n in network.nodes]


def operators(network):
    return [n.op_type for segment in network.segments for n in segment.model.graph.node]


def untyped(name):
    return onnx.ValueInfoProto(name=name)


@pytest.fixture
def square(rng):
    return {name: rng.uniform(-1, 1, (3, 3)) for name in ("w", "v", "u")}


# --- partition


def test_two_branches_share_their_segments(build, check, rng, square):
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Neg", ["x"], ["b"]),
        node("MatMul", ["a", "w"], ["c"], "first"),
        node("MatMul", ["b", "v"], ["d"], "second"),
        node("Relu", ["c"], ["e"]),
        node("Neg", ["d"], ["f"]),
        node("MatMul", ["e", "u"], ["g"], "third"),
        node("Add", ["g", "f"], ["h"]),
        node("Add", ["h", "b"], ["y"]),
    ]
    network = check(build(nodes, {"x": ["n", 3]}, ["y"], square), feeds(rng, 2, 3))
    assert kinds(network) == ["segment", "layer", "layer", "segment", "layer", "segment"]
    assert network.layer_dependencies() == [[], [], [0, 1]]
    assert [n.name for n in network.nodes] == ["digital0", "first", "second", "digital1", "third", "digital2"]
    assert set(network.segments[0].output_names) == {"a", "b"}


def test_segments_are_complete_models(build, check, rng, square):
    nodes = [node("Add", ["x", "k"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("Mul", ["b", "k"], ["y"])]
    network = check(build(nodes, {"x": ["n", 3]}, ["y"], square | {"k": rng.uniform(-1, 1, 3)}), feeds(rng, 2, 3))
    for segment in network.segments:
        onnx.checker.check_model(segment.model, full_check=True)
        assert [tensor.name for tensor in segment.model.graph.initializer] == ["k"]
        shape = segment.model.graph.input[0].type.tensor_type.shape
        assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["n", 3]


def test_dead_nodes_are_dropped(build, check, rng, square):
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("MatMul", ["x", "v"], ["z"], "dead"), node("Relu", ["z"], ["r"])]
    network = check(build(nodes, {"x": [2, 3]}, ["y"], square), feeds(rng, 2, 3))
    assert [record.node for record in network.records] == ["MatMul_y"]
    assert kinds(network) == ["layer"]


def test_outputs_that_pass_through(build, check, rng, square):
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Add", ["y", "v"], ["z"]), node("Neg", ["u"], ["folded"])]
    outputs = ["z", "x", "v", "folded"]
    network = check(build(nodes, {"x": [3, 3]}, outputs, square), feeds(rng, 3, 3))
    assert [value.name for value in network.outputs] == outputs
    assert operators(network) == ["Identity", "Identity", "Add"]


def test_names_clash_with_nothing(build, check, rng, square):
    nodes = [
        node("Gemm", ["x", "w", "c"], ["y"], "digital0"),
        node("Relu", ["y"], ["y_product"], "digital1"),
        node("MatMul", ["y_product", "v"], ["z"], "MatMul_q"),
        node("MatMul", ["z", "v"], ["q"]),
        node("Neg", ["q"], ["n"]),
    ]
    model = build(nodes, {"x": [3, 3], "c": [3]}, ["n", "w"], square)
    network = check(model, feeds(rng, 3, 3) | {"c": rng.uniform(-1, 1, 3).astype("f")})
    assert [layer.name for layer in network.layers] == ["digital0", "MatMul_q", "MatMul_q_2"]
    assert [segment.name for segment in network.segments] == ["digital0_2", "digital1_2", "digital3"]
    assert network.layers[0].output == "y_product_2"


def test_repeated_node_names(build, square):
    """onnx allows them, newer versions of onnxruntime do not."""
    nodes = [node("MatMul", ["x", "w"], ["y"], "m"), node("MatMul", ["y", "v"], ["z"], "m")]
    network = import_network(load_model(build([*nodes, node("Relu", ["z"], ["r"], "m")], {"x": [2, 3]}, ["r"], square)))
    assert [layer.name for layer in network.layers] == ["m", "m_2"]


def test_unnamed_nodes(build, check, rng, square):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Gemm", ["h", "v"], ["y"])]
    network = check(build(nodes, {"x": [2, 3]}, ["y"], square), feeds(rng, 2, 3))
    assert [layer.name for layer in network.layers] == ["MatMul_h", "Gemm_y"]


def test_importing_is_deterministic(build, square):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("Gemm", ["r", "v"], ["y"])]
    model = load_model(build(nodes, {"x": [2, 3]}, ["y"], square))
    assert import_network(model) == import_network(model)


def test_network_description(build, check, rng, square):
    model = build([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 3], "spare": [7]}, ["y"], square)
    network = check(model, feeds(rng, 2, 3) | {"spare": np.zeros(7, "f")})
    assert network.name == "test"
    assert [value.name for value in network.inputs] == ["x", "spare"]
    assert network.outputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert network.opset_imports == (("", 17),)
    assert network.ir_version == 9


def test_wrong_annotations_do_no_harm(build, check, rng, square):
    """onnxruntime only warns of a wrong value_info; a segment's input of that shape would be rejected."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    model = build(nodes, {"x": ["n", 3]}, ["y"], square)
    for name in "hr":
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]))
    check(model, feeds(rng, 5, 3))


# --- what stays digital


def test_marked_nodes(build, check, rng, square):
    nodes = [node("MatMul", ["x", "w"], ["h"], "a"), node("MatMul", ["h", "v"], ["y"], "b")]
    nodes[1].metadata_props.add(key="xbcompile", value="digital")
    network = check(build(nodes, {"x": [2, 3]}, ["y"], square), feeds(rng, 2, 3))
    assert network.records == (
        LoweringRecord("a", "MatMul", True, layers=("a",)),
        LoweringRecord("b", "MatMul", False, "marked digital in the model"),
    )


@pytest.mark.parametrize("digital", [["/b/[x]"], ["/b/*"], ["/*/m", "/b/?x?"]])
def test_named_nodes(build, check, rng, square, digital):
    nodes = [node("MatMul", ["x", "w"], ["h"], "a"), node("MatMul", ["h", "v"], ["y"], "/b/[x]")]
    if len(digital) == 2:
        nodes.insert(1, node("MatMul", ["x", "u"], ["z"], "/c/m"))
    outputs = ["y", "z"][: len(digital)]
    network = check(build(nodes, {"x": [2, 3]}, outputs, square), feeds(rng, 2, 3), digital=digital)
    assert [record.lowered for record in network.records] == [True] + [False] * len(digital)
    assert network.records[-1].reason == f'kept digital by "{digital[-1]}"'


def test_pattern_that_matches_nothing(build, square):
    model = load_model(
        build([node("MatMul", ["x", "w"], ["y"], "a"), node("Relu", ["y"], ["z"], "r")], {"x": [2, 3]}, ["z"], square)
    )
    for pattern in ("q*", "A", "r"):
        with pytest.raises(ModelError, match=r'digital "[qAr]\*?" matches no node with a matrix; such nodes are: a$'):
            import_network(model, [pattern])


def test_operators_that_become_several_nodes(build, check, rng):
    """Each is recorded once, as lowered, under the name that it has in the model."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "m"),
        node("Einsum", ["h", "w"], ["a"], "e", equation="ij,jk->ik"),
        node("DynamicQuantizeLinear", ["h"], ["q", "s", "z"], "d"),
        node("MatMulInteger", ["q", "wq", "z"], ["b"], "i"),
        node("QLinearMatMul", ["q", "one", "zero", "wq", "one", "zero", "one", "zero"], ["c"], "q"),
        node("Unsqueeze", ["h", "axes"], ["u"], "n"),
        node("ConvTranspose", ["u", "k"], ["t"], "t"),
        node("Unsqueeze", ["q", "axes"], ["v"], "o"),
        node("ConvInteger", ["v", "kq", "z"], ["ci"], "ci"),
        node("QLinearConv", ["v", "one", "zero", "kq", "one", "zero", "one", "zero"], ["qc"], "qc"),
        node("LSTM", ["u", "lw", "lr"], ["l"], "l", hidden_size=1),
        node("GRU", ["u", "gw", "gr"], ["g"], "g", hidden_size=1),
        node("RNN", ["u", "rw", "rr"], ["r"], "r", hidden_size=1),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "k": rng.uniform(-1, 1, (3, 2, 2)), "axes": np.array([0])}
    constants |= {"wq": rng.integers(0, 9, (3, 3), np.uint8), "kq": rng.integers(0, 9, (2, 3, 1), np.uint8)}
    constants |= {"one": np.float32(1), "zero": np.uint8(0)}
    for name, gates in (("l", 4), ("g", 3), ("r", 1)):
        constants |= {f"{name}w": rng.uniform(-1, 1, (1, gates, 3)), f"{name}r": rng.uniform(-1, 1, (1, gates, 1))}
    outputs = ["a", "b", "c", "t", "ci", "qc", "l", "g", "r"]
    network = check(build(nodes, {"x": [3, 3]}, outputs, constants), feeds(rng, 3, 3), 2e-3)
    products = [n for n in nodes if n.op_type not in ("DynamicQuantizeLinear", "Unsqueeze")]
    expected = {(n.name, n.op_type, True, "") for n in products}
    assert {(r.node, r.operator, r.lowered, r.reason) for r in network.records} == expected
    assert len(network.records) == len(products)
    assert sum(len(r.layers) for r in network.records) == len(network.layers) == 14  # GRU: three, LSTM and RNN: two


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, "float32"), (np.inf, "float32"), (-np.inf, "float16"), (1e300, "float64")]
)
def test_weights_that_are_not_finite(build, rng, value, dtype):
    weights = rng.uniform(-1, 1, (3, 3)).astype(dtype)
    weights[1, 2] = value
    model = build([node("MatMul", ["x", "w"], ["y"], "m")], {"x": [2, 3]}, ["y"], {"w": weights}, dtype=dtype)
    with pytest.raises(ModelError, match=r'node "m" \(MatMul\): initializer "w" holds NaN or infinite values'):
        import_network(load_model(model))


def test_model_without_any_matrix(build):
    model = load_model(build([node("Relu", ["x"], ["y"])], {"x": [2, 3]}, ["y"]))
    network = import_network(model)
    assert (network.layers, network.records) == ((), ())
    assert nothing_lowered(network.records) == "the model has no Conv, Gemm, MatMul or the like"


def test_model_whose_matrices_all_stay_digital(build, square):
    nodes = [node("MatMul", ["x", "x"], ["h"], "a"), node("MatMul", ["h", "w"], ["y"], "b")]
    model = load_model(build(nodes, {"x": [3, 3]}, ["y"], square))
    network = import_network(model, ["b"])
    assert network.layers == ()
    expected = (
        'MatMul a: both operands are activations: "x" is a graph input (and 1 more; xbcompile explain lists them)'
    )
    assert nothing_lowered(network.records) == expected


# --- control flow, sequences, other domains, functions


@pytest.mark.parametrize("flag", [True, False])
def test_if_with_captured_values(build, check, rng, square, flag):
    then = helper.make_graph([node("MatMul", ["h", "v"], ["t"], "inner")], "then", [], [untyped("t")])
    deeper = helper.make_graph([node("Add", ["r", "x"], ["d"])], "deeper", [], [untyped("d")])
    other = helper.make_graph(
        [node("If", ["c"], ["e"], then_branch=deeper, else_branch=deeper)], "else", [], [untyped("e")]
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["x"], ["r"]),
        node("If", ["c"], ["i"], "choice", then_branch=then, else_branch=other),
        node("MatMul", ["i", "u"], ["y"]),
    ]
    model = build(nodes, {"x": [3, 3]}, ["y"], square)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    network = check(model, feeds(rng, 3, 3) | {"c": np.array(flag)})
    assert network.records[1] == LoweringRecord("inner", "MatMul", False, 'inside the body of If "choice"')
    assert [record.lowered for record in network.records] == [True, False, True]


def test_loop_with_captured_values(build, check, rng, square):
    body = helper.make_graph(
        [
            node("MatMul", ["state", "v"], ["p"]),
            node("Add", ["p", "h"], ["next"]),
            node("Identity", ["go"], ["on"]),
            node("Identity", ["next"], ["scan"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [3, 3]),
        ],
        [untyped("on"), untyped("next"), untyped("scan")],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Loop", ["times", "", "h"], ["last", "all"], body=body),
        node("MatMul", ["all", "u"], ["y"]),
    ]
    model = build(nodes, {"x": [3, 3]}, ["last", "y"], square)
    model.graph.input.append(helper.make_tensor_value_info("times", TensorProto.INT64, []))
    network = check(model, feeds(rng, 3, 3) | {"times": np.array(3)})
    assert network.records[1].reason == 'inside the body of Loop "Loop_last"'
    assert network.records[1].node == "MatMul_p"


def test_weights_read_by_a_body_and_a_layer(build, check, rng, square):
    """The Add after the layer is not its only reader: a body captures the product."""
    branch = helper.make_graph([node("Add", ["h", "w"], ["t"])], "branch", [], [untyped("t")])
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    model = build(nodes, {"x": [3, 3]}, ["y"], square)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    check(model, feeds(rng, 3, 3) | {"c": np.array(True)})


def test_sequences_between_segments(build, check, rng, square):
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]),
        node("SequenceEmpty", [], ["none"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("SequenceInsert", ["s", "h"], ["t"]),
        node("SequenceInsert", ["none", "h"], ["z"]),
        node("ConcatFromSequence", ["t"], ["c"], axis=0),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    network = check(build(nodes, {"x": [3, 3]}, ["y", "z"], square), feeds(rng, 3, 3))
    assert "s" in network.segments[0].output_names
    assert network.segments[0].model.graph.output[0].type.HasField("sequence_type")


def test_optional_and_sequence_inputs(build, check, rng, square):
    nodes = [
        node("OptionalHasElement", ["o"], ["has"]),
        node("OptionalGetElement", ["o"], ["e"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("SequenceAt", ["e", "zero"], ["f"]),
        node("Add", ["f", "h"], ["y"]),
    ]
    model = build(nodes, {"x": [3, 3]}, ["y", "has"], square | {"zero": np.array(0)}, opset=18)
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [3, 3]))
    model.graph.input.append(helper.make_value_info("o", helper.make_optional_type_proto(sequence)))
    check(model, feeds(rng, 3, 3) | {"o": [np.ones((3, 3), "f")]})


def test_maps(build, check, rng, square):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("ZipMap", ["h"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[4, 5, 6]),
        node("MatMul", ["h", "v"], ["y"]),
    ]
    model = build(nodes, {"x": [2, 3]}, ["y", "m"], square, domains={"ai.onnx.ml": 3})
    network = import_network(load_model(model))
    (value,) = network.segments[0].model.graph.output
    assert value.type.sequence_type.elem_type.map_type.key_type == TensorProto.INT64


def test_contrib_operators(build, check, rng, square):
    """onnx cannot infer through them, and what follows crosses a border."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "v"], ["d"]),
        node("FusedMatMul", ["d", "u"], ["y"], "fused", domain="com.microsoft", alpha=0.5),
    ]
    model = build(nodes, {"x": ["n", 3]}, ["y"], square, domains={"com.microsoft": 1})
    network = check(model, feeds(rng, 2, 3))
    assert network.records[2] == LoweringRecord("fused", "FusedMatMul", True, "", ("fused",))
    assert network.layers[1].vectors_per_inference == 1
    assert all(value.type.tensor_type.elem_type for s in network.segments for value in s.model.graph.input)


def test_unknown_operator(build, square):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Magic", ["h"], ["y"], domain="elsewhere")]
    model = load_model(build(nodes, {"x": [2, 3]}, ["y"], square, domains={"elsewhere": 1}))
    with pytest.raises(ModelError, match=r"^onnxruntime cannot load the model: .*elsewhere"):
        import_network(model)


def test_functions_are_inlined(build, check, rng, square):
    dense = helper.make_function(
        "mine", "Dense", ["i", "k"], ["o"],
        [
            node("Constant", [], ["two"], value_float=2.0),
            node("Mul", ["k", "two"], ["l"]),
            node("MatMul", ["i", "l"], ["m"]),
            node("Relu", ["m"], ["o"]),
        ],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    nodes = [node("Dense", ["x", "w"], ["h"], domain="mine"), node("Dense", ["h", "v"], ["y"], domain="mine")]
    model = build(nodes, {"x": ["n", 3]}, ["y"], square, domains={"mine": 1}, functions=[dense])
    network = check(model, feeds(rng, 2, 3))
    assert [record.lowered for record in network.records] == [True, True]


def test_large_constants_that_an_operator_demands(build, check, rng):
    """A digital operator's large constant reaches its segment whole."""
    nodes = [
        node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        node("Gather", ["table", "index"], ["t"]),
        node("MatMul", ["g", "w"], ["h"]),
        node("Add", ["h", "t"], ["y"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 40)), "table": rng.uniform(-1, 1, (500, 40))}
    model = build(nodes, {"x": [2, 3]}, ["y"], constants, domains={"com.microsoft": 1})
    model.graph.input.append(helper.make_tensor_value_info("index", TensorProto.INT64, [2]))
    check(model, feeds(rng, 2, 3) | {"index": np.array([3, 400])})


@pytest.mark.parametrize("opset", [17, 18])
def test_function_of_another_opset_stays(build, check, rng, square, opset):
    """The function brings an operator domain that the model itself does not import."""
    body = [node("MatMul", ["i", "k"], ["m"], "inner"), node("Gelu", ["m"], ["o"], domain="com.microsoft")]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    dense = helper.make_function("mine", "Dense", ["i", "k"], ["o"], body, opsets)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Dense", ["h", "v"], ["y"], "call", domain="mine")]
    model = build(nodes, {"x": ["n", 3]}, ["y"], square, domains={"mine": 1}, functions=[dense])
    network = check(model, feeds(rng, 2, 3))
    reason = "" if opset == 17 else 'inside the function of another opset called by Dense "call"'
    assert network.records[1].reason == reason
    assert network.records[1].lowered is (opset == 17)


def test_product_of_constants_too_large_to_fold(build, square):
    nodes = [
        node("MatMul", ["a", "b"], ["c"], "outer"),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "c"], ["y"]),
    ]
    constants = square | {"a": np.ones((5000, 1)), "b": np.ones((1, 5000)), "w": np.ones((3, 1))}
    network = import_network(load_model(build(nodes, {"x": [1, 3]}, ["y"], constants)))
    assert network.records[0] == LoweringRecord("outer", "MatMul", False, "both operands are constant")


@pytest.mark.parametrize("lowered", [[True, False], [False, True]])
def test_a_node_of_which_a_part_stays_digital_counts_as_lowered(lowered):
    """Its record names the layers that it became and why the rest did not, whichever part comes first."""
    parts = [
        LoweringRecord("n", "LSTM", yes, "" if yes else "too small", ("n/input",) if yes else ()) for yes in lowered
    ]
    assert one_per_node(parts) == (LoweringRecord("n", "LSTM", True, "too small", ("n/input",)),)
