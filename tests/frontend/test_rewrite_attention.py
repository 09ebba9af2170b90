"""Attention of com.microsoft against onnxruntime, and the projections of attention as exporters write it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
DOMAIN = "com.microsoft"
BATCH, LENGTH, WIDTH, HEADS, PAST = 2, 3, 6, 2, 4
ENDS, STARTS = [2, 3], [0, 1]


def uniform(rng, *shape):
    return rng.uniform(-1, 1, shape).astype("f")


def masks(rng, length):
    """Masks by name: whole numbers, 0 hides a key; or the ends of what is seen, and the starts."""
    return {
        "": None,
        "ends": np.array(ENDS, np.int32),
        "ends and starts": np.array(ENDS + STARTS, np.int32),
        "keys": rng.integers(0, 2, (BATCH, length)).astype(np.int32),
        "pairs": rng.integers(0, 2, (BATCH, LENGTH, length)).astype(np.int32),
    }


def run(
    check,
    rng,
    mask="",
    past=0,
    bias=True,
    added=None,
    present=False,
    values=8,
    batch=None,
    digital=False,
    opset=17,
    **attributes,
):
    """Import one Attention with queries and keys of 8 columns; its record, its layers and the digital operators."""
    feeds = {"x": uniform(rng, BATCH, LENGTH, WIDTH)}
    constants = {"w": uniform(rng, WIDTH, 16 + values), "b": uniform(rng, 16 + values)}
    names = ["x", "w", "b" if bias else "", "", "", ""]
    if mask:
        feeds["m"], names[3] = masks(rng, LENGTH + past)[mask], "m"
    if past:
        feeds["p"], names[4] = uniform(rng, 2, BATCH, HEADS, past, 4), "p"
    if added:
        feeds["a"], names[5] = uniform(rng, *added), "a"
    if values != 8:
        attributes["qkv_hidden_sizes"] = [8, 8, values]
    while not names[-1]:
        names.pop()
    outputs = ["y", "present"] if present else ["y"]
    inputs = [
        helper.make_tensor_value_info(
            name,
            TensorProto.INT32 if value.dtype == np.int32 else TensorProto.FLOAT,
            [batch if batch is not None and i == 0 and name in "xm" else size for i, size in enumerate(value.shape)],
        )
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(
        [node("Attention", names, outputs, "n", domain=DOMAIN, num_heads=HEADS, **attributes)],
        "test",
        inputs,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    if digital:  # then nothing else in the model has a matrix
        graph.node.append(node("MatMul", ["x", "w"], ["other"], "other"))
        graph.output.append(onnx.ValueInfoProto(name="other"))
    network = check(helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds, 5e-5)
    return network.records[0], network.layers, [n.op_type for s in network.segments for n in s.model.graph.node]


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("values", [8, 12])
def test_projections(check, rng, opset, bias, values):
    record, (layer,), operators = run(check, rng, bias=bias, values=values, opset=opset)
    assert record.lowered
    assert layer.weights.shape == (1, WIDTH, 16 + values)
    assert layer.bias.any() == bias
    assert operators == ["Split", "MultiHeadAttention"]


@pytest.mark.parametrize("attributes", [{}, {"unidirectional": 1}, {"scale": 0.3}, {"mask_filter_value": -5.0}])
@pytest.mark.parametrize("mask", ["", "ends", "keys", "pairs"])
@pytest.mark.parametrize("past", [0, PAST])
def test_masks_and_past(check, rng, attributes, mask, past):
    record, layers, _ = run(check, rng, mask, past, present=bool(past), **attributes)
    assert record.lowered
    assert len(layers) == 1


def test_present_without_past(check, rng):
    assert run(check, rng, present=True)[0].lowered


@pytest.mark.parametrize("added", [(2, 2, 3, 3), (1, 2, 3, 3), (2, 1, 3, 3), (1, 1, 3, 3)])
@pytest.mark.parametrize("mask", ["", "keys"])
def test_attention_bias(check, rng, added, mask):
    assert run(check, rng, mask, added=added)[0].lowered


@pytest.mark.parametrize("mask", ["ends", "keys", "pairs"])
def test_batch_of_unknown_size(check, rng, mask):
    """Ends of as many items as the batch has, by the name of the dimension."""
    assert run(check, rng, mask, batch="batch")[0].lowered


def test_mask_of_positions_for_an_input_of_unknown_rank(build, check, rng):
    nodes = [
        node("MatMul", ["u", "v"], ["z"], "other"),
        node("Attention", ["x", "w", "", "m"], ["y"], "n", domain=DOMAIN, num_heads=HEADS),
    ]
    constants = {"v": uniform(rng, 2, 2), "w": uniform(rng, WIDTH, 24), "m": np.array(ENDS, np.int32)}
    model = build(nodes, {"u": (2, 2), "x": None}, ["z", "y"], constants, domains={DOMAIN: 1})
    network = check(model, {"u": uniform(rng, 2, 2), "x": uniform(rng, BATCH, LENGTH, WIDTH)})
    assert "positions" in network.records[1].reason


def test_batch_of_unknown_size_without_a_name(check, rng):
    record, _, _ = run(check, rng, "ends", batch="", digital=True)
    assert "positions" in record.reason


def test_starts_stay_digital(check, rng):
    """MultiHeadAttention has no mask of ends and starts."""
    record, _, operators = run(check, rng, "ends and starts", digital=True)
    assert record.reason == "a mask of positions whose length is not known to be the batch's is not lowered"
    assert "Attention" in operators


@pytest.mark.parametrize("opset", [14, 17])
def test_products_of_activations_are_named(build, check, rng, opset):
    """MultiHeadAttention has no weights: the report says why it stays digital."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"], "projection"),
        node("MultiHeadAttention", ["q", "q", "q"], ["y"], "n", domain=DOMAIN, num_heads=2),
    ]
    model = build(nodes, {"x": (2, 3, 6)}, ["y"], {"w": uniform(rng, 6, 8)}, opset=opset, domains={DOMAIN: 1})
    network = check(model, {"x": uniform(rng, 2, 3, 6)})
    reasons = {record.node: record.reason for record in network.records}
    assert reasons == {"projection": "", "n": "a product of activations: it has no weights"}


