"""Small models that ask for much: a stated amount is given, and one clear error or a digital node is what is beyond it."""

from __future__ import annotations

import math
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import xbcompile
from tests.fuzz import growing_models as growing
from tests.fuzz.mutated_models import convolutional
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import MOST_CHARACTERS, ModelError
from xbcompile.frontend import calls, fold, growth, import_network, load_model, soundness
from xbcompile.frontend.calls import check_calls
from xbcompile.frontend.growth import Budget, known_bytes
from xbcompile.frontend.wire import has_more_messages
from xbcompile.onnx_graph import engine, tensors, types
from xbcompile.onnx_graph.graph import from_model
from xbcompile.onnx_graph.tensors import check_sizes
from xbcompile.onnx_graph.types import infer_types

node = helper.make_node


# Functions


@pytest.mark.parametrize(
    ("depth", "calls_each", "nodes"), [(17, 2, 2**18 - 1), (31, 2, 2**32 - 1), (12, 3, 265720 * 3 // 2)]
)
def test_functions_that_double_are_refused_before_they_are_written_out(depth, calls_each, nodes):
    """A function of c calls of the next and an Identity: n(i) = c n(i+1) + 1, and 1 for the last, (c**d - 1) / (c - 1) in all."""
    nodes = (calls_each**depth - 1) // (calls_each - 1) + 1  # and the MatMul
    start = time.process_time()
    with pytest.raises(ModelError, match=f"come to {nodes:,} nodes"):
        load_model(growing.functions(depth, calls_each, inside=False, circle=False))
    assert time.process_time() - start < 1


def test_functions_within_the_limit_are_written_out():
    network = import_network(load_model(growing.functions(9, 2, inside=False, circle=False)))
    (segment,) = network.segments
    written = [each.op_type for each in segment.model.graph.node]
    assert written.count("Relu") == 2**8
    assert written.count("Identity") == 2**8 - 1


@pytest.mark.parametrize(("depth", "calls_each"), [(1, 1), (3, 1), (40, 2)])
def test_functions_that_call_each_other_in_a_circle(depth, calls_each):
    with pytest.raises(ModelError, match="local functions call each other in a circle: F"):
        load_model(growing.functions(depth, calls_each, inside=False, circle=True))


def test_functions_whose_bodies_are_written_into_each_other_too_deep():
    """An If in a function that is called in the If of another: three levels of messages each, and 100 that protobuf reads."""
    deepest = soundness.MOST_LEVELS // 3
    check_calls(growing.functions(3, 1, inside=True, circle=False), "it")
    with pytest.raises(ModelError, match=f"in bodies {deepest + 1} deep"):
        check_calls(_nested_calls(deepest + 1), "it")
    check_calls(_nested_calls(deepest), "it")


def _nested_calls(depth: int) -> ModelProto:
    """Functions with one call each, inside of an If, so that nothing doubles."""
    model = growing.functions(depth, 1, inside=True, circle=False)
    for function in model.functions:
        for each in function.node:
            for attribute in each.attribute:
                if attribute.name == "else_branch":
                    attribute.g.node[0].domain, attribute.g.node[0].op_type = "", "Relu"
    return model


def test_bytes_of_what_is_written_out_count_too(monkeypatch):
    """Two functions of one node each that hold 4 KB of constant, called 2**7 times: half a megabyte."""
    model = growing.functions(8, 2, inside=False, circle=False)
    value = numpy_helper.from_array(np.ones(1024, np.float32))
    model.functions[-1].node[0].CopyFrom(node("Constant", [], ["b"], value=value))
    monkeypatch.setattr(calls, "MOST_WRITTEN_BYTES", 2**19 - 2**16)
    with pytest.raises(ModelError, match=r"nodes of 5\d\d,\d\d\d bytes"):
        check_calls(model, "it")
    monkeypatch.setattr(calls, "MOST_WRITTEN_BYTES", 2**19 + 2**16)
    check_calls(model, "it")


# Constants


def refused(model: ModelProto, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        import_network(load_model(model))


@pytest.mark.parametrize("used", range(4))
@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("Concat", 40, 0),
        ("ConstantOfShape", 2**20, 2**20),
        ("Expand", 2**16, 2**16),
        ("ExpandTwice", 2**16, 2**16),
        ("EyeLike", 2**16, 2**16),
        ("GatherTwice", 2**16, 2**16),
        ("MatMul", 2**16, 0),
        ("Mul", 2**28, 100),
        ("OneHot", 2**28, 100),
        ("Pad", 2**16, 2**16),
        ("Range", 0, 2**28),
        ("Resize", 2**16, 2**16),
        ("Tile", 2**16, 2**16),
        ("Trilu", 2**16, 0),
        ("Where", 2**16, 2**16),
    ],
)
def test_constants_that_grow_beyond_the_limit(name, used, a, b, monkeypatch):
    """Each takes more than the 2**20 bytes that are allowed here; nothing of that is made."""
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 2**20)
    start = time.process_time()
    with pytest.raises(ModelError):
        xbcompile.compile(growing.growing(name, from_input=False, used=used, a=a, b=b), "ideal", effort=0)
    assert time.process_time() - start < 2


