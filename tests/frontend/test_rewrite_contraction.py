"""Einsum and batched MatMul against onnxruntime; the matrices' shapes are counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from xbcompile.frontend import import_network, load_model

node = helper.make_node
SIZES = {"a": 2, "b": 3, "c": 4, "d": 2, "e": 3}


def uniform(rng, *shape, dtype="float32"):
    return rng.uniform(-1, 1, shape).astype(dtype)


def run(
    build, check, rng, operator, activations, constants, order, declared=None, opset=17, dtype="float32", **attributes
):
    """Import the node beside a plain MatMul, so that there is always a layer; its record, layers and digital operators."""
    feeds = {f"x{i}": uniform(rng, *shape, dtype=dtype) for i, shape in enumerate(activations)}
    weights = {f"w{i}": uniform(rng, *shape, dtype=dtype) for i, shape in enumerate(constants)}
    inputs = declared or {name: x.shape for name, x in feeds.items()}
    nodes = [node(operator, order.split(), ["y"], "n", **attributes), node("MatMul", ["p", "q"], ["z"], "other")]
    model = build(
        nodes, {**inputs, "p": (2, 2)}, ["y", "z"], {**weights, "q": np.eye(2, dtype=dtype)}, opset=opset, dtype=dtype
    )
    network = check(model, {**feeds, "p": uniform(rng, 2, 2, dtype=dtype)})
    record = next(record for record in network.records if record.node == "n")
    layers = [layer for layer in network.layers if layer.name != "other"]
    return record, layers, [n.op_type for s in network.segments for n in s.model.graph.node]


def einsum(build, check, rng, equation, activations, constants, order=None, **kwargs):
    names = [f"x{i}" for i in range(len(activations))] + [f"w{i}" for i in range(len(constants))]
    return run(
        build, check, rng, "Einsum", activations, constants, order or " ".join(names), equation=equation, **kwargs
    )


@pytest.mark.parametrize(
    ("equation", "x", "w", "matrix", "digital"),
    [
        ("bi,ij->bj", (2, 3), (3, 4), (1, 3, 4), 0),
        (" b i , i j ", (2, 3), (3, 4), (1, 3, 4), 0),
        ("...i,ij", (2, 5, 3), (3, 4), (1, 3, 4), 0),
        ("b...i,ij->...bj", (2, 5, 3), (3, 4), (1, 3, 4), 1),
        ("bit,oi->bot", (2, 3, 5), (4, 3), (1, 3, 4), 0),  # the constant on the left of a MatMul
        ("bi,ij->jb", (2, 3), (3, 4), (1, 3, 4), 1),
        ("bij,ijk->bk", (2, 3, 4), (3, 4, 5), (1, 12, 5), 1),
        ("bij,ij->b", (2, 3, 4), (3, 4), (1, 12, 1), 1),
        ("i,i->", (3,), (3,), (1, 3, 1), 0),
        ("bi,hij->bhj", (2, 3), (4, 3, 2), (1, 3, 8), 1),  # one vector for many matrices: one wide matrix
        ("bhi,hij->bhj", (2, 4, 3), (4, 3, 2), (4, 3, 2), 2),  # a matrix per head
        ("hbi,hij->hbj", (4, 2, 3), (4, 3, 2), (4, 3, 2), 4),
        ("hi,hij->hj", (4, 3), (4, 3, 2), (4, 3, 2), 2),
        ("bhi,hi->bh", (2, 4, 3), (4, 3), (4, 3, 1), 2),
        ("bshi,hij->bshj", (2, 5, 4, 3), (4, 3, 2), (4, 3, 2), 4),
        ("bi,jki->b", (2, 3), (4, 5, 3), (1, 3, 1), 0),  # summed over the constant alone
        ("bri,ij->bj", (2, 5, 3), (3, 4), (1, 3, 4), 1),  # over the activation alone
        ("bii,ij->bj", (2, 3, 3), (3, 4), (1, 3, 4), 1),  # a diagonal
        ("bi,iij->bj", (2, 3), (3, 3, 4), (1, 3, 4), 0),
        ("bij,ij->b", (2, 3, 1), (3, 4), (1, 3, 1), 1),  # sizes of 1 are repeated
        ("bij,ijk->bk", (2, 3, 4), (3, 1, 5), (1, 3, 5), 1),
        ("bji,ij->bj", (2, 1, 3), (3, 4), (1, 3, 4), 1),
        ("bji,ij->b", (2, 1, 3), (3, 4), (1, 3, 1), 1),
        ("Bi,iJ->BJ", (2, 3), (3, 4), (1, 3, 4), 0),
        ("...a,ab->...b", (2, 3, 4), (4, 5), (1, 4, 5), 0),
    ],
)
def test_einsum(build, check, rng, equation, x, w, matrix, digital):
    record, layers, operators = einsum(build, check, rng, equation, [x], [w])
    assert record.lowered
    assert [layer.weights.shape for layer in layers] == [matrix]
    assert len(operators) == digital


@pytest.mark.parametrize("opset", [12, 13, 21])
@pytest.mark.parametrize(
    ("equation", "x", "w", "declared"),
    [
        ("bhi,hij->bhj", (2, 4, 3), (4, 3, 2), ["b", None, None]),
        ("bhi,hij->bhj", (2, 1, 3), (4, 3, 2), ["b", None, None]),
        ("bshi,hij->bshj", (2, 5, 4, 3), (4, 3, 2), ["b", "s", 4, 3]),
        ("bstuhi,hij->bhjstu", (2, 5, 3, 2, 4, 3), (4, 3, 2), ["b", "s", "t", "u", "h", "i"]),
        ("bsij,ij->bs", (2, 5, 1, 3), (4, 3), ["b", "s", None, None]),
        ("bri,ij->bj", (2, 5, 3), (3, 4), None),
        ("sbi,jki->kbsj", (2, 5, 3), (4, 2, 3), ["b", "s", "i"]),
        ("sb,tsb->tb", (4, 3), (2, 4, 3), None),
    ],
)
def test_einsum_of_unknown_sizes(build, check, rng, equation, x, w, declared, opset):
    record, _, _ = einsum(build, check, rng, equation, [x], [w], declared={"x0": declared}, opset=opset)
    assert record.lowered


@pytest.mark.parametrize("unknown", [False, True])
def test_repeated_axes_of_joined_activations(build, check, rng, unknown):
    """The first activation is repeated along i, and j: the types of a joining Einsum must not say 1."""
    shapes = [(2, 1, 4), (2, 3, 1)]
    declared = {f"x{i}": [n if n == 1 or not unknown else None for n in shape] for i, shape in enumerate(shapes)}
    record, layers, _ = einsum(build, check, rng, "bij,bij,ijk->bk", shapes, [(3, 4, 5)], declared=declared)
    assert record.lowered
    assert [layer.weights.shape for layer in layers] == [(1, 12, 5)]


def test_rank_unknown_but_for_the_equation(build, check, rng):
    record, _, _ = einsum(build, check, rng, "bi,ij->bj", [(2, 3)], [(3, 4)], declared={"x0": None})
    assert record.lowered


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("equation", ["bshi,hij->bshj", "bshi,jih->bsj"])
def test_element_types(build, check, rng, dtype, equation):
    w = (4, 3, 2) if "hij" in equation else (2, 3, 4)
    record, layers, _ = einsum(build, check, rng, equation, [(2, 5, 4, 3)], [w], dtype=dtype)
    assert record.lowered
    assert layers[0].weights.dtype == np.float32


@pytest.mark.parametrize(
    ("equation", "activations", "constants", "matrices"),
    [
        ("bi,ij,jk->bk", [(2, 3)], [(3, 20), (20, 2)], [(1, 3, 2)]),  # joined: 6 elements for 100
        ("bi,ij,jk->bk", [(2, 30)], [(30, 2), (2, 30)], [(1, 30, 2), (1, 2, 30)]),  # a bottleneck is not
        ("bi,i,ij->bj", [(2, 3)], [(3,), (3, 4)], [(1, 3, 4)]),
        ("bi,,ij->bj", [(2, 3)], [(), (3, 4)], [(1, 3, 4)]),
        ("bi,bj,ijk->bk", [(2, 3), (2, 4)], [(3, 4, 5)], [(1, 4, 15)]),
        ("bi,bj,ij->b", [(2, 3), (2, 4)], [(3, 4)], [(1, 4, 3)]),
        ("bi,bi,ij->bj", [(2, 3), (2, 3)], [(3, 4)], [(1, 3, 4)]),  # activations joined first
        ("bi,bj,bj,ij->b", [(2, 1), (2, 3), (2, 3)], [(1, 3)], [(1, 3, 1)]),
        ("bi,bi,bj,ij,jk->bk", [(2, 3), (2, 3), (2, 9)], [(3, 9), (9, 8)], [(1, 9, 8), (1, 3, 9)]),
    ],
)
def test_several_operands(build, check, rng, equation, activations, constants, matrices):
    record, layers, _ = einsum(build, check, rng, equation, activations, constants)
    assert record.lowered
    assert sorted(layer.weights.shape for layer in layers) == sorted(matrices)


@pytest.mark.parametrize(
    ("equation", "activations", "constants", "reason"),
    [
        ("bi,bi->b", [(2, 3), (2, 3)], [], "both operands are activations"),
        ("bi,bj,bk->b", [(2, 3), (2, 3), (2, 3)], [], "all operands are activations"),
        ("bii->b", [(2, 3, 3)], [], "one operand only"),
        ("bi,i->bi", [(2, 3)], [(3,)], "element-wise product"),
        ("bi,j->bij", [(2, 3)], [(3,)], "element-wise product"),
        ("bi,bi,i->bi", [(2, 3), (2, 3)], [(3,)], "element-wise product"),
    ],
)
def test_stays_digital(build, check, rng, equation, activations, constants, reason):
    record, layers, operators = einsum(build, check, rng, equation, activations, constants)
    assert not record.lowered
    assert not layers
    assert reason in record.reason
    assert operators == ["Einsum"]


def test_capital_letters_without_result_stay_digital(build, rng):
    """onnxruntime has no order for them."""
    nodes = [node("Einsum", ["x", "w"], ["y"], "n", equation="Bi,ij"), node("MatMul", ["x", "w"], ["z"])]
    network = import_network(load_model(build(nodes, {"x": (2, 3)}, ["y", "z"], {"w": uniform(rng, 3, 4)})))
    assert network.records[0].reason == 'the equation "Bi,ij" has capital letters and no result'


def test_integers_stay_digital(build, check, rng):
    nodes = [
        node("Cast", ["x"], ["i"], to=6),
        node("Einsum", ["i", "k"], ["y"], "n", equation="bi,ij->bj"),
        node("MatMul", ["x", "w"], ["z"]),
    ]
    constants = {"k": rng.integers(-3, 3, (3, 4)).astype(np.int32), "w": uniform(rng, 3, 2)}
    network = check(build(nodes, {"x": (2, 3)}, ["y", "z"], constants), {"x": 9 * uniform(rng, 2, 3)})
    assert network.records[0].reason == "element type int32 is not lowered"


@st.composite
def equations(draw):
    """One constant and one or two activations with letters of fixed size, some of them of size 1 where that is allowed."""
    letters = st.sampled_from(sorted(SIZES))
    terms = [draw(st.lists(letters, min_size=1, max_size=4)) for _ in range(draw(st.integers(2, 3)))]
    constants = draw(st.integers(1, len(terms) - 1))
    known = sorted(set("".join(map("".join, terms))))
    result = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
    shapes = []
    for term in terms:
        ones = {c for c in set(term) if draw(st.integers(0, 7)) == 0}
        shapes.append(tuple(1 if c in ones else SIZES[c] for c in term))
    order = draw(st.permutations(range(len(terms))))
    unknown = [[draw(st.booleans()) for _ in term] for term in terms]
    return terms, constants, result, shapes, order, unknown


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=equations())
def test_random_equations(build, check, case):
    terms, constants, result, shapes, order, unknown = case
    assume(math.prod(SIZES[c] for c in set("".join(map("".join, terms)))) <= 200)
    # A result axis along which all operands have size 1 is of size 1 in numpy, and onnxruntime agrees.
    names = [f"w{i}" if i < constants else f"x{i - constants}" for i in range(len(terms))]
    equation = ",".join("".join(terms[i]) for i in order) + "->" + "".join(result)
    activations = shapes[constants:]
    declared = {
        f"x{i}": [None if hidden else size for size, hidden in zip(shape, unknown[constants + i], strict=True)]
        for i, shape in enumerate(activations)
    }
    rng = np.random.default_rng(len(equation))
    einsum(
        build,
        check,
        rng,
        equation,
        activations,
        shapes[:constants],
        " ".join(names[i] for i in order),
        declared=declared,
    )


# --- MatMul with a batch of constant matrices


@pytest.mark.parametrize("opset", [7, 9, 13, 21])
@pytest.mark.parametrize(
    ("x", "w", "matrix"),
    [
        ((5, 3), (2, 3, 4), (1, 3, 8)),  # one vector for both matrices
        ((3,), (2, 3, 4), (1, 3, 8)),
        ((1, 5, 3), (2, 3, 4), (1, 3, 8)),
        ((2, 5, 3), (2, 3, 4), (2, 3, 4)),
        ((6, 2, 5, 3), (2, 3, 4), (2, 3, 4)),
        ((6, 2, 5, 3), (6, 2, 3, 4), (12, 3, 4)),
        ((6, 2, 5, 3), (6, 1, 3, 4), (6, 3, 4)),
        ((2, 5, 3), (6, 1, 3, 4), (1, 3, 24)),
        ((5, 3), (1, 1, 3, 4), (1, 3, 4)),
    ],
)
def test_batch_on_the_right(build, check, rng, x, w, matrix, opset):
    record, layers, _ = run(build, check, rng, "MatMul", [x], [w], "x0 w0", opset=opset)
    assert record.lowered
    assert [layer.weights.shape for layer in layers] == [matrix]


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize(
    ("x", "w", "matrix"),
    [((3, 5), (2, 4, 3), (1, 3, 8)), ((3,), (2, 4, 3), (1, 3, 8)), ((2, 3, 5), (2, 4, 3), (2, 3, 4))],
)
def test_batch_on_the_left(build, check, rng, x, w, matrix, opset):
    record, layers, _ = run(build, check, rng, "MatMul", [x], [w], "w0 x0", opset=opset)
    assert record.lowered
    assert [layer.weights.shape for layer in layers] == [matrix]


@pytest.mark.parametrize("heads", [1, 2])
def test_batch_of_unknown_size(build, check, rng, heads):
    declared = {"x0": ["b", "h", "s", "i"]}
    case = ("MatMul", [(6, heads, 5, 3)], [(2, 3, 4)], "x0 w0", declared)
    record, layers, _ = run(build, check, rng, *case, opset=8)
    assert record.lowered
    assert layers[0].weights.shape == (2, 3, 4)
    record, layers, _ = run(build, check, rng, *case, opset=7)
    assert not record.lowered
    assert "opset 7 cannot repeat an axis" in record.reason


def test_summed_axis_of_unknown_size(build, check, rng):
    """MatMul does not repeat it, so that nothing is needed in any opset."""
    record, _, operators = run(
        build, check, rng, "MatMul", [(2, 5, 3)], [(2, 3, 4)], "x0 w0", {"x0": [2, 5, None]}, opset=7
    )
    assert record.lowered
    assert operators == ["Transpose", "Reshape", "Reshape", "Transpose"]


@st.composite
def matmuls(draw):
    batch = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=3))
    k, n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shapes = []
    for matrix in ((n, k), (k, m)):
        kept = batch[draw(st.integers(0, len(batch))) :]
        shapes.append((*(1 if draw(st.booleans()) else size for size in kept), *matrix))
    if len(shapes[0]) == 2 and draw(st.booleans()):
        shapes[0] = (k,)
    if len(shapes[1]) == 2 and draw(st.booleans()):
        shapes[1] = (k,)
    constant = draw(st.integers(0, 1))
    return shapes, constant, [draw(st.booleans()) for _ in shapes[1 - constant]], draw(st.sampled_from([7, 9, 13, 17]))


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=matmuls())
def test_random_ranks(build, check, case):
    shapes, constant, unknown, opset = case
    x = shapes[1 - constant]
    declared = {"x0": [None if hidden else size for size, hidden in zip(x, unknown, strict=True)]}
    order = "w0 x0" if constant == 0 else "x0 w0"
    rng = np.random.default_rng(sum(x))
    run(build, check, rng, "MatMul", [x], [shapes[constant]], order, declared, opset)
