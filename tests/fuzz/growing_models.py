"""Small models that ask for much: values, copies, levels, steps or names without end, from a few sizes that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE
SIZES = (
    -(2**63),
    -(2**31),
    -2,
    -1,
    0,
    1,
    2,
    3,
    4,
    7,
    15,
    100,
    2**10,
    2**16,
    2**20,
    2**24,
    2**28,
    2**31,
    2**33,
    2**40,
    2**62,
)
COUNTS = (0, 1, 2, 3, 7, 15, 16, 17, 30, 33, 40, 100, 300)

node = helper.make_node
info = helper.make_tensor_value_info


def model_of(
    nodes: Sequence[NodeProto],
    constants: dict[str, Any],
    outputs: Sequence[str] = ("y",),
    x: Sequence[int | str] = ("n", 4),
    element_type: int = FLOAT,
    **options: Any,
) -> ModelProto:
    """A model with the input `x`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", [info("x", element_type, list(x))], results, tensors)
    opsets = [helper.make_opsetid("", options.pop("opset", 17)), *(helper.make_opsetid(d, 1) for d in ("f",))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=options.pop("ir_version", 9), **options)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# One value that grows: nodes that write `g` from `s`, a float tensor of shape [1, 4], and constants.
Growing = Callable[[int, int], tuple[list[NodeProto], dict[str, Any]]]