def test_the_error_names_the_node_and_the_bytes(monkeypatch):
    """c(k) has 2**k x 4 floats; alive together are the constants (16 floats), c(k-1) and c(k)."""
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 2**16)
    model = growing.growing("Concat", from_input=False, used=2, a=20, b=0)
    constants = 4 + 12  # elements of s and w; the others are not needed
    allowed = 2**16 + growth.MOST_BYTES_PER_ELEMENT * constants
    step = 1
    while 4 * constants + 16 * (2**step + 2 ** (step - 1) * (step > 1)) <= allowed:
        step += 1
    held = 4 * constants + 16 * (2**step + 2 ** (step - 1))
    refused(
        model, rf'node "Concat_c{step}" \(Concat\): with it, .* takes {held:,} bytes \(allowed: {allowed:,}\); store'
    )


def test_many_values_of_the_size_of_their_source_count_as_growth(monkeypatch):
    """40 negatives of one constant are no growth each, and 40 times the constant together."""
    source = np.ones((64, 64), np.float32)
    nodes = [node("Neg", ["c" if i == 0 else f"n{i - 1}"], [f"n{i}"]) for i in range(40)]
    nodes += [node("Sum", [f"n{i}" for i in range(40)], ["s"]), node("MatMul", ["x", "s"], ["y"])]
    model = model_of(nodes, {"x": ["n", 64]}, ["y"], {"c": source})
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 0)
    refused(model, "what depends on the model's constants alone takes")
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 40 * source.nbytes)
    import_network(load_model(model))


def test_values_in_a_chain_are_not_held_together(monkeypatch):
    """400 negatives one after the other: two at a time, beside the constant, are 12 bytes an element, and 16 are allowed."""
    nodes = [node("Neg", ["c" if i == 0 else f"n{i - 1}"], [f"n{i}"]) for i in range(400)]
    nodes.append(node("MatMul", ["x", "n399"], ["y"]))
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 0)
    model = model_of(nodes, {"x": ["n", 64]}, ["y"], {"c": np.ones((64, 64), np.float32)})
    assert len(import_network(load_model(model)).layers) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 2**31))
