"""Large models: memory and time in proportion to their size, no message above 2 GiB, external data read once."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model, images
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import MatrixLayer, WeightCode
from xbcompile.ir.geometry import Contraction
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.ir.schedule import TILE
from xbcompile.onnx_graph import engine, split_model
from xbcompile.onnx_graph.engine import open_session
from xbcompile.onnx_graph.split_model import LARGE_BYTES, SplitModel, split
from xbcompile.passes import quantize
from xbcompile.passes.quantize import Quantize, column_runs
from xbcompile.program.program import load_program
from xbcompile.reference.host_graph import host_graph
from xbcompile.runtime import Session
from xbcompile.targets import load_target
from xbcompile.verification.verify import verify


def with_external_weights(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file whose initializers lie in one other file, the next beginning where the last ends."""
    stored, offset = onnx.ModelProto(), 0
    stored.CopyFrom(model)
    with (folder / "weights.bin").open("wb") as file:
        for tensor in stored.graph.initializer:
            entries = {"location": "weights.bin", "offset": offset, "length": len(tensor.raw_data)}
            offset += file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
    (folder / "model.onnx").write_bytes(stored.SerializeToString())
    return folder / "model.onnx"


# The largest resident memory so far of a process on Linux. What getrusage calls so is at least that of the process which
# started it.
PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024
"""

IMPORT = """
import json, sys, time
from xbcompile.frontend import import_network, load_model
import onnxruntime, scipy  # what every import needs
before, start = peak(), time.perf_counter()
network = import_network(load_model(sys.argv[1]))
print(json.dumps({"bytes": peak() - before, "s": time.perf_counter() - start, "layers": len(network.layers)}))
"""


@pytest.mark.parametrize("external", [False, True])
def test_importing_takes_less_than_three_times_the_models_memory(tmp_path: Path, external: bool) -> None:
    """20 layers of a million weights: 80 MB; a process of its own, less what it needs before."""
    model = dense_model(*[1000] * 21)
    if external:
        path = with_external_weights(model, tmp_path)
    else:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
    size = sum(split_model.stored_bytes(tensor) for tensor in model.graph.initializer)
    result = subprocess.run(
        [sys.executable, "-c", PEAK + IMPORT, str(path)], check=True, capture_output=True, text=True
    )
    measured = json.loads(result.stdout)
    assert measured["layers"] == 20
    assert measured["bytes"] < 3 * size
    assert measured["s"] < 10


def chain(count: int) -> onnx.ModelProto:
    """Conv and Relu in turn, and as many digital nodes, all of one name."""
    rng = np.random.default_rng(0)
    nodes, constants, x = [], {}, "x"
    for i in range(count):
        constants[f"w{i}"] = rng.normal(size=(2, 2, 1, 1))
        constants[f"k{i}"] = rng.normal(size=(2, 1, 1))
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], "node"))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], "node"))
        nodes.append(helper.make_node("Mul", [f"r{i}", f"k{i}"], [f"m{i}"], "node"))
        x = f"m{i}"
    return model_of(nodes, {"x": ["n", 2, 3, 3]}, [x], constants)


def test_the_time_of_an_import_is_in_proportion_to_the_number_of_nodes() -> None:
    """Eight times the nodes take 8 times as long where it is linear, 64 times where it is quadratic."""
    times = []
    for count in (50, 400):
        model = chain(count)
        best = np.inf
        for _ in range(3):
            start = process_time()
            network = import_network(load_model(model))
            network.layer_dependencies()
            host_graph(network)
            best = min(best, process_time() - start)
        times.append(best)
        assert len(network.layers) == count
    assert times[1] < 20 * times[0]


def test_a_split_model_is_the_model_with_its_large_initializers_apart() -> None:
    model = dense_model(70, 60, 3)
    model.doc_string, model.graph.doc_string = "what it is", "how it works"
    model.metadata_props.add(key="author", value="nobody")
    model.graph.initializer[0].doc_string = "large"
    small = numpy_helper.from_array(np.zeros(LARGE_BYTES // 4, np.float32), "at the limit")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [2000], [0.5] * 2000)
    model.graph.initializer.extend([small, typed])
    parts = split(model)
    assert list(parts.tensors) == ["w0"]
    assert parts.skeleton.ByteSize() < model.ByteSize() - 70 * 60 * 4 + 100
    assert parts.joined() == model
    assert parts.joined().SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert split(model) == parts
    assert split(dense_model(70, 60, 3, seed=9)) != parts


def test_split_shares_memory_with_known_arrays_of_the_same_bits() -> None:
    model = dense_model(70, 60)
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    assert np.shares_memory(split(model, known=[array[None]]).tensors["w0"], array)
    assert split(model, known=[array[None]]).tensors["w0"].shape == (70, 60)
    for other in (
        array + np.float32(1e-3),
        np.ascontiguousarray(array.T),
        array.astype(np.float64),
        array[:, ::-1][:, ::-1].T,
    ):
        assert not np.shares_memory(split(model, known=[other]).tensors["w0"], other)
    later = array.copy()
    later[-1, -1] += 1
    assert not np.shares_memory(split(model, known=[later]).tensors["w0"], later)
    zero, negative = np.zeros((70, 60), np.float32), np.zeros((70, 60), np.float32)
    negative[-1, -1] = -0.0
    model.graph.initializer[0].raw_data = negative.tobytes()
    assert not np.shares_memory(split(model, known=[zero]).tensors["w0"], zero)  # equal numbers, other bits


@pytest.mark.parametrize("element_type", sorted(split_model._ARRAY_TYPES))
def test_sessions_take_arrays_of_every_element_type(element_type: int) -> None:
    """onnxruntime casts each to float32 as numpy does."""
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    values = (
        np.random.default_rng(0).integers(0, 2 if element_type == TensorProto.BOOL else 7, (80, 80, 3)).astype(dtype)
    )
    proto = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)],
        "cast",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "w")],
    )
    parts = split(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 19)], ir_version=9))
    assert list(parts.tensors) == ["w"]
    (y,) = open_session(parts).run(None, {})
    np.testing.assert_array_equal(y, values.astype(np.float32))


@pytest.fixture
def always_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions as those of models that no message can hold."""
    monkeypatch.setattr(engine, "HEAVY_BYTES", -1)


