"""Values that the compiler passes along: equality by content, codes, row weights, order of a network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, convolution_program, dense_model, images
from xbcompile.errors import DataError, ModelError
from xbcompile.frontend import import_network
from xbcompile.ir import ArraySpec, DigitalSegment, InputCode, MatrixLayer, Network, Patches, WeightCode
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.ir.schedule import TILE, tile_columns, tile_rows
from xbcompile.reference.evaluate import evaluate, layer_inputs
from xbcompile.reference.host_graph import to_onnx


@dataclass(frozen=True, eq=False)
class Sample(ContentEqual):
    """Any value with arrays inside."""

    array: np.ndarray
    table: dict[str, np.ndarray]
    name: str = ""


@dataclass(frozen=True, eq=False)
class Other(Sample):
    """Another class with the same fields."""


def test_values_are_equal_by_content() -> None:
    value = Sample(np.array([1.0, np.nan]), {"a": np.arange(3)})
    assert value == Sample(np.array([1.0, np.nan]), {"a": np.arange(3)})
    unequal = [
        Sample(np.array([1.0, 2.0]), {"a": np.arange(3)}),
        Sample(np.array([1.0, np.nan], np.float32), {"a": np.arange(3)}),
        Sample(np.array([[1.0, np.nan]]), {"a": np.arange(3)}),
        Sample(np.array([1.0, np.nan]), {"a": np.arange(4)}),
        Sample(np.array([1.0, np.nan]), {"b": np.arange(3)}),
        Sample(np.array([1.0, np.nan]), {}),
        Sample(np.array([1.0, np.nan]), {"a": np.arange(3)}, "named"),
        Other(np.array([1.0, np.nan]), {"a": np.arange(3)}),
    ]
    assert not any(value == each for each in unequal)
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)


def test_a_weight_code_stands_for_its_formula() -> None:
    """W[g, k, m] = row_weight[g, k, m] scale[g, m] levels[codes[g, k, m]] + offset[g, m], entry by entry."""
    rng = np.random.default_rng(0)
    levels = np.array([-1, 0.25, 1], np.float32)
    code = WeightCode(
        levels,
        rng.integers(0, 3, (2, 4, 3), np.uint8),
        rng.random((2, 3), np.float32),
        rng.random((2, 3), np.float32),
        rng.random((2, 4, 3), np.float32),
    )
    weights = code.dequantized()
    for g, k, m in np.ndindex(2, 4, 3):
        cell = code.row_weight[g, k, m] * levels[code.codes[g, k, m]]
        assert weights[g, k, m] == pytest.approx(cell * code.scale[g, m] + code.offset[g, m], rel=1e-6)
    assert replace(code, row_weight=None).weighted_cells() is not None
    assert np.array_equal(replace(code, row_weight=None).weighted_cells(), levels[code.codes])


@pytest.mark.parametrize(
    ("scheme", "bits", "steps", "coefficients"),
    [("analogue", 1, 0, [1]), ("thermometer", 3, 3, [1, 1, 1]), ("bitserial", 3, 7, [1, 2, 4])],
)
def test_an_input_code_has_its_steps(scheme: str, bits: int, steps: int, coefficients: list[int]) -> None:
    code = InputCode(scheme, bits)
    assert code.steps == steps
    assert code.coefficients.tolist() == coefficients
    assert code.is_dynamic
    assert not replace(code, low=0.0, high=1.0).is_dynamic


def spec_of(row_weight: np.ndarray) -> ArraySpec:
    rows = len(row_weight)
    zeros = np.zeros(rows)
    return ArraySpec(rows, 4, None, "unbounded", row_weight, zeros.astype("f"), zeros.astype("u1"), 2.0, 1.0, 0.5, 0.25)


def test_row_weights_of_a_layer_follow_its_tiles() -> None:
    tiles = np.array([(0, 0, 0, 2, 0, 3, 0, 1, 0), (0, 0, 2, 3, 0, 3, 0, 0, 0), (1, 0, 0, 3, 0, 1, 1, 0, 0)], TILE)
    weight = row_weight_of_layer(tiles, 0, (1, 3, 3), spec_of(np.array([1.5, 1.0, 0.5])))
    assert weight is not None
    assert np.array_equal(weight[0], np.repeat([[1.0], [0.5], [1.5]], 3, axis=1))
    assert row_weight_of_layer(tiles, 0, (1, 3, 3), spec_of(np.ones(3))) is None
    assert tile_rows(tiles).tolist() == [2, 1, 3]
    assert tile_columns(tiles).tolist() == [3, 3, 1]
    spec = spec_of(np.ones(3))
    assert (spec.t_write_s, spec.e_write_j, spec.has_row_weights) == (6.0, 1.5, False)


def test_tiles_of_a_layer_are_in_order() -> None:
    schedule = convolution_program().schedule
    for layer in range(2):
        tiles = schedule.tiles[schedule.tiles_of(layer)]
        assert np.all(tiles["layer"] == layer)
        keys = [(t["group"], t["m0"], t["k0"]) for t in tiles]
        assert keys == sorted(keys)
    assert len(schedule.tiles_of(0)) + len(schedule.tiles_of(1)) == len(schedule.tiles)


def test_output_sizes_are_those_of_onnx() -> None:
    """floor((size + pads - (kernel - 1) dilation - 1) / stride) + 1, and ceil(size / stride) for SAME."""
    assert Patches((3, 2), (2, 1), (1, 2), (1, 0, 1, 1)).output_size((7, 5)) == (4, 4)
    assert Patches((3,), (2,), (1,), (9, 9), "SAME_UPPER").output_size((7,)) == (4,)
    assert Patches((3,), (1,), (1,), (9, 9), "VALID").output_size((7,)) == (5,)
    assert Patches((4,), (1,), (1,), (0, 0), "SAME_UPPER").resolved_pads((5,)) == (1, 2)
    assert Patches((4,), (1,), (1,), (0, 0), "SAME_LOWER").resolved_pads((5,)) == (2, 1)


def diamond() -> Network:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="left"),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["s"], name="right"),
        helper.make_node("Add", ["q", "s"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"], name="last"),
    ]
    constants = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=(4, 4))}
    return import_network(model_of(nodes, {"x": ["n", 5]}, ["y"], constants))


def test_layers_wait_for_those_that_they_read_from() -> None:
    network = diamond()
    waits = dict(zip([layer.name for layer in network.layers], network.layer_dependencies(), strict=True))
    index = {layer.name: i for i, layer in enumerate(network.layers)}
    assert waits["first"] == []
    assert waits["left"] == waits["right"] == [index["first"]]
    assert waits["last"] == sorted([index["left"], index["right"]])


def test_a_network_that_cannot_be_executed_is_our_own_fault() -> None:
    network = diamond()
    network.check()
    first = next(node for node in network.nodes if isinstance(node, MatrixLayer))
    with pytest.raises(ValueError, match=r"node names repeat: \['first'\]"):
        replace(network, nodes=(first, *network.nodes)).check()
    with pytest.raises(ValueError, match="before anything writes it"):
        replace(network, nodes=network.nodes[::-1]).check()
    with pytest.raises(ValueError, match=r"again writes \['p'\] a second time"):
        replace(network, nodes=(*network.nodes, replace(first, name="again"))).check()
    with pytest.raises(ValueError, match=r"outputs \['y'\] are never written"):
        replace(network, nodes=network.nodes[:-1]).check()


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_the_host_graph_of_an_uncoded_network_is_the_model(opset: int) -> None:
    model = convolution_model()
    model.opset_import[0].version = opset
    host = to_onnx(import_network(model))
    onnx.checker.check_model(host, full_check=True)
    feeds = {"x": images(3, 2, 4, 4)}
    expected = run_onnxruntime(model, feeds)["y"]
    np.testing.assert_allclose(run_onnxruntime(host, feeds)["y"], expected, rtol=0, atol=1e-5)
    assert {node.domain for node in host.graph.node} == {"xbcompile", ""}
    assert len(host.functions) == 2


def test_the_host_graph_needs_an_opset_with_its_operators() -> None:
    network = replace(diamond(), opset_imports=(("", 6),))
    with pytest.raises(ModelError, match="opset 6 is too old to write the host graph; allowed: 7 or newer"):
        to_onnx(network)


def test_layers_whose_names_differ_in_signs_alone_stay_apart() -> None:
    """Function names hold letters, digits and underscores only: a.b and a/b must not become one function."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["p"], name="a.b"),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="a/b"),
    ]
    model = model_of(nodes, {"x": ["n", 5]}, ["y"], {"v": rng.normal(size=(5, 4)), "w": rng.normal(size=(4, 4))})
    host = to_onnx(import_network(model))
    assert len({function.name for function in host.functions}) == 2
    feeds = {"x": images(2, 5)}
    np.testing.assert_allclose(run_onnxruntime(host, feeds)["y"], run_onnxruntime(model, feeds)["y"], atol=1e-5)


