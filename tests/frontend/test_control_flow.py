"""Control flow that constants decide, against onnxruntime on the model as it was given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.api import compile as compile_model
from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.dims import fix_dimensions
from xbcompile.frontend.inputs import ModelInputs
from xbcompile.runtime import Session

RNG = np.random.default_rng(3)
X = {"x": RNG.normal(size=(2, 3)).astype(np.float32)}
W = {name: RNG.uniform(-1, 1, (3, 3)) for name in "vw"}
node = helper.make_node


def untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


def body(nodes, outputs, inputs=(), constants=None) -> onnx.GraphProto:
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    return helper.make_graph(nodes, "body", inputs, [untyped(name) for name in outputs], held)


def choice(condition: str = "c", then=None, other=None, output: str = "y") -> onnx.NodeProto:
    """x times w where the condition holds, else x times v."""
    then = then or body([node("MatMul", ["x", "w"], ["t"], "then_fc")], ["t"])
    other = other or body([node("MatMul", ["x", "v"], ["e"], "else_fc")], ["e"])
    return node("If", [condition], [output], "choice", then_branch=then, else_branch=other)


def lowered(network) -> list[str]:
    return [record.node for record in network.records if record.lowered]


def operators(network) -> set[str]:
    return {each.op_type for segment in network.segments for each in segment.model.graph.node}


# Conditions that hold, or do not, whatever x is; x has 2 rows and 3 columns, the number of rows is open.
NUMBERS = {name: np.array(value) for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3}.items()}
CONDITIONS = {
    "initializer": [node("Identity", ["no"], ["c"])],
    "constant_node": [node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([False])))],
    "folded": [node("Greater", ["one", "two"], ["g"]), node("Not", ["g"], ["n"]), node("Xor", ["n", "yes"], ["c"])],
    "size_of_an_axis": [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["columns"]),
        node("Equal", ["columns", "one"], ["c"]),
    ],
    "sliced_sizes": [
        node("Shape", ["x"], ["s"], start=1),
        node("Squeeze", ["s"], ["columns"]),
        node("Less", ["columns", "two"], ["c"]),
    ],
    "joined_sizes": [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "last", "end"], ["columns"]),
        node("Concat", ["columns", "last"], ["both"], axis=0),
        node("ReduceMin", ["both"], ["least"], keepdims=0),
        node("Greater", ["least", "zero"], ["c"]),
    ],
    "rank": [node("Shape", ["x"], ["s"]), node("Size", ["s"], ["r"]), node("Equal", ["r", "three"], ["c"])],
    "size_behind_a_layer": [
        node("MatMul", ["x", "w"], ["h"], "first"),
        node("Shape", ["h"], ["s"]),
        node("Gather", ["s", "one"], ["columns"]),
        node("Equal", ["columns", "two"], ["c"]),
    ],
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_constant_condition_leaves_its_branch(check, condition):
    """All of these are false: the matrix of the else branch is on arrays, and nothing is left of the other one."""
    constants = (
        W | NUMBERS | {"no": np.array(False), "yes": np.array(True), "last": np.array([-1]), "end": np.array([9])}
    )
    nodes = [*CONDITIONS[condition], choice()]
    network = check(model_of(nodes, {"x": ["n", 3]}, ["y"], constants), X)
    assert lowered(network) == ["else_fc"]
    assert not operators(network)


def test_a_condition_that_a_given_size_decides(check):
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["rows"]),
        node("Equal", ["rows", "two"], ["c"]),
    ]
    model = model_of([*nodes, choice()], {"x": ["n", 3]}, ["y"], W | NUMBERS)
    assert lowered(check(model, X)) == []
    for rows, chosen in ((2, "then_fc"), (3, "else_fc")):
        network = import_network(fix_dimensions(load_model(model), {"n": rows}))
        assert lowered(network) == [chosen]


def test_what_a_branch_holds(check):
    """Its own constants, one of them an output, an If in it that falls as well, captured values, ranks that differ, and tensors
    of the same name in both branches."""
    deeper = node(
        "If",
        ["c"],
        ["d"],
        "deeper",
        then_branch=body(
            [node("MatMul", ["h", "own"], ["t"], "deep_fc")], ["t"], constants={"own": np.eye(3, dtype="f") * 2}
        ),
        else_branch=body([node("Neg", ["h"], ["t"])], ["t"]),
    )
    then = body(
        [
            node("MatMul", ["x", "w"], ["h"], "then_fc"),
            deeper,
            node("Add", ["d", "bias"], ["s"]),
            node("Identity", ["x"], ["k"]),
        ],
        ["s", "h", "k", "bias"],
        constants={"bias": np.arange(3, dtype=np.float32)},
    )
    other = body([node("ReduceSum", ["x"], [name], keepdims=0) for name in "hijk"], [*"hijk"])
    flow = node("If", ["c"], ["p", "q", "r", "b"], "choice", then_branch=then, else_branch=other)
    nodes = [flow, node("MatMul", ["p", "v"], ["y"], "behind")]
    model = model_of(nodes, {"x": ["n", 3]}, ["y", "q", "r", "b"], W | {"c": np.array(True)})
    assert lowered(check(model, X)) == ["then_fc", "deep_fc", "behind"]


def test_branches_of_functions_and_conditions_in_them(check):
    function = helper.make_function("own", "Choose", ["x"], ["y"], [choice()], [helper.make_opsetid("", 17)])
    function.node[0].attribute[0].g.node[0].input[1] = function.node[0].attribute[1].g.node[0].input[1] = "m"
    function.node.insert(0, node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))))
    function.node.insert(1, node("Constant", [], ["m"], value=numpy_helper.from_array(np.eye(3, dtype=np.float32) * 3)))
    nodes = [node("Choose", ["x"], ["h"], "a", domain="own"), node("Choose", ["h"], ["y"], "b", domain="own")]
    network = check(model_of(nodes, {"x": ["n", 3]}, ["y"], domains={"own": 1}, functions=[function]), X)
    assert len(network.layers) == 2
    assert not network.segments


@pytest.mark.parametrize("given", ["input", "random"])
def test_conditions_that_are_not_constant(check, given):
    random = [node("RandomUniform", [], ["u"], shape=[1]), node("Less", ["u", "above"], ["c"])]
    model = model_of(
        [*(random if given == "random" else []), choice()], {"x": ["n", 3]}, ["y"], W | {"above": np.float32(2)}
    )
    if given == "input":
        model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    feeds = X | ({"c": np.array(False)} if given == "input" else {})
    assert lowered(check(model, feeds)) == []


@pytest.mark.parametrize("kept", [(), ("c",)])
def test_a_condition_with_a_value_of_its_own_is_constant_unless_it_is_kept_open(kept):
    model = model_of([choice()], {"x": ["n", 3]}, ["y"], W | {"c": np.array(False)})
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    network = import_network(load_model(model, ModelInputs(keep=kept)))
    assert lowered(network) == ([] if kept else ["else_fc"])
    assert [value.name for value in network.inputs] == ["x", *kept]


def test_a_condition_on_a_fixed_input_is_constant():
    model = model_of([choice()], {"x": ["n", 3]}, ["y"], W)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    assert lowered(import_network(load_model(model, ModelInputs(fixed={"c": True})))) == ["then_fc"]


def test_bounds_that_a_branch_gives_to_a_range(check):
    """One element is no scalar: onnxruntime takes it as a bound where it is computed, not where it is constant."""
    then, other = body([node("Neg", ["bound"], ["t"])], ["t"]), body([node("Abs", ["bound"], ["e"])], ["e"])
    flow = node("If", ["c"], ["b"], "choice", then_branch=then, else_branch=other)
    nodes = [*CONDITIONS["rank"], flow, node("Range", ["zero", "b", "one"], ["steps"])]
    nodes += [node("Cast", ["steps"], ["f"], to=TensorProto.FLOAT)]
    nodes += [node("MatMul", ["x", "w"], ["h"], "fc"), node("Add", ["h", "f"], ["y"])]
    model = model_of(nodes, {"x": ["n", 3]}, ["y"], W | NUMBERS | {"bound": np.array([3])})
    assert lowered(check(model, X)) == ["fc"]


# --- loops


def loop(trips, go="", ends=("p", "p2"), goes_on="on", initial=("x",)) -> onnx.NodeProto:
    """A state is multiplied by w in each iteration, and the number of the iteration is added."""
    nodes = [
        node("Identity", ["going"], ["on"]),
        node("MatMul", ["state", "w"], ["product"], "loop_fc"),
        node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
        node("Add", ["product", "number"], ["p"]),
        node("Identity", ["p"], ["p2"]),
    ]
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
    ]
    graph = body(nodes, [goes_on, *ends], inputs, {"never": np.array(False)})
    return node("Loop", [trips, go, *initial], ["last", "all"][: len(ends)], "loop", body=graph)


@pytest.mark.parametrize(
    ("trips", "go", "goes_on", "copies"),
    [
        ("one", "", "on", 1),
        ("three", "", "on", 3),
        ("three", "yes", "on", 3),
        ("one", "yes", "never", 1),
        ("zero", "yes", "on", 0),
        ("three", "no", "on", 0),
        ("", "no", "on", 0),
    ],
)
def test_loops_of_a_few_iterations(check, trips, go, goes_on, copies):
    constants = W | NUMBERS | {"yes": np.array(True), "no": np.array(False)}
    ends = ("p", "p2") if copies else ("p",)
    nodes = [loop(trips, go, ends, goes_on), node("MatMul", ["last", "v"], ["y"], "behind")]
    network = check(model_of(nodes, {"x": ["n", 3]}, ["y", "last", "all"][: 1 + len(ends)], constants), X)
    assert "Loop" not in operators(network)
    assert len(network.layers) == copies + 1
    assert len(set(network.matrices)) == min(copies, 1) + 1  # the copies share one matrix
    assert lowered(network) == [*["loop_fc"] * bool(copies), "behind"]


@pytest.mark.parametrize(
    ("trips", "ends", "goes_on"),
    [("many", ("p",), "on"), ("three", ("p",), "never"), ("zero", ("p", "p2"), "on")],
)
def test_loops_that_stay(check, trips, ends, goes_on):
    """Too many iterations, iterations that the body ends, and a stacked output of no entry."""
    nodes = [node("MatMul", ["x", "v"], ["h"], "before"), loop(trips, "yes", ends, goes_on)]
    constants = W | NUMBERS | {"many": np.array(100), "yes": np.array(True)}
    constants["w"] = constants["w"] / 4
    network = check(model_of(nodes, {"x": ["n", 3]}, ["h", "last"], constants), X)
    assert "Loop" in operators(network)
    assert lowered(network) == ["before"]


@pytest.mark.parametrize("pattern", ["loop_fc", "loop", "choice", "then_fc"])
def test_what_the_user_keeps_digital(check, pattern):
    constants = W | NUMBERS | {"c": np.array(True)}
    nodes = [choice(output="z"), loop("three", initial=("z",), ends=("p",))]
    network = check(model_of(nodes, {"x": ["n", 3]}, ["last"], constants), X, digital=[pattern])
    assert lowered(network) == ["loop_fc" if pattern in ("choice", "then_fc") else "then_fc"]
    with pytest.raises(ModelError, match='digital "nothing" matches no node with a matrix'):
        import_network(load_model(model_of(nodes, {"x": ["n", 3]}, ["last"], constants)), ["nothing"])


def test_a_program_of_decided_control_flow():
    constants = W | NUMBERS | {"c": np.array(True)}
    model = model_of([choice(output="z"), loop("three", initial=("z",))], {"x": ["n", 3]}, ["last", "all"], constants)
    found = Session(compile_model(model, "ideal")).run(X)
    for name, value in run_onnxruntime(model, X).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
