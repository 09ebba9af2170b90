"""What passes say that they help against."""

from __future__ import annotations

import pytest

from tests.support.small_programs import convolution_program
from xbcompile.diagnosis.ablation import SOURCES
from xbcompile.diagnosis.advice import advice
from xbcompile.ir import InputCode
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.contract import LayerTrouble
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.passes.thermometer import Thermometer
from xbcompile.targets import load_target


def trouble(source: str, code: InputCode | None = None, pipeline: str = "", defects: bool = False) -> LayerTrouble:
    used = {each.name: each for each in parse_pipeline(pipeline)}
    return LayerTrouble(source, load_target("mram64").array_spec, code, used, defects)


def offered(source: str, **what: object) -> list[str]:
    """Advice of all passes, by turn."""
    helpful = [each for each in map(load_pass, pass_names()) if source in each.helps_against]
    helpful.sort(key=lambda each: each.helps_against[source])
    return [str(found) for each in helpful if (found := each.advice(trouble(source, **what))) is not None]


def test_passes_help_against_sources_that_exist_and_take_turns() -> None:
    declared = [load_pass(name).helps_against for name in pass_names()]
    assert {source for each in declared for source in each} <= set(SOURCES)
    for source in SOURCES:
        turns = [each[source] for each in declared if source in each]
        assert len(set(turns)) == len(turns), source


def test_options_in_use_are_kept() -> None:
    """What is advised changes what is to be changed alone; continuous weights have no levels to choose."""
    assert offered("weights", pipeline="quantize{scheme=binary}")[0] == ("quantize{scheme=binary method=data-aware}")
    assert "quantize" not in offered("weights", pipeline="quantize{scheme=continuous}")[0]
    code = InputCode("thermometer", 8, 0.0, 1.0)
    (found,) = [
        each
        for each in offered("coding", code=code, pipeline="quantize,thermometer{low=0 high=2}")
        if "thermometer" in each
    ]
    assert found == "more slices (thermometer{low=0 high=2 bits=16})"


def test_what_passes_offer() -> None:
    assert offered("weights") == ["order-rows", "recalibrate", "planes"]  # rows of mram64 weigh differently
    assert offered("weights", pipeline="quantize,recalibrate") == [
        "quantize{method=data-aware}",
        "order-rows",
        "planes",
    ]
    assert offered("systematic", pipeline="quantize") == ["recalibrate", "use-spare-cells"]
    assert offered("systematic", defects=True) == ["recalibrate", "avoid-defects", "use-spare-cells"]
    assert offered("saturation") == []
    assert offered("coding") == []  # inputs drive rows as they are


@pytest.mark.parametrize(
    ("scheme", "bits", "coding", "random"),
    [
        ("thermometer", 8, "thermometer{bits=16}", "thermometer{bits=16}"),
        ("thermometer", 200, "thermometer{bits=255}", "thermometer{bits=255}"),
        ("thermometer", 255, None, None),
        ("bitserial", 3, "bitserial{bits=4}", "thermometer{bits=7}"),  # 1 + 4 + 16 s^2 against 7 s^2
        ("bitserial", 16, None, None),  # 65,535 slices are too many
        ("analogue", 1, None, None),
    ],
)
def test_slices(scheme: str, bits: int, coding: str | None, random: str | None) -> None:
    """More slices, as many as the pass allows: what is offered can be written in a pipeline."""
    code = InputCode(scheme, bits, 0.0, 1.0)
    for source, expected in (("coding", coding), ("random", random)):
        advised = [
            kind.advice(trouble(source, code)) for kind in (BitSerial, Thermometer) if source in kind.helps_against
        ]
        found = [str(each.use) for each in advised if each is not None]
        assert all(str(each.use) in str(each) for each in advised if each is not None)
        assert found == ([] if expected is None else [expected])
        parse_pipeline(",".join(found))


@pytest.mark.parametrize("source", [*SOURCES, "inherited"])
def test_every_source_has_advice(source: str) -> None:
    program = convolution_program()
    assert len(advice(program, program.network.layers[0], source)) > 10