def test_activations_are_evaluated_in_chunks() -> None:
    network = import_network(dense_model(6, 5, 3))
    feeds = {"x": images(1203, 6)}  # three chunks of at most 500
    inputs = layer_inputs(network, feeds)
    assert [len(chunk) for chunk in inputs["fc0"]] == [500, 500, 203]
    assert np.array_equal(np.concatenate(inputs["fc0"]), feeds["x"])
    weights = network.layers[0].weights[0]
    hidden = np.maximum(feeds["x"] @ weights + network.layers[0].bias, 0)
    np.testing.assert_allclose(np.concatenate(inputs["fc1"]), hidden, atol=1e-5)
    assert [first for first, _ in network.samples.parts(feeds, 500)] == [0, 500, 1000]


def test_a_fixed_batch_must_divide_the_samples() -> None:
    network = import_network(dense_model(6, 5, 3, batch=4))
    assert network.samples.call == 4
    assert [len(chunk) for chunk in evaluate(network, {"x": images(8, 6)}, ["y"])[0]] == [4, 4]
    with pytest.raises(DataError, match="9 samples do not fill the model's fixed batch of 4; give a multiple of 4"):
        evaluate(network, {"x": images(9, 6)}, ["y"])


def test_segments_and_layers_name_their_tensors() -> None:
    network = import_network(convolution_model())
    assert [(node.name, node.input_names, node.output_names) for node in network.nodes] == [
        ("conv", ("x",), ("c",)),
        (network.segments[0].name, ("c",), ("f",)),
        ("fc", ("f",), ("y",)),
    ]
    assert isinstance(network.nodes[1], DigitalSegment)
    assert network.layers[0].element_type == TensorProto.FLOAT
    assert (network.layers[0].groups, network.layers[0].inputs, network.layers[0].outputs) == (2, 9, 3)
    assert network.layers[0].vectors_per_inference == 4
