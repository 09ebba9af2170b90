"""Every shipped network pass keeps what all passes promise; and the kit finds each broken promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from onnx import helper

from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.errors import PassError
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.analogue import Analogue
from xbcompile.passes.contract import NetworkPass
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.testing.passes import check_pass, context_of, spec_with

FEEDS = {"x": images(40, 8)}
DENSE, DENSE_CONTEXT = dense_model(8, 6, 3), context_of("m2tj4", FEEDS)
IMAGES = {"x": images(6, 2, 4, 4)}
SIGNED = context_of(spec_with([-1, 0, 1], "signed", "sot"), FEEDS)

# Options, and where what comes out should equal the model, how closely.
CASES = [
    ("fold-batchnorm", DENSE, DENSE_CONTEXT, 2e-5),
    ("pca{components=8 layer=fc0}", DENSE, DENSE_CONTEXT, 1e-4),
    ("pca{variance=0.9 layer=fc0}", DENSE, DENSE_CONTEXT, None),
    ("reduce{components=3 layer=fc0}", DENSE, DENSE_CONTEXT, None),
    ("reduce{inputs=dead}", DENSE, DENSE_CONTEXT, 2e-5),
    ("quantize", DENSE, DENSE_CONTEXT, None),
    ("quantize{scheme=ternary per=matrix}", DENSE, SIGNED, None),
    ("planes{k=2}", DENSE, DENSE_CONTEXT, None),
    ("thermometer{bits=7}", DENSE, DENSE_CONTEXT, None),
    ("bitserial{bits=4}", DENSE, DENSE_CONTEXT, None),
    ("analogue", DENSE, DENSE_CONTEXT, 2e-5),
    ("analogue", convolution_model(), context_of("m2tj4", IMAGES), 2e-5),
    ("choose-coding{steps=7 reads=7}", DENSE, DENSE_CONTEXT, None),
    ("order-rows", DENSE, replace(SIGNED, row_weights=lambda network: [None] * len(network.layers)), 2e-5),
    ("use-spare-cells{outputs=1}", DENSE, DENSE_CONTEXT, 2e-5),
    ("join-groups", convolution_model(), context_of("ideal", IMAGES), 2e-5),
]


@pytest.mark.parametrize(("text", "model", "context", "tolerance"), CASES, ids=[case[0] for case in CASES])
def test_promises(text, model, context, tolerance):
    (each,) = parse_pipeline(text)
    check_pass(each, model, context, context.calibration, tolerance)


def test_every_network_pass_is_checked():
    checked = {parse_pipeline(text)[0].name for text, *_ in CASES}
    assert checked == {name for name in pass_names() if issubclass(load_pass(name), NetworkPass)}


@dataclass(frozen=True)
class Rescale(NetworkPass):
    """Multiply the weights of every layer by a factor, in one of several wrong ways."""

    name: ClassVar[str] = "rescale"
    fault: str = ""
    calls: ClassVar[list[int]] = []

    def run(self, network, context):
        self.calls.append(1)
        layer = network.layers[0]
        if self.fault == "calibration":
            context.calibration["x"][:] = 0
        if self.fault == "inputs":
            return replace(network, inputs=(*network.inputs, helper.make_empty_tensor_value_info("z")))
        factor = len(self.calls) if self.fault == "draws" else np.nan if self.fault == "nan" else 2
        if self.fault == "refuses" and len(self.calls) > 2:
            raise PassError("once is enough")
        return network.with_layers([replace(layer, weights=layer.weights * np.float32(factor))])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("calibration", "changed the calibration inputs"),
        ("draws", "gave another network when it ran on the same one again"),
        ("inputs", "changed the network's inputs"),
        ("nan", "changes a network that it has made itself"),
        ("again", "changes a network that it has made itself"),
    ],
)
def test_a_broken_promise_is_found(fault, text):
    Rescale.calls.clear()
    feeds = {"x": images(4, 8)}
    with pytest.raises(AssertionError) as caught:
        check_pass(Rescale(fault), dense_model(8, 6, 3), context_of("ideal", feeds))
    assert str(caught.value).splitlines()[0] == f"pass rescale{{fault={fault}}} {text}"


def test_a_result_that_differs_from_the_model_is_found():
    Rescale.calls.clear()
    check_pass(Rescale("refuses"), dense_model(8, 6, 3), context_of("ideal", FEEDS), FEEDS)
    Rescale.calls.clear()
    with pytest.raises(AssertionError, match="output 'y' differs from the model's"):
        check_pass(Rescale("refuses"), dense_model(8, 6, 3), context_of("ideal", FEEDS), FEEDS, 1e-3)


def test_a_pass_that_declares_itself_wrong_is_found():
    @dataclass
    class Thawed(NetworkPass):
        """Not frozen."""

        name: ClassVar[str] = "thawed"

    @dataclass(frozen=True)
    class Silent(Analogue):
        __doc__ = ""

    @dataclass(frozen=True)
    class Shy(NetworkPass):
        """Without a name."""

    for each, text in ((Thawed(), "not a frozen dataclass"), (Silent(), "has no docstring")):
        with pytest.raises(AssertionError, match=text):
            check_pass(each, DENSE, DENSE_CONTEXT)
    with pytest.raises(AssertionError, match="has no name"):
        check_pass(Shy(), DENSE, DENSE_CONTEXT)