def large_parts() -> onnx.ModelProto:
    """Large initializers everywhere: of a layer, of digital nodes, captured by a body, a Constant node, float16."""
    rng = np.random.default_rng(0)
    branch = [
        helper.make_graph(
            [helper.make_node("Add", ["h", name], [out])], out, [], [helper.make_tensor_value_info(out, 1, None)]
        )
        for name, out in (("captured", "t"), ("other", "e"))
    ]
    nodes = [
        helper.make_node("Constant", [], ["w2"], value=numpy_helper.from_array(rng.normal(size=(64, 40)).astype("f"))),
        helper.make_node("Gather", ["table", "ids"], ["e0"]),
        helper.make_node("Gemm", ["e0", "w", "b"], ["g"], "gemm", transB=1),
        helper.make_node("MatMul", ["g", "w2"], ["h"], "matmul"),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["i"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["i", "single"], ["y"]),
    ]
    constants = {
        "table": rng.normal(size=(100, 48)),
        "w": rng.normal(size=(64, 48)),
        "b": rng.normal(size=64),
        "captured": rng.normal(size=(50, 40)),
        "other": rng.normal(size=(50, 40)),
        "half": rng.normal(size=(50, 40)).astype(np.float16),
        "zero": np.float32(0),
    }
    model = model_of(nodes, {}, ["y"], constants)
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [50]))
    return model


@pytest.mark.usefixtures("always_split")
@pytest.mark.parametrize("passes", ["", "quantize{scheme=levels},analogue{low=-4 high=4}"])
def test_a_model_with_external_data_goes_all_the_way(tmp_path: Path, passes: str) -> None:
    model = large_parts()
    feeds = {"ids": np.arange(50) % 7}
    path = with_external_weights(model, tmp_path)
    program = xbcompile.compile(path, "m2tj4" if passes else "ideal", passes=passes or None)
    assert len(program.network.layers) == 2
    program.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded == program
    assert verify(loaded) == []
    assert loaded.host_graph.tensors.keys() == program.host_graph.tensors.keys()
    assert isinstance(loaded.source, SplitModel)
    assert loaded.source.joined() == load_model(path)
    expected = run_onnxruntime(model if not passes else program.host, feeds)["y"]
    np.testing.assert_allclose(Session(loaded, "ideal").run(feeds)["y"], expected, rtol=1e-4, atol=1e-4)


def test_skeletons_stay_small(tmp_path: Path) -> None:
    """No part that is serialised grows with the weights: 4 MB of them, 100 KB of the rest."""
    program = xbcompile.compile(dense_model(1000, 1000), "ideal", packing="none")
    assert program.source is not None
    for part in (program.host_graph, program.source):
        assert part.skeleton.ByteSize() < 100_000
        assert sum(tensor.nbytes for tensor in part.tensors.values()) == 4_000_000
    program.save(tmp_path / "p.xbar")
    assert (tmp_path / "p.xbar").stat().st_size < 4_500_000  # source, host graph and cells are the same weights


