"""Our session where onnxruntime's stands: every public member, and what users' code does with them, in both."""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from threading import Event

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
import xbcompile.interop.onnxruntime as ours
from xbcompile.errors import DataError, RunError, XbcompileError
from xbcompile.interop.faults import BindingError, Refused

PAGE = Path(__file__).parents[2] / "docs" / "inference_session.md"
X = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
PACKAGES = {"theirs": onnxruntime, "ours": ours}


def model():
    """Two outputs, a batch that is left open, and words about itself."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(5, 4)).astype(np.float32), "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "fc"), helper.make_node("Relu", ["h"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])
    wanted = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("y", "h")]
    graph = helper.make_graph(nodes, "graph", [given], wanted, weights, doc_string="of a graph")
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests", doc_string="words"
    )
    made.model_version, made.domain = 7, "example"
    made.metadata_props.add(key="author", value="nobody")
    return made


@pytest.fixture(params=list(PACKAGES))
def package(request):
    return PACKAGES[request.param]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A model file; the working folder is that of the test."""
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "model.onnx")
    return "model.onnx"


def exact(x=X):
    """Computed in float64 from the weights."""
    weights = numpy_helper.to_array(model().graph.initializer[0]).astype(np.float64)
    h = x.astype(np.float64) @ weights
    return np.maximum(h, 0), h


