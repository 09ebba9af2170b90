"""Random recurrent nodes, control flow and local functions."""

from __future__ import annotations

import numpy as np
from onnx import FunctionProto, NodeProto, TensorProto, helper

from tests.fuzz.graph_builder import GraphBuilder, Refused, measured, moving, multilinear
from tests.fuzz.graph_products import float_value, onnx_type, weight

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
OTHERS = ["Relu", "Tanh", "Sigmoid", "HardSigmoid", "Softsign", "Softplus", "Affine", "LeakyRelu", "ScaledTanh", "Elu"]
PARAMETERS = {"Affine": 2, "LeakyRelu": 1, "ScaledTanh": 2, "HardSigmoid": 2, "Elu": 1, "ThresholdedRelu": 1}


def recurrent(b: GraphBuilder) -> None:
    """LSTM, GRU and RNN with every attribute and optional input."""
    operator = b.choose(["LSTM", "LSTM", "GRU", "GRU", "RNN"])
    x = float_value(b, 3)
    attributes: dict = {}
    layout = int(b.opset >= 14 and b.flag(0.15))
    if layout:
        attributes["layout"] = 1
    shape = b.shape(x)
    steps, batch = (shape[1], shape[0]) if layout else shape[:2]
    size, hidden, gates = shape[2], b.integer(1, 5), GATES[operator]
    direction = b.choose(["forward", "forward", "reverse", "bidirectional"])
    both = 2 if direction == "bidirectional" else 1
    if direction != "forward" or b.flag():
        attributes["direction"] = direction
    attributes["hidden_size"] = hidden
    state = (batch, both, hidden) if layout else (both, batch, hidden)
    inputs = [x, weight(b, (both, gates * hidden, size), size), weight(b, (both, gates * hidden, hidden), hidden)]
    inputs.append(weight(b, (both, 2 * gates * hidden), 1) if b.flag(0.7) else "")
    lengths = b.rng.integers(1, steps + 1, (batch,)).astype(np.int32)
    inputs.append(_either(b, lengths) if b.flag(0.3) else "")
    inputs.append(_state(b, state) if b.flag(0.4) else "")
    if operator == "LSTM":
        inputs.append(_state(b, state) if b.flag(0.4) else "")
        inputs.append(weight(b, (both, 3 * hidden), 1) if b.flag(0.25) else "")
        if b.flag(0.15):
            attributes["input_forget"] = 1
    if operator == "GRU" and b.flag(0.4):
        attributes["linear_before_reset"] = 1
    if b.flag(0.2):
        attributes["clip"] = float(b.choose([0.5, 1.0, 3.0]))
    if b.flag(0.3):
        attributes.update(_activations(b, operator, both))
    while not inputs[-1]:
        inputs.pop()
    wanted = [b.flag(0.7) for _ in range(3 if operator == "LSTM" else 2)]
    if not any(wanted):
        wanted[1] = True
    known = all(b.values[name].constant for name in inputs[1:4] if name)
    b.add(operator, inputs, measured(512), wanted, lowered=known and b.opset >= 9, **attributes)


def _either(b: GraphBuilder, array: np.ndarray) -> str:
    return b.new_input(array) if len(b.inputs) < 3 and b.flag() else b.constant(array)


def _state(b: GraphBuilder, shape: tuple[int, ...]) -> str:
    fits = b.find(lambda a: a.shape == shape and a.dtype == b.dtype)
    return str(b.choose(fits)) if fits and b.flag(0.8) else _either(b, b.draw(shape))


def _activations(b: GraphBuilder, operator: str, both: int) -> dict:
    names = [b.choose(OTHERS) if b.flag(0.4) else name for name in FUNCTIONS[operator] * both]
    attributes: dict = {"activations": names}
    counts = [PARAMETERS.get(name, 0) for name in names]
    if any(counts) and b.flag(0.7):
        attributes["activation_alpha"] = [0.3 for count in counts if count]
        if any(count > 1 for count in counts):
            attributes["activation_beta"] = [0.4 for count in counts if count > 1]
    return attributes


def _value(name: str, dtype: str) -> TensorProto:
    return helper.make_tensor_value_info(name, onnx_type(dtype), None)


def conditional(b: GraphBuilder) -> None:
    """If, whose branches hold products with constants from outside or of their own."""
    x = float_value(b, 2)
    w = weight(b, (b.shape(x)[1], 3), b.shape(x)[1])
    inner, y, z = b.name("w"), b.name("y"), b.name("y")
    own = helper.make_tensor(inner, onnx_type(b.dtype), b.shape(w), b.draw(b.shape(w), 0.5).reshape(-1).tolist())
    then = helper.make_graph([helper.make_node("MatMul", [x, w], [y])], "then", [], [_value(y, b.dtype)])
    other_nodes = [helper.make_node("MatMul", [x, inner], [z])]
    other = helper.make_graph(other_nodes, "else", [], [_value(z, b.dtype)], [own])
    choice = np.asarray(b.flag())
    condition = b.new_input(choice) if b.flag(0.7) and len(b.inputs) < 3 else b.constant(choice)
    b.add("If", [condition], measured(256), then_branch=then, else_branch=other)


