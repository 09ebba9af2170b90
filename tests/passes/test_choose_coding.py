"""choose-coding against the published noise powers, a search over both codes, and the noise that a device really adds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xbcompile
from tests.support.small_programs import dense_model, images
from xbcompile.errors import PassError
from xbcompile.ir import InputCode
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.choose_coding import ChooseCoding
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.passes.thermometer import Thermometer
from xbcompile.runtime import Session
from xbcompile.targets import load_target
from xbcompile.testing.passes import assert_idempotent, context_of, network_of


def test_published_noise_powers() -> None:
    """Jung et al.: 7 s^2 for the 7-slice thermometer, 1 + 4 + 16 = 21 s^2 for 3 bits; one analogue slice has s^2."""
    assert InputCode("thermometer", 7).noise_power == 7
    assert InputCode("thermometer", 8).noise_power == 8
    assert InputCode("bitserial", 3).noise_power == 21
    assert InputCode("analogue").noise_power == 1


def noise(coding: str) -> float:
    """Variance of the outputs that read noise alone makes on `mram64`, float."""
    target = load_target("mram64")
    program = xbcompile.compile(
        dense_model(40, 30),
        target,
        passes=f"quantize{{scheme=binary}},{coding}{{bits=%d low=0 high=1}}"
        % ({"thermometer": 7, "bitserial": 3}[coding]),
    )
    x = {"x": images(400, 40)}
    noisy = target.device(seed=1, without=["systematic", "saturation", "rounding"])
    difference = Session(program, noisy).run_samples(x)["y"] - Session(program, "ideal").run_samples(x)["y"]
    return float(difference.var())


def test_the_noise_of_a_device_is_as_expected() -> None:
    """Both resolve 7 steps: 21 s^2 to 7 s^2, in 12,000 outputs each, so known to sqrt(2 * 2 / 12000) = 2 %."""
    assert noise("bitserial") / noise("thermometer") == pytest.approx(3, rel=0.08)


@given(st.integers(1, 255), st.integers(0, 300))
def test_the_least_noise_within_the_reads(steps: int, spare: int) -> None:
    bits = math.ceil(math.log2(steps + 1))
    reads = bits + spare
    powers = {("bitserial", bits): (4**bits - 1) / 3 / (2**bits - 1) ** 2}  # sum of 4^t over the squared range
    if steps <= reads:
        powers["thermometer", steps] = steps / steps**2
    chosen = ChooseCoding(steps=steps, reads=reads).chosen()
    assert powers[chosen.scheme, chosen.slices()] == min(powers.values())
    assert InputCode(chosen.scheme, chosen.slices()).steps >= steps


def test_thermometer_where_there_is_time_for_it() -> None:
    assert ChooseCoding(steps=7, reads=7).chosen() == Thermometer(bits=7)
    assert ChooseCoding(steps=7, reads=6).chosen() == BitSerial(bits=3)
    assert ChooseCoding(steps=300, reads=400).chosen() == BitSerial(bits=9)  # a thermometer has at most 255 slices


@pytest.mark.parametrize(("reads", "other"), [(8, Thermometer(bits=7)), (3, BitSerial(bits=3))])
def test_the_network_is_the_chosen_pass_s_own(reads: int, other: Thermometer | BitSerial) -> None:
    network, context = network_of(dense_model(6, 4, 3)), context_of(calibration={"x": images(20, 6)})
    after = ChooseCoding(reads=reads)(network, context)
    assert after == other(network, context)
    assert_idempotent(ChooseCoding(reads=reads), after, context)
    fixed = ChooseCoding(reads=reads, low=0.0, high=2.0)(network, context)
    assert [(layer.input_code.low, layer.input_code.high) for layer in fixed.layers] == [(0, 2)] * 2


def test_note() -> None:
    (each,) = parse_pipeline("choose-coding{steps=7 reads=4}")
    assert isinstance(each, ChooseCoding)
    network = network_of(dense_model(6, 4))
    after = each(network, context_of())
    assert each.note(after, each(after, context_of())) == (
        "choose-coding{reads=4} changed nothing: it needs a matrix layer whose inputs are not coded yet"
    )
    assert each.note(network, after) == (
        "choose-coding{reads=4}: thermometer 7: 7 reads, noise power 7 s² in steps, 0.143 s² of full scale; "
        "bitserial 3: 3 reads, noise power 21 s² in steps, 0.429 s² of full scale; takes bitserial for at most 4 reads"
    )


def test_options() -> None:
    with pytest.raises(PassError, match="reads=2 cannot resolve steps=7; allowed: 3 or more"):
        ChooseCoding(steps=7, reads=2)
    for steps in (0, -1, 2**16):
        with pytest.raises(PassError, match=f"steps={steps} is out of range; allowed: 1 to 65535"):
            ChooseCoding(steps=steps, reads=100)
    with pytest.raises(PassError, match="give both low= and high=, or neither"):
        ChooseCoding(low=0.0)
