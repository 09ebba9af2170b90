"""A random ONNX graph that grows node by node, with every value at hand and a bound on what float rounding may change.

Each node is run alone in onnxruntime as it is appended, so no shapes are computed here and a node that onnxruntime refuses is
left out. Beside its array every value has an `error`: the largest difference that two correct executions of the graph may
show in any element, because sums were added in another order or nodes were fused. With u the unit roundoff of the type:

- Products (`multilinear`): a sum of K products in any order errs by at most K u sum|w||x| to first order (Higham, Accuracy and
  Stability of Numerical Algorithms, section 3.1); two executions differ by twice that, and the node carries its inputs'
  errors on by sum|w| err(x). Both sums are what the node itself gives on absolute values. Where all factors are whole
  numbers and sum|w||x| is exactly representable, every order gives the same result and the error is 0.
- Movements carry the largest error of their inputs on; operators of a known Lipschitz constant L carry L times that.
- `measured`: smooth operators carry the error times their sensitivity, which is measured by finite differences.
- `stepping`: quantizers give the same integers for equal inputs, and may move by whole steps otherwise.
- `jumping`: any other operator with jumps is exact on exact inputs and is not checked behind others (error infinity).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.support.integer_sums import precise_session

MOST_ELEMENTS = 4096  # of one value
SLACK = 4.0  # factor on the first-order bounds
UNIT_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-24}  # float64 weights are stored as float32
EXACT_SUMS = {"float16": 2.0**11, "float32": 2.0**24, "float64": 2.0**24}

ErrorRule = Callable[["GraphBuilder", NodeProto, list[np.ndarray]], Sequence[float]]


class Refused(Exception):
    """The node is not appended: it does not fit what is there, or onnxruntime refuses it."""


@dataclass
class Value:
    """A tensor of the graph: its array, the error bound, and whether it depends on constants alone."""

    array: Any
    error: float = 0.0
    constant: bool = False


@dataclass
class GraphBuilder:
    """The graph so far.

    Args:
        rng: source of all randomness.
        opset: version of the ONNX operators.
        dtype: the graph's main float type.
        whole: weights and inputs are small whole numbers, so that results must be equal bit for bit.
    """

    rng: np.random.Generator
    opset: int
    dtype: str = "float32"
    whole: bool = False
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    must_lower: dict[str, str] = field(default_factory=dict)
    count: int = 0
    prefix: str = ""
    suffix: str = ""

    # --- drawing ---

    def flag(self, probability: float = 0.5) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def choose(self, options: Sequence[Any]) -> Any:
        """One of the options; Refused when there is none."""
        if not options:
            raise Refused("nothing to choose from")
        return options[int(self.rng.integers(len(options)))]

    def size(self) -> int:
        """A size of an axis: mostly small, often 1, sometimes more than an array has rows."""
        if self.flag(0.04):
            return self.integer(60, 135)
        return int(self.choose((1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9)))

    def draw(self, shape: Sequence[int], scale: float = 1.0, dtype: str | None = None) -> np.ndarray:
        """An array of numbers: -3 to 3, or uniform within the scale; sometimes with zeros."""
        if self.whole:
            array = self.rng.integers(-3, 4, shape).astype(np.float64)
        else:
            array = self.rng.uniform(-scale, scale, shape)
            if self.flag(0.1):
                array = array * (self.rng.random(shape) < 0.5)
        return np.asarray(array, dtype or self.dtype)

    # --- names and values ---

    def name(self, prefix: str) -> str:
        """A new name; some graphs have names as exporters write them."""
        self.count += 1
        return f"{self.prefix}{prefix}{self.count}{self.suffix}"

    def constant(self, array: Any, prefix: str = "c") -> str:
        """A new initializer."""
        name = self.name(prefix)
        array = np.asarray(array)
        self.initializers[name] = numpy_helper.from_array(array, name)
        self.values[name] = Value(array, constant=True)
        return name

    def new_input(self, array: np.ndarray) -> str:
        """A new graph input."""
        name = self.name("x")
        self.inputs[name] = array
        self.values[name] = Value(array)
        return name

    def array(self, name: str) -> Any:
        """The value of a tensor."""
        return self.values[name].array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(np.shape(self.array(name)))

    def error(self, name: str) -> float:
        """The error bound of a tensor; 0 of an input that is left out."""
        return self.values[name].error if name else 0.0

    def find(self, accepts: Callable[[np.ndarray], bool], constant: bool = False) -> list[str]:
        """Activations (or constants) whose arrays are accepted."""
        return [
            name
            for name, value in self.values.items()
            if value.constant == constant and isinstance(value.array, np.ndarray) and accepts(value.array)
        ]

    # --- nodes ---

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        rule: ErrorRule,
        outputs: int | Sequence[bool] = 1,
        *,
        domain: str = "",
        lowered: bool = False,
        name: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append a node and give the names of its outputs ("" for those left out).

        Args:
            operator: operator type.
            inputs: names of its inputs.
            rule: the error bounds of its outputs.
            outputs: how many, or which are wanted.
            domain: the operator's.
            lowered: the compiler must put it on arrays.
            name: name of the node.
            attributes: the node's.
        """
        wanted = [True] * outputs if isinstance(outputs, int) else list(outputs)
        names = [self.name("t") if want else "" for want in wanted]
        node = helper.make_node(operator, list(inputs), names, name or self.name("n"), domain=domain, **attributes)
        if domain:
            self.domains.setdefault(domain, 1)
        arrays = self.run(node)
        for array in arrays:
            self._accept(array)
        written = [name for name in names if name]
        errors = rule(self, node, arrays)
        constant = all(self.values[name].constant for name in inputs if name) and (
            bool(inputs) or operator == "Constant"
        )
        for output, array, error in zip(written, arrays, errors, strict=True):
            self.values[output] = Value(array, float(error), constant)
        self.nodes.append(node)
        if lowered:
            self.must_lower[node.name] = operator
        return names

    def _accept(self, array: Any) -> None:
        for part in array if isinstance(array, list) else [array]:
            if not isinstance(part, np.ndarray):
                continue
            if part.size > MOST_ELEMENTS or (part.size == 0 and self.flag(0.97)):
                raise Refused(f"a value of shape {part.shape}")
            if part.dtype.kind == "f" and part.size and not np.abs(part).max() < 1e4:
                raise Refused("a value too large")

    def run(self, node: NodeProto, replaced: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
        """What onnxruntime gives for one node alone, with some inputs replaced."""
        replaced = replaced or {}
        names = list(dict.fromkeys([*(name for name in node.input if name), *captured(node)]))
        feeds = {name: self.array(name) for name in names}
        fixed = {name for name in names if self.values[name].constant and isinstance(feeds[name], np.ndarray)}
        feeds.update({name: np.asarray(array) for name, array in replaced.items() if name in feeds})
        graph = helper.make_graph(
            [node],
            "one",
            [value_info(name, feeds[name]) for name in names if name not in fixed],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
            [numpy_helper.from_array(feeds[name], name) for name in names if name in fixed],
        )
        model = self.model(graph)
        try:
            return run_model(model, {name: feeds[name] for name in names if name not in fixed}, optimized=False)
        except Exception as error:  # onnxruntime has many
            raise Refused(str(error)) from None

    def run_alone(self, operator: str, inputs: Sequence[str], **attributes: Any) -> Any:
        """The first output of a node that is not appended."""
        return self.run(helper.make_node(operator, list(inputs), ["y"], "alone", **attributes))[0]

    def model(self, graph: onnx.GraphProto, ir_version: int = 13) -> onnx.ModelProto:
        """A model around a graph, with the opsets and functions of this one."""
        opsets = [helper.make_opsetid(domain, version) for domain, version in {"": self.opset, **self.domains}.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=self.functions)


def captured(node: NodeProto) -> list[str]:
    """Names that the bodies of a control-flow node read from outside."""
    names: list[str] = []
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            known = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            for inner in body.node:
                names += [name for name in [*inner.input, *captured(inner)] if name and name not in known]
                known.update(inner.output)
            names += [value.name for value in body.output if value.name not in known]
    return names


def value_info(name: str, array: Any, dims: Sequence[int | str | None] | None = None) -> onnx.ValueInfoProto:
    """The type of a graph input that takes this array."""
    if isinstance(array, list):
        inner = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array[0].dtype), None)
        return helper.make_value_info(name, helper.make_sequence_type_proto(inner))
    dtype = TensorProto.STRING if array.dtype.kind in "OU" else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, dtype, array.shape if dims is None else dims)


