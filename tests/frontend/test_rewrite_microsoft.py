"""onnxruntime's fused operators against onnxruntime; quantized weights against numpy too."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.integer_sums import precise_session

node = helper.make_node
DOMAIN = "com.microsoft"


def uniform(rng, *shape, dtype="float32"):
    return rng.uniform(-1, 1, shape).astype(dtype)


def model_with(build, operator, inputs, activations, constants, opset=17, dtype="float32", **attributes):
    """The node beside a plain MatMul, so that there is always a layer."""
    nodes = [
        node(operator, inputs, ["y"], "n", domain=DOMAIN, **attributes),
        node("MatMul", ["p", "q"], ["pq"], "other"),
    ]
    constants = {**constants, "q": np.eye(2, dtype=dtype)}
    return build(
        nodes, {**activations, "p": (2, 2)}, ["y", "pq"], constants, opset=opset, dtype=dtype, domains={DOMAIN: 1}
    )


def run(build, check, rng, operator, inputs, activations, constants, tolerance=2e-5, dtype="float32", **kwargs):
    """Import and compare; the node's record, its layers, and the digital operators."""
    model = model_with(build, operator, inputs, activations, constants, dtype=dtype, **kwargs)
    feeds = {name: uniform(rng, *shape, dtype=dtype) for name, shape in {**activations, "p": (2, 2)}.items()}
    network = check(model, feeds, tolerance)
    record = next(record for record in network.records if record.node == "n")
    layers = [layer for layer in network.layers if layer.name != "other"]
    return record, layers, [n.op_type for s in network.segments for n in s.model.graph.node]


ACTIVATIONS = [
    (None, []),
    ("Relu", []),
    ("Tanh", []),
    ("Sigmoid", []),
    ("LeakyRelu", [0.2]),
    ("Clip", [-0.1, 0.6]),
    ("HardSigmoid", [0.3, 0.4]),
]


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
@pytest.mark.parametrize(("activation", "parameters"), ACTIVATIONS)
def test_fused_conv(build, check, rng, activation, parameters, opset):
    attributes = {"strides": [2, 1], "pads": [1, 0, 1, 2], "group": 2}
    if activation:
        attributes["activation"] = activation
    if parameters:
        attributes["activation_params"] = parameters
    shapes, constants = {"x": (2, 4, 5, 6)}, {"w": uniform(rng, 6, 2, 3, 3), "b": uniform(rng, 6)}
    for inputs, added in ((["x", "w"], {}), (["x", "w", "b"], {}), (["x", "w", "", "z"], {"z": (2, 6, 3, 6)})):
        used = {name: constants[name] for name in inputs if name in constants}
        record, (layer,), operators = run(
            build, check, rng, "FusedConv", inputs, {**shapes, **added}, used, opset=opset, **attributes
        )
        assert record.lowered
        assert layer.weights.shape == (2, 18, 3)
        assert operators == ["Add"] * bool(added) + [activation] * bool(activation)


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", {}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Elu", {"activation_alpha": 0.7}),
        ("ThresholdedRelu", {"activation_alpha": 0.1}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ],
)
def test_fused_gemm(build, check, rng, activation, parameters, trans_a, trans_b):
    attributes = {
        "activation": activation,
        "transA": trans_a,
        "transB": trans_b,
        "alpha": 0.5,
        "beta": 2.0,
        **parameters,
    }
    constants = {"w": uniform(rng, *((4, 3) if trans_b else (3, 4))), "c": uniform(rng, 4)}
    activations = {"x": (3, 2) if trans_a else (2, 3)}
    record, (layer,), operators = run(
        build, check, rng, "FusedGemm", ["x", "w", "c"], activations, constants, **attributes
    )
    assert record.lowered
    assert layer.bias.any()
    assert operators == [activation]


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_fused_gemm_without_addend(build, check, rng, opset):
    constants = {"w": uniform(rng, 3, 4)}
    attributes = {"activation": "Relu", "opset": opset}
    assert run(build, check, rng, "FusedGemm", ["w", "x"], {"x": (4, 2)}, constants, **attributes)[0].lowered
    # The rank is onnxruntime's to infer, which reads the replacement.
    model = model_with(build, "FusedGemm", ["x", "w"], {"x": None}, constants, **attributes)
    network = check(model, {"x": uniform(rng, 2, 3), "p": uniform(rng, 2, 2)})
    assert network.records[0].lowered


def test_unknown_activation_stays_digital(build, check, rng):
    attributes = {"activation": "ParametricSoftplus", "activation_alpha": 0.3, "activation_beta": 0.4}
    record, layers, operators = run(
        build, check, rng, "FusedGemm", ["x", "w"], {"x": (2, 3)}, {"w": uniform(rng, 3, 4)}, **attributes
    )
    assert record.reason == 'the activation "ParametricSoftplus" is not known'
    assert not layers
    assert operators == ["FusedGemm"]