def test_what_is_held_at_one_time_is_what_a_loop_over_all_moments_gives(repeats, seed):
    """Tiles of constants, summed at random: the largest total of those that are yet to be read, against the budget's verdict."""
    rng = np.random.default_rng(seed)
    names, nodes, bytes_of = ["c"], [], {"c": 4}
    for i, times in enumerate(repeats):
        source = names[int(rng.integers(len(names)))]
        nodes.append(node("Tile", [source, f"r{times}"], [f"t{i}"]))
        bytes_of[f"t{i}"] = bytes_of[source] * times
        names.append(f"t{i}")
    constants = {f"r{times}": np.array([times], np.int64) for times in range(1, 6)} | {"c": np.ones(1, np.float32)}
    nodes.append(node("Mul", ["x", names[-1]], ["y"]))
    graph = infer_types(from_model(load_model(model_of(nodes, {"x": ["n", 1]}, ["y"], constants))))
    computed = [each for each in graph.nodes if each.op_type == "Tile"]
    own = sum(tensors.size_bytes(each) for each in graph.constants.values())
    most = 0
    for at in range(len(computed)):
        read_later = {name for each in graph.nodes[at:] for name in each.input}  # the one at hand holds what it reads
        alive = {computed[at].output[0]} | {
            name for each in computed[: at + 1] for name in each.output if name in read_later
        }
        most = max(most, own + sum(bytes_of[name] for name in alive))
    budget = Budget()
    slack = growth.MOST_BYTES_PER_ELEMENT * sum(math.prod(each.dims) for each in graph.constants.values())
    for allowed, fits in ((most, True), (most - 1, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(growth, "MOST_GROWTH_BYTES", allowed - slack)
            if fits:
                budget.check(graph, computed)
            else:
                with pytest.raises(ModelError):
                    budget.check(graph, computed)
    assert all(known_bytes(graph, name) == bytes_of[name] for name in bytes_of if name in graph.types)


def test_a_loop_of_constants_without_end(monkeypatch):
    """It is waited for as long as probes may run, and then left to whoever runs the model."""
    monkeypatch.setattr(engine, "PROBE_SECONDS", 0.3)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Tanh", ["s"], ["t"])],
        "b",
        [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, [4, 4])],
        [info("d", TensorProto.BOOL, []), info("t", TensorProto.FLOAT, [4, 4])],
    )
    nodes = [node("Loop", ["", "", "w"], ["v"], body=body), node("MatMul", ["x", "v"], ["y"])]
    start = time.monotonic()
    program = xbcompile.compile(model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": np.eye(4)}), "ideal", effort=0)
    assert time.monotonic() - start < 10
    assert not program.network.layers


def test_lists_of_sizes_that_double(monkeypatch):
    """onnx follows a list entry by entry: 2**30 entries of int64 would be 8 GB of its own, before anything is folded."""
    start = time.process_time()
    refused(growing.growing("ConcatOfSizes", from_input=True, used=2, a=40, b=0), "constants alone takes")
    assert time.process_time() - start < 2
    graph = from_model(growing.growing("ConcatOfSizes", from_input=True, used=2, a=10, b=0))
    assert types._has_short_lists(graph)
    monkeypatch.setattr(types, "MOST_ENTRIES", 2**11 - 3)  # 2 + 4 + ... + 2**10, and one more for a Concat of the rest
    assert not types._has_short_lists(graph)


@pytest.mark.parametrize(
    ("start", "limit", "long"),
    [(2**40, -(2**63), True), (-(2**62), 2**62 - 1, True), (9, 3, False), (0, 2**63 - 1, True)],
)
def test_ranges_whose_length_overflows(start, limit, long):
    """onnx takes limit - start in int64: -2**63 - 2**40 comes out as 2**63 - 2**40, of which it would make a list."""
    graph = from_model(growing.growing("Range", from_input=True, used=0, a=start, b=limit))
    assert types._has_short_lists(graph) is not long


# Copies of bodies


@pytest.mark.parametrize(("depth", "trips"), [(2, 4), (6, 16), (25, 2), (30, 16)])
def test_loops_in_loops_are_taken_apart_as_far_as_there_is_room(depth, trips, monkeypatch):
    monkeypatch.setattr(growth, "MOST_COPIED_NODES", 500)
    monkeypatch.setattr(engine, "PROBE_SECONDS", 0.2)
    start = time.process_time()
    network = import_network(load_model(growing.loops(depth, trips, "Loop", grows=False)))
    assert time.process_time() - start < 5
    copied = sum(len(segment.model.graph.node) for segment in network.segments) + len(network.layers)
    assert copied <= 500 + 20
    assert (len(network.layers) == trips**depth) == (3 * depth * trips**depth < 500 or (depth, trips) == (2, 4))


def test_a_copied_body_counts_with_all_that_is_in_it(monkeypatch):
    body = growing.loops(2, 4, "Loop", grows=False).graph.node[1].attribute[0].g
    inner = 3 + 2  # Identity and Loop; Identity, MatMul and Tanh in it
    monkeypatch.setattr(growth, "MOST_COPIED_NODES", 4 * inner)
    budget = Budget()
    assert budget.takes_copies(body, 4)
    assert not budget.takes_copies(body, 1)


# Parts, levels, names


def test_bodies_in_bodies_beyond_what_protobuf_reads():
    """Built in place, as no serialised model can hold them."""
    model = convolutional()
    graph = model.graph
    for _ in range(400):
        attribute = graph.node.add(op_type="If", input=["c"], output=["o"]).attribute.add(name="then_branch")
        attribute.type = onnx.AttributeProto.GRAPH
        graph = attribute.g
    with pytest.raises(ModelError, match="parts in parts more than 100 levels deep"):
        load_model(model)


def test_more_parts_than_are_read(monkeypatch, tmp_path):
    """Four bytes in the file each, a hundred in memory: told before they are parsed, and of a model in memory too."""
    model = convolutional()
    for _ in range(3000):
        model.graph.node.add().attribute.add()
    monkeypatch.setattr(soundness, "MOST_PARTS", 3000)
    monkeypatch.setattr("xbcompile.frontend.load.MOST_PARTS", 3000)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    for source in (model, tmp_path / "model.onnx"):
        with pytest.raises(ModelError, match="it has more than 3,000 parts"):
            load_model(source)
    with pytest.raises(ModelError, match="it has more than 3,000 parts"):
        xbcompile.InferenceSession(model.SerializeToString())


def count_messages(message) -> int:
    """All messages in a message, by protobuf's own reading."""
    count = 0
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            inner = value if hasattr(value, "__len__") else [value]
            count += len(inner) + sum(map(count_messages, inner))
    return count


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 6), st.integers(-2, 2), st.binary(max_size=5))
def test_messages_are_counted_as_protobuf_reads_them(nodes, attributes, off, raw):
    model = ModelProto(ir_version=9, producer_name="é" * 300)
    for i in range(nodes):
        each = model.graph.node.add(op_type="Relu", input=["", "x" * 200])
        for _ in range(attributes):
            each.attribute.add(name="a", ints=[-1, 2**40], f=1.5).tensors.add(raw_data=raw, dims=[i], double_data=[2.0])
    count = count_messages(model)
    assert has_more_messages(model.SerializeToString(), ModelProto.DESCRIPTOR, count + off) == (off < 0)


