"""ONNX's backend interface, and ONNX's own backend tests: what plain onnxruntime passes, we pass.

The reference of every suite test is the suite's own expected output, compared with the suite's own tolerance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.fuzz.onnx_backend_suite import CompilingBackend, OnnxruntimeBackend, Suite, compare, with_constants
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError, TargetError
from xbcompile.interop import onnx_backend

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
SLICES = 12
# Of the tests again with constants only those whose operators have matrices, and a few of the others: time is short.
MATRICES = (
    "attention",
    "conv",
    "deform",
    "einsum",
    "gemm",
    "gru",
    "linear_attention",
    "lstm",
    "matmul",
    "qlinear",
    "rnn",
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_MODELS", str(tmp_path_factory.mktemp("models")))
        yield Suite()


def chosen(name):
    """Every test of the suite but the light models; of our own variants those with matrices and one in twenty others."""
    if name.startswith("Real"):
        return False
    if "_constant_but_" not in name:
        return True
    return any(word in name for word in MATRICES) or crc32(name.encode()) % 20 == 0


@pytest.mark.parametrize("part", range(SLICES))
def test_what_onnxruntime_passes_passes(suite, part):
    """Goal: no test of the suite that onnxruntime passes fails; the names go by hash, so that parts take equal time."""
    names = [name for name in suite.tests if chosen(name) and crc32(name.encode()) % SLICES == part]
    results = list(compare(suite, names))
    passed = [name for name, reference, _, _ in results if not reference]
    assert len(passed) > 100  # a suite that onnxruntime fails throughout would compare nothing
    assert {name: ours for name, _, ours, _ in results if ours} == {}


def test_the_suite_sees_a_wrong_result(suite):
    """A backend that adds to every output fails nearly every test that onnxruntime passes."""

    class Wrong(OnnxruntimeBackend):
        @classmethod
        def prepare(cls, model, device="CPU", **kwargs):
            prepared: Any = super().prepare(model)
            right = prepared.run
            prepared.run = lambda inputs: tuple(np.asarray(value) + 1 for value in right(inputs))
            return prepared

    names = [name for name in suite.tests if "NodeModel test_conv" in name or "NodeModel test_gemm" in name]
    passed = [name for name in names if not suite.run(name, OnnxruntimeBackend)]
    assert passed
    assert all("Not equal to tolerance" in suite.run(name, Wrong) for name in passed)


def test_variants_with_constants_are_lowered(suite):
    """The variants are there so that matrices are lowered: those of Gemm and Conv have theirs on arrays."""
    from onnx.backend.test.loader import load_model_tests

    lowered = {}
    for case in load_model_tests(kind="node"):
        if case.name in ("test_gemm_alpha", "test_conv_with_strides_padding", "test_matmul_2d"):
            programs = [onnx_backend.prepare(variant.model).session.program for variant in with_constants(case)]
            lowered[case.name] = [len(program.network.layers) for program in programs]
    # A Gemm that keeps its addend open has both operands constant; a convolution's input may not be the constant.
    assert lowered == {"test_gemm_alpha": [1, 0], "test_conv_with_strides_padding": [1, 0], "test_matmul_2d": [1, 1]}


@pytest.mark.parametrize("name", ["squeezenet", "densenet121"])
def test_light_model(suite, name):
    assert suite.run(f"RealModel test_{name}", CompilingBackend) == ""


def test_all_matrices_of_squeezenet_are_on_arrays():
    """SqueezeNet has 26 convolutions (Iandola et al., arXiv:1602.07360: conv1, conv10 and three in each of 8 fire modules).

    The light model's weights are made by ConstantOfShape nodes. They are replaced by random ones, as equal weights
    compute little that could be wrong, and the result is compared with plain onnxruntime's.
    """
    model = onnx.load(LIGHT / "light_squeezenet.onnx")
    randomize(model)
    session = xbcompile.InferenceSession(model, packing="none")
    assert [record.lowered for record in session.program.network.records] == [True] * 26
    (value,) = session.get_inputs()
    x = np.random.default_rng(1).random(value.shape, np.float32)
    (expected,) = run_onnxruntime(model, {value.name: x}).values()
    assert expected.std() > 1e-5  # the outputs differ, so that a wrong one would be seen
    np.testing.assert_allclose(session.run(None, {value.name: x})[0], expected, rtol=1e-3, atol=1e-6)


def randomize(model):
    """Random weights in the place of each ConstantOfShape: normal, of variance 2 / fan-in (He et al. 2015)."""
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = shapes[node.input[0]].tolist()
        deviation = np.sqrt(2 / max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 0.05
        values = np.abs(1 + 0.1 * rng.normal(size=shape)) if len(shape) == 1 else deviation * rng.normal(size=shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)


# --- the interface


def gemm():
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(3, 2)).astype(np.float32)}
    return model_of([helper.make_node("Gemm", ["x", "w", "c"], ["y"])], {"x": ["N", 3], "c": [2]}, ["y"], constants)


def test_prepare_and_run():
    rng = np.random.default_rng(1)
    model = gemm()
    feeds = {"x": rng.normal(size=(4, 3)).astype(np.float32), "c": np.array([1, 2], np.float32)}
    expected = run_onnxruntime(model, feeds)["y"]
    prepared = onnx_backend.prepare(model, "CPU")
    assert isinstance(prepared, onnx.backend.base.BackendRep)
    for inputs in (list(feeds.values()), tuple(feeds.values()), feeds):
        (y,) = prepared.run(inputs)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
        (y,) = onnx_backend.run_model(model, inputs)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_one_input_needs_no_list():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [3]}, ["y"])
    (y,) = onnx_backend.prepare(model).run(np.array([-1, 0, 2], np.float32))
    np.testing.assert_array_equal(y, [0, 0, 2])


def test_options_of_compile_are_passed_on():
    assert onnx_backend.prepare(gemm(), target="m2tj4").session.program.target.name == "m2tj4"


def test_too_many_inputs():
    x, c = np.ones((1, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(DataError, match="3 inputs were given; the model has 2: x, c"):
        onnx_backend.run_model(gemm(), [x, c, c])


@pytest.mark.parametrize(("device", "supported"), [("CPU", True), ("CPU:0", True), ("CUDA", False), ("CUDA:1", False)])
def test_devices(device, supported):
    assert onnx_backend.supports_device(device) == supported
    assert onnx_backend.is_compatible(gemm(), device) == supported
    if not supported:
        with pytest.raises(TargetError, match=f"device '{device}' is not supported; the only one is 'CPU'"):
            onnx_backend.prepare(gemm(), device)


def test_a_model_that_cannot_be_imported_is_not_compatible():
    assert onnx_backend.is_compatible(gemm())
    unknown = model_of(
        [helper.make_node("Nonsense", ["x"], ["y"], domain="nowhere")], {"x": [3]}, ["y"], domains={"nowhere": 1}
    )
    assert not onnx_backend.is_compatible(unknown)


def test_run_node():
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    x = np.array([[-1, 5]], np.float32)
    (y,) = onnx_backend.run_node(node, [x, np.float32(3)])
    np.testing.assert_array_equal(y, [[-1, 3]])
    info = [(np.dtype(np.float32), (1, 2))]
    (y,) = onnx_backend.run_node(node, [x, np.float32(3)], outputs_info=info, opset_version=12)
    np.testing.assert_array_equal(y, [[-1, 3]])


def test_run_node_of_sequences_texts_and_other_domains():
    values = [np.ones((2, 2), np.float32), np.zeros((1, 2), np.float32)]
    (joined,) = onnx_backend.run_node(helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0), [values])
    np.testing.assert_array_equal(joined, np.concatenate(values))
    texts = np.array(["a", "b"])
    (y,) = onnx_backend.run_node(helper.make_node("StringConcat", ["a", "a"], ["y"]), [texts])
    assert y.tolist() == ["aa", "bb"]
    scaled = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0])
    (y,) = onnx_backend.run_node(scaled, np.array([[1, 2]], np.float32))
    np.testing.assert_array_equal(y, [[0, 2]])


def test_run_node_with_too_few_inputs():
    with pytest.raises(DataError, match="1 inputs were given; the node reads 2: x, w"):
        onnx_backend.run_node(helper.make_node("MatMul", ["x", "w"], ["y"]), [np.ones((2, 2), np.float32)])
    with pytest.raises(DataError, match="an empty list has no element type"):
        onnx_backend.run_node(helper.make_node("SequenceLength", ["s"], ["n"]), [[]])


def test_the_module_is_a_backend_as_onnx_asks():
    """`onnx.backend.test.BackendTest` is given the module, as its documentation does it."""
    import unittest
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = onnx.backend.test.BackendTest(xbcompile.interop.onnx_backend, __name__).include(
            "^test_(relu|gemm_default_.*)_cpu$"
        )
    result = unittest.TestResult()
    for case in tests.test_cases.values():
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun - len(result.skipped) == 7
    assert result.wasSuccessful()


def test_element_types_of_a_node():
    for dtype, element_type in ((np.int64, TensorProto.INT64), (np.float16, TensorProto.FLOAT16)):
        model = xbcompile.interop.onnx_backend._model_of(
            helper.make_node("Neg", ["x"], ["y"]), [np.ones(2, dtype)], None, 13
        )
        assert model.graph.input[0].type.tensor_type.elem_type == element_type
        assert model.opset_import[0].version == 13