GROWING: dict[str, Growing] = {
    "AffineGrid": lambda a, b: (
        [node("AffineGrid", ["theta", "k"], ["g"])],
        {"theta": np.ones((1, 2, 3), np.float32), "k": _ints(1, 1, a, b)},
    ),
    "AveragePool": lambda a, b: (
        [node("Reshape", ["s", "r"], ["t"]), node("AveragePool", ["t"], ["g"], kernel_shape=[a, b], pads=[b, a, b, a])],
        {"r": _ints(1, 1, 2, 2)},
    ),
    "CenterCropPad": lambda a, b: ([node("CenterCropPad", ["s", "k"], ["g"])], {"k": _ints(a, b)}),
    "Col2Im": lambda a, b: (
        [node("Reshape", ["s", "r"], ["t"]), node("Col2Im", ["t", "k", "l"], ["g"])],
        {"r": _ints(1, 4, 1), "k": _ints(a, b), "l": _ints(2, 2)},
    ),
    "Concat": lambda a, b: (
        [node("Concat", ["s" if i == 0 else f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(a % 48)]
        + [node("Identity", [f"c{a % 48}" if a % 48 else "s"], ["g"])],
        {},
    ),
    "ConcatOfSizes": lambda a, b: (
        [node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(a % 48)]
        + [node("ReduceProd", [f"c{a % 48}"], ["p"]), node("Expand", ["s", "p"], ["g"])],
        {"c0": _ints(1)},
    ),
    "ConstantOfShape": lambda a, b: ([node("ConstantOfShape", ["k"], ["g"])], {"k": _ints(a, b)}),
    "DFT": lambda a, b: (
        [node("Reshape", ["s", "r"], ["t"]), node("DFT", ["t", "k"], ["g"], axis=1)],
        {"r": _ints(1, 4, 1), "k": np.array(a)},
    ),
    "DepthToSpace": lambda a, b: (
        [node("Reshape", ["s", "r"], ["t"]), node("DepthToSpace", ["t"], ["g"], blocksize=a)],
        {"r": _ints(1, 4, 1, 1)},
    ),
    "Expand": lambda a, b: ([node("Expand", ["one", "k"], ["g"])], {"one": np.float32([[1]]), "k": _ints(a, b)}),
    "ExpandTwice": lambda a, b: (
        [node("Expand", ["s", "k"], ["e"]), node("Expand", ["e", "l"], ["g"])],
        {"k": _ints(a, 1, 4), "l": _ints(b, 1, 1, 4)},
    ),
    "EyeLike": lambda a, b: (
        [node("ConstantOfShape", ["k"], ["e"]), node("EyeLike", ["e"], ["g"])],
        {"k": _ints(a, b)},
    ),
    "Gather": lambda a, b: (
        [node("Gather", ["s", "i"], ["g"], axis=1) for i in range(1)],
        {"i": np.zeros((min(abs(a), 1000), min(abs(b), 100)), np.int64)},
    ),
    "GatherTwice": lambda a, b: (
        [node("Expand", ["zero", "k"], ["i"]), node("Gather", ["s", "i"], ["g"], axis=0)],
        {"zero": _ints(0), "k": _ints(a, b)},
    ),
    "HannWindow": lambda a, b: ([node("HannWindow", ["k"], ["g"])], {"k": np.array(a)}),
    "MatMul": lambda a, b: (
        [node("Expand", ["s", "k"], ["e"]), node("Transpose", ["e"], ["t"]), node("MatMul", ["e", "t"], ["g"])],
        {"k": _ints(a, 4)},
    ),
    "MaxPool": lambda a, b: (
        [node("Reshape", ["s", "r"], ["t"]), node("MaxPool", ["t"], ["g"], kernel_shape=[a, b], strides=[b, a])],
        {"r": _ints(1, 1, 2, 2)},
    ),
    "MelWeightMatrix": lambda a, b: (
        [node("MelWeightMatrix", ["k", "l", "m", "zero", "top"], ["g"])],
        {"k": np.array(a), "l": np.array(b), "m": np.array(100), "zero": np.float32(0), "top": np.float32(9)},
    ),
    "Mul": lambda a, b: (
        [node("Expand", ["s", "k"], ["e"]), node("Expand", ["s", "l"], ["f"]), node("Mul", ["e", "f"], ["g"])],
        {"k": _ints(a, 1, 4), "l": _ints(1, b % 1000, 4)},
    ),
    "NonZero": lambda a, b: (
        [
            node("NonZero", ["s"], ["z"]),
            node("Shape", ["z"], ["n"]),
            node("Mul", ["n", "k"], ["m"]),
            node("ConstantOfShape", ["m"], ["g"]),
        ],
        {"k": _ints(a, b)},
    ),
    "OneHot": lambda a, b: (
        [node("OneHot", ["i", "k", "v"], ["g"])],
        {"i": np.zeros(min(abs(b), 100), np.int64), "k": np.array(a), "v": np.float32([0, 1])},
    ),
    "Pad": lambda a, b: ([node("Pad", ["s", "k"], ["g"])], {"k": _ints(a, b, b, a)}),
    "RandomNormal": lambda a, b: ([node("RandomNormal", [], ["g"], shape=[a, b])], {}),
    "Range": lambda a, b: (
        [node("Range", ["k", "l", "m"], ["r"]), node("Cast", ["r"], ["g"], to=FLOAT)],
        {"k": np.array(a), "l": np.array(b), "m": np.array(1)},
    ),
    "Reshape": lambda a, b: ([node("Reshape", ["s", "k"], ["g"])], {"k": _ints(a, b)}),
    "Resize": lambda a, b: (
        [node("Resize", ["s", "", "", "k"], ["g"], mode="nearest")],
        {"k": _ints(a, b)},
    ),
    "ResizeBy": lambda a, b: ([node("Resize", ["s", "", "k"], ["g"], mode="nearest")], {"k": np.float32([a, b])}),
    "SequenceOfMany": lambda a, b: (
        [
            node("SequenceConstruct", ["s"] * (abs(a) % 1000 + 1), ["q"]),
            node("ConcatFromSequence", ["q"], ["g"], axis=0),
        ],
        {},
    ),
    "Split": lambda a, b: ([node("Split", ["s", "k"], ["g", "h"], axis=1)], {"k": _ints(a, b)}),
    "Tile": lambda a, b: ([node("Tile", ["s", "k"], ["g"])], {"k": _ints(a, b)}),
    "TopK": lambda a, b: ([node("TopK", ["s", "k"], ["g", "h"])], {"k": _ints(a)}),
    "Trilu": lambda a, b: (
        [node("ConstantOfShape", ["k"], ["e"]), node("Trilu", ["e", "b"], ["g"])],
        {"k": _ints(a, a), "b": np.array(b)},
    ),
    "Where": lambda a, b: (
        [node("Expand", ["yes", "k"], ["e"]), node("Where", ["e", "s", "s"], ["g"])],
        {"yes": np.array([True]), "k": _ints(a, b, 4)},
    ),
}


def growing(name: str, from_input: bool, used: int, a: int, b: int) -> ModelProto:
    """The value depends on constants alone, or on the input; it is a weight, an addend, an output, or the sum of it is."""
    nodes, constants = GROWING[name](a, b)
    source = [node("ReduceSum", ["x", "axis"], ["s0"]), node("Expand", ["s0", "four"], ["s"])] if from_input else []
    constants |= {"axis": _ints(0), "four": _ints(1, 4), "w": np.eye(4, 3, dtype=np.float32)}
    if not from_input:
        constants["s"] = np.float32([[1, 2, 3, 4]])
    ends = [
        [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["x", "g"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("ReduceSum", ["g"], ["r"]), node("Add", ["h", "r"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Identity", ["g"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Gemm", ["x", "g", "h"], ["y"])],
    ]
    return model_of([*source, *nodes, *ends[used % len(ends)]], constants, ["y", "h"], opset=20)


def window(operator: str, attributes: dict[str, Any], rank: int, element_type: int) -> ModelProto:
    """One operator with a window, in two groups of channels or one."""
    kernel = np.ones((4, 2, *[3] * rank), np.float32)
    constants: dict[str, Any] = {"w": kernel}
    if operator in ("ConvInteger", "QLinearConv"):
        constants["w"] = kernel.astype(np.int8)
        constants |= {"one": np.float32(1), "zero": np.uint8(0), "zero8": np.int8(0)}
    elif element_type == DOUBLE:
        constants["w"] = kernel.astype(np.float64)
    inputs = {
        "Conv": ["x", "w"],
        "ConvTranspose": ["x", "w"],
        "ConvInteger": ["q", "w"],
        "QLinearConv": ["q", "one", "zero", "w", "one", "zero8", "one", "zero"],
    }.get(operator, ["x"])
    first = [node("Cast", ["x"], ["q"], to=TensorProto.UINT8)] if "q" in inputs else []
    channels = 4 if operator in ("Conv", "ConvTranspose") and attributes.get("group", 1) != 1 else 2
    channels = 4 if operator == "ConvTranspose" else channels
    return model_of(
        [*first, node(operator, inputs, ["y"], "n", **attributes)],
        constants if "w" in inputs else {},
        x=["n", channels, *[8] * rank],
        element_type=element_type,
        opset=17,
    )


def functions(depth: int, calls: int, inside: bool, circle: bool) -> ModelProto:
    """Functions that call the next one several times; in a body where wanted; the last one calls the first, or nothing."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    listed = []
    for i in range(depth):
        if i < depth - 1 or circle:
            nodes = [
                node(f"F{(i + 1) % depth}", ["a" if j == 0 else f"t{j}"], [f"t{j + 1}"], domain="f")
                for j in range(calls)
            ]
            nodes.append(node("Identity", [f"t{calls}" if calls else "a"], ["b"]))
        else:
            nodes = [node("Relu", ["a"], ["b"])]
        if inside:
            branches = [
                helper.make_graph(
                    [*nodes[:-1], node("Identity", list(nodes[-1].input), [out])],
                    out,
                    [],
                    [onnx.ValueInfoProto(name=out)],
                )
                for out in ("then", "other")
            ]
            nodes = [
                node("ReduceSum", ["a"], ["sum"], keepdims=0),
                node("Cast", ["sum"], ["test"], to=BOOL),
                node("If", ["test"], ["b"], then_branch=branches[0], else_branch=branches[1]),
            ]
        listed.append(helper.make_function("f", f"F{i}", ["a"], ["b"], nodes, opsets))
    first = [node("F0", ["x"], ["h"], domain="f")] if depth else [node("Relu", ["x"], ["h"])]
    return model_of([*first, node("MatMul", ["h", "w"], ["y"])], {"w": np.eye(4, dtype=np.float32)}, functions=listed)


def loops(depth: int, trips: int, kind: str, grows: bool) -> ModelProto:
    """Loops in loops, or Ifs in Ifs, with a product inside; the state of a loop doubles where wanted."""
    inner = [node("MatMul", ["s0", "w"], ["p0"]), node("Tanh", ["p0"], ["r0"])]
    if grows:
        inner.append(node("Concat", ["r0", "r0"], ["e0"], axis=0))
    current = inner, "e0" if grows else "r0"
    for i in range(depth):
        nodes, end = current
        if kind == "If":
            then = helper.make_graph(nodes, f"g{i}", [], [onnx.ValueInfoProto(name=end)])
            other = helper.make_graph(
                [node("Neg", ["s0"], [f"i{i}"])], f"h{i}", [], [onnx.ValueInfoProto(name=f"i{i}")]
            )
            again = [node("If", ["true"], [f"o{i}"], then_branch=then, else_branch=other)]
        else:
            state = f"s{i}"
            body_nodes = [node("Identity", [f"c{i}"], [f"d{i}"]), *nodes]
            body = helper.make_graph(
                body_nodes,
                f"g{i}",
                [info(f"n{i}", INT64, []), info(f"c{i}", BOOL, []), info(state, FLOAT, None)],
                [info(f"d{i}", BOOL, []), info(end, FLOAT, None)],
            )
            again = [node("Loop", ["trips" if trips >= 0 else "", "", f"s{i + 1}"], [f"o{i}"], body=body)]
        current = again, f"o{i}"
    nodes, end = current
    start = "s0" if kind == "If" else f"s{depth}"
    constants = {"w": np.eye(4, dtype=np.float32), "trips": np.array(max(trips, 0)), "true": np.array(True)}
    return model_of([node("Identity", ["x"], [start]), *nodes, node("Identity", [end], ["y"])], constants)


def recurrent(operator: str, steps: int, hidden: int, layout: int) -> ModelProto:
    """A recurrent operator over a sequence of that many steps."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    constants = {"w": np.ones((1, gates * 2, 4), np.float32), "r": np.ones((1, gates * 2, 2), np.float32)}
    shape: list[int | str] = ["n", steps, 4] if layout else [steps, "n", 4]
    return model_of(
        [node(operator, ["x", "w", "r"], ["y"], "n", hidden_size=hidden, layout=layout)], constants, x=shape
    )


def chain(count: int, operator: str) -> ModelProto:
    """A chain of nodes."""
    nodes = [
        node(operator, [f"t{i}" if i else "x", *(["w"] * (operator == "MatMul"))], [f"t{i + 1}"]) for i in range(count)
    ]
    return model_of(
        [*nodes, node("Identity", [f"t{count}" if count else "x"], ["y"])], {"w": np.eye(4, dtype=np.float32)}
    )


def shapes(sizes: Sequence[int], rank: int) -> ModelProto:
    """An input of huge, negative or empty axes, with a product behind it."""
    return model_of([node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(4, dtype=np.float32)}, x=[*sizes[:rank], 4])


def sparse(dims: Sequence[int], count: int) -> ModelProto:
    """Sparse initializers of few values, as weights."""
    model = model_of([node("MatMul", ["x", "v0"], ["y"])], {})
    for i in range(count):
        values = numpy_helper.from_array(np.ones(1, np.float32), f"v{i}")
        indices = numpy_helper.from_array(_ints(0), f"i{i}")
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=dims))
    return model


def empty_weights(dims: Sequence[int]) -> ModelProto:
    """An initializer of no element, or of no data."""
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {})
    model.graph.initializer.append(TensorProto(name="w", data_type=FLOAT, dims=dims))
    return model


def named(length: int, letter: str) -> ModelProto:
    """Names of that many characters, of nodes and of tensors."""
    name = letter * length
    model = model_of([node("MatMul", ["x", "w"], [name], name), node("Relu", [name], ["y"], name)], {})
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    return model


def of_type(operator: str, element_type: int) -> ModelProto:
    """An operator with weights in an element type that onnxruntime may not have it in."""
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    attributes: dict[str, Any] = {}
    inputs, shape, constants = ["x", "w"], [2, 4], {"w": np.ones((4, 4), dtype)}
    if operator in ("Conv", "ConvTranspose"):
        shape, constants = [1, 2, 5, 5], {"w": np.ones((2, 2, 3, 3), dtype)}
    elif operator in ("LSTM", "GRU", "RNN"):
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
        constants = {"w": np.ones((1, gates * 2, 4), dtype), "r": np.ones((1, gates * 2, 2), dtype)}
        inputs, shape, attributes = ["x", "w", "r"], [3, 1, 4], {"hidden_size": 2}
    elif operator in ("Softmax", "Relu", "Erf", "Gelu", "LayerNormalization", "Resize", "CumSum", "TopK"):
        extra = {"LayerNormalization": ["s"], "Resize": ["", "k"], "CumSum": ["a"], "TopK": ["a"]}.get(operator, [])
        constants = {"s": np.ones(4, dtype), "k": np.array([1, 2], np.float32), "a": _ints(1)}
        inputs = ["x", *extra]
    outputs = ["y", "z"] if operator == "TopK" else ["y"]
    return model_of(
        [node(operator, inputs, outputs, "n", **attributes)], constants, x=shape, element_type=element_type, opset=20
    )


MICROSOFT, QONNX = "com.microsoft", "qonnx.custom_op.general"

# Operators that are rewritten: domain, inputs, shape of x, constants, and attributes that fit them.
REWRITTEN: dict[str, tuple[str, list[str], list[int | str], dict[str, Any], dict[str, Any]]] = {
    "Attention": (MICROSOFT, ["x", "w", "b"], ["n", 5, 4], {"w": (4, 12), "b": (12,)}, {"num_heads": 2}),
    "BipolarQuant": (QONNX, ["x", "s"], ["n", 4], {"s": ()}, {}),
    "Einsum": ("", ["x", "w"], ["n", 4], {"w": (4, 3)}, {"equation": "bi,io->bo"}),
    "FusedConv": (MICROSOFT, ["x", "w"], [1, 2, 5, 5], {"w": (3, 2, 3, 3)}, {"activation": "Relu", "group": 1}),
    "FusedMatMul": (MICROSOFT, ["x", "w"], ["n", 4], {"w": (4, 3)}, {"alpha": 0.5, "transB": 0}),
    "GemmFastGelu": (MICROSOFT, ["x", "w"], ["n", 4], {"w": (4, 3)}, {}),
    "Im2Col": (QONNX, ["x"], [1, 5, 5, 2], {}, {"kernel_size": [3, 3], "stride": [1, 1], "pad_amount": [0, 0, 0, 0]}),
    "LinearRegressor": ("ai.onnx.ml", ["x"], ["n", 4], {}, {"coefficients": [1.0] * 8, "intercepts": [1.0, 2.0], "targets": 2}),
    "MatMulBnb4": (MICROSOFT, ["x", "q", "a"], ["n", 16], {"a": (4,)}, {"K": 16, "N": 4, "block_size": 16, "quant_type": 1}),
    "MatMulNBits": (MICROSOFT, ["x", "p", "a"], ["n", 16], {"a": (4,)}, {"K": 16, "N": 4, "block_size": 16, "bits": 4}),
    "MaxPoolNHWC": (QONNX, ["x"], [1, 5, 5, 2], {}, {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0, 0, 0, 0]}),
    "MultiThreshold": (QONNX, ["x", "t"], ["n", 4], {"t": (4, 3)}, {"out_scale": 1.0, "out_bias": 0.0}),
    "Quant": (QONNX, ["x", "s", "z", "k"], ["n", 4], {"s": (), "z": (), "k": ()}, {"signed": 1, "narrow": 0}),
    "QuantAvgPool2d": (QONNX, ["x"], [1, 2, 4, 4], {}, {"kernel": 2, "stride": 2, "ibits": 4, "obits": 4, "signed": 0}),
    "Trunc": (QONNX, ["x", "s", "z", "k", "k"], ["n", 4], {"s": (), "z": (), "k": ()}, {"rounding_mode": "FLOOR"}),
    "XnorPopcountMatMul": (QONNX, ["x", "w"], ["n", 4], {"w": (4, 3)}, {}),
}  # fmt: skip
ODD = (
    *SIZES,
    -1.0,
    0.0,
    0.5,
    8.0,
    1e30,
    float("inf"),
    float("nan"),
    "",
    "FLOOR",
    "(1,2,3)",
    "(9**9**9,)",
    "bi,bi->",
    "...",
)