def test_messages_of_a_damaged_file_end_somewhere():
    content = convolutional().SerializeToString()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content[: int(rng.integers(1, 400))])
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        has_more_messages(bytes(damaged), ModelProto.DESCRIPTOR, 5)


@pytest.mark.parametrize("letter", ["x", "é", "\n", "/"])
def test_names_that_are_too_long(letter):
    with pytest.raises(ModelError, match=r"a name in it has 10,000,000 characters \(allowed: 10,000\)") as caught:
        load_model(growing.named(10**7, letter))
    assert len(str(caught.value)) < 300
    load_model(growing.named(soundness.LONGEST_NAME, "x"))


def test_errors_about_long_names_are_short_lines():
    """A name of 9,999 characters, of which each is the end of a line: the message names the node all the same."""
    for letter in ("x", "\n"):
        model = growing.named(9_999, letter)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 4), np.nan, np.float32), "w"))
        with pytest.raises(ModelError, match="holds NaN") as caught:
            import_network(load_model(model))
        assert len(str(caught.value)) <= MOST_CHARACTERS
        assert "\n" not in str(caught.value)


# Tensors and windows


def test_sparse_tensors_are_large_together(monkeypatch):
    """Three of 16 x 16 floats: 1 KB each."""
    monkeypatch.setattr(tensors, "LARGEST_DENSE_BYTES", 2**11)
    check_sizes(growing.sparse([16, 16], 2), "it")
    with pytest.raises(ModelError, match=r'sparse tensor "v2" and those before it would take 3072 bytes when dense'):
        check_sizes(growing.sparse([16, 16], 3), "it")