def test_memory_is_shared_where_content_is() -> None:
    """On `ideal`, cells, real weights, host graph and the user's model are one array."""
    program = xbcompile.compile(dense_model(70, 60), "ideal")
    (layer,) = program.network.layers
    assert layer.weight_code is not None
    assert program.source is not None
    (parameter,) = program.host_graph.tensors.values()
    for array in (layer.weight_code.codes, parameter, program.source.tensors["w0"]):
        assert np.shares_memory(array, layer.weights)


def test_equal_matrices_that_layers_do_not_share_stay_apart_when_loaded(tmp_path: Path) -> None:
    """One member of the archive for both, but two matrices on the arrays, as compiled."""
    weights = np.random.default_rng(0).normal(size=(40, 40))
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], "one"), helper.make_node("MatMul", ["h", "b"], ["y"], "two")]
    program = xbcompile.compile(model_of(nodes, {"x": ["n", 40]}, ["y"], {"a": weights, "b": weights}), "ideal")
    program.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded.network.matrices == program.network.matrices
    assert verify(loaded) == []
    shared = xbcompile.compile(
        model_of(
            [nodes[0], helper.make_node("MatMul", ["h", "a"], ["y"], "two")], {"x": ["n", 40]}, ["y"], {"a": weights}
        ),
        "ideal",
    )
    shared.save(tmp_path / "s.xbar")
    again = load_program(tmp_path / "s.xbar")
    assert again.network.matrices == (0, 0)
    assert again.network.layers[0].weights is again.network.layers[1].weights
    x = images(2, 40)
    np.testing.assert_allclose(Session(again).run({"x": x})["y"], Session(loaded).run({"x": x})["y"], rtol=1e-5)


def test_a_cast_between_transpose_and_matrix_product_does_not_crash() -> None:
    """onnxruntime 1.32 crashes the process where it fuses the three; a process of its own tells."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Cast", ["t"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["c", "d"], ["y"]),
    ]
    model = model_of(nodes, {"x": [2, 4, 3]}, ["y"], {"d": np.ones(3, np.float32)}, dtype="float64")
    code = "import sys, onnx, numpy; from xbcompile.onnx_graph.engine import open_session; "
    code += "session = open_session(onnx.ModelProto.FromString(sys.stdin.buffer.read())); "
    code += "assert (session.run(None, {'x': numpy.ones((2, 4, 3))})[0] == 3).all()"
    subprocess.run([sys.executable, "-c", code], check=True, input=model.SerializeToString())


def traced_peak(work: Callable[[], object]) -> tuple[int, object]:
    """Largest number of bytes that Python and numpy hold at once during the work, above what they hold before; its result."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = work()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


def test_a_compile_holds_the_weights_once(tmp_path: Path) -> None:
    """20 layers of 102,400 weights: the whole network counts, what one layer takes for a while does not.

    Needed in units of the float32 weights: the weights, which are the embedded model's too (1), codes of one byte each (1/4),
    cells of images as a cache keeps them (1/4), and for a layer at a time some float64 numbers per weight (1/10 each). A
    further copy of all would add 1.
    """
    model = dense_model(*[320] * 21)
    xbcompile.compile(dense_model(320, 320), "mram64", packing="none")  # what is imported and compiled on first use
    weights = 20 * 320 * 320 * 4
    peak, program = traced_peak(lambda: xbcompile.compile(model, "mram64", packing="none"))
    assert peak < 2.2 * weights, peak / weights
    assert isinstance(program, xbcompile.Program)
    program.save(tmp_path / "p.xbar")
    program = None
    # The embedded model (1), codes of one byte (1/4).
    peak, loaded = traced_peak(lambda: xbcompile.load_program(tmp_path / "p.xbar"))
    assert peak < 1.7 * weights, peak / weights
    assert isinstance(loaded, xbcompile.Program)
    assert not any("weights" in vars(layer) for layer in loaded.network.layers)


COMPILE = """
import sys
import xbcompile
xbcompile.compile(sys.argv[1], "mram64")
before = peak()
xbcompile.compile(sys.argv[2], "mram64")
print(peak() - before)
"""


