"""Nodes whose shapes do not fit: what onnxruntime refuses is refused, when compiling or when running, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import ModelError, XbcompileError
from xbcompile.frontend import import_network, load_model
from xbcompile.onnx_graph import engine

MICROSOFT = "com.microsoft"
REFUSALS: tuple[type[Exception], ...] = (XbcompileError, *engine.RAW_ERRORS)


def one(operator: str, inputs: list[str], x: Any, constants: dict[str, Any], dtype=np.float32, **attributes: Any):
    """A model of one node that reads `x`, and what it is fed: an open batch of 1 where the shape begins with 0."""
    domain = attributes.pop("domain", "")
    node = helper.make_node(operator, inputs, ["y"], "n", domain=domain, **attributes)
    shape = [size or "n" for size in x]
    model = model_of([node], {"x": shape}, ["y"], constants, domains={domain: 1} if domain else None)
    model.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rng = np.random.default_rng(0)
    return model, rng.integers(0, 5, [size or 1 for size in x]).astype(dtype)


def gemm(c: tuple[int, ...], x=(1, 3), **attributes: Any):
    return one("Gemm", ["x", "w", "c"], x, {"w": np.ones((3, 4)), "c": np.ones(c)}, **attributes)


def convolution(operator: str, bias: tuple[int, ...] | None, channels: int = 2, **attributes: Any):
    constants = {"w": np.ones((4, channels, 2, 2))} | ({} if bias is None else {"b": np.ones(bias)})
    return one(operator, ["x", *constants], (1, 4 if operator == "ConvTranspose" else 2, 5, 5), constants, **attributes)


def recurrent(operator: str, x=(4, 1, 2), h=None, lengths=None, **attributes: Any):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    constants = {"w": np.ones((1, gates * 3, 2)) / 9, "r": np.ones((1, gates * 3, 3)) / 9}
    constants |= {} if lengths is None else {"s": np.array(lengths, np.int32)}
    constants |= {} if h is None else {"h": np.ones(h)}
    inputs = ["x", "w", "r", "", "" if lengths is None else "s", "" if h is None else "h"]
    while not inputs[-1]:
        inputs.pop()
    if operator != "LSTM" or h is None:
        return one(operator, inputs, x, constants, **{"hidden_size": 3, **attributes})
    return one(operator, [*inputs, "h"], x, constants, **{"hidden_size": 3, **attributes})


def quantized(operator: str, bias=None, zero=None, x=(1, 3), **attributes: Any):
    """Integer operators with a float or int32 bias at the place where each has it."""
    conv = operator == "QLinearConv"
    weights = np.ones((4, 2, 2, 2) if conv else (3, 4), np.int8)
    c: dict[str, Any] = {
        "xs": 1.0,
        "xz": np.uint8(0),
        "w": weights,
        "ws": 1.0,
        "wz": np.int8(0) if zero is None else zero,
        "ys": 1.0,
        "yz": np.uint8(0),
    }
    order = {
        "QLinearConv": ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"],
        "QGemm": ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"],
        "MatMulIntegerToFloat": ["x", "w", "xs", "ws", "xz", "wz", "b"],
        "MatMulInteger": ["x", "w", "xz", "wz"],
    }[operator]
    if bias is not None:
        c["b"] = np.ones(bias, np.float32 if operator == "MatMulIntegerToFloat" else np.int32)
    order = [name for name in order if name != "b" or bias is not None]
    domain = {"domain": MICROSOFT} if operator in ("QGemm", "MatMulIntegerToFloat") else {}
    return one(
        operator, order, (1, 2, 4, 4) if conv else x, {k: c[k] for k in order[1:]}, np.uint8, **domain, **attributes
    )


CASES = {
    **{f"Gemm C {c}": gemm(c) for c in [(), (1,), (4,), (1, 4), (2, 4), (2, 1), (4, 1), (3,), (1, 1, 4)]},
    **{f"Gemm of two C {c}": gemm(c, x=(2, 3)) for c in [(2, 4), (2, 1), (1, 2, 4), (4, 2)]},
    **{f"Gemm of an open batch C {c}": gemm(c, x=(0, 3)) for c in [(2, 4), (2, 1), (1, 4), (4,)]},
    **{f"Gemm beta 0 C {c}": gemm(c, beta=0.0) for c in [(2, 4), (5,), (4,)]},
    "Gemm left": one("Gemm", ["w", "x", "c"], (3, 2), {"w": np.ones((4, 3)), "c": np.ones((4, 1))}),
    "Gemm left C": one("Gemm", ["w", "x", "c"], (3, 2), {"w": np.ones((1, 3)), "c": np.ones((8, 2))}),
    "FusedGemm": one(
        "FusedGemm",
        ["x", "w", "c"],
        (1, 3),
        {"w": np.ones((3, 4)), "c": np.ones((2, 4))},
        domain=MICROSOFT,
        activation="Relu",
    ),
    **{f"Conv bias {b}": convolution("Conv", b) for b in [(4,), (1,), (5,), (4, 1), ()]},
    "Conv group 0": convolution("Conv", None, group=0),
    "Conv group 2": convolution("Conv", None, channels=1, group=2),
    "Conv group 4": convolution("Conv", None, channels=1, group=4),
    "Conv auto_pad and pads": convolution("Conv", None, auto_pad="SAME_UPPER", pads=[1, 1, 1, 1]),
    "ConvTranspose padding": convolution("ConvTranspose", None, output_padding=[1, 1]),
    "ConvTranspose padding 2": convolution("ConvTranspose", None, output_padding=[1, 1], strides=[2, 2]),
    "ConvTranspose pads": convolution("ConvTranspose", None, pads=[9, 9, 9, 9]),
    **{f"ConvTranspose bias {b}": convolution("ConvTranspose", b) for b in [(2,), (1,), (4,)]},
    **{f"{o} h of 2": recurrent(o, h=(1, 2, 3)) for o in ("LSTM", "GRU", "RNN")},
    **{f"{o} h of 2, open": recurrent(o, x=(4, 0, 2), h=(1, 2, 3)) for o in ("LSTM", "GRU", "RNN")},
    **{f"{o} h of 1, open": recurrent(o, x=(4, 0, 2), h=(1, 1, 3)) for o in ("LSTM", "GRU", "RNN")},
    **{f"{o} hidden": recurrent(o, hidden_size=4) for o in ("LSTM", "GRU", "RNN")},
    "GRU lengths 9": recurrent("GRU", lengths=[9]),
    "GRU lengths 4": recurrent("GRU", lengths=[4]),
    "RNN layout 2": recurrent("RNN", layout=2),
    **{f"QLinearConv bias {b}": quantized("QLinearConv", b) for b in [(4,), (1,), (3,), ()]},
    **{f"QGemm C {b}": quantized("QGemm", b) for b in [(4,), (2, 4), (1, 4), (1, 1, 4), ()]},
    **{f"MatMulIntegerToFloat bias {b}": quantized("MatMulIntegerToFloat", b) for b in [(4,), (1,), (2, 4), (1, 4)]},
    "MatMulInteger zero point": quantized("MatMulInteger", zero=np.int8(1)),
    "MatMulInteger zero point of another type": quantized("MatMulInteger", zero=np.uint8(1)),
}


def verdict(run) -> np.ndarray | None:
    try:
        return run()
    except REFUSALS:
        return None


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_that_of_onnxruntime(name) -> None:
    model, x = CASES[name]
    expected = verdict(lambda: run_onnxruntime(model, {"x": x})["y"])
    found = verdict(lambda: xbcompile.Session(xbcompile.compile(model, "ideal", effort=0)).run({"x": x})["y"])
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_wrong_with_an_addend_is_said() -> None:
    text = r'node "n" \(Gemm\): C "c" of shape \[2, 4\] does not broadcast to the product, of shape \[1, 4\]; mend the model'
    with pytest.raises(ModelError, match=text):
        import_network(load_model(gemm((2, 4))[0]))


def test_valid_nodes_that_onnxruntime_lacks_run_all_the_same() -> None:
    """ONNX has sequences with the batch first; the result is that of the batch in the middle, transposed."""
    model, x = recurrent("GRU", x=(1, 4, 2), layout=1)
    assert verdict(lambda: run_onnxruntime(model, {"x": x})["y"]) is None
    other, _ = recurrent("GRU", x=(4, 1, 2))
    expected = run_onnxruntime(other, {"x": x.transpose(1, 0, 2)})["y"].transpose(2, 0, 1, 3)
    found = xbcompile.Session(xbcompile.compile(model, "ideal", effort=0)).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def half(nodes: list[onnx.NodeProto], shape: list[Any], constants: dict[str, Any]) -> onnx.ModelProto:
    return model_of(nodes, {"x": shape}, ["y"], constants, dtype="float16", opset=19)


BIG = [[40000.0], [40000.0]]
X = np.array([[1, 1], [1, -1], [0.5, 0.25], [-2, -2], [1, 0.6377]], np.float16)
HALVES = {
    "MatMul": (half([helper.make_node("MatMul", ["x", "w"], ["y"])], ["n", 2], {"w": BIG}), X),
    "at the limit": (half([helper.make_node("MatMul", ["x", "w"], ["y"])], ["n", 2], {"w": [[65504.0], [16.0]]}), X),
    "Gemm": (
        half([helper.make_node("Gemm", ["x", "w", "c"], ["y"], alpha=1.5)], ["n", 2], {"w": BIG, "c": [5000.0]}),
        X,
    ),
    "Einsum": (half([helper.make_node("Einsum", ["x", "w"], ["y"], equation="nk,km->nm")], [5, 2], {"w": BIG}), X),
    "Conv": (
        half(
            [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
            ["n", 1, 2, 2],
            {"w": np.full((1, 1, 2, 1), 4e4), "b": [1.0]},
        ),
        np.arange(-4, 4, dtype=np.float16).reshape(2, 1, 2, 2),
    ),
    "DequantizeLinear": (
        half(
            [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])],
            ["n", 2],
            {"q": np.array([[100], [100]], np.int8), "s": 400.0},
        ),
        X,
    ),
    "LSTM": (
        half(
            [helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=1)],
            [5, 1, 2],
            {"w": np.full((1, 4, 2), 4e4), "r": np.ones((1, 4, 1))},
        ),
        X[:, None],
    ),
}


@pytest.mark.parametrize("target", ["ideal", "mram64", "sot"])
@pytest.mark.parametrize("name", HALVES)
def test_halves_that_overflow_are_infinite(name, target) -> None:
    """A result is rounded to its element type, as onnxruntime does it: 65520 and above are infinite, sums are not halves."""
    model, x = HALVES[name]
    program = xbcompile.compile(model, target, effort=0)
    found = xbcompile.Session(program).run({"x": x})["y"]
    expected = run_onnxruntime(model, {"x": x}, optimized=False)["y"]
    assert found.dtype == expected.dtype == np.float16
    if target == "ideal":
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=2e-3, atol=1e-3)