def rewritten(operator: str, name: str, odd: Any, index: int, value: float) -> ModelProto:
    """An operator that is rewritten, with another value of an attribute, or of all elements of a constant."""
    domain, inputs, shape, sizes, attributes = REWRITTEN[operator]
    constants: dict[str, Any] = {each: np.full(size, 2, np.float32) for each, size in sizes.items()}
    constants |= {"q": np.full(32, 7, np.uint8), "p": np.full((4, 1, 8), 7, np.uint8)}
    constants = {each: array for each, array in constants.items() if each in inputs}
    if name in attributes:
        kept = attributes[name]
        attributes = attributes | {name: [odd] * len(kept) if isinstance(kept, list) else odd}
    elif constants:
        chosen = sorted(constants)[index % len(constants)]
        with np.errstate(all="ignore"):
            constants[chosen] = np.full(constants[chosen].shape, value).astype(constants[chosen].dtype)
    model = model_of(
        [node(operator, inputs, ["h"], "n", domain=domain), node("Identity", ["h"], ["y"])], constants, x=shape
    )
    if domain:
        model.opset_import.add(domain=domain, version=1)
    for each, given in attributes.items():
        if isinstance(given, list) and len({type(entry) for entry in given}) == 1 and isinstance(given[0], str):
            given = [entry.encode() for entry in given]
        model.graph.node[0].attribute.append(helper.make_attribute(each, given))
    return model
