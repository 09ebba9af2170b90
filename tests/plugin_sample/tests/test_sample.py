"""What this package brings, checked by the kits of xbcompile and against formulas."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from xbcompile_sample.one_gain import OneGain
from xbcompile_sample.prune import Prune

import xbcompile
from xbcompile.errors import PassError, PipelineError
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline
from xbcompile.targets import load_target
from xbcompile.testing import check_device_pass, check_pass, check_target
from xbcompile.testing.passes import assert_equals_model, context_of, network_of

INPUTS = {"x": np.random.default_rng(0).random((200, 12), dtype=np.float32)}


def model_of(nodes, shape, constants, opset=17):
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def weights(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def dense_model():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc0"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"], "fc1"),
    ]
    return model_of(nodes, ["n", 12], {"w": weights(12, 20), "v": weights(20, 5)})


def test_prune():
    network = check_pass(Prune(0.25), dense_model(), context_of("drifting-chip", INPUTS), INPUTS)
    for layer, before in zip(network.layers, network_of(dense_model()).layers, strict=True):
        zeros = layer.weights == 0
        assert zeros.sum() == layer.weights.size // 4
        assert np.abs(before.weights[zeros]).max() <= np.abs(before.weights[~zeros]).min()
        assert np.array_equal(layer.weights[~zeros], before.weights[~zeros])
    check_pass(Prune(0.0), dense_model(), context_of("drifting-chip", INPUTS), INPUTS, tolerance=2e-5)


def test_options_are_read_by_their_types():
    assert parse_pipeline("prune{share=0.25 first=false}") == (Prune(0.25, False),)
    assert print_pipeline([Prune(0.25, False)]) == "prune{share=0.25 first=false}"
    network = Prune(0.5, first=False)(network_of(dense_model()), context_of("drifting-chip"))
    assert [int((layer.weights == 0).sum()) for layer in network.layers] == [0, 50]
    with pytest.raises(PipelineError, match="first=perhaps is not true or false"):
        parse_pipeline("prune{first=perhaps}")
    with pytest.raises(PipelineError, match="share=1 is out of range"):
        parse_pipeline("prune{share=1}")
    with pytest.raises(PassError, match="put prune before quantize"):
        xbcompile.compile(dense_model(), "drifting-chip", passes="quantize,prune,analogue{low=0 high=1}")


def test_one_gain():
    """It finds what all cells of an array lose alike, and leaves outputs of a whole array alone."""
    target = load_target("drifting-chip")
    check_device_pass(OneGain(), dense_model(), target, INPUTS)
    whole = target.with_quantities("test", drift_exponent=0, drift_sigma=0)
    exact = check_device_pass(OneGain(), dense_model(), whole, INPUTS, passes="quantize{levels=9},analogue")
    for layer in exact.corrections.layers:
        assert np.ptp(layer.gain) == 0
        assert not layer.shift.any()
        assert layer.gain[0] == pytest.approx(1, abs=0.1)  # it also takes up what quantization scales


@pytest.mark.parametrize("sigma", [0.0, 0.007, 0.1])
def test_the_chip_keeps_what_targets_promise(sigma):
    check_target(load_target("drifting-chip").with_quantities("test", drift_sigma=sigma))
    fast = {"t_0_s": 1e-3, "drift_exponent": 0.3}  # a tenth of a conductance from read to read
    check_target(load_target("drifting-chip").with_quantities("test", drift_sigma=sigma, **fast))


def test_outputs_fade_as_the_formula_says():
    """Cells that all drift alike, written once at time 0: sample s is read when set-up and s periods have passed, and its outputs
    are those of the exact array times (1 + t / t_0)**-nu. Codes without offsets: nothing is added digitally.
    """
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], ["n", 12], {"w": weights(12, 5)})
    target = load_target("drifting-chip").with_quantities("test", drift_sigma=0, t_read_s=60, t_write_row_s=0.5)
    program = xbcompile.compile(model, target, passes="quantize{scheme=ternary},analogue{low=-1 high=1}", arrays=0)
    feeds = {"x": np.repeat(INPUTS["x"][:1], 50, axis=0)}
    exact = xbcompile.Session(program, "ideal").run_samples(feeds)["y"]
    found = xbcompile.Session(program).run_samples(feeds)["y"]
    seconds = 16 * 0.5 + 60 * np.arange(50)
    np.testing.assert_allclose(found, exact * (1 + seconds[:, None] / 20) ** -0.031, rtol=1e-5)
    assert found[-1, 0] / found[0, 0] < 0.9  # an hour costs a seventh of the signal


def test_arrays_that_are_written_again_are_as_good_as_new():
    """One array takes all images in turn: in every batch, and in commissioning, each is read soon after its write."""
    target = load_target("drifting-chip").with_quantities("test", drift_sigma=0, drift_exponent=1)
    feeds = {"x": INPUTS["x"][:4]}
    outputs = []
    for arrays in (1, 0):
        program = xbcompile.compile(
            dense_model(), target, passes="quantize,analogue,one-gain", arrays=arrays, calibration=INPUTS
        )
        session = xbcompile.Session(program)
        gains = [layer.gain[0] for layer in session.corrections.layers]
        assert all(0.9 < gain < 1.1 for gain in gains)
        for _ in range(2):
            outputs.append(session.run_samples(feeds)["y"])
    for each in outputs[1:]:
        np.testing.assert_allclose(each, outputs[0], rtol=0.05, atol=0.02)


class EventByEvent:
    """A chip without the batched path, which is executed one event after another, as a bench is."""

    lsb = reading_limits = None

    def __init__(self, chip):
        self.write, self.read = chip.write, chip.read


@pytest.mark.parametrize("arrays", [0, 1, 2])
def test_events_one_by_one_see_the_same_time(arrays):
    """Run after run: images that an array still holds from the run before are as old as they are."""
    target = load_target("drifting-chip").with_quantities("test", t_read_s=10, drift_exponent=0.3)
    program = xbcompile.compile(dense_model(), target, passes="quantize,analogue{low=0 high=3}", arrays=arrays, batch=2)
    together, alone = xbcompile.Session(program), xbcompile.Session(program, EventByEvent(target.device()))
    seen = []
    for _ in range(2):
        feeds = {"x": np.repeat(INPUTS["x"][:1], 4, axis=0)}
        seen.append(together.run_samples(feeds)["y"])
        assert np.array_equal(alone.run_samples(feeds)["y"], seen[-1])
    assert not np.array_equal(seen[0][0], seen[0][1])


def test_the_transform_goes_onto_arrays():
    model = model_of([helper.make_node("DFT", ["x"], ["y"], "fourier", axis=1)], ["n", 16, 1], {})
    network = network_of(model)
    assert [layer.shape for layer in network.layers] == [(1, 16, 32)]
    x = weights(7, 16, 1).astype(np.float32)
    assert_equals_model(network, model, {"x": x})
    (found,) = xbcompile.explain(model).nodes
    assert found.operator == "DFT"
    program = xbcompile.compile(model, "ideal")
    y = xbcompile.Session(program).run({"x": x})["y"]
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.fft(x[..., 0]), rtol=1e-4, atol=1e-4)


def test_another_transform_stays_digital():
    model = model_of([helper.make_node("DFT", ["x"], ["y"], "fourier", axis=1, inverse=1)], ["n", 16, 1], {})
    network = network_of(model)
    assert network.layers == ()
    assert [record.reason for record in network.records] == ["inverse and one-sided transforms are not rewritten"]
