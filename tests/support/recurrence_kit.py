"""Recurrent models for tests, and executing a recurrence in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.ir import Executed, Recurrence

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# All that onnxruntime has.
_SMOOTH = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "HardSigmoid", "ScaledTanh", "Elu", "LeakyRelu")
ACTIVATIONS = (*_SMOOTH, "ThresholdedRelu", "Affine")


@dataclass
class Case:
    """A model of one recurrent node "rec" with outputs y, h (and c), and inputs for it."""

    model: onnx.ModelProto
    feeds: dict[str, Any] = field(default_factory=dict)


def weights(operator: str, inputs: int, hidden: int, directions: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """W, R and B, of a size at which states neither vanish nor saturate."""
    rng, rows = np.random.default_rng(seed), GATES[operator] * hidden
    shapes = {"w": (directions, rows, inputs), "r": (directions, rows, hidden), "b": (directions, 2 * rows)}
    return {name: (rng.normal(size=shape) * 0.6).astype(np.float32) for name, shape in shapes.items()}


def sequence_model(
    operator: str,
    steps: int | str,
    hidden: int = 3,
    inputs: int = 2,
    directions: int = 1,
    seed: int = 0,
    **attributes: Any,
) -> onnx.ModelProto:
    """x [n, steps, inputs] -> the operator -> y [n, steps, directions, hidden] and h [n, directions, hidden]."""
    direction = "bidirectional" if directions == 2 else "forward"
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(
            operator, ["t", "w", "r", "b"], ["s", "e"], "rec", hidden_size=hidden, direction=direction, **attributes
        ),
        helper.make_node("Transpose", ["s"], ["y"], perm=[2, 0, 1, 3]),
        helper.make_node("Transpose", ["e"], ["h"], perm=[1, 0, 2]),
    ]
    return model_of(nodes, {"x": ["n", steps, inputs]}, ["y", "h"], weights(operator, inputs, hidden, directions, seed))


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    """Every attribute and optional input of LSTM, GRU and RNN, constant or fed, sizes open or known."""
    operator = draw(st.sampled_from(list(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    both = 2 if direction == "bidirectional" else 1
    steps, batch, size, hidden = (draw(st.integers(1, top)) for top in (4, 3, 3, 4))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    attributes.update(draw(_options(operator, both)))
    seed = draw(st.integers(0, 999))
    constants, feeds = weights(operator, size, hidden, both, seed), dict[str, Any]()
    rng = np.random.default_rng(seed)
    names = ["x", "w", "r", draw(st.sampled_from(["b", ""]))]

    def given(name: str, value: np.ndarray, fed: bool) -> str:
        if not draw(st.booleans()):
            return ""
        (feeds if fed and draw(st.booleans()) else constants)[name] = value
        return name

    names.append(given("lengths", rng.integers(0, steps + 1, batch).astype(np.int32), fed=True))
    names.append(given("h0", rng.normal(size=(both, batch, hidden)).astype(np.float32), fed=True))
    if operator == "LSTM":
        names.append(given("c0", rng.normal(size=(both, batch, hidden)).astype(np.float32), fed=True))
        names.append(given("p", rng.normal(size=(both, 3 * hidden)).astype(np.float32), fed=False))
    feeds["x"] = rng.normal(size=(steps, batch, size)).astype(np.float32)
    all_outputs = ["y", "h", "c"][: 3 if operator == "LSTM" else 2]
    wanted = draw(st.sets(st.sampled_from(all_outputs), min_size=1))
    outputs = [name if name in wanted else "" for name in all_outputs]
    open_sizes, opset = draw(st.booleans()), draw(st.sampled_from([9, 11, 13, 14, 22]))
    return Case(_model(operator, names, outputs, attributes, constants, feeds, open_sizes, opset), feeds)


def expected(case: Case) -> dict[str, Any]:
    """onnxruntime's outputs; cases whose states grow without bound, where rounding does too, are left out."""
    outputs = run_onnxruntime(case.model, case.feeds)
    assume(all(np.abs(value).max(initial=0) < 100 for value in outputs.values()))
    return outputs


@st.composite
def _options(draw: Callable[..., Any], operator: str, directions: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["clip"] = draw(st.sampled_from([0.2, 1.0]))
    if operator == "LSTM" and draw(st.booleans()):
        options["input_forget"] = 1
    if operator == "GRU":
        options["linear_before_reset"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        count = FUNCTIONS[operator] * directions
        options["activations"] = draw(st.lists(st.sampled_from(ACTIVATIONS), min_size=count, max_size=count))
        for name in ("activation_alpha", "activation_beta"):
            if draw(st.booleans()):
                options[name] = draw(st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=1, max_size=count))
    return options


def _model(
    operator: str,
    names: list[str],
    outputs: list[str],
    attributes: dict[str, Any],
    constants: dict[str, Any],
    feeds: dict[str, Any],
    open_sizes: bool,
    opset: int,
) -> onnx.ModelProto:
    node = helper.make_node(operator, names, outputs, "rec", **attributes)
    sizes = {"x": ["t", "n"], "lengths": ["n"], "h0": [None, "n"], "c0": [None, "n"]}
    shapes: dict[str, Any] = {}
    for name, value in feeds.items():
        named = [*sizes[name], *[None] * value.ndim] if open_sizes else [None] * value.ndim
        shapes[name] = [open_name or size for open_name, size in zip(named, value.shape, strict=False)]
    kept = {name: value for name, value in constants.items() if name in names}
    model = model_of([node], shapes, [name for name in outputs if name], kept, opset=opset)
    for value in model.graph.input:
        if value.name == "lengths":
            value.type.tensor_type.elem_type = TensorProto.INT32
    return model


def run_recurrence(
    node: Recurrence, values: dict[str, Any], run: Callable[[Executed, dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """What a recurrence writes, by its definition; `run` gives what one node of the body writes."""
    entries = [values[each.outer] for each in node.sequences]
    positions = list(range(len(entries[0])))
    states = [values[each.initial] for each in node.states]
    rows: dict[int, list[Any]] = {}
    for position in reversed(positions) if node.reverse else positions:
        inside = dict(values)
        inside.update({each.start: state for each, state in zip(node.states, states, strict=True)})
        inside.update({each.inner: entry[position] for each, entry in zip(node.sequences, entries, strict=True)})
        for inner in node.nodes:
            inside.update(run(inner, inside))
        states = [inside[each.end] for each in node.states]
        rows[position] = [inside[each.inner] for each in node.outputs]
    stacked = [np.stack([rows[p][i] for p in positions]) for i in range(len(node.outputs))]
    written = {each.final: state for each, state in zip(node.states, states, strict=True)}
    return written | {each.outer: value for each, value in zip(node.outputs, stacked, strict=True)}
