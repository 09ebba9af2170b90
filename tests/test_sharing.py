"""Weights that several layers use are one matrix on the arrays: written once, read once per use, coded once.

References: onnxruntime on the user's model, the same model with one layer, and counts by hand.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model, images
from xbcompile.frontend import import_network, load_model
from xbcompile.ir.schedule import READ
from xbcompile.passes.quantize import Quantize
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import Session
from xbcompile.runtime.cost import cost_of
from xbcompile.tiler.effort import FIRST_EFFORT
from xbcompile.verification.verify import verify

BINARY = "quantize{scheme=binary},thermometer{bits=2 low=-1 high=1}"
LEVELS = "quantize{scheme=levels},analogue{low=0 high=1}"
FUZZ = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def repeated_model(times: int, size: int = 9) -> onnx.ModelProto:
    """One square matrix, `times` times in a chain, each with a bias of its own, with Tanh behind each."""
    rng = np.random.default_rng(4)
    constants: dict[str, Any] = {"w": rng.normal(size=(size, size)) / 3}
    nodes, name = [], "x"
    for i in range(times):
        constants[f"b{i}"] = rng.normal(size=size)
        output = "y" if i == times - 1 else f"t{i}"
        nodes.append(helper.make_node("Gemm", [name, "w", f"b{i}"], [f"g{i}"], name=f"fc{i}"))
        nodes.append(helper.make_node("Tanh", [f"g{i}"], [output]))
        name = output
    return model_of(nodes, {"x": ["n", size]}, ["y"], constants)


def siamese_model(towers: int = 2, join: bool = True) -> onnx.ModelProto:
    """Towers of one convolution and one dense layer with the same weights, on an input each; outputs as they are, or added."""
    rng = np.random.default_rng(5)
    constants = {"k": rng.normal(size=(4, 1, 3, 3)), "w": rng.normal(size=(64, 5)), "b": rng.normal(size=5)}
    nodes = []
    for t in range(towers):
        nodes += [
            helper.make_node("Conv", [f"x{t}", "k"], [f"c{t}"], name=f"conv{t}"),
            helper.make_node("Relu", [f"c{t}"], [f"r{t}"]),
            helper.make_node("Flatten", [f"r{t}"], [f"f{t}"]),
            helper.make_node("Gemm", [f"f{t}", "w", "b"], [f"y{t}"], name=f"fc{t}"),
        ]
    outputs = [f"y{t}" for t in range(towers)]
    if join:
        nodes.append(helper.make_node("Sum", outputs, ["y"]))
        outputs = ["y"]
    return model_of(nodes, {f"x{t}": ["n", 1, 6, 6] for t in range(towers)}, outputs, constants)


def siamese_feeds(towers: int = 2, samples: int = 5, same: bool = False) -> dict[str, np.ndarray]:
    return {f"x{t}": images(samples, 1, 6, 6, seed=3 if same else 3 + t) for t in range(towers)}


@cache
def compiled(kind: str, target: str = "m2tj4", passes: str | None = LEVELS, **options: Any) -> Program:
    models = {
        "repeated": lambda: repeated_model(12),
        "single": lambda: repeated_model(1),
        "siamese": siamese_model,
        "towers": lambda: siamese_model(join=False),
        "tower": lambda: siamese_model(1, join=False),
    }
    return xbcompile.compile(models[kind](), target, passes=passes, **options)


@pytest.mark.parametrize(
    ("target", "passes"), [("ideal", None), ("m2tj4", LEVELS), ("mram64", BINARY), ("memristor20", None)]
)
@pytest.mark.parametrize(("kind", "one"), [("repeated", "single"), ("towers", "tower")])
def test_shared_weights_take_the_images_of_one_copy(kind: str, one: str, target: str, passes: str | None) -> None:
    shared, single = (compiled(name, target, passes, arrays=0) for name in (kind, one))
    assert shared.schedule.images == single.schedule.images
    places = [name for name in shared.schedule.tiles.dtype.names if name != "layer"]
    assert np.array_equal(shared.schedule.tiles[places], single.schedule.tiles[places])
    assert shared.schedule.weight_updates == single.schedule.weight_updates
    images_of = np.arange(shared.schedule.images)
    assert np.array_equal(shared.cells(images_of), single.cells(images_of))


@pytest.mark.parametrize(
    ("model", "feeds"),
    [
        (repeated_model(12), {"x": images(7, 9)}),
        (siamese_model(), siamese_feeds()),
        (siamese_model(3, join=False), siamese_feeds(3)),
    ],
    ids=["repeated", "siamese", "towers"],
)
def test_outputs_equal_onnxruntime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    program = xbcompile.compile(model, "ideal", arrays=1)
    expected, found = run_onnxruntime(model, feeds), Session(program).run_samples(feeds)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


def test_a_program_comes_back_with_its_matrices_shared(tmp_path: Path) -> None:
    for kind, matrices in (("repeated", (0,) * 12), ("siamese", (0, 0, 2, 2))):
        program = compiled(kind)
        assert program.network.matrices == matrices
        program.save(tmp_path / kind)
        loaded = load_program(tmp_path / kind)
        assert loaded == program
        assert loaded.network.matrices == matrices
        assert loaded.digest == program.digest
        assert verify(loaded) == []
        layers = loaded.network.layers
        for ours in (layers, program.network.layers):
            assert not any("weights" in vars(layer) for layer in ours)  # they are made from the code that is shared
        assert all(layer.weight_code is layers[i].weight_code for layer, i in zip(layers, matrices, strict=True))


def test_equal_weights_under_two_names_are_two_matrices(tmp_path: Path) -> None:
    model = repeated_model(2)
    copy = onnx.TensorProto()
    copy.CopyFrom(model.graph.initializer[0])
    copy.name = "v"
    model.graph.initializer.append(copy)
    model.graph.node[2].input[1] = "v"
    program = xbcompile.compile(model, "m2tj4", passes=LEVELS)
    assert program.network.matrices == (0, 1)
    assert len(program.schedule.tiles) == 2 * len(compiled("single").schedule.tiles)
    program.save(tmp_path / "p.xbar")  # where a file stores equal tensors once, they must not become one matrix
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded.network.matrices == (0, 1)
    assert verify(loaded) == []


def test_costs_count_every_use() -> None:
    one, many = compiled("single", arrays=0), compiled("repeated", arrays=0)
    sessions = [Session(program) for program in (one, many)]
    for session in sessions:
        session.run_samples({"x": images(3, 9)})
    single, repeated = (cost_of(session.program, session.counters) for session in sessions)
    assert repeated.reads == 12 * single.reads
    assert repeated.dot_products == 12 * single.dot_products
    assert repeated.weight_updates == single.weight_updates
    spec = one.spec
    assert repeated.energy_j == pytest.approx(
        many.schedule.images * spec.rows * spec.e_write_row_j + 12 * single.reads * spec.e_read_j
    )
    reads = many.schedule.steps[many.schedule.steps["operation"] == READ]
    assert many.schedule.makespan_s == pytest.approx(12 * one.schedule.makespan_s)
    assert len(reads) == 12 * len(one.schedule.tiles)


@pytest.mark.parametrize("device", [None, "mram64-emulator"])
def test_every_use_has_its_own_read_noise(device: str | None) -> None:
    """Both towers see the same vectors: their readings differ by noise alone, the first tower's are those of a tower alone."""
    towers, tower = (compiled(kind, "mram64", BINARY, arrays=0) for kind in ("towers", "tower"))
    feeds = siamese_feeds(same=True)
    exact = Session(towers, "ideal").run_samples(feeds)
    assert np.array_equal(exact["y0"], exact["y1"])
    noisy = Session(towers, device, seed=2).run_samples(feeds)
    assert not np.array_equal(noisy["y0"], noisy["y1"])
    alone = Session(tower, device, seed=2).run_samples({"x0": feeds["x0"]})
    assert np.array_equal(noisy["y0"], alone["y0"])


