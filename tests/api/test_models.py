"""What counts as a model. torch is not there: a stand-in says what it is called with, and gives what its exporters write."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from xbcompile.api.models import model_of, named_by_modules
from xbcompile.errors import ModelError

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
RNG = np.random.default_rng(1)


def linear(name="node_linear", weight="fc.weight", scopes=None, batch="batch", operator="MatMul"):
    """One product as an exporter writes it."""
    node = helper.make_node(operator, ["pixels", weight], ["y"], name)
    if scopes:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scopes))
    graph = helper.make_graph(
        [node],
        "main_graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(WEIGHTS, weight)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("name", "weight", "scopes", "modules", "wanted"),
    [
        ("node_linear", "fc.weight", None, (), "fc"),
        ("node_linear", "head.0.weight", ["", "head", "head.0", "linear"], (), "head.0"),
        ("node_MatMul_1", "val_0", ["", "proj", "linear"], (), "proj"),
        ("node_MatMul_1", "val_0", ["", "linear"], (), "node_MatMul_1"),
        ("node_MatMul_1", "val_0", "no list", (), "node_MatMul_1"),
        ("/features/features.0/Conv", "onnx::Conv_1", None, {"features", "features.0"}, "features.0"),
        ("/layer1/layer1.0/conv1/Conv", "w", None, {"layer1", "layer1.0", "layer1.0.conv1"}, "layer1.0.conv1"),
        ("/proj_1/MatMul", "onnx::MatMul_11", None, {"proj"}, "proj"),
        ("/MatMul", "onnx::MatMul_11", None, {"proj"}, "/MatMul"),
    ],
)
def test_nodes_are_called_as_their_modules(name, weight, scopes, modules, wanted):
    model = named_by_modules(linear(name, weight, scopes), modules)
    assert [node.name for node in model.graph.node] == [wanted]


def test_a_module_that_is_called_again_and_what_has_no_weights():
    model = linear()
    for i in range(2):
        model.graph.node.append(helper.make_node("MatMul", ["y", "fc.weight"], [f"y{i}"], f"other{i}"))
    model.graph.node.append(helper.make_node("Relu", ["fc.weight"], ["r"], "relu"))
    model.graph.node.append(helper.make_node("Relu", ["y"], ["s"], "fc_2"))
    assert [node.name for node in named_by_modules(model, ()).graph.node] == ["fc", "fc_3", "fc_4", "relu", "fc_2"]


# --- a module of torch, whose library is a stand-in


class _Tensor:
    def __init__(self, array):
        self.array, self.ndim, self.shape = array, array.ndim, array.shape


class _Module:
    forward: Any = None

    """What `torch.nn.Module` has that is asked for."""

    def __init__(self):
        self.training, self.calls = True, []

    def modules(self):
        return [self]

    def named_modules(self):
        return [("", self), ("fc", self)]

    def eval(self):
        self.training = False

    def __call__(self, *values):
        assert not self.training
        if values[0].shape[1:] != (4,):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return self.forward(*values)


_Module.__module__, _Module.__name__ = "torch.nn.modules.module", "Module"


class Net(_Module):
    def forward(self, pixels, scale=None):
        return pixels


@pytest.fixture
def torch(monkeypatch):
    """The stand-in; `calls` are those of its exporter, `fails` says for which the exporter raises."""

    class OnnxExporterError(RuntimeError):
        pass

    def export(module, values, file=None, **options):
        found.calls.append((values, options))
        if found.fails(options):
            raise OnnxExporterError("\x1b[96mstep 3\x1b[0m failed") from ValueError("no function for aten.eig")
        if file is None:
            return SimpleNamespace(model_proto=linear(scopes=["", "fc", "linear"], weight="val_0"))
        file.write(linear("/fc/Gemm", "onnx::Gemm_1").SerializeToString())
        return None

    found: Any = ModuleType("torch")
    found.calls, found.fails, found.script = [], lambda options: False, False
    found.Tensor, found.no_grad = _Tensor, nullcontext
    found.from_numpy = lambda array: _Tensor(np.asarray(array, np.float32))
    found.cat = lambda values, axis: _Tensor(np.concatenate([each.array for each in values], axis))
    found.export = SimpleNamespace(Dim=SimpleNamespace(DYNAMIC="open"))
    found.onnx = SimpleNamespace(export=export, OnnxExporterError=OnnxExporterError)
    monkeypatch.setitem(sys.modules, "torch", found)
    monkeypatch.setattr("xbcompile.api.models.find_spec", lambda name: None if found.script else "there")
    return found


@pytest.mark.parametrize("script", [False, True])
def test_a_module_is_exported_with_an_open_batch_and_called_by_its_names(torch, script):
    torch.script = script
    module = Net()
    program = xbcompile.compile(module, "ideal", sample=np.ones((1, 4), np.float32))
    assert [layer.name for layer in program.network.layers] == ["fc"]
    assert program.network.name == "Net"
    assert module.training
    x = RNG.normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(xbcompile.Session(program).run_samples(x)["y"], x @ WEIGHTS, rtol=1e-5, atol=1e-5)
    ((values, options),) = torch.calls
    assert options["input_names"] == ["pixels"]
    if script:
        assert options["dynamic_axes"] == {"pixels": {0: "batch"}}
    else:
        assert values[0].shape == (2, 4)  # a size of 1 would be taken for a constant
        assert options["dynamic_shapes"] == ({0: "open"},)


@pytest.mark.parametrize(
    "sample", [_Tensor(np.ones((2, 4))), (np.ones((2, 4)),), {"pixels": np.ones((2, 4))}, [np.ones((2, 4))]]
)
def test_samples_of_any_form(torch, sample):
    assert model_of(Net(), sample).graph.node[0].name == "fc"


def test_the_axis_of_samples_may_be_another_or_none(torch):
    x = np.ones((5, 4), np.float32)
    for given, wanted in (({"*": 1}, ({1: "open"},)), ({"pixels": 1}, ({1: "open"},)), ({"pixels": None}, None)):
        model_of(Net(), x, given)
        assert torch.calls[-1][1]["dynamic_shapes"] == wanted


def test_a_module_that_fixes_its_batch_is_exported_so(torch):
    torch.fails = lambda options: options["dynamic_shapes"] is not None
    assert model_of(Net(), np.ones((5, 4))).graph.node[0].name == "fc"
    assert [options["dynamic_shapes"] for _, options in torch.calls] == [({0: "open"},), None]


def test_what_goes_wrong_with_modules(torch):
    x = np.ones((2, 4), np.float32)
    with pytest.raises(
        ModelError, match=r"a module of torch \(Net\) is exported with inputs to call it with; give sample="
    ):
        xbcompile.compile(Net(), "ideal")
    for sample, text in (
        (
            np.ones((2, 5)),
            "module Net cannot be called with this sample: mat1 and mat2 shapes cannot be multiplied; give",
        ),
        ((x, x, x), "sample has 3 values; forward of Net takes 2"),
        ({"pixels": x, "other": x}, "sample has 'other', which forward of Net does not take"),
    ):
        with pytest.raises(ModelError, match=text):
            model_of(Net(), sample)
    torch.fails = lambda options: True
    module = Net()
    with pytest.raises(
        ModelError, match=r"torch cannot export module Net to ONNX: no function for aten\.eig; or export it"
    ):
        model_of(module, x)
    assert module.training
    torch.script = True
    with pytest.raises(
        ModelError, match=r"no function for aten\.eig; torch's newer exporter may: pip install onnxscript; or"
    ):
        model_of(module, x)


def test_what_torchs_exporter_gave_is_a_model():
    kind = type("ONNXProgram", (), {"__module__": "torch.onnx._internal.exporter._onnx_program"})
    program = kind()
    program.model_proto = linear()
    assert model_of(program).graph.node[0].name == "fc"


def test_models_of_other_forms(tmp_path):
    model = linear()
    onnx.save(model, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), model, model.SerializeToString()):
        assert len(xbcompile.compile(source, "ideal").network.layers) == 1
    with pytest.raises(
        ModelError, match=r"a builtins\.list is no model; give the path of an \.onnx file, an onnx\.ModelProto"
    ):
        xbcompile.compile([1], "ideal")
    with pytest.raises(ModelError, match="the 2 bytes are not an ONNX model"):
        xbcompile.compile(b"\xff\xff", "ideal")
    with pytest.raises(ModelError, match="sample is for modules of torch"):
        xbcompile.compile(model, "ideal", sample=np.ones((2, 4)))