def open_session(model: onnx.ModelProto, optimized: bool = True) -> onnxruntime.InferenceSession:
    """A session of onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return precise_session(model.SerializeToString(), options)


def run_model(model: onnx.ModelProto, feeds: dict[str, Any], optimized: bool = True) -> list[Any]:
    """The outputs that onnxruntime gives."""
    return list(open_session(model, optimized).run(None, feeds))


# --- error rules ---


def roundoff(arrays: Sequence[Any]) -> float:
    """The coarsest unit roundoff of the float arrays; that of float32 where there are none."""
    kinds = [UNIT_ROUNDOFF[a.dtype.name] for a in arrays if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    return max(kinds, default=UNIT_ROUNDOFF["float32"])


def largest(array: Any) -> float:
    """The largest magnitude among the finite elements."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not array.size:
        return 0.0
    finite = np.abs(array.astype(np.float64))
    return float(finite[np.isfinite(finite)].max(initial=0.0))


def _inputs(builder: GraphBuilder, node: NodeProto) -> list[str]:
    return [name for name in [*node.input, *captured(node)] if name]


def _whole(*arrays: Any) -> bool:
    return all(isinstance(a, np.ndarray) and (a.dtype.kind in "iub" or bool((a == np.rint(a)).all())) for a in arrays)