def loop(b: GraphBuilder) -> None:
    """Loop: a state is multiplied by a matrix a few times."""
    if b.opset < 11:
        raise Refused("Loop of opset 11")
    x = float_value(b, 2)
    size = b.shape(x)[1]
    w = weight(b, (size, size), 2 * size)
    names = [b.name("l") for _ in range(5)]
    i, go, state, product, kept = names
    same = b.name("l")
    nodes = [
        helper.make_node("MatMul", [state, w], [product]),
        helper.make_node("Tanh", [product], [kept]),
        helper.make_node("Identity", [go], [same]),
    ]
    ints = helper.make_tensor_value_info(i, TensorProto.INT64, [])
    bools = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in (go, same)]
    body = helper.make_graph(
        nodes,
        "body",
        [ints, bools[0], _value(state, b.dtype)],
        [bools[1], _value(kept, b.dtype), _value(product, b.dtype)],
    )
    count = np.asarray(b.integer(1, 3), np.int64)
    trips = b.new_input(count) if b.flag() and len(b.inputs) < 3 else b.constant(count)
    b.add("Loop", [trips, b.constant(np.asarray(True)), x], measured(512), 2, body=body)


def scan(b: GraphBuilder) -> None:
    """Scan along the first axis: a state takes up the products of the entries."""
    if b.opset < 9:
        raise Refused("Scan of opset 9")
    x = float_value(b, 2)
    size, hidden = b.shape(x)[1], b.integer(1, 4)
    w = weight(b, (size, hidden), size)
    initial = b.constant(b.draw((hidden,)))
    state, entry, product, total, out = (b.name("s") for _ in range(5))
    nodes = [
        helper.make_node("MatMul", [entry, w], [product]),
        helper.make_node("Add", [product, state], [total]),
        helper.make_node("Tanh", [total], [out]),
    ]
    body = helper.make_graph(
        nodes, "body", [_value(state, b.dtype), _value(entry, b.dtype)], [_value(total, b.dtype), _value(out, b.dtype)]
    )
    attributes = {"scan_input_directions": [1]} if b.flag(0.3) else {}
    b.add("Scan", [initial, x], measured(512), 2, body=body, num_scan_inputs=1, **attributes)


def function(b: GraphBuilder) -> None:
    """A call of a local function that holds a product; it is defined anew or called again."""
    if b.opset < 15:
        raise Refused("functions are of opset 15")
    x = float_value(b, 2)
    if not b.functions or b.flag(0.4):
        b.functions.append(_dense(b, f"Dense{len(b.functions)}"))
    chosen = b.choose(b.functions)
    shape = b.shape(x)
    inputs = [x, weight(b, (shape[1], b.integer(1, 6)), shape[1])]
    attributes = {"factor": b.choose([0.5, 2.0])} if "factor" in chosen.attribute else {}
    b.add(chosen.name, inputs, measured(256), domain="local", **attributes)


def _dense(b: GraphBuilder, name: str) -> FunctionProto:
    """A function of x and w; it may call the one before it, and take its factor from an attribute."""
    nodes: list[NodeProto] = []
    if b.flag(0.6):
        node = (
            helper.make_node("Gemm", ["x", "w"], ["p"]) if b.flag() else helper.make_node("MatMul", ["x", "w"], ["p"])
        )
        attributes: list[str] = []
        if node.op_type == "Gemm" and b.flag(0.6):
            reference = node.attribute.add()
            reference.name, reference.ref_attr_name, reference.type = "alpha", "factor", 1
            attributes = ["factor"]
        nodes.append(node)
    elif b.functions and not b.functions[-1].attribute:
        nodes.append(helper.make_node(b.functions[-1].name, ["x", "w"], ["p"], domain="local"))
        attributes = []
    else:
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["p"]))
        attributes = []
    nodes.append(helper.make_node(b.choose(["Relu", "Tanh"]), ["p"], ["y"]))
    opsets = [helper.make_opsetid("", b.opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["x", "w"], ["y"], nodes, opsets, attributes)


def sequence(b: GraphBuilder) -> None:
    """Values put into a sequence and taken out again."""
    if b.opset < 11:
        raise Refused("sequences are of opset 11")
    x = float_value(b, 2)
    parts = b.add("SplitToSequence", [x], moving, axis=0)[0]
    joined = b.add("ConcatFromSequence", [parts], moving, axis=0)[0]
    size = b.shape(joined)[1]
    b.add("MatMul", [joined, weight(b, (size, 3), size)], multilinear(0, 1, terms=size))


CONTROL = [(6, recurrent), (1, conditional), (1, loop), (1.5, scan), (2, function), (0.7, sequence)]