def test_attention_of_onnx_is_named(build, check, rng):
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Attention", ["q", "q", "q"], ["y"], "n", q_num_heads=2, kv_num_heads=2),
    ]
    model = build(nodes, {"x": (2, 3, 6)}, ["y"], {"w": uniform(rng, 6, 8)}, opset=23, ir_version=10)
    network = check(model, {"x": uniform(rng, 2, 3, 6)})
    assert network.records[1].reason == "a product of activations: it has no weights"


# --- attention as exporters write it


@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_projection(build, check, rng, opset, batch_first):
    """One initializer [3 width, width], transposed and sliced into queries, keys and values by constant nodes."""
    width, heads = 8, 2
    constants = {
        "in_proj": uniform(rng, 3 * width, width),
        "in_bias": uniform(rng, 3 * width),
        "out_proj": uniform(rng, width, width),
        "out_bias": uniform(rng, width),
        "axis": np.array([0]),
        "shape": np.array([0, 0, heads, width // heads]),
        "flat": np.array([0, 0, width]),
        "scale": np.float32((width // heads) ** -0.5),
    }
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2] if not batch_first else [0, 1, 2])]
    for i, part in enumerate("qkv"):
        constants[f"from{i}"], constants[f"to{i}"] = np.array([i * width]), np.array([(i + 1) * width])
        nodes += [
            node("Slice", ["in_proj", f"from{i}", f"to{i}", "axis"], [f"w{part}"]),
            node("Transpose", [f"w{part}"], [f"w{part}t"], perm=[1, 0]),
            node("Slice", ["in_bias", f"from{i}", f"to{i}", "axis"], [f"b{part}"]),
            node("MatMul", ["t", f"w{part}t"], [f"m{part}"], f"projection {part}"),
            node("Add", [f"m{part}", f"b{part}"], [f"a{part}"]),
            node("Reshape", [f"a{part}", "shape"], [f"r{part}"]),
            node("Transpose", [f"r{part}"], [f"h{part}"], perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        node("MatMul", ["hq", "hk"], ["scores"], "scores"),
        node("Mul", ["scores", "scale"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "hv"], ["mixed"], "mixed"),
        node("Transpose", ["mixed"], ["moved"], perm=[0, 2, 1, 3]),
        node("Reshape", ["moved", "flat"], ["joined"]),
        node("MatMul", ["joined", "out_proj"], ["out"], "output"),
        node("Add", ["out", "out_bias"], ["y"]),
    ]
    network = check(
        build(nodes, {"x": ("n", "s", width)}, ["y"], constants, opset=opset), {"x": uniform(rng, 2, 3, width)}
    )
    assert len(network.layers) == 4
    assert all(layer.bias.any() for layer in network.layers)
    digital = {record.node: record.reason for record in network.records if not record.lowered}
    assert digital == dict.fromkeys(["scores", "mixed"], "both operands are activations")
