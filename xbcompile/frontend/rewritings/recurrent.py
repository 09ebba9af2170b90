"""LSTM, GRU and RNN with constant weights: the input matrix outside of a Scan, the recurrent matrices inside it.

The products of the inputs need no state: `W` becomes one matrix for all steps and both directions, read for `[N, T]`
vectors. What is left of the operator is a Scan over the steps whose body holds one product with each recurrent matrix
and the gates in standard operators (ONNX operators LSTM-14, GRU-14, RNN-14; results as onnxruntime's kernels give them:
final states are 0 where a sequence has no step at all). The lowering turns the Scan into a recurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from xbcompile.frontend.operands import StaysDigital, attribute, is_constant, why_not_constant
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.builder import make_graph, tensor, value
from xbcompile.onnx_graph.tensors import to_array

# Scan has no batch axis of its own from opset 9 on; ConstantOfShape and Where came then too.
OLDEST_OPSET = 9

_FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_DIRECTIONS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}
# Default alpha and beta of those that have them, as onnxruntime computes: 0 where ONNX names no default.
_ALPHA = {
    "affine": 0.0,
    "elu": 1.0,
    "hardsigmoid": 0.2,
    "leakyrelu": 0.01,
    "scaledtanh": 0.0,
    "thresholdedrelu": 0.0,
}
_BETA = {"affine": 0.0, "hardsigmoid": 0.5, "scaledtanh": 0.0}
_PLAIN = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softsign": "Softsign", "softplus": "Softplus"}


@dataclass(frozen=True)
class _Activation:
    """An activation function: its name in lower case, alpha and beta."""

    name: str
    alpha: float
    beta: float

    def __call__(self, r: Replacement, x: str) -> str:
        """Append the function of `x`."""
        if self.name in _PLAIN:
            return r.emit(_PLAIN[self.name], x)
        if self.name in ("elu", "leakyrelu"):
            return r.emit({"elu": "Elu", "leakyrelu": "LeakyRelu"}[self.name], x, alpha=self.alpha)
        if self.name == "hardsigmoid":
            return r.emit("HardSigmoid", x, alpha=self.alpha, beta=self.beta)
        if self.name == "thresholdedrelu":
            return r.emit("Where", r.emit("Greater", x, _scalar(r, self.alpha)), x, _scalar(r, 0.0))
        if self.name == "affine":
            return r.emit("Add", r.emit("Mul", x, _scalar(r, self.alpha)), _scalar(r, self.beta))
        scaled = r.emit("Tanh", r.emit("Mul", x, _scalar(r, self.beta)))
        return r.emit("Mul", scaled, _scalar(r, self.alpha))


@dataclass(frozen=True)
class _Cell:
    """One direction of the operator.

    Args:
        operator: LSTM, GRU or RNN.
        direction: forward or reverse.
        suffix: what tells the direction's matrices apart: empty where there is one direction.
        hidden: size H of the state.
        input_bias: float32 [gates * H], added to the products of the inputs.
        recurrent: float32 [gates * H, H], in ONNX's order of gates: LSTM i o f c, GRU z r h.
        candidate_bias: float32 [H], the recurrent bias of GRU's h where the reset gate comes after the product.
        peepholes: float32 [3, H] of i, o, f; None: none.
        activations: f, g, h of the ONNX specification, as many as the operator has.
        clip: bound of what enters the activations; 0: none.
        input_forget: the forget gate is 1 - i.
        linear_before_reset: GRU's reset gate comes after the product.
    """

    operator: str
    direction: str
    suffix: str
    hidden: int
    input_bias: np.ndarray
    recurrent: np.ndarray
    candidate_bias: np.ndarray
    peepholes: np.ndarray | None
    activations: tuple[_Activation, ...]
    clip: float
    input_forget: bool
    linear_before_reset: bool

    @property
    def states(self) -> int:
        """Number of states: h, and c of an LSTM."""
        return 2 if self.operator == "LSTM" else 1


def rewrite_recurrent(r: Replacement) -> bool:
    """LSTM, GRU or RNN whose matrices, biases and peepholes are constants."""
    if r.opset < OLDEST_OPSET:
        raise StaysDigital(
            f"{r.node.op_type} needs operators of opset {OLDEST_OPSET} to be taken apart; the model has {r.opset}"
        )
    weights, cells = _cells(r)
    batch_axis = 0 if attribute(r.node, "layout", 0) else 1
    x, element_type = _input(r, 0), r.graph.types[r.node.input[0]].tensor_type.elem_type
    projections = _projections(r, x, weights, cells, batch_axis)
    mask, present = _lengths(r, x, batch_axis)
    results: list[list[str]] = []
    for index, cell in enumerate(cells):
        initial = [_initial(r, x, cell, index, len(cells), state, batch_axis) for state in range(cell.states)]
        results.append(_scan(r, cell, projections[index], initial, mask))
    _write_outputs(r, results, present, batch_axis, element_type)
    return True


def _write_outputs(r: Replacement, results: list[list[str]], present: str, batch_axis: int, element_type: int) -> None:
    """The operator's outputs from each direction's final states and stacked h."""
    outputs = [*r.node.output, "", "", ""][:3]
    sources = [[each[-1] for each in results], [each[0] for each in results], [each[1] for each in results]]
    for position, (output, parts) in enumerate(zip(outputs, sources, strict=True)):
        if not output:
            continue
        axis = 1 - batch_axis if position else 2 - batch_axis
        if position == 0 and batch_axis == 0:
            parts = [r.emit("Transpose", part, perm=[1, 0, 2]) for part in parts]
        if position and present:
            parts = [r.emit("Where", present, part, _scalar(r, 0.0)) for part in parts]
        last = output if element_type == TensorProto.FLOAT else ""
        if len(parts) == 1:
            joined = r.unsqueeze(parts[0], [axis], output=last)
        else:
            joined = r.emit("Concat", *(r.unsqueeze(part, [axis]) for part in parts), axis=axis, output=last)
        if not last:
            r.emit("Cast", joined, to=element_type, output=output)


def _cells(r: Replacement) -> tuple[np.ndarray, list[_Cell]]:
    """The matrix of the inputs, float32 [inputs, directions * gates * H], and each direction."""
    node, operator = r.node, r.node.op_type
    gates = _GATES[operator]
    w, recurrent = _constant(r, 1, "W"), _constant(r, 2, "R")
    direction = attribute(node, "direction", b"forward").decode(errors="replace").lower()
    if direction not in _DIRECTIONS:
        raise StaysDigital(f"direction {direction!r} is none of {', '.join(_DIRECTIONS)}")
    if w.ndim != 3 or recurrent.ndim != 3:
        raise StaysDigital(f"W has {w.ndim} axes and R {recurrent.ndim}; both need 3")
    directions = _DIRECTIONS[direction]
    hidden, count = recurrent.shape[2], len(directions)
    shapes: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {
        "W": (w, (count, gates * hidden, w.shape[2])),
        "R": (recurrent, (count, gates * hidden, hidden)),
    }
    bias = _constant(r, 3, "B") if _has_input(r, 3) else np.zeros((count, 2 * gates * hidden), np.float32)
    shapes["B"] = (bias, (count, 2 * gates * hidden))
    peepholes = _constant(r, 7, "P") if _has_input(r, 7) else None
    if peepholes is not None:
        shapes["P"] = (peepholes, (count, 3 * hidden))
    if attribute(node, "hidden_size", hidden) != hidden or attribute(node, "layout", 0) not in (0, 1):
        raise StaysDigital(f"hidden_size is not {hidden}, as R has it, or layout is neither 0 nor 1")
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise StaysDigital(f"{name} has shape {list(array.shape)}, not {list(shape)}")
    linear_before_reset = bool(attribute(node, "linear_before_reset", 0))
    activations = list(_activations(r, count))
    per_direction = len(_DEFAULT_ACTIVATIONS[operator])
    cells = []
    for i, direction in enumerate(directions):
        input_bias, recurrent_bias = bias[i].reshape(2, -1)
        candidate_bias = np.zeros(hidden, np.float32)
        if operator == "GRU" and linear_before_reset:
            candidate_bias = recurrent_bias[2 * hidden :]
            recurrent_bias = np.concatenate([recurrent_bias[: 2 * hidden], np.zeros(hidden, np.float32)])
        cells.append(
            _Cell(
                operator=operator,
                direction=direction,
                suffix="" if count == 1 else f"/{direction}",
                hidden=hidden,
                input_bias=input_bias + recurrent_bias,
                recurrent=recurrent[i],
                candidate_bias=candidate_bias,
                peepholes=None if peepholes is None else peepholes[i].reshape(3, hidden),
                activations=tuple(activations[i * per_direction : (i + 1) * per_direction]),
                clip=float(attribute(node, "clip", 0.0)),
                input_forget=bool(attribute(node, "input_forget", 0)),
                linear_before_reset=linear_before_reset,
            )
        )
    return np.concatenate(list(w)).T, cells


def _activations(r: Replacement, directions: int) -> Iterator[_Activation]:
    """The activation functions of all directions; values of alpha and beta go to those that have one, in order."""
    defaults = _DEFAULT_ACTIVATIONS[r.node.op_type] * directions
    names = [name.decode().lower() for name in attribute(r.node, "activations", [])] or list(defaults)
    if len(names) != len(defaults):
        raise StaysDigital(f"it has {len(names)} activations, not {len(defaults)}")
    alphas = iter(attribute(r.node, "activation_alpha", []))
    betas = iter(attribute(r.node, "activation_beta", []))
    for name in names:
        if name not in _PLAIN and name not in _ALPHA:
            raise StaysDigital(f"activation {name} is not known")
        alpha = next(alphas, _ALPHA[name]) if name in _ALPHA else 0.0
        beta = next(betas, _BETA[name]) if name in _BETA else 0.0
        yield _Activation(name, float(alpha), float(beta))


def _has_input(r: Replacement, index: int) -> bool:
    return len(r.node.input) > index and bool(r.node.input[index])


def _constant(r: Replacement, index: int, label: str) -> np.ndarray:
    """An input that must be constant, as float32."""
    name = r.node.input[index]
    if not is_constant(r.graph, name):
        raise StaysDigital(why_not_constant(r.graph, name, label))
    tensor = r.graph.constants[name]
    if tensor.data_type not in _FLOAT_TYPES:
        type_name = TensorProto.DataType.Name(tensor.data_type).lower()
        raise StaysDigital(f"element type {type_name} is not lowered")
    if 0 in tensor.dims:
        raise StaysDigital(f'{label} "{name}" is empty, of shape {list(tensor.dims)}')
    return to_array(tensor).astype(np.float32, copy=False)


def _input(r: Replacement, index: int) -> str:
    """An input as float32: onnxruntime's kernels compute in it whatever the element type."""
    name = r.node.input[index]
    if r.graph.types[name].tensor_type.elem_type == TensorProto.FLOAT:
        return name
    return r.emit("Cast", name, to=TensorProto.FLOAT)


