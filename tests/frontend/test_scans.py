"""Scans of the model that become recurrences, against onnxruntime on the model as it was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.recurrence_kit import weights
from xbcompile.api import compile as compile_model
from xbcompile.frontend import import_network, load_model
from xbcompile.reference.host_graph import to_onnx
from xbcompile.runtime import Session

RNG = np.random.default_rng(11)
SIZE = 3
node = helper.make_node


def info(name: str, shape=None, element_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def matrix() -> np.ndarray:
    return (RNG.normal(size=(SIZE, SIZE)) / SIZE).astype(np.float32)


def lowered(network) -> dict[str, bool]:
    return {record.node: record.lowered for record in network.records}


@dataclass
class Case:
    """A model of a Scan "scan" over sequences and states that are inputs."""

    model: onnx.ModelProto
    feeds: dict[str, Any]


def cell(states: int, sequences: int, captures: bool, held: str, opset: int) -> onnx.GraphProto:
    """state' = tanh(state w + entries u + captured), shown twice: as it is, and a further product of it.

    `held`: where u is: in the body as an initializer or a Constant, or outside, to be transposed inside.
    """
    u, constants = matrix(), []
    nodes: list[onnx.NodeProto] = []
    if held == "initializer":
        constants.append(numpy_helper.from_array(u, "u"))
    elif held == "node":
        nodes.append(node("Constant", [], ["u"], value=numpy_helper.from_array(u)))
    else:
        nodes.append(node("Transpose", ["outside"], ["u"]))
    nodes.append(node("Sum", [f"entry{i}" for i in range(sequences)], ["entries"]))
    nodes.append(node("MatMul", ["entries", "u"], ["sum0"], "input_fc"))
    for i in range(states):
        nodes.append(node("MatMul", [f"start{i}", "w"], [f"product{i}"], f"state_fc{i}"))
        nodes.append(node("Add", [f"product{i}", f"sum{i}"], [f"sum{i + 1}"]))
        nodes.append(node("Tanh", [f"sum{i + 1}"], [f"end{i}"]))
    nodes.append(node("Add", [f"sum{states}", "captured"] if captures else [f"sum{states}", "w"], ["shown0"]))
    nodes.append(node("Identity", ["entries"], ["shown1"]))
    starts = [info(f"start{i}") for i in range(states)] + [info(f"entry{i}") for i in range(sequences)]
    ends = [info(f"end{i}") for i in range(states)] + [info("shown0"), info("shown1")]
    return helper.make_graph(nodes, "body", starts, ends, constants)


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    """Any number of sequences and states, axes, directions; sizes open or known; two Scans with the same names inside."""
    states, sequences, steps = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    opset = draw(st.sampled_from([9, 11, 13, 17, 21]))
    bits = st.integers(0, 1)
    one_way = opset < 10  # nothing before turns a sequence round
    first = draw(bits)
    attributes: dict[str, Any] = {
        "scan_input_axes": draw(st.lists(st.sampled_from([0, 1, 2, -1]), min_size=sequences, max_size=sequences)),
        "scan_output_axes": draw(st.lists(st.sampled_from([0, 1, 2, -3]), min_size=2, max_size=2)),
        "scan_input_directions": [first if one_way else draw(bits) for _ in range(sequences)],
        "scan_output_directions": [first if one_way else draw(bits) for _ in range(2)],
    }
    attributes = {name: value for name, value in attributes.items() if draw(st.booleans()) or one_way}
    if opset < 11:
        attributes = {name: [abs(each) % 3 for each in value] for name, value in attributes.items()}
    captures, again = draw(st.booleans()), draw(st.booleans())
    body = cell(states, sequences, captures, draw(st.sampled_from(["initializer", "node", "outside"])), opset)
    feeds = {f"s{i}": normal(SIZE, SIZE) for i in range(states)}
    axes = attributes.get("scan_input_axes", [0] * sequences)
    for i, axis in enumerate(axes):
        feeds[f"x{i}"] = np.stack([normal(SIZE, SIZE) for _ in range(steps)], axis)
    finals, shown = [f"final{i}" for i in range(states)], ["y0", "y1"]
    nodes = [node("Scan", [*feeds], [*finals, *shown], "scan", body=body, num_scan_inputs=sequences, **attributes)]
    if again:
        names = [*feeds][states:]
        second = node("Scan", [*finals, *names], [*(f"{n}_2" for n in finals), "z0", "z1"], "scan2")
        second.attribute.extend(nodes[0].attribute)
        nodes.append(second)
        finals, shown = [f"{name}_2" for name in finals], [*shown, "z0", "z1"]
    constants = {"w": matrix(), "outside": matrix()}
    if captures:
        feeds["captured"] = normal(SIZE, SIZE)
    is_open = draw(st.booleans())
    shapes = {
        name: ["t", *value.shape[1:]] if is_open and value.ndim == 3 else value.shape for name, value in feeds.items()
    }
    for name, axis in zip([*feeds][states:], axes, strict=False):
        if is_open:
            shapes[name] = [("t" if i == axis % 3 else SIZE) for i in range(3)]
    return Case(model_of(nodes, shapes, [*finals, *shown], constants, opset=opset), feeds)


@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_every_attribute(check, case: Case):
    network = check(case.model, case.feeds)
    assert all(record.lowered for record in network.records), network.records
    scans = [each for each in case.model.graph.node if each.op_type == "Scan"]
    assert [each.name for each in network.recurrences] == [each.name for each in scans]
    host = run_onnxruntime(to_onnx(network), case.feeds)
    for name, value in run_onnxruntime(case.model, case.feeds).items():
        np.testing.assert_allclose(host[name], value, rtol=1e-5, atol=1e-5)


def recurrent_in_scan(operator: str, inner: int | str, count: int = 1) -> Case:
    """A Scan whose body runs LSTM, GRU or RNN over `inner` steps, from the states that it carries."""
    states = ["h", "c"][: 1 + (operator == "LSTM")]
    nodes = [node("Unsqueeze", [name, "axis"], [f"{name}1"]) for name in states]
    inputs = ["entry", "w", "r", "b", "", *(f"{name}1" for name in states)]
    nodes.append(node(operator, inputs, ["all", *(f"{name}2" for name in states)], "cell", hidden_size=SIZE))
    nodes += [node("Squeeze", [f"{name}2", "axis"], [f"{name}3"]) for name in states]
    body = helper.make_graph(
        nodes,
        "body",
        [*(info(name, ["n", SIZE]) for name in states), info("entry", [inner, "n", 2])],
        [*(info(f"{name}3", ["n", SIZE]) for name in states), info("all")],
    )
    scan = node(
        "Scan", [*states, "x"], [*(f"{name}_end" for name in states), "y"], "scan", body=body, num_scan_inputs=1
    )
    feeds = {name: normal(2, SIZE) for name in states} | {"x": normal(3, count, 2, 2)}
    shapes = {name: ["n", SIZE] for name in states} | {"x": ["t", inner, "n", 2]}
    outputs = [f"{name}_end" for name in states]
    return Case(model_of([scan], shapes, [*outputs, "y"], weights(operator, 2, SIZE) | {"axis": np.array([0])}), feeds)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_recurrent_operators_in_a_scan(check, operator, count):
    """Steps inside of a step are unrolled; their copies share the recurrent matrices."""
    case = recurrent_in_scan(operator, count, count)
    network = check(case.model, case.feeds)
    assert lowered(network) == {"cell": True}
    assert len(network.recurrences) == 1
    recurrent = 2 if operator == "GRU" else 1
    assert (len(network.layers), len(set(network.matrices))) == (1 + recurrent * count, 1 + recurrent)


@pytest.mark.parametrize(("inner", "count", "said"), [("k", 2, "an open number of"), (17, 17, "17")])
def test_long_recurrences_in_a_scan_stay(check, inner, count, said):
    case = recurrent_in_scan("LSTM", inner, count)
    network = check(case.model, case.feeds)
    (record,) = network.records
    assert not network.recurrences
    reason = f'it makes {said} steps in each step of Scan "scan"; up to 16 are taken apart there'
    assert record.reason == f'inside the body of Scan "scan", which stays digital: cell (LSTM): {reason}'


def test_a_program_of_a_scan():
    case = recurrent_in_scan("LSTM", 1)
    found = Session(compile_model(case.model, "ideal")).run(case.feeds)
    for name, value in run_onnxruntime(case.model, case.feeds).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


def branching(condition: onnx.NodeProto | None, constant: bool) -> onnx.ModelProto:
    """A Scan whose body has an If, of a constant condition or one that the entry decides, around one of two products."""

    def branch(name: str) -> onnx.GraphProto:
        return helper.make_graph([node("MatMul", ["entry", name], ["t"], f"{name}_fc")], name, [], [info("t")])

    nodes = [
        *([condition] if condition is not None else []),
        node(
            "If", ["yes" if constant else "c"], ["chosen"], "choice", then_branch=branch("v"), else_branch=branch("u")
        ),
        node("MatMul", ["chosen", "w"], ["out"], "behind"),
        node("Identity", ["state"], ["same"]),
    ]
    body = helper.make_graph(nodes, "body", [info("state"), info("entry")], [info("same"), info("out")])
    scan = node("Scan", ["h", "x"], ["end", "y"], "scan", body=body, num_scan_inputs=1)
    constants = {name: matrix() for name in "uvw"} | {"yes": np.array(True), "zero": np.float32(0), "h": normal(2)}
    return model_of([scan], {"x": ["t", 2, SIZE]}, ["y", "end"], constants)


@pytest.mark.parametrize("constant", [True, False])
def test_control_flow_in_a_scan(check, constant):
    condition = None
    if not constant:
        condition = node("If", ["yes"], ["c"], "outer")
        greater = [node("ReduceSum", ["entry"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["g"])]
        branch = helper.make_graph(greater, "greater", [], [info("g", element_type=TensorProto.BOOL)])
        condition.attribute.extend(
            [helper.make_attribute("then_branch", branch), helper.make_attribute("else_branch", branch)]
        )
    network = check(branching(condition, constant), {"x": normal(3, 2, SIZE)})
    expected = {"v_fc": True, "behind": True} if constant else {"v_fc": False, "u_fc": False, "behind": True}
    assert lowered(network) == expected
    assert len(network.recurrences) == 1


def test_a_scan_in_a_scan(check):
    """The inner one has two steps: it is unrolled, backwards and stacked along its last axis."""
    inner = helper.make_graph(
        [node("MatMul", ["s", "w"], ["p"], "inner_fc"), node("Add", ["p", "row"], ["e"]), node("Neg", ["e"], ["o"])],
        "inner",
        [info("s"), info("row")],
        [info("e"), info("o")],
    )
    attributes = {"scan_input_directions": [1], "scan_output_directions": [1], "scan_output_axes": [-1]}
    body = helper.make_graph(
        [node("Scan", ["state", "entry"], ["end", "out"], "inner", body=inner, num_scan_inputs=1, **attributes)],
        "body",
        [info("state"), info("entry")],
        [info("end"), info("out")],
    )
    scan = node("Scan", ["h", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1)
    model = model_of([scan], {"x": ["t", 2, 2, SIZE]}, ["y", "last"], {"w": matrix(), "h": normal(2, SIZE)})
    network = check(model, {"x": normal(3, 2, 2, SIZE)})
    assert lowered(network) == {"inner_fc": True}
    assert [layer.name for layer in network.layers] == ["inner_fc", "inner_fc_2"]


def test_what_stays_digital(check):
    def network_of(product: list[str], digital=(), opset: int = 17):
        body = helper.make_graph(
            [node("MatMul", product, ["p"], "inner"), node("Relu", ["p"], ["o"])], "body", [info("entry")], [info("o")]
        )
        scan = node("Scan", ["x"], ["y"], "scan", body=body, num_scan_inputs=1)
        model = model_of([scan], {"x": ["t", SIZE, SIZE]}, ["y"], {"w": matrix()}, opset=opset)
        return check(model, {"x": normal(2, SIZE, SIZE)}, digital=digital)

    def reason(*arguments, **options) -> str:
        (record,) = network_of(*arguments, **options).records
        return record.reason

    assert network_of(["entry", "w"]).recurrences
    assert reason(["entry", "w"], digital=["scan"]) == 'inside the body of Scan "scan"'
    inside = 'inside the body of Scan "scan", which stays digital: inner (MatMul): '
    assert reason(["entry", "w"], digital=["inner"]) == inside + 'kept digital by "inner"'
    assert reason(["entry", "entry"]).startswith(inside + "both operands are activations")


def test_a_scan_that_cannot_be_turned_stays():
    """Slice goes backwards from opset 10 on."""
    body = cell(0, 1, captures=False, held="initializer", opset=9)
    scan = node("Scan", ["x"], ["y", "z"], "scan", body=body, num_scan_inputs=1, scan_output_directions=[1, 0])
    model = model_of([scan], {"x": ["t", SIZE, SIZE]}, ["y", "z"], {"w": matrix()}, opset=9)
    (record,) = import_network(load_model(model)).records
    assert record.reason.endswith("sequences of both directions need opset 10; the model has 9")


def test_convolutions_in_a_scan():
    """Their inputs are seen stacked over the steps where passes fit, programs are verified and chips are commissioned."""
    kernels = {"k": RNG.normal(size=(2, 2, 3, 3)) / 4, "r": RNG.normal(size=(2, 2, 3, 3)) / 8, "b": RNG.normal(size=2)}
    nodes = [
        node("Conv", ["entry", "k", "b"], ["i"], "input_conv", pads=[1] * 4),
        node("Conv", ["state", "r"], ["s"], "state_conv", pads=[1] * 4),
        node("Add", ["i", "s"], ["sum"]),
        node("Tanh", ["sum"], ["end"]),
        node("Relu", ["end"], ["shown"]),
    ]
    body = helper.make_graph(nodes, "body", [info("state"), info("entry")], [info("end"), info("shown")])
    scan = node("Scan", ["h", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1, scan_input_axes=[1])
    feeds = {"h": normal(2, 2, 4, 4), "x": normal(2, 3, 2, 4, 4)}
    model = model_of([scan], {"h": ["n", 2, 4, 4], "x": ["n", 3, 2, 4, 4]}, ["last", "y"], kernels)
    for calibration in (None, feeds):
        program = compile_model(model, "ideal", passes="bitserial{bits=8}", calibration=calibration)
        host = run_onnxruntime(program.host, feeds)
        found = Session(program).run(feeds)
        for name, value in run_onnxruntime(model, feeds).items():
            np.testing.assert_allclose(found[name], host[name], atol=1e-2)  # a step of the code apart, at most
            np.testing.assert_allclose(found[name], value, atol=0.1)
    assert [layer.vectors_per_inference for layer in program.network.layers] == [3 * 16] * 2