@pytest.mark.parametrize("dims", [[0, 2**62], [2**40, 0, 2**40], [2**62, 2**62, 0]])
def test_empty_tensors_of_shapes_that_no_array_has(dims):
    with pytest.raises(ModelError, match=r'tensor "w" has shape \[.*\], which no array can have'):
        load_model(growing.empty_weights(dims))


@pytest.mark.parametrize(
    "attributes",
    [
        {"dilations": [2**31, 2**31]},
        {"dilations": [2**62, 1]},
        {"strides": [2**31, 2**62]},
        {"pads": [2**31] * 4, "strides": [2**31] * 2},
        {"pads": [2**20] * 4, "strides": [2**21] * 2},
        {"auto_pad": "SAME_UPPER", "dilations": [2**20, 2**20]},
    ],
)
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "ConvInteger", "QLinearConv"])
def test_windows_that_reach_far_are_no_matrices(operator, attributes):
    """onnxruntime has the last word on them, as on every digital node."""
    model = growing.window(operator, attributes, 2, TensorProto.FLOAT)
    start = time.process_time()
    try:
        network = import_network(load_model(model))
    except ModelError:
        return
    finally:
        assert time.process_time() - start < 2
    assert network.layers == ()


def test_a_wide_dilation_is_still_a_matrix():
    """As in networks for segmentation: 3 x 3 taps 36 apart, padded by 36, 2048 channels in groups of one."""
    rng = np.random.default_rng(0)
    attributes = {"dilations": [36, 36], "pads": [36] * 4, "group": 2048}
    model = model_of(
        [node("Conv", ["x", "w"], ["y"], **attributes)],
        {"x": [1, 2048, 4, 4]},
        ["y"],
        {"w": rng.normal(size=(2048, 1, 3, 3))},
    )
    assert len(import_network(load_model(model)).layers) == 1


def test_folding_within_the_limits_is_as_before(monkeypatch):
    """Twice the model's own elements, in two layouts, beside the fixed amount of nothing."""
    monkeypatch.setattr(growth, "MOST_GROWTH_BYTES", 0)
    monkeypatch.setattr(fold, "LARGEST_GROWTH_BYTES", 0)
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["f"]),
        node("Transpose", ["f"], ["t"]),
        node("MatMul", ["x", "f"], ["h"]),
        node("MatMul", ["h", "t"], ["y"]),
    ]
    rng = np.random.default_rng(2)
    model = model_of(nodes, {"x": ["n", 30]}, ["y"], {"w": rng.integers(-9, 9, (30, 40)).astype(np.int8), "s": 0.5})
    feeds = {"x": rng.normal(size=(3, 30)).astype("f")}
    program = xbcompile.compile(model, "ideal", effort=0)
    assert len(program.network.layers) == 2
    np.testing.assert_allclose(
        xbcompile.Session(program).run(feeds)["y"], run_onnxruntime(model, feeds)["y"], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("operator", "name", "odd"),
    [
        ("Im2Col", "kernel_size", "..."),
        ("Im2Col", "kernel_size", 2**20),
        ("Im2Col", "stride", -(2**63)),
        ("MultiThreshold", "out_bias", "bi,bi->"),
        ("QuantAvgPool2d", "ibits", 2**40),
        ("QuantAvgPool2d", "obits", -(2**63)),
        ("QuantAvgPool2d", "kernel", 2**62),
        ("Trunc", "rounding_mode", 2**62),
    ],
)
def test_attributes_that_onnx_does_not_check(operator, name, odd):
    """Of QONNX's operators: of another kind, or of a size that no network has."""
    start = time.process_time()
    with pytest.raises(ModelError, match=rf'node "n" \({operator}'):
        import_network(load_model(growing.rewritten(operator, name, odd, 0, 0.0)))
    assert time.process_time() - start < 2


@pytest.mark.parametrize("value", [2.0**40, float("nan"), float("inf"), -1e30])
def test_bit_widths_that_no_number_has(value):
    refused(growing.rewritten("Quant", "", 0, 0, value), r"its bit width .* allowed: up to 512")