@st.composite
def fused_matmuls(draw):
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    n, k, m = (draw(st.integers(1, 4)) for _ in range(3))
    shapes, attributes = [], {"alpha": draw(st.sampled_from([1.0, -0.5]))}
    alike = draw(st.booleans())  # onnxruntime demands operands of equal rank where one is transposed with its batch
    for side, matrix in (("A", (n, k)), ("B", (k, m))):
        kept = tuple(batch if alike else batch[draw(st.integers(0, len(batch))) :])
        if draw(st.booleans()):
            matrix, attributes[f"trans{side}"] = matrix[::-1], 1
        if alike and kept and draw(st.booleans()):
            attributes[f"transBatch{side}"] = 1
            shapes.append((matrix[0], *kept, matrix[1]))
        elif not batch and draw(st.integers(0, 3)) == 0:
            shapes.append((k,))
        else:
            shapes.append((*kept, *matrix))
    return shapes, attributes, draw(st.integers(0, 1)), draw(st.booleans())


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=fused_matmuls())
def test_fused_matmul(build, check, case):
    shapes, attributes, constant, dynamic = case
    rng, x = np.random.default_rng(7), shapes[1 - constant]
    model = model_with(
        build,
        "FusedMatMul",
        ["w", "x"] if constant == 0 else ["x", "w"],
        {"x": [None] * len(x) if dynamic else x},
        {"w": uniform(rng, *shapes[constant])},
        **attributes,
    )
    network = check(model, {"x": uniform(rng, *x), "p": uniform(rng, 2, 2)})
    (record,) = (record for record in network.records if record.node == "n")
    assert record.lowered or "nothing is summed" in record.reason or "a vector on the right" in record.reason


def test_fused_matmul_of_unknown_rank(build, check, rng):
    """The rank decides what a transposition means."""
    model = model_with(build, "FusedMatMul", ["x", "w"], {"x": None}, {"w": uniform(rng, 3, 4)})
    network = check(model, {"x": uniform(rng, 2, 3), "p": uniform(rng, 2, 2)})
    assert network.records[0].reason == 'the rank of "x" is not known'


@pytest.mark.parametrize("operator", ["FusedMatMul", "TransposeMatMul"])
def test_product_of_activations_stays_digital(build, check, rng, operator):
    record, layers, _ = run(build, check, rng, operator, ["x", "v"], {"x": (2, 3), "v": (3, 4)}, {})
    assert record.reason == 'both operands are activations: "x" is a graph input, "v" is a graph input'
    assert not layers


def test_transpose_matmul(build, check, rng):
    constants = {"w": uniform(rng, 4, 3)}
    record, (layer,), _ = run(
        build, check, rng, "TransposeMatMul", ["x", "w"], {"x": (2, 3)}, constants, transB=1, alpha=3.0
    )
    assert record.lowered
    np.testing.assert_allclose(layer.weights[0], 3 * constants["w"].T, rtol=1e-6)


@pytest.mark.parametrize("pads", [[0, 1, 0, 1], [1, 0, 1, 2]])
def test_conv_transpose_with_dynamic_pads(build, check, rng, pads):
    constants = {"w": uniform(rng, 3, 2, 3, 3), "pads": np.array(pads), "b": uniform(rng, 2)}
    record, _, _ = run(
        build,
        check,
        rng,
        "ConvTransposeWithDynamicPads",
        ["x", "w", "pads", "b"],
        {"x": (2, 3, 4, 5)},
        constants,
        strides=[2, 2],
        output_padding=[1, 1],
    )
    assert record.lowered


# --- MatMulNBits


