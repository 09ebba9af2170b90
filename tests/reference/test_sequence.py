"""Streaming: outputs of one call go into the next, as a loop over onnxruntime does it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.cli.running import parse_states, run_program
from xbcompile.errors import DataError
from xbcompile.program.program import Program
from xbcompile.runtime import Session

RNG = np.random.default_rng(4)
STATES = {"new_state": "state"}
X = RNG.normal(size=(6, 5)).astype(np.float32)


@cache
def detector() -> onnx.ModelProto:
    """As speech detectors are: x [1, 5], state [2, 1, 3] (h and c), and a scalar rate, which scales x."""
    sizes = {"k": (1, 12, 5), "r": (1, 12, 3), "b": (1, 24), "w": (3, 2)}
    constants: dict[str, Any] = {name: RNG.uniform(-1, 1, size) for name, size in sizes.items()}
    constants |= {"one": np.array([1, 1]), "first": np.array([0]), "to": np.array([1, 1, 5]), "k16": np.float32(16_000)}
    nodes = [
        helper.make_node("Cast", ["rate"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "k16"], ["g"]),
        helper.make_node("Mul", ["x", "g"], ["s"]),
        helper.make_node("Reshape", ["s", "to"], ["q"]),
        helper.make_node("Split", ["state", "one"], ["h", "c"], axis=0),
        helper.make_node("LSTM", ["q", "k", "r", "b", "", "h", "c"], ["", "hn", "cn"], hidden_size=3),
        helper.make_node("Concat", ["hn", "cn"], ["new_state"], axis=0),
        helper.make_node("Squeeze", ["hn", "first"], ["o"]),
        helper.make_node("MatMul", ["o", "w"], ["y"]),
    ]
    model = model_of(nodes, {"x": [1, 5], "state": [2, 1, 3]}, ["y", "new_state"], constants)
    model.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
    return model


@cache
def program() -> Program:
    return xbcompile.compile(detector(), "ideal", effort=0)


def looped(rates: list[int], state: np.ndarray) -> list[np.ndarray]:
    results = []
    for row, rate in zip(X, rates, strict=True):
        found = run_onnxruntime(detector(), {"x": row[None], "state": state, "rate": np.array(rate)})
        results.append(found["y"])
        state = found["new_state"]
    return results


@pytest.mark.parametrize("rates", [[16_000] * 6, [8_000, 16_000] * 3])
@pytest.mark.parametrize("begun", [False, True])
def test_states_go_from_call_to_call(rates: list[int], begun: bool, tmp_path: Path) -> None:
    """From Python and from a file; a state that is not given starts at zero, a scalar is given once or per call."""
    state = RNG.normal(size=(2, 1, 3)).astype(np.float32) if begun else np.zeros((2, 1, 3), np.float32)
    feeds: dict[str, Any] = {"x": X, "rate": np.array(rates[0] if len(set(rates)) == 1 else rates)}
    feeds |= {"state": state} if begun else {}
    expected = np.concatenate(looped(rates, state))
    session = Session(program())
    found = session.run_samples(feeds, states=STATES)
    np.testing.assert_allclose(found["y"], expected, atol=1e-5)
    assert (found["new_state"].shape, session.counters.inferences) == ((2, 6, 3), 6)
    np.savez(tmp_path / "data.npz", **feeds)
    program().save(tmp_path / "p.xbar")
    run_program(
        tmp_path / "p.xbar", str(tmp_path / "data.npz"), None, 0, 1, tmp_path / "o.npz", None, ["new_state=state"],
        show_progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "o.npz")["y"], expected, atol=1e-5)


def test_states_that_come_with_every_sample_are_no_sequence() -> None:
    """Per-sample states lie along axis 1: calibration inputs, and runs without --state."""
    states = RNG.normal(size=(2, 6, 3)).astype(np.float32)
    feeds = {"x": X, "state": states, "rate": np.array(16_000)}
    expected = [
        run_onnxruntime(detector(), {"x": X[i : i + 1], "state": states[:, i : i + 1], "rate": np.array(16_000)})["y"]
        for i in range(6)
    ]
    np.testing.assert_allclose(Session(program()).run_samples(feeds)["y"], np.concatenate(expected), atol=1e-5)
    fitted = xbcompile.compile(detector(), "sot", calibration=feeds, effort=0)
    assert {name: value.shape for name, value in fitted.calibration.items()} == {
        "x": (6, 5),
        "state": (2, 6, 3),
        "rate": (),
    }
    assert np.isfinite(Session(fitted).run_samples({"x": X, "rate": np.array(16_000)}, states=STATES)["y"]).all()


@pytest.mark.parametrize(
    ("states", "feeds", "text"),
    [
        ({"state": "new_state"}, {}, "state state=new_state: give OUTPUT=INPUT"),
        ({"y": "x"}, {"x": X}, "different numbers|state|shape"),
        (STATES, {"x": X, "rate": np.zeros(4, np.int64)}, "different numbers of samples: {'x': 6, 'rate': 4}"),
    ],
)
def test_states_that_are_none(states: dict[str, str], feeds: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        Session(program()).run_samples(feeds, states=states)


@pytest.mark.parametrize("setting", ["state", "=state", "new_state="])
def test_texts_that_name_no_state(setting: str) -> None:
    with pytest.raises(DataError, match=f"--state {setting}: write --state OUTPUT=INPUT"):
        parse_states([setting])
    assert parse_states(["new_state=state"]) == STATES