def test_verification_takes_no_copy_of_all_weights_in_onnxruntime(tmp_path: Path) -> None:
    """25 MB of weights in 24 layers: a process of its own, as what onnxruntime and protobuf take is not traced.

    Weights in the message (1) and as arrays (1), codes (1/4). onnxruntime folds constants in steps that hold several copies of
    all weights (3.5 more were measured), where it is not told to run once.
    """
    paths = [tmp_path / "small.onnx", tmp_path / "large.onnx"]
    for path, layers in zip(paths, (2, 24), strict=True):
        path.write_bytes(dense_model(*[512] * (layers + 1)).SerializeToString())
    command = [sys.executable, "-c", PEAK + COMPILE, *map(str, paths)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(result.stdout) < 3.0 * 24 * 512 * 512 * 4


def test_stored_weights_are_made_when_asked_for() -> None:
    levels = np.array([-1, 0.25, 1], np.float32)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (2, 5, 4)).astype(np.uint8)
    scale, offset = rng.random((2, 2, 4), dtype=np.float32)
    code = WeightCode(levels, codes, scale, offset)
    real = rng.random((2, 5, 4), dtype=np.float32)
    layer = MatrixLayer("fc", "x", "y", real, np.zeros(8, np.float32), Contraction(), weight_code=code)
    stored = layer.with_stored_weights()
    assert "weights" not in vars(stored)
    assert stored.shape == (2, 5, 4)
    assert (stored.groups, stored.inputs, stored.outputs) == stored.shape
    np.testing.assert_array_equal(stored.weights, levels[codes] * scale[:, None] + offset[:, None])
    assert stored == layer.with_stored_weights()
    assert stored != layer
    assert layer.weights is real
    with pytest.raises(AttributeError, match="no 'weight'"):
        stored.weight  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ValueError, match="no weight code"):
        MatrixLayer("fc", "x", "y", real, np.zeros(8, np.float32), Contraction()).with_stored_weights()


@pytest.mark.parametrize("problems", [1, 2, 3, 4, 5, 8, 9, 50])
def test_columns_are_fitted_in_runs_of_which_none_is_a_single_column(
    monkeypatch: pytest.MonkeyPatch, problems: int
) -> None:
    monkeypatch.setattr(quantize, "FIT_WEIGHTS", 4 * 7)
    runs = column_runs(7, problems)
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(problems))
    assert all(run.stop - run.start in range(2, 6) for run in runs) or problems == 1


@pytest.mark.parametrize("scheme", ["binary", "ternary", "levels"])
@pytest.mark.parametrize("has_row_weights", [False, True])
def test_fits_in_runs_are_those_of_all_columns_at_once(
    monkeypatch: pytest.MonkeyPatch, scheme: str, has_row_weights: bool
) -> None:
    """To the bit: numpy adds rows in the same order whatever the number of columns, if it is more than one."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1001, 33)).astype(np.float32)
    rows = np.broadcast_to(rng.random((1001, 1), dtype=np.float32) + 0.5, weights.shape) if has_row_weights else None
    table = np.array([-1, 1] if scheme == "binary" else [-1, 0, 1], np.float32)
    whole = Quantize(scheme=scheme).fit(weights, None if rows is None else rows.copy(), table)
    monkeypatch.setattr(quantize, "FIT_WEIGHTS", 5 * 1001)
    fit_run, widths = Quantize._fit_run, []

    def watched(self, w, *rest):
        widths.append(w.shape[1])
        return fit_run(self, w, *rest)

    monkeypatch.setattr(Quantize, "_fit_run", watched)
    for found, expected in zip(Quantize(scheme=scheme).fit(weights, rows, table), whole, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert widths == [5, 5, 5, 5, 5, 5, 3]


@pytest.mark.parametrize("last_row", [[0, 0, 0], [0, 21, 42], [5, 5, 7]])
def test_row_weights_take_the_memory_of_one_column_where_all_are_alike(last_row: list[int]) -> None:
    """150x192 in strips of 64, 64 and 22 rows; the last sits on rows of its own in each column block."""
    spec = load_target("mram64").array_spec
    shape = (1, 150, 192)
    tiles, expected = np.zeros(9, TILE), np.ones(shape, np.float32)
    for i, tile in enumerate(tiles):
        strip, block = divmod(i, 3)
        k0, k1, m0, row = 64 * strip, min(150, 64 * strip + 64), 64 * block, last_row[block] if strip == 2 else 0
        tile["k0"], tile["k1"], tile["m0"], tile["m1"], tile["row"], tile["image"] = k0, k1, m0, m0 + 64, row, i
        expected[0, k0:k1, m0 : m0 + 64] = spec.row_weight[row : row + k1 - k0, None]
    found = row_weight_of_layer(tiles, 0, shape, spec)
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    scale = np.ones((1, 192), np.float32)
    factor = WeightCode(spec.levels, np.zeros(shape, np.uint8), scale, scale, found).row_factor()
    assert factor is not None
    assert factor.shape == ((1, 150, 1) if len(set(last_row)) == 1 else shape)
    np.testing.assert_array_equal(np.broadcast_to(factor, shape), expected)
