"""ONNX models in programs that someone made: nothing but the archive is read; what onnxruntime refuses is one line of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.fuzz.boundaries.program import members
from tests.support.forged_programs import changed, refused, written
from xbcompile.errors import ProgramError
from xbcompile.runtime import Session
from xbcompile.verification.probes import probe_inputs

DIGIT = "tensors/" + "0" * 64


def host_of(base: str) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(members(base)["host.onnx"])


def stray() -> TensorProto:
    tensor = TensorProto(name="stray", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    return tensor


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(stray())


def unmarked(model: onnx.ModelProto) -> None:
    tensor = stray()
    tensor.data_location, tensor.raw_data = TensorProto.DEFAULT, bytes(16)
    model.graph.initializer.append(tensor)


def in_attribute(model: onnx.ModelProto, nodes: Any = None, name: str = "value") -> None:
    node = (model.graph.node if nodes is None else nodes).add(op_type="Constant", output=["stray"])
    node.attribute.append(helper.make_attribute(name, stray()))


def in_list(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add(name="values", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(stray())


def in_sparse(model: onnx.ModelProto, values: bool) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[9])
    (sparse.values if values else sparse.indices).CopyFrom(stray())


def in_sparse_attribute(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(stray())


def in_body(model: onnx.ModelProto, several: bool = False, beside: bool = False) -> None:
    node = model.graph.node.add(op_type="If", output=["if"])
    attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    if beside:
        attribute.g.name = "first"
    body = attribute.graphs.add() if several else attribute.g
    in_attribute(model, body.node)


def in_body_initializer(model: onnx.ModelProto) -> None:
    attribute = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    attribute.g.initializer.append(stray())


def in_function(model: onnx.ModelProto) -> None:
    in_attribute(model, model.functions[0].node)


def in_function_default(model: onnx.ModelProto) -> None:
    model.functions[0].attribute_proto.append(helper.make_attribute("default", stray()))


def in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(stray())


EXTERNAL: dict[str, Callable[[onnx.ModelProto], None]] = {
    "initializer": in_initializer,
    "not marked as such": unmarked,
    "attribute": in_attribute,
    "list of an attribute": in_list,
    "sparse values": partial(in_sparse, values=True),
    "sparse indices": partial(in_sparse, values=False),
    "sparse attribute": in_sparse_attribute,
    "body": in_body,
    "list of bodies": partial(in_body, several=True),
    "list of bodies beside a body": partial(in_body, several=True, beside=True),
    "initializer of a body": in_body_initializer,
    "function": in_function,
    "default of a function": in_function_default,
    "training": in_training,
}


@pytest.mark.parametrize("member", ["host.onnx", "source.onnx"])
@pytest.mark.parametrize("case", EXTERNAL)
def test_no_tensor_is_read_from_outside(
    case: str, member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(np.arange(4, dtype="f").tobytes())
    model = onnx.ModelProto.FromString(members("dense")[member])
    if not model.functions:
        model.functions.append(helper.make_function("own", "f", ["x"], ["y"], [], []))
    EXTERNAL[case](model)
    content = {**members("dense"), member: model.SerializeToString()}
    assert "external data" in refused(written(tmp_path / "p.xbar", content))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "manifest.json", "tensors/../secret", "", DIGIT])
def test_large_initializers_name_tensors_of_the_archive(location: str, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(members("large")["source.onnx"])
    tensor = next(each for each in model.graph.initializer if each.external_data)
    tensor.external_data[0].value = location
    refused(written(tmp_path / "p.xbar", {**members("large"), "source.onnx": model.SerializeToString()}))
    tensor.external_data[0].value = ""
    tensor.external_data.add(key="offset", value="4")
    refused(written(tmp_path / "p.xbar", {**members("large"), "source.onnx": model.SerializeToString()}))


@pytest.mark.parametrize("dims", [[2**40, 2**40], [-1, 70, 60], [2**32] * 3, [0, 2**62], [1] * 100, [70, 61]])
def test_tensors_have_the_size_of_their_shape(dims: list[int], tmp_path: Path) -> None:
    for member in ("source.onnx", "host.onnx"):
        model = onnx.ModelProto.FromString(members("large")[member])
        tensor = next(each for each in model.graph.initializer if each.data_location == TensorProto.EXTERNAL)
        del tensor.dims[:]
        tensor.dims.extend(dims)
        refused(written(tmp_path / "p.xbar", {**members("large"), member: model.SerializeToString()}))


def doubling(depth: int) -> list[onnx.FunctionProto]:
    """Functions each of which calls the next one twice."""
    imports = [helper.make_opsetid("own", 1), helper.make_opsetid("", 18)]
    found = [helper.make_function("own", "f0", ["x"], ["y"], [helper.make_node("Abs", ["x"], ["y"])], imports)]
    for i in range(1, depth):
        calls = [helper.make_node(f"f{i - 1}", [a], [b], domain="own") for a, b in (("x", "t"), ("t", "y"))]
        found.append(helper.make_function("own", f"f{i}", ["x"], ["y"], calls, imports))
    return found


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    model = host_of("dense")
    model.functions.extend(doubling(30))
    content = {**members("dense"), "host.onnx": model.SerializeToString()}
    assert "over 1,000,000 nodes" in refused(written(tmp_path / "p.xbar", content))
    model = host_of("dense")
    function = model.functions[0]
    function.node.add(op_type=function.name, domain=function.domain, input=["x"], output=["again"])
    content = {**members("dense"), "host.onnx": model.SerializeToString()}
    assert "calls itself" in refused(written(tmp_path / "p.xbar", content))
    model = host_of("dense")
    model.functions.append(model.functions[0])
    content = {**members("dense"), "host.onnx": model.SerializeToString()}
    assert "is there twice" in refused(written(tmp_path / "p.xbar", content))


def test_tensors_of_a_shape_alone_are_bounded(tmp_path: Path) -> None:
    """Eight bytes of a shape would become any number of bytes when onnxruntime loads the model."""
    for make in (
        lambda: helper.make_node("ConstantOfShape", ["size"], ["stray"]),
        lambda: helper.make_node("Expand", ["x", "size"], ["stray"]),
        lambda: helper.make_node("RandomNormal", [], ["stray"], shape=[2**20, 2**20]),
    ):
        model = onnx.ModelProto.FromString(members("dense")["source.onnx"])
        model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [2], [2**20, 2**20]))
        model.graph.node.append(make())
        content = {**members("dense"), "source.onnx": model.SerializeToString()}
        assert "1,099,511,627,776 elements of a shape alone" in refused(written(tmp_path / "p.xbar", content))


def test_a_segment_that_onnxruntime_refuses(tmp_path: Path) -> None:
    """What a session of onnxruntime says is one line of ours, in verification and in a run."""
    model = host_of("dense")
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "NoOperator"
    path = written(tmp_path / "p.xbar", {**members("dense"), "host.onnx": model.SerializeToString()})
    loaded = xbcompile.load_program(path)
    (finding,) = xbcompile.verify(loaded)
    assert finding.startswith("host graph: onnxruntime does not run it")
    with pytest.raises(ProgramError, match="cannot load the program's digital segment"):
        Session(loaded)
    with pytest.raises(ProgramError, match="cannot load the program's digital segment"):
        xbcompile.InferenceSession(path)


def test_verification_calls_nothing_right_that_does_not_run(tmp_path: Path) -> None:
    path = written(tmp_path / "p.xbar", changed("dense", "pipeline", value="no-such-pass"))
    (finding,) = xbcompile.verify(xbcompile.load_program(path))
    assert "unknown pass 'no-such-pass'" in finding
    path = written(tmp_path / "p.xbar", changed("dense", "samples", "call", value=3))
    loaded = xbcompile.load_program(path)
    assert xbcompile.verify(loaded) == []
    Session(loaded, "ideal").run(probe_inputs(loaded))