def moving(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
    """Elements are moved, copied or chosen among by something exact."""
    error = max((builder.error(name) for name in _inputs(builder, node)), default=0.0)
    return [error] * len(arrays)


def lipschitz(constant: float) -> ErrorRule:
    """Each output moves by at most `constant` times the sum of the inputs' movements, and is rounded."""

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        names = _inputs(builder, node)
        carried = constant * sum(builder.error(name) for name in names)
        if not carried and _whole(*arrays, *(builder.array(n) for n in names)):
            return [0.0] * len(arrays)
        size = max(largest(array) for array in [*arrays, *(builder.array(name) for name in names)])
        return [carried + SLACK * 4 * roundoff(arrays) * constant * size] * len(arrays)

    return rule


def multilinear(*factors: int, terms: int = 0, extra: float = 0.0) -> ErrorRule:
    """A sum of products of the inputs at these positions, to which other inputs are added.

    Args:
        factors: positions of the factors.
        terms: how many products are added up at most; 0 takes the size of the largest constant factor.
        extra: what activation functions and the like may add, in units of the roundoff of the sums.
    """

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        names = [node.input[i] for i in factors]
        absolute = {name: np.abs(builder.array(name)) for name in node.input if name}
        others = [name for name in node.input if name and name not in names]
        positive = onnx.NodeProto()
        positive.CopyFrom(node)
        for attribute in positive.attribute:
            if attribute.name in ("alpha", "beta"):
                attribute.f = abs(attribute.f)
        sums = largest(builder.run(positive, absolute)[0])
        dtype = arrays[0].dtype.name
        exact = not any(builder.error(name) for name in absolute)
        integral = dtype == "int32" or sums < EXACT_SUMS.get(dtype, 0)
        if exact and integral and _whole(*arrays, *(builder.array(name) for name in absolute)):
            return [0.0]
        count = terms or max((builder.array(name).size for name in names), default=1)
        error = 2 * SLACK * (min(count, 200) + 8 + extra) * roundoff(arrays) * sums
        none = {name: np.zeros_like(absolute[name]) for name in others}
        for name in names:
            if builder.error(name):
                flat = {name: np.full_like(absolute[name], builder.error(name))}
                error += SLACK * largest(builder.run(positive, {**absolute, **none, **flat})[0])
        return [error + sum(builder.error(name) for name in others) * 2]

    return rule


def measured(units: float = 64.0) -> ErrorRule:
    """A smooth operator: sensitivity from finite differences in random directions, times SLACK."""

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        names = [n for n in _inputs(builder, node) if _is_float(builder.array(n))]
        moved = [n for n in dict.fromkeys(names) if not builder.values[n].constant]
        size = max((largest(builder.array(name)) for name in names), default=0.0)
        delta = 2.0**-5 * max(size, 2.0**-5)
        sensitivity = np.zeros(len(arrays))
        for _ in range(2 if moved else 0):
            changed = {}
            for name in moved:
                array = builder.array(name)
                signs = builder.rng.choice([-delta, delta], array.shape)
                changed[name] = (array + signs).astype(array.dtype)
            others = builder.run(node, changed)
            moves = [largest(np.subtract(b, a, dtype=np.float64)) for a, b in zip(arrays, others, strict=True)]
            sensitivity = np.maximum(sensitivity, np.array(moves) / delta)
        carried = max((builder.error(name) for name in names), default=0.0)
        rounding = roundoff([*arrays, *(builder.array(name) for name in names)])
        return [
            SLACK * 2 * s * carried + units * rounding * (largest(array) + s * size)
            for s, array in zip(sensitivity, arrays, strict=True)
        ]

    return rule


def _is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def jumping(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
    """Exact on exact inputs; anything may come of inexact ones."""
    exact = not any(builder.error(name) for name in _inputs(builder, node))
    return [0.0 if exact else np.inf] * len(arrays)


def stepping(scale_input: int = 1) -> ErrorRule:
    """A quantizer with its scale at this position: integers move by the error in steps, and one more."""

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        carried = builder.error(node.input[0])
        if builder.error(node.input[scale_input]):
            return [np.inf] * len(arrays)
        steps = carried / float(np.min(builder.array(node.input[scale_input])))
        return [np.ceil(steps) + (steps > 0)] * len(arrays)

    return rule


def fixed(*errors: float) -> ErrorRule:
    """Errors known beforehand."""
    return lambda builder, node, arrays: errors
