"""How classes are read from outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.model_kit import model_of
from xbcompile.errors import DataError
from xbcompile.frontend import import_network
from xbcompile.ir import Network
from xbcompile.runtime.accuracy import Classifier

SIGMOID, LOGIT = Classifier(0.5), Classifier(0.0)


def ending_in(*operators: str, outputs: int = 1) -> Network:
    """A matrix and these operators behind it."""
    names = ["h", *(f"a{i}" for i in range(len(operators) - 1)), "y"] if operators else ["y"]
    nodes = [helper.make_node("MatMul", ["x", "w"], [names[0]])]
    nodes += [
        helper.make_node(operator, [read], [written], **({"to": onnx.TensorProto.FLOAT} if operator == "Cast" else {}))
        for operator, read, written in zip(operators, names, names[1:], strict=False)
    ]
    model = model_of(nodes, {"x": ["n", 3]}, ["y"], {"w": np.random.default_rng(1).normal(size=(3, outputs))})
    return import_network(model)


@pytest.mark.parametrize(
    ("classifier", "output", "labels", "expected"),
    [
        (SIGMOID, np.array([[0.1, 0.9], [0.8, 0.2]]), [1, 1], 0.5),
        (SIGMOID, np.array([[0.1], [0.9], [0.5]]), [0, 1, 1], 2 / 3),
        (LOGIT, np.array([[-0.1], [0.2], [0.0]]), [0, 1, 1], 2 / 3),
        (LOGIT, np.array([-0.1, 0.2, 3.0]), [-1, 1, -1], 2 / 3),
        (SIGMOID, np.array([3, 7, 7]), [3, 7, 2], 2 / 3),  # the model already gives the class
        (Classifier(None), np.array([[3.0], [7.0], [7.0]]), [3, 7, 2], 2 / 3),
        (Classifier(5, given=True), np.array([3, 7, 7], np.uint8), [0, 1, 0], 2 / 3),  # logits of a quantized model
        (LOGIT, np.array([True, False]), [1, 1], 0.5),
        (SIGMOID, np.array([[[[0.0, 2.0]]], [[[3.0, 2.0]]]]), [1, 0], 1.0),
        (SIGMOID, np.array([[np.nan, 0.9], [0.8, np.nan]]), [0, 0], 0.0),  # a NaN is no answer
        (LOGIT, np.array([np.nan, 1.0]), [0, 1], 0.5),
    ],
)
def test_accuracy(classifier, output, labels, expected):
    assert classifier.accuracy(output, np.array(labels)) == expected


@pytest.mark.parametrize(
    ("output", "labels", "text"),
    [
        (
            np.zeros((2, 3)),
            [0, 3],
            r"labels go from 0 to 3; the model's first output has 3 values .* classes are 0 to 2",
        ),
        (np.zeros((2, 2)), [-1, 1], r"labels go from -1 to 1; .* classes are 0 to 1"),
        (
            np.zeros((2, 1)),
            [0, 2],
            r"labels go from 0 to 2, and the model gives one value .* allowed: 0 and 1, or -1 and 1",
        ),
        (np.zeros((2, 1)), [5, 5], "tells two classes apart"),
        (np.zeros((3, 1)), [0, 1], r"shape \(3, 1\), and there are 2 labels: axis 0 must count samples"),
        (np.zeros(()), [0], "axis 0 must count samples"),
        (np.zeros((2, 0)), [0, 1], "without values"),
        (np.array(["a", "b"], object), [0, 1], "no array of numbers but object: leave the labels out"),
        ([{0: 0.5}, {0: 0.5}], [0, 1], "no array of numbers but list"),
    ],
)
def test_labels_and_outputs_that_do_not_fit(output, labels, text):
    with pytest.raises(DataError, match=text):
        SIGMOID.accuracy(output, np.array(labels))


@pytest.mark.parametrize(
    ("operators", "threshold"),
    [
        ((), 0),
        (("Neg",), 0),
        (("Sigmoid",), 0.5),
        (("Tanh", "Flatten"), 0),
        (("Relu",), 0.5),
        (("Exp",), 0.5),
        (("ArgMax", "Cast"), None),
    ],
)
def test_the_threshold_follows_from_the_model(operators, threshold):
    found = Classifier.of(ending_in(*operators))
    assert found.threshold == threshold
    assert found.reason


def test_a_given_threshold():
    found = Classifier.of(ending_in("Sigmoid"), 0.25)
    output = np.array([[0.2], [0.3], [0.6]])
    assert found.accuracy(output, np.array([0, 1, 1])) == 1
    assert found.rule(output) == {"rule": "threshold", "threshold": 0.25, "reason": "given"}
    with pytest.raises(DataError, match="threshold nan: it must be a finite number"):
        Classifier.of(ending_in(), float("nan"))
    with pytest.raises(
        DataError, match=r"threshold 0.25: .* has 2 values per sample, .* a threshold is for a single one"
    ):
        found.accuracy(np.zeros((3, 2)), np.array([0, 1, 1]))


def test_rules_without_a_threshold():
    assert SIGMOID.rule(np.zeros((3, 2))) == {"rule": "largest", "threshold": None, "reason": ""}
    assert SIGMOID.rule(np.zeros((3, 1), int)) == {"rule": "class", "threshold": None, "reason": ""}