def quantized(rng, rows, columns, bits, block):
    """Codes [columns, blocks * block], what is stored of them, scales [columns, blocks]: the rule in numpy, apart."""
    blocks = -(-rows // block)
    codes = rng.integers(0, 2**bits, (columns, blocks * block))
    stored = np.zeros((columns, blocks, block * bits // 8), np.uint8)
    for column, k in np.ndindex(codes.shape):
        place, byte = k * bits % 8, (k % block) * bits // 8
        stored[column, k // block, byte] |= codes[column, k] << place
    return codes, stored, rng.uniform(0.1, 1, (columns, blocks)).astype("f")


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("rows", "columns", "block"), [(32, 5, 16), (33, 2, 16), (48, 3, 32), (80, 4, 16)])
@pytest.mark.parametrize("zero", ["none", "whole", "real"])
def test_matmul_n_bits(build, check, rng, bits, rows, columns, block, zero):
    if (bits, zero) == (8, "real"):
        return  # onnxruntime has no such kernel
    codes, stored, scales = quantized(rng, rows, columns, bits, block)
    blocks = scales.shape[1]
    constants = {"w": stored, "s": scales.reshape(-1), "b": uniform(rng, columns)}
    zeros = np.full((columns, blocks), float(2 ** (bits - 1)))
    if zero == "whole":
        whole = rng.integers(0, 2**bits, (columns, blocks))
        packed = np.zeros((columns, -(-blocks * bits // 8)), np.uint8)
        for column, i in np.ndindex(whole.shape):
            packed[column, i * bits // 8] |= whole[column, i] << (i * bits % 8)
        zeros, constants["z"] = whole.astype(float), packed.reshape(-1)
    elif zero == "real":
        constants["z"] = rng.uniform(0, 2**bits, (columns, blocks)).astype("f").reshape(-1)
        zeros = constants["z"].reshape(columns, blocks).astype(float)
    record, (layer,), _ = run(
        build,
        check,
        rng,
        "MatMulNBits",
        ["x", "w", "s", "z" if zero != "none" else "", "", "b"],
        {"x": (2, 3, rows)},
        constants,
        1e-4,
        K=rows,
        N=columns,
        bits=bits,
        block_size=block,
    )
    assert record.lowered
    expected = (codes - np.repeat(zeros, block, 1)) * np.repeat(scales, block, 1).astype(float)
    np.testing.assert_allclose(layer.weights[0], expected.T[:rows], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(layer.bias, constants["b"])


def test_matmul_n_bits_with_groups_of_rows(build, check, rng):
    """`g_idx` says which scale a row has."""
    _, stored, scales = quantized(rng, 48, 3, 4, 16)
    constants = {"w": stored, "s": scales.reshape(-1), "g": rng.integers(0, 3, 48).astype(np.int32)}
    attributes = {"K": 48, "N": 3, "bits": 4, "block_size": 16}
    record, _, _ = run(
        build, check, rng, "MatMulNBits", ["x", "w", "s", "", "g"], {"x": (2, 48)}, constants, 1e-4, **attributes
    )
    assert record.lowered
    constants["z"] = rng.integers(0, 256, 3 * 2).astype(np.uint8)
    record, _, _ = run(
        build, check, rng, "MatMulNBits", ["x", "w", "s", "z", "g"], {"x": (2, 48)}, constants, 1e-4, **attributes
    )
    assert record.reason == "g_idx is lowered for weights of 4 bits without zero points only"


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(("rows", "columns", "block"), [(3, 16, 16), (5, 24, 32), (2, 7, 16), (3, 7, 16)])
def test_matmul_bnb4(build, check, rng, kind, rows, columns, block):
    """Blocks of the elements in order, whatever the rows are; an odd number of elements fills half of the last byte."""
    size = rows * columns
    constants = {
        "w": rng.integers(0, 256, -(-size // 2)).astype(np.uint8),
        "s": rng.uniform(0.5, 2, -(-size // block)).astype("f"),
    }
    attributes = {"N": rows, "K": columns, "block_size": block, "quant_type": kind}
    record, (layer,), _ = run(
        build, check, rng, "MatMulBnb4", ["x", "w", "s"], {"x": (4, columns)}, constants, 1e-5, **attributes
    )
    assert record.lowered
    assert layer.weights.shape == (1, columns, rows)


def test_optimized_model(build, check, rng, tmp_path):
    """What onnxruntime's optimizer makes of a small network at its extended level is lowered as well."""
    nodes = [
        node("Conv", ["x", "k"], ["a"], "conv"),
        node("Relu", ["a"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "w"], ["m"], "matmul"),
        node("Mul", ["m", "half"], ["h"]),
        node("Transpose", ["h"], ["u"], perm=[0, 2, 1]),
        node("MatMul", ["u", "v"], ["f"], "second"),
        node("Flatten", ["f"], ["l"]),
        node("Gemm", ["l", "g", "c"], ["e"], "gemm"),
        node("LeakyRelu", ["e"], ["y"], alpha=0.1),
    ]
    constants = {
        "k": uniform(rng, 4, 3, 2),
        "w": uniform(rng, 4, 5),
        "half": np.float32(0.5),
        "v": uniform(rng, 6, 2),
        "g": uniform(rng, 10, 3),
        "c": uniform(rng, 3),
    }
    model = build(nodes, {"x": ("n", 3, 7)}, ["y"], constants)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    precise_session(model.SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert {n.op_type for n in optimized.graph.node} >= {"FusedConv", "FusedGemm"}
    network = check(optimized, {"x": uniform(rng, 2, 3, 7)})
    assert len(network.layers) == 4
    assert all(record.lowered for record in network.records)
