"""The same model in every opset that onnxruntime runs: outputs as plain onnxruntime's, host graphs as the runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import ModelError
from xbcompile.frontend import load_model
from xbcompile.ir import Contraction, InputCode, MatrixLayer
from xbcompile.onnx_graph import engine
from xbcompile.reference.host_graph import OLDEST_OPSET, _LayerBody
from xbcompile.runtime import Session

OPSETS = range(OLDEST_OPSET, engine.newest_opset() + 1)
CODINGS = {
    "m2tj4": ["quantize,analogue{low=-1 high=2}", "quantize,analogue"],
    "mram64": ["quantize{scheme=binary},thermometer", "quantize{scheme=binary},thermometer{bits=4 low=-1 high=2}"],
}


def layered(opset: int) -> onnx.ModelProto:
    """Conv with padding, Gemm, MatMul on either side and with a vector, in operators of every opset."""
    rng = np.random.default_rng(opset)
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], "conv", pads=[1, 1, 0, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"], "gemm"),
        helper.make_node("MatMul", ["g", "v"], ["y"], "vector"),
        helper.make_node("MatMul", ["m", "g3"], ["z"], "left"),
        helper.make_node("Reshape", ["g", "shape"], ["g3"]),
    ]
    nodes.insert(5, nodes.pop())
    constants = {
        "k": rng.uniform(-1, 1, (3, 2, 3, 3)),
        "kb": rng.uniform(-1, 1, 3),
        "w": rng.uniform(-1, 1, (3 * 3 * 4, 6)),
        "b": rng.uniform(-1, 1, 6),
        "v": rng.uniform(-1, 1, 6),
        "m": rng.uniform(-1, 1, (4, 3)),
        "shape": np.array([-1, 3, 2]),
    }
    return model_of(nodes, {"x": ["n", 2, 4, 4]}, ["y", "z"], constants, opset=opset)


HALVES = st.integers(-40, 80).map(lambda n: n / 4)
ANY = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.one_of(HALVES, ANY), min_size=1, max_size=50), st.sampled_from([7, 8, 9, 10, 11]))
def test_inputs_are_rounded_half_to_even_in_every_opset(values: list[float], opset: int) -> None:
    """Numpy rounds so, too. Operators that the opset lacks have other ones in their place, with the same result."""
    x = np.array(values, np.float32)
    assert np.array_equal(rounded(x, opset), np.clip(np.round(x), 0, 7))


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_compiles_without_conversion(opset: int) -> None:
    model = layered(opset)
    assert load_model(model).opset_import[0].version == opset
    x = np.random.default_rng(0).uniform(-1, 2, (3, 2, 4, 4)).astype("f")
    expected = run_onnxruntime(model, {"x": x})
    program = xbcompile.compile(model, "ideal")
    assert len(program.network.layers) == 4
    for found in (Session(program).run({"x": x}), run_onnxruntime(program.host, {"x": x})):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18])
@pytest.mark.parametrize("target", ["m2tj4", "mram64"])
def test_coded_layers_of_every_opset_verify(opset: int, target: str) -> None:
    """Compiling compares each layer on the exact device with its function in onnxruntime, whatever the coding."""
    for passes in CODINGS[target]:
        program = xbcompile.compile(layered(opset), target, passes=passes)
        functions = {entry.version for f in program.host.functions for entry in f.opset_import}
        assert functions == {opset}


def rounded(values: np.ndarray, opset: int) -> np.ndarray:
    """What a layer of an opset makes of its input where that is rounded to whole numbers from 0 to 7."""
    layer = MatrixLayer(
        name="layer",
        input="x",
        output="y",
        weights=np.eye(1, dtype=np.float32)[None],
        bias=np.zeros(1, np.float32),
        geometry=Contraction(),
        input_code=InputCode("thermometer", 7, 0.0, 7.0),
    )
    body = _LayerBody(layer, opset, set())
    function = body.function()
    graph = helper.make_graph(
        [helper.make_node(body.type_name, ["x", *body.parameters], ["y"], domain="xbcompile")],
        "rounded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(value, name) for name, value in body.parameters.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("xbcompile", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    return run_onnxruntime(model, {"x": values[:, None]})["y"][:, 0]


@pytest.mark.parametrize(("opset", "ir_version"), [(1, 9), (5, 9), (6, 9), (1, 3), (6, 3)])
def test_older_opsets_are_converted_where_onnxruntime_runs_them(opset: int, ir_version: int) -> None:
    """IR 3 wants each initializer among the graph inputs, but onnxruntime does not mind one that is not."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"), helper.make_node("Sigmoid", ["h"], ["y"])]
    model = model_of(
        nodes[: 1 + (opset > 1)], {"x": [3, 4]}, ["y" if opset > 1 else "h"], {"w": rng.normal(size=(4, 5))}
    )
    model.ir_version = ir_version
    model.opset_import[0].version = opset
    if opset == 5:
        with pytest.raises(ModelError, match=r"opset 5 is not supported .*Sigmoid.*; convert the model"):
            load_model(model)
        return
    x = rng.normal(size=(3, 4)).astype("f")
    found = Session(xbcompile.compile(model, "ideal")).run({"x": x})
    for name, value in run_onnxruntime(model, {"x": x}).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "domains", [{"ai.onnx.ml": 3}, {"com.microsoft": 1}, {"elsewhere": 5}, {"ai.onnx.ml": 2, "com.microsoft": 1}]
)
def test_imports_of_other_domains_pass_through(domains: dict[str, int]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")]
    model = model_of(nodes, {"x": [3, 4]}, ["y"], {"w": np.eye(4)}, opset=8, domains=domains)
    program = xbcompile.compile(model, "ideal")
    assert dict(program.network.opset_imports) == {"": 8, **domains}
    assert domains.items() <= {entry.domain: entry.version for entry in program.host.opset_import}.items()