def test_noise_of_every_use_is_independent_of_chunks_and_runs() -> None:
    program, feeds = compiled("siamese", "mram64", BINARY), siamese_feeds()
    whole = Session(program, seed=1).run_samples(feeds)["y"]
    for chunk in (1, 2, 5):
        assert np.array_equal(Session(program, seed=1, threads=1).run_samples(feeds, chunk=chunk)["y"], whole)


def test_noise_of_uses_is_uncorrelated(tmp_path: Path) -> None:
    """Twelve layers with one matrix and the same input: errors of 12 uses correlate no more than chance allows."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"y{i}"], name=f"m{i}") for i in range(12)]
    model = model_of(nodes, {"x": ["n", 8]}, [f"y{i}" for i in range(12)], {"w": rng.normal(size=(8, 20))})
    noisy = tmp_path / "noisy.toml"
    noisy.write_text(
        'extends = "memristor20"\nname = "noisy"\n[quantities]\n'
        'read_noise = { value = 0.02, unit = "1", source = "assumed" }\n'
    )
    program = xbcompile.compile(model, noisy, passes="quantize{scheme=continuous},analogue{low=-1 high=1}")
    assert program.network.matrices == (0,) * 12
    x = {"x": np.tile(2 * images(1, 8) - 1, (200, 1))}  # one vector again and again: what varies is noise
    outputs = np.stack(list(Session(program).run_samples(x).values())).reshape(12, 200, 20)
    error = outputs - outputs.mean(axis=1, keepdims=True)
    assert (error.std(axis=1) > 0).all()
    correlation = np.corrcoef(error.reshape(12, -1))[np.triu_indices(12, 1)]
    # 66 correlations of 4,000 pairs each have a standard deviation of 0.016
    assert np.abs(correlation).max() < 5 * 4000**-0.5


def test_a_pass_that_changes_one_layer_ends_its_sharing() -> None:
    """A BatchNormalization behind one of three layers is folded into its weights; the other two still share."""
    rng = np.random.default_rng(8)
    nodes = [helper.make_node("Conv", [f"x{i}", "k"], [f"y{i}" if i != 1 else "c"], name=f"conv{i}") for i in range(3)]
    nodes.append(helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y1"], name="norm"))
    constants = {"k": rng.normal(size=(4, 2, 3, 3)), **{name: rng.random(4) for name in "sbmv"}}
    inputs = {f"x{i}": ["n", 2, 5, 5] for i in range(3)}
    model = model_of(nodes, inputs, ["y0", "y1", "y2"], constants)
    program = xbcompile.compile(model, "ideal", passes="fold-batchnorm")
    assert program.network.matrices == (0, 1, 0)
    assert verify(program) == []
    feeds = {name: images(3, 2, 5, 5) for name in inputs}
    found, expected = Session(program).run_samples(feeds), run_onnxruntime(model, feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


def test_equal_networks_share_alike() -> None:
    """What is shared is said by names: copies, in which no two layers hold one array, have the same matrices and uses."""
    network = import_network(load_model(siamese_model()))
    layers = [replace(layer, weights=layer.weights.copy()) for layer in network.layers]
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.with_layers(layers)):
        other.check()
        assert other == network
        assert other.matrices == network.matrices == (0, 0, 2, 2)
        assert other.uses == network.uses
    assert network.with_layers([replace(network.layers[1], matrix="")]) != network


@pytest.mark.parametrize("coded", [False, True])
def test_layers_that_name_one_matrix_must_hold_it(coded: bool) -> None:
    network = compiled("siamese").network if coded else import_network(load_model(siamese_model()))
    layer = network.layers[1]
    code = layer.weight_code
    changed = replace(layer, weights=2 * layer.weights)
    if code is not None:
        changed = replace(layer, weight_code=replace(code, scale=2 * code.scale))
    with pytest.raises(ValueError, match="conv1 and conv0 share the matrix 'k', but its weights or code differ"):
        network.with_layers([changed]).check()
    apart = network.with_layers([replace(changed, matrix="")])
    apart.check()
    assert apart.matrices == (0, 1, 2, 2)


@pytest.mark.parametrize("arrays", [0, 1, 2])
def test_row_weights_are_those_of_the_shared_rows(arrays: int) -> None:
    program = compiled("siamese", "mram64", BINARY, arrays=arrays)
    first, second, _, _ = program.network.layers
    assert second.weight_code is first.weight_code
    assert first.weight_code is not None
    assert first.weight_code.row_weight is not None
    assert verify(program) == []


def tampered(program: Program, table: str, field: str, row: int, value: int) -> list[str]:
    changed = getattr(program.schedule, table).copy()
    changed[field][row] = value
    return verify(replace(program, schedule=replace(program.schedule, **{table: changed})), equivalence=False)


def test_faults_of_uses_are_found() -> None:
    program = compiled("siamese")
    steps, tiles, uses = program.schedule.steps, program.schedule.tiles, program.network.uses
    reads = np.flatnonzero(steps["operation"] == READ)
    for step in reads:
        for use in range(-1, len(uses) + 1):
            if use != steps["use"][step]:
                assert tampered(program, "steps", "use", step, use), (step, use)
    write = int(np.flatnonzero(steps["operation"] != READ)[0])
    assert tampered(program, "steps", "use", write, 0) == ["steps: a write names a use; only reads have one"]
    other = next(r for r in reads if uses[steps["use"][r]].matrix == 0)
    assert "whose matrix it is no part of" in tampered(program, "steps", "use", other, 2)[0]
    second = next(i for i, use in enumerate(uses) if use.layer == 1)
    found = tampered(program, "steps", "use", next(r for r in reads if steps["use"][r] == 0), second)
    assert "is read 2 times for layer 'conv1'" in found[0]
    assert "has tiles of its own, but its matrix is that of 'conv0'" in " ".join(
        tampered(program, "tiles", "layer", int(np.flatnonzero(tiles["layer"] == 0)[0]), 1)
    )


def test_uses_of_one_matrix_in_the_wrong_order_are_found() -> None:
    """The reads of two layers of a chain, of the same tiles, exchange their uses: nothing but the order is wrong."""
    program = compiled("repeated", arrays=0)
    use = program.schedule.steps["use"]
    changed = program.schedule.steps.copy()
    changed["use"][use == 3], changed["use"][use == 4] = 4, 3
    other = replace(program, schedule=replace(program.schedule, steps=changed))
    assert verify(other, equivalence=False) == [
        "steps: layer 'fc4' is read before layer 'fc3', on which it depends, is complete"
    ]
    few = program.schedule.steps[np.r_[0 : len(changed) - 1]]
    other = replace(program, schedule=replace(program.schedule, steps=few))
    assert "1 tiles of layer 'fc11' are never read" in verify(other, equivalence=False)[0]


def test_reports_say_whose_matrix_a_layer_uses() -> None:
    from xbcompile.report.summary import schedule_rows, summarize

    program, single = compiled("siamese"), compiled("tower")
    facts, one = summarize(program), summarize(single)
    assert [layer["matrix_of"] for layer in facts["layers"]] == ["conv0", "conv0", "fc0", "fc0"]
    for key in ("weights", "tiles", "images", "utilisation", "images_lower_bound"):
        assert facts["totals"][key] == one["totals"][key]
    assert facts["totals"]["reads_per_inference"] == 2 * one["totals"]["reads_per_inference"]
    rows = [row for row in schedule_rows(program) if row["operation"] == "read"]
    assert {row["layer"] for row in rows} == {"conv0", "conv1", "fc0", "fc1"}


@st.composite
def shared_models(draw: st.DrawFn) -> onnx.ModelProto:
    """Chains and branches of products with few matrices; all activations have the same size."""
    size, count = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    constants: dict[str, Any] = {f"w{i}": rng.normal(size=(size, size)) / size for i in range(count)}
    tensors, nodes = ["x"], []
    for i in range(draw(st.integers(1, 7))):
        one, other = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        weight = f"w{draw(st.integers(0, count - 1))}"
        nodes.append(helper.make_node("Gemm", [one, weight], [f"g{i}"], name=f"l{i}", transB=draw(st.integers(0, 1))))
        nodes.append(helper.make_node("Add", [f"g{i}", other], [f"a{i}"]))
        tensors.append(f"a{i}")
    nodes.append(helper.make_node("Sum", tensors, ["y"]))
    return model_of(nodes, {"x": ["n", size]}, ["y"], constants)


@FUZZ
@given(shared_models(), st.integers(0, 8), st.sampled_from(["auto", "none"]))
def test_random_shared_networks_verify_and_equal_onnxruntime(model: onnx.ModelProto, arrays: int, packing: str) -> None:
    options: dict[str, Any] = {"arrays": arrays, "effort": FIRST_EFFORT}  # one search of each kind, not longer ones
    program = xbcompile.compile(model, "m2tj4", passes="quantize,analogue", packing=packing, **options)
    assert verify(program) == []
    used = {(node.input[1], node.attribute[0].i) for node in model.graph.node if node.op_type == "Gemm"}
    assert len(set(program.network.matrices)) == len(used)
    size = program.network.layers[0].inputs
    feeds = {"x": images(3, size)}
    found = Session(xbcompile.compile(model, "ideal", **options)).run_samples(feeds)["y"]
    expected = run_onnxruntime(model, feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_program_without_sharing_is_as_ever() -> None:
    program = xbcompile.compile(dense_model(20, 9, 4), "m2tj4", passes=LEVELS)
    assert program.network.matrices == (0, 1)
    assert [(use.layer, use.matrix, use.waits_for) for use in program.network.uses] == [(0, 0, ()), (1, 1, (0,))]


def test_data_aware_coding_of_a_shared_matrix_is_that_of_its_first_layer() -> None:
    data = {"x": images(60, 9)}
    passes = f"{Quantize(scheme='levels', method='data-aware')},analogue{{low=-1 high=1}}"
    shared, single = (
        xbcompile.compile(repeated_model(times), "m2tj4", passes=passes, calibration=data) for times in (3, 1)
    )
    layers = shared.network.layers
    assert layers[0].weight_code == single.network.layers[0].weight_code
    assert len({id(layer.weight_code) for layer in layers}) == 1
    assert np.array_equal(layers[0].bias, single.network.layers[0].bias)
    assert len({layer.bias.tobytes() for layer in layers}) == 3
    # each layer's bias takes its own mean error away
    model = repeated_model(3)
    model.graph.output.extend(onnx.ValueInfoProto(name=f"g{i}") for i in range(3))
    program = xbcompile.compile(model, "m2tj4", passes=passes, calibration=data)
    found, expected = Session(program, "ideal").run_samples(data), run_onnxruntime(model, data)
    for name in ("g0", "g1", "g2"):
        np.testing.assert_allclose(found[name].mean(axis=0), expected[name].mean(axis=0), atol=2e-5)
