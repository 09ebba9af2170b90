"""Every shipped device pass keeps what all device passes promise; and the kit finds a broken promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from tests.support.installed import installed
from tests.support.small_programs import dense_model, images
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.contract import CalibratedPass, DevicePass, Stage
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.testing import check_device_pass

CALIBRATION = {"x": images(60, 8)}
CASES = [
    ("avoid-defects{tries=1}", "memristor20"),
    ("quiet-columns{samples=20 vectors=20}", "mram64"),
    ("calibrate-offsets{samples=40}", "mram64"),
    ("calibrate-offsets{at=high samples=130}", "mram64"),
    ("recalibrate{samples=40}", "mram64"),
    ("recalibrate{samples=40 per=tile}", "m2tj4"),
]


@pytest.mark.parametrize(("text", "target"), CASES)
def test_promises(text: str, target: str) -> None:
    (each,) = parse_pipeline(text)
    assert isinstance(each, DevicePass)
    check_device_pass(each, dense_model(8, 6, 3), target, CALIBRATION)


def test_every_device_pass_is_checked() -> None:
    checked = {parse_pipeline(text)[0].name for text, _ in CASES}
    assert checked == {name for name in pass_names() if issubclass(load_pass(name), DevicePass)}


@dataclass(frozen=True)
class Guessing(CalibratedPass):
    """Draws its gains from a generator of its own."""

    name: ClassVar[str] = "guessing"
    stage: ClassVar[Stage] = Stage.OUTPUTS
    rng: ClassVar[np.random.Generator] = np.random.default_rng(0)

    def fit(self, chip, feeds, corrections):  # type: ignore[no-untyped-def]  # wrong on purpose, as the test needs
        gains = [self.rng.normal(size=len(layer.gain)) for layer in corrections.layers]
        return replace(corrections, layers=tuple(LayerCorrection(gain, np.zeros(len(gain))) for gain in gains))


@dataclass(frozen=True)
class Stageless(Guessing):
    """Does not say when."""

    name: ClassVar[str] = "stageless"
    stage = None  # type: ignore[assignment]


def test_a_broken_promise_is_found() -> None:
    with installed("xbcompile.passes", ("mine", "guessing", f"{__name__}:Guessing")):
        with pytest.raises(AssertionError, match="pass guessing fitted something else again"):
            check_device_pass(Guessing(), dense_model(8, 6, 3), "m2tj4", CALIBRATION)
        with pytest.raises(AssertionError, match="pass stageless does not say at which stage it is fitted"):
            check_device_pass(Stageless(), dense_model(8, 6, 3), "m2tj4", CALIBRATION)