def _scalar(r: Replacement, value: float) -> str:
    return r.constant(np.float32(value))


def _size(r: Replacement, x: str, axis: int) -> str:
    """The size of one axis, int64 [1]."""
    return r.slice(r.emit("Shape", x), [axis], [axis + 1], [0])


def _projections(r: Replacement, x: str, weights: np.ndarray, cells: Sequence[_Cell], batch_axis: int) -> list[str]:
    """Products of the inputs at all steps, [T, N, gates * H] for each direction.

    The matrix sees `[N, T]` vectors, so that the vectors of one sample are neighbours.
    """
    by_sample = x if batch_axis == 0 else r.emit("Transpose", x, perm=[1, 0, 2])
    product = r.emit("MatMul", by_sample, r.constant(weights, "W"), name=r.matrix_name("input"))
    bias = np.concatenate([cell.input_bias for cell in cells])
    if np.any(bias):
        product = r.emit("Add", product, r.constant(bias, "B"))
    by_step = r.emit("Transpose", product, perm=[1, 0, 2])
    if len(cells) == 1:
        return [by_step]
    return r.split(by_step, [weights.shape[1] // len(cells)] * len(cells), axis=-1)


def _lengths(r: Replacement, x: str, batch_axis: int) -> tuple[str, str]:
    """Whether each step is in its sequence, bool [T, N, 1], and whether sequences have steps, bool [N, 1] or [1].

    Empty where there is nothing to ask: no sequence lengths, and states that start from 0 or at least one step.
    """
    if not _has_input(r, 4):
        shape = r.graph.shape(r.node.input[0])
        steps = None if shape is None else shape[1 - batch_axis]
        if steps or not (_has_input(r, 5) or _has_input(r, 6)):
            return "", ""
        return "", r.emit("Greater", _size(r, x, 1 - batch_axis), r.constant([0]))
    _check_lengths(r, batch_axis)
    lengths = r.emit("Cast", r.node.input[4], to=TensorProto.INT64)
    ones = r.emit("ConstantOfShape", _size(r, x, 1 - batch_axis), value=tensor("one", np.ones(1, np.int64)))
    steps_column = r.emit("Transpose", r.emit("NonZero", ones), perm=[1, 0])
    mask = r.unsqueeze(r.emit("Less", steps_column, lengths), [2])
    return mask, r.unsqueeze(r.emit("Greater", lengths, r.constant([0])), [1])


def _check_lengths(r: Replacement, batch_axis: int) -> None:
    """Raise StaysDigital for constant sequence lengths that the inputs do not have."""
    shape = r.graph.shape(r.node.input[0])
    steps = None if shape is None else shape[1 - batch_axis]
    if steps is None or not is_constant(r.graph, r.node.input[4]):
        return
    lengths = to_array(r.graph.constants[r.node.input[4]])
    if np.any(lengths < 0) or np.any(lengths > steps):
        raise StaysDigital(f"sequence lengths {lengths.tolist()} are not all from 0 to {steps}")


def _initial(r: Replacement, x: str, cell: _Cell, direction: int, directions: int, state: int, batch_axis: int) -> str:
    """A direction's state before the first step, [N, H]."""
    if not _has_input(r, 5 + state):
        return _zeros(r, x, cell.hidden, batch_axis)
    axis, is_guarded = 1 - batch_axis, _check_initial(r, cell, directions, state, batch_axis)
    given = _input(r, 5 + state)
    if directions > 1:
        given = r.slice(given, [direction], [direction + 1], [axis])
    given = r.squeeze(given, [axis])
    if not is_guarded:
        return given
    # A state of another batch would broadcast without a word, but not be joined to a column of this one.
    column = _zeros(r, x, 1, batch_axis)
    return r.slice(r.emit("Concat", given, column, axis=1), [0], [cell.hidden], [1])


def _zeros(r: Replacement, x: str, size: int, batch_axis: int) -> str:
    """Zeros, [N, size]."""
    return r.emit("ConstantOfShape", r.emit("Concat", _size(r, x, batch_axis), r.constant([size]), axis=0))


def _check_initial(r: Replacement, cell: _Cell, directions: int, state: int, batch_axis: int) -> bool:
    """Whether only a run can tell that a given state has the inputs' batch; StaysDigital where its shape is wrong."""
    of_inputs, found = r.graph.shape(r.node.input[0]), r.graph.shape(r.node.input[5 + state])
    wanted = [directions, cell.hidden]
    if of_inputs is None or found is None:
        return of_inputs is not None
    wanted.insert(batch_axis, of_inputs[batch_axis] or -1)
    if len(found) != 3 or any(size not in (None, w) and w != -1 for size, w in zip(found, wanted, strict=True)):
        raise StaysDigital(f"an initial state has shape {list(found)}, not {['?' if w == -1 else w for w in wanted]}")
    return list(found) != wanted


def _scan(r: Replacement, cell: _Cell, projection: str, initial: Sequence[str], mask: str) -> list[str]:
    """The Scan of one direction; the names of its final states and, last, of h at all steps [T, N, H]."""
    body = r.inside()
    starts = [body.name(f"{label}_start") for label in ("h", "c")[: cell.states]]
    sequences = [body.name("projected"), *([body.name("in_sequence")] if mask else [])]
    steps: dict[str, Callable[..., list[str]]] = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}
    ends = steps[cell.operator](body, cell, sequences[0], *starts)
    if mask:
        kept = [body.emit("Where", sequences[1], end, start) for end, start in zip(ends, starts, strict=True)]
        shown = body.emit("Where", sequences[1], ends[0], _scalar(body, 0.0))
    else:
        kept, shown = ends, body.emit("Identity", ends[0])
    gates = _GATES[cell.operator] * cell.hidden
    shapes = [[None, cell.hidden]] * len(starts) + [[None, gates], [None, 1]]
    types = [TensorProto.FLOAT] * (len(starts) + 1) + [TensorProto.BOOL]
    graph = make_graph(
        body.name("body"),
        body.nodes,
        map(value, [*starts, *sequences], types, shapes),
        [value(name, TensorProto.FLOAT, [None, cell.hidden]) for name in [*kept, shown]],
    )
    backwards = int(cell.direction == "reverse")
    return r.emit_many(
        "Scan",
        *initial,
        projection,
        *([mask] if mask else []),
        outputs=[""] * (len(starts) + 1),
        name=r.name(f"recurrence{cell.suffix}"),
        body=graph,
        num_scan_inputs=len(sequences),
        scan_input_directions=[backwards] * len(sequences),
        scan_output_directions=[backwards],
    )


def _product(r: Replacement, cell: _Cell, x: str, matrix: np.ndarray, label: str = "") -> str:
    """`x` [N, H] times a part of the recurrent matrix [outputs, H]."""
    return r.emit("MatMul", x, r.constant(matrix.T, "R"), name=r.matrix_name(f"recurrent{cell.suffix}{label}"))


def _clipped(r: Replacement, cell: _Cell, x: str) -> str:
    if not cell.clip:
        return x
    return r.emit("Min", r.emit("Max", x, _scalar(r, -cell.clip)), _scalar(r, cell.clip))


def _lstm_step(r: Replacement, cell: _Cell, projected: str, h: str, c: str) -> list[str]:
    f, g, last = cell.activations
    sums = r.emit("Add", projected, _product(r, cell, h, cell.recurrent))
    i, o, forget, candidate = r.split(sums, [cell.hidden] * 4, axis=-1)

    def gate(x: str, peephole: int, state: str) -> str:
        if cell.peepholes is not None:
            x = r.emit("Add", x, r.emit("Mul", state, r.constant(cell.peepholes[peephole], "P")))
        return f(r, _clipped(r, cell, x))

    i = gate(i, 0, c)
    forget = r.emit("Sub", _scalar(r, 1.0), i) if cell.input_forget else gate(forget, 2, c)
    candidate = g(r, _clipped(r, cell, candidate))
    c = r.emit("Add", r.emit("Mul", forget, c), r.emit("Mul", i, candidate))
    return [r.emit("Mul", gate(o, 1, c), last(r, c)), c]


def _gru_step(r: Replacement, cell: _Cell, projected: str, h: str) -> list[str]:
    f, g = cell.activations
    hidden = cell.hidden
    x = r.split(projected, [hidden] * 3, axis=-1)
    if cell.linear_before_reset:
        product = _product(r, cell, h, cell.recurrent)
        if np.any(cell.candidate_bias):
            bias = np.concatenate([np.zeros(2 * hidden, np.float32), cell.candidate_bias])
            product = r.emit("Add", product, r.constant(bias, "B"))
        update, reset, linear = r.split(product, [hidden] * 3, axis=-1)
    else:
        update, reset = r.split(
            _product(r, cell, h, cell.recurrent[: 2 * hidden], "/update_reset"), [hidden] * 2, axis=-1
        )
    update = f(r, _clipped(r, cell, r.emit("Add", x[0], update)))
    reset = f(r, _clipped(r, cell, r.emit("Add", x[1], reset)))
    if cell.linear_before_reset:
        candidate = r.emit("Mul", reset, linear)
    else:
        candidate = _product(r, cell, r.emit("Mul", reset, h), cell.recurrent[2 * hidden :], "/candidate")
    candidate = g(r, _clipped(r, cell, r.emit("Add", x[2], candidate)))
    new = r.emit("Mul", r.emit("Sub", _scalar(r, 1.0), update), candidate)
    return [r.emit("Add", new, r.emit("Mul", update, h))]


def _rnn_step(r: Replacement, cell: _Cell, projected: str, h: str) -> list[str]:
    sums = r.emit("Add", projected, _product(r, cell, h, cell.recurrent))
    return [cell.activations[0](r, _clipped(r, cell, sums))]