def assert_right(outputs, x=X):
    for value, wanted in zip(outputs, exact(x), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


# --- the table


def rows():
    found = re.findall(r"^\| `(\w+)` \| (\w[\w ]*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: (verdict, words) for name, verdict, words in found}


def members(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_page_has_every_public_member_and_so_has_the_session():
    assert set(rows()) == members(onnxruntime.InferenceSession)
    assert members(onnxruntime.InferenceSession) <= members(xbcompile.InferenceSession)
    assert {verdict for verdict, _ in rows().values()} <= {"supported", "refused", "no effect"}
    assert all(words for verdict, words in rows().values() if verdict != "supported")
    assert f"onnxruntime {'.'.join(onnxruntime.__version__.split('.')[:2])})" in PAGE.read_text()


@pytest.mark.parametrize("name", sorted(members(onnxruntime.InferenceSession) | {"__init__"}))
def test_members_take_the_same_arguments(name):
    """In the same order, with the same names and defaults; ours may take more behind them, by name."""
    theirs, mine = (
        inspect.signature(getattr(kind, name)).parameters.values()
        for kind in (onnxruntime.InferenceSession, xbcompile.InferenceSession)
    )
    wanted = [(each.name, each.default, each.kind) for each in theirs if each.kind != each.VAR_KEYWORD]
    assert [(each.name, each.default, each.kind) for each in mine][: len(wanted)] == wanted
    assert all(each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in list(mine)[len(wanted) :])


@pytest.mark.parametrize("name", [name for name, (verdict, _) in rows().items() if verdict == "refused"])
def test_what_is_refused_says_why(name, path):
    session = xbcompile.InferenceSession(path)
    arguments = {"set_tuning_results": [[{"ep": "CPUExecutionProvider"}]]}.get(name, [])
    with pytest.raises(Refused, match="arrays") as caught:
        getattr(session, name)(*arguments)
    assert isinstance(caught.value, NotImplementedError | RunError)
    session.set_tuning_results([])


@pytest.mark.parametrize("name", [name for name, (verdict, _) in rows().items() if verdict == "no effect"])
def test_what_has_no_effect_leaves_outputs_as_they_are(name, package, path):
    session = package.InferenceSession(path)
    getattr(session, name)(*{"set_ep_dynamic_options": [{"a": "b"}]}.get(name, []))
    assert_right(session.run(None, {"x": X}))


def test_the_module_has_all_names_of_onnxruntime():
    assert set(dir(onnxruntime)) <= set(dir(ours))
    assert ours.SessionOptions is onnxruntime.SessionOptions
    assert ours.InferenceSession is xbcompile.InferenceSession
    with pytest.raises(AttributeError, match="nothing"):
        _ = ours.nothing
    assert import_module("onnxruntime").InferenceSession is not ours.InferenceSession


# --- what users' code does, in both


def test_positions_options_and_providers(package, path):
    options = package.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = package.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = package.InferenceSession(path, options, ["CPUExecutionProvider"], [{}], enable_fallback=1)
    assert_right(session.run(None, {"x": X}))
    assert session.get_session_options().intra_op_num_threads == 1
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_provider_options() == {"CPUExecutionProvider": {}}
    session.set_providers(["CPUExecutionProvider"])
    with pytest.warns(UserWarning, match="Specified provider 'CUDAExecutionProvider' is not in available"):
        session = package.InferenceSession(path, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]
    for wrong in ({1: 2}, [3]):
        with pytest.raises(ValueError, match="providers"):
            package.InferenceSession(path, providers=wrong, enable_fallback=0)
    with pytest.raises(TypeError):
        package.InferenceSession(path, "mram64")


def test_what_a_session_says_of_itself(package, path):
    session = package.InferenceSession(path)
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.graph_name, meta.domain, meta.version) == ("tests", "graph", "example", 7)
    assert (meta.description, meta.graph_description) == ("words", "of a graph")
    assert meta.custom_metadata_map == {"author": "nobody"}
    assert session.get_overridable_initializers() == []
    assert session.get_tuning_results() == []
    assert (session.get_profiling_start_time_ns(), session.end_profiling()) == (0, "")
    for infos, count in ((session.get_input_memory_infos(), 1), (session.get_output_memory_infos(), 2)):
        assert [(each.name, each.device_id, each.mem_type) for each in infos] == [
            ("Cpu", 0, onnxruntime.OrtMemType.DEFAULT)
        ] * count
    assert [each.ep_name for each in session.get_input_epdevices()] == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 0


def test_metadata_of_bytes_models_and_programs(tmp_path):
    made = model()
    for source in (made, made.SerializeToString(), xbcompile.compile(made, "ideal")):
        assert xbcompile.InferenceSession(source).get_modelmeta().custom_metadata_map == {"author": "nobody"}
    bare = xbcompile.compile(made, "ideal", embed_model=False)
    bare.save(tmp_path / "p.xbar")
    assert xbcompile.InferenceSession(tmp_path / "p.xbar").get_modelmeta().graph_name == "graph"


def test_a_profile_is_a_trace_of_events(package, path):
    options = package.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = "profile"
    session = package.InferenceSession(path, options)
    session.run(None, {"x": X})
    name = session.end_profiling()
    assert re.fullmatch(r"profile_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+\.json", name)
    assert session.get_profiling_start_time_ns() > 0
    events = json.loads(Path(name).read_text())
    assert {"ph", "pid", "name"} <= set(events[0])
    assert session.end_profiling() == ""


def test_profiled_batches_are_those_that_ran(path):
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    session = xbcompile.InferenceSession(path, options, batch=1)
    session.run(None, {"x": X})
    events = json.loads(Path(session.end_profiling()).read_text())
    reads = [each for each in events if each["ph"] == "X" and each.get("cat") == "read"]
    steps = session.program.schedule.steps
    assert len(reads) == len(X) * int((steps["operation"] == 1).sum())


def test_the_optimized_model_is_the_ideal_meaning(package, path):
    options = package.SessionOptions()
    options.optimized_model_filepath = "optimized.onnx"
    package.InferenceSession(path, options)
    assert_right(onnxruntime.InferenceSession("optimized.onnx").run(None, {"x": X}))


def test_ort_values_in_and_out(package, path):
    session = package.InferenceSession(path)
    value = package.OrtValue.ortvalue_from_numpy(X)
    found = session.run_with_ort_values(["h"], {"x": value})
    assert [type(each) for each in found] == [package.OrtValue]
    np.testing.assert_allclose(found[0].numpy(), exact()[1], rtol=1e-5, atol=1e-5)
    vector, results = (onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector() for _ in range(2))
    vector.push_back(value._get_c_value())
    processor = package.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(package.RunOptions(), ["x"], vector, ["y", "h"], results, [processor, processor])
    assert_right([package.OrtValue(each).numpy() for each in results])
    made = session.create_ortvalue_from_shape_and_type([2, 3], np.float32, "cpu")
    assert (made.shape(), made.device_name()) == ([2, 3], "cpu")
    with pytest.raises(RuntimeError):
        session.create_ortvalue_from_shape_and_type([2], np.float32, "cuda")


def test_a_run_in_a_thread(package, path):
    session, done = package.InferenceSession(path), Event()
    found = []

    def take(results, user_data, error):
        found.append((results, user_data, error))
        done.set()

    session.run_async(None, {"x": X}, take, "mine")
    assert done.wait(60)
    results, user_data, error = found.pop()
    assert (user_data, error) == ("mine", "")
    assert_right(results)
    done.clear()
    session.run_async(["y"], {"x": X[:, :3]}, take, None)
    assert done.wait(60)
    results, user_data, error = found.pop()
    assert (results, user_data) == ([], None)
    assert error
    with pytest.raises(ValueError, match="missing"):
        session.run_async(None, {}, take, None)


def test_binding_arrays(package, path):
    session = package.InferenceSession(path)
    binding, x = session.io_binding(), X.copy()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    binding.bind_output("h", "cpu")
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    assert_right(binding.copy_outputs_to_cpu())
    x[:] = 2 * X
    session.run_with_iobinding(binding)
    assert_right([each.numpy() for each in binding.get_outputs()], 2 * X)
    assert len(list(binding.get_outputs_as_ortvaluevector())) == 2
    binding.clear_binding_outputs()
    with pytest.raises(RuntimeError, match=r"[Nn]o output|At least one output"):
        session.run_with_iobinding(binding)


@pytest.mark.parametrize("kind", [np.float32, TensorProto.FLOAT])
def test_binding_memory_by_its_address(package, path, kind):
    session = package.InferenceSession(path)
    x = package.OrtValue.ortvalue_from_numpy(X)
    y = package.OrtValue.ortvalue_from_shape_and_type([3, 4], np.float32, "cpu", 0)
    h = package.OrtValue.ortvalue_from_shape_and_type([3, 4], np.float32)
    binding = session.io_binding()
    binding.bind_input(
        name="x", device_type=x.device_name(), device_id=0, element_type=kind, shape=x.shape(), buffer_ptr=x.data_ptr()
    )
    binding.bind_output(
        name="y", device_type="cpu", device_id=0, element_type=kind, shape=y.shape(), buffer_ptr=y.data_ptr()
    )
    binding.bind_ortvalue_output("h", h)
    session.run_with_iobinding(binding)
    assert_right([y.numpy(), h.numpy()])
    assert_right(binding.copy_outputs_to_cpu())
    binding.bind_ortvalue_input("x", package.OrtValue.ortvalue_from_numpy(-X))
    session.run_with_iobinding(binding)
    assert_right([y.numpy(), h.numpy()], -X)


def test_what_cannot_be_bound(package, path):
    session = package.InferenceSession(path)
    binding = session.io_binding()
    with pytest.raises(RuntimeError, match="q"):
        binding.bind_cpu_input("q", X)
    with pytest.raises(RuntimeError):
        binding.bind_cpu_input("x", [1.0])
    with pytest.raises(ValueError, match="`element_type` and `shape` are to be provided"):
        binding.bind_output("y", buffer_ptr=1)
    with pytest.raises(ValueError, match="IOBinding must be used with the session that created it"):
        session.run_with_iobinding(package.InferenceSession(path).io_binding())
    binding.bind_cpu_input("x", X)
    binding.bind_ortvalue_output("y", package.OrtValue.ortvalue_from_shape_and_type([3, 3], np.float32))
    with pytest.raises(RuntimeError, match="y"):
        session.run_with_iobinding(binding)


def test_what_only_we_refuse_to_bind(path):
    binding = xbcompile.InferenceSession(path).io_binding()
    with pytest.raises(BindingError, match="memory of 'cuda' cannot be bound"):
        binding.bind_output("y", "cuda")
    with pytest.raises(BindingError, match="the address of its memory is 0"):
        binding.bind_input("x", "cpu", 0, np.float32, [3, 5], 0)


def test_outputs_that_are_no_tensors_have_no_ort_value():
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_value_info("s", sequence)],
    )
    session = xbcompile.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(BindingError, match="an output is a list and no tensor of numbers"):
        session.run_with_ort_values(None, {"x": np.ones(2, np.float32)})


def test_errors_are_caught_as_onnxruntimes(package, path):
    session = package.InferenceSession(path)
    for feeds, kinds in (
        ({"x": X[:, :2]}, (onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,)),
        ({}, (ValueError,)),
        ({"x": X.astype(np.float64)}, (onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,)),
    ):
        with pytest.raises(kinds) as caught:
            session.run(None, feeds)
        assert package is not ours or isinstance(caught.value, DataError)


def test_a_target_is_given_by_name(path):
    session = xbcompile.InferenceSession(path, target="mram64", seed=3)
    assert repr(session).startswith("<InferenceSession of <Program 'graph' on 'mram64'")
    assert repr(session).endswith(": x -> y, h>")
    with pytest.raises(
        TypeError, match=r"sess_options is 'mram64'; give onnxruntime.SessionOptions\(\) there, and a target as"
    ):
        xbcompile.InferenceSession(path, "mram64")
    with pytest.raises(XbcompileError, match=r"a builtins\.int is no model"):
        xbcompile.InferenceSession(3)
