"""Pipelines as text, their errors, and the registry of passes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile.passes as registry
from tests.support.installed import installed
from tests.support.small_programs import dense_model
from xbcompile.errors import ExtensionError, PassError, PipelineError
from xbcompile.frontend import import_network, load_model
from xbcompile.passes import load_pass, pass_names
from xbcompile.passes.analogue import Analogue
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.contract import DevicePass, NetworkPass, OutputsPass, Pass, PassContext
from xbcompile.passes.device.calibrate_offsets import CalibrateOffsets
from xbcompile.passes.device.recalibrate import Recalibrate
from xbcompile.passes.fold_batchnorm import FoldBatchNorm
from xbcompile.passes.pca import PrincipalComponents
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline, run_pipeline
from xbcompile.passes.quantize import Quantize
from xbcompile.passes.thermometer import Thermometer
from xbcompile.targets import load_target

PASSES_FOLDER = Path(registry.__file__).parent

# Numbers of at most 6 digits, which is what the text keeps.
numbers = st.integers(-99_999, 99_999).map(lambda n: n / 100)
ranges = st.one_of(
    st.just({}), st.tuples(numbers, numbers).filter(lambda r: r[0] < r[1]).map(lambda r: {"low": r[0], "high": r[1]})
)
bits = st.one_of(st.just({}), st.integers(1, 16).map(lambda b: {"bits": b}))
names = st.text("abcXYZ019/_.:-", max_size=12).map(lambda n: {"layer": n})


def coded(pass_class, *options):
    return st.tuples(ranges, *options).map(lambda parts: pass_class(**{k: v for p in parts for k, v in p.items()}))


network_passes = st.one_of(
    st.just(FoldBatchNorm()),
    st.tuples(st.integers(1, 1000), names).map(lambda o: PrincipalComponents(components=o[0], **o[1])),
    st.tuples(st.integers(1, 100), names).map(lambda o: PrincipalComponents(variance=o[0] / 100, **o[1])),
    st.tuples(st.sampled_from(["binary", "ternary", "levels"]), st.sampled_from(["column", "matrix"])).map(
        lambda o: Quantize(scheme=o[0], per=o[1])
    ),
    st.integers(2, 256).map(lambda n: Quantize(levels=n)),
    coded(Thermometer, bits),
    coded(BitSerial, bits),
    coded(Analogue),
)
device_passes = st.one_of(
    st.integers(1, 10**6).map(lambda n: CalibrateOffsets(samples=n)),
    st.integers(2, 10**6).map(lambda n: Recalibrate(samples=n)),
)
pipelines = st.tuples(st.lists(network_passes, max_size=5), st.lists(device_passes, max_size=3)).map(
    lambda lists: tuple(lists[0] + sorted(lists[1], key=lambda each: isinstance(each, OutputsPass)))
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(pipelines)
def test_round_trip(passes):
    text = print_pipeline(passes)
    assert parse_pipeline(text) == passes
    assert print_pipeline(parse_pipeline(text)) == text


@settings(deadline=None, derandomize=True, max_examples=100)
@given(pipelines, st.data())
def test_spaces_do_not_count(passes, data):
    space = st.sampled_from(["", " ", "\n", "\t  "])
    text = "".join(
        data.draw(space) + (c if c != " " else " \n ") + data.draw(space) if c in ",{} " else c
        for c in print_pipeline(passes)
    )
    assert parse_pipeline(data.draw(space) + text + data.draw(space)) == passes


def test_meaning():
    text = "fold-batchnorm,quantize{scheme=levels levels=4 per=column},thermometer{bits=7 low=-1 high=.5},recalibrate"
    expected = (FoldBatchNorm(), Quantize(levels=4), Thermometer(bits=7, low=-1.0, high=0.5), Recalibrate())
    assert parse_pipeline(text) == expected
    assert parse_pipeline("") == parse_pipeline(" \n") == ()
    assert parse_pipeline("quantize{}") == (Quantize(),)
    # Options equal to their defaults are not printed.
    assert (
        print_pipeline(expected) == "fold-batchnorm,quantize{levels=4},thermometer{low=-1 high=0.5 bits=7},recalibrate"
    )
    assert print_pipeline(()) == ""


BAD = {
    "quantise": "unknown pass 'quantise' (did you mean 'quantize'?); allowed: analogue, ",
    "zzz": "unknown pass 'zzz'; allowed: analogue",
    "Quantize": "unknown pass 'Quantize' (did you mean 'quantize'?)",
    "quantize,": "pipeline text ends with a comma; write pass,pass{option=value}",
    "quantize , \n": "pipeline text ends with a comma",
    ",quantize": "pipeline text cannot be read at ',quantize'",
    "quantize,,pca": "pipeline text cannot be read at ',pca'",
    "quantize pca": "pipeline text cannot be read at 'quantize pca'",
    "quantize{levels=4": "pipeline text cannot be read at 'quantize{levels=4'",
    "quantize}": "pipeline text cannot be read at 'quantize}'; write pass,pass{option=value option=value}",
    "quantize{levels=4}{per=column}": "cannot be read at 'quantize{levels=4}{per=column}'",
    "quantize{{levels=4}}": "cannot be read at",
    "quantize;pca": "cannot be read at",
    "7": "cannot be read at '7'",
    "quantize{lvels=4}": "pass quantize has no option 'lvels' (did you mean 'levels'?); allowed: scheme, levels, per",
    "fold-batchnorm{x=1}": "pass fold-batchnorm has no option 'x'; allowed: none",
    "quantize{=4}": "pass quantize has no option ''",
    "quantize{levels}": "pass quantize: option 'levels' has no value; write levels=value",
    "quantize{levels=}": "pass quantize: option 'levels' has no value; write levels=value",
    "quantize{levels= 4}": "pass quantize: option 'levels' has no value",
    "quantize{levels=4 levels=5}": "pass quantize: option 'levels' is given twice",
    "quantize{levels=four}": "pass quantize: levels=four is not a whole number",
    "quantize{levels=4.0}": "pass quantize: levels=4.0 is not a whole number",
    "thermometer{low=a high=1}": "pass thermometer: low=a is not a number",
    "pca{components=1.5}": "pass pca: components=1.5 is not a whole number",
    "quantize{scheme=int8}": "pass quantize: scheme=int8 is unknown; allowed: binary, ternary, levels",
    "pca": "pass pca: give one of variance= and components=",
    "thermometer{bits=0}": "pass thermometer: bits=0 is out of range; allowed: 1 to 255",
    "thermometer{low=nan high=1}": "is no range",
    "recalibrate,quantize": "recalibrate is fitted on the device and must come after quantize",
    "recalibrate,calibrate-offsets": "recalibrate is fitted on what calibrate-offsets leaves and must come after it",
    "quantize,calibrate-offsets,thermometer": "calibrate-offsets is fitted on the device and must come after "
    "thermometer",
}


@pytest.mark.parametrize("text", BAD)
def test_errors(text):
    with pytest.raises(PipelineError) as caught:
        parse_pipeline(text)
    assert BAD[text] in str(caught.value)


@dataclass(frozen=True)
class Failing(NetworkPass):
    """Fail in one of its three steps."""

    name: ClassVar[str] = "failing"
    step: str = "run"

    def requires(self, network, context):
        if self.step == "requires":
            raise PassError("nothing to hold on to")

    def run(self, network, context):
        if self.step == "run":
            raise PassError("it broke")
        return network

    def ensures(self, before, after, context):
        if self.step == "ensures":
            raise PassError("a promise broken")


@pytest.fixture
def network():
    return import_network(load_model(dense_model(6, 4, 3)))


@pytest.fixture
def context():
    return PassContext(load_target("m2tj4").array_spec, None, lambda network: [None] * len(network.layers))


@pytest.mark.parametrize(
    ("step", "text"), [("requires", "nothing to hold on to"), ("run", "it broke"), ("ensures", "a promise broken")]
)
def test_a_failure_names_the_pass_and_those_before_it(network, context, step, text):
    before = parse_pipeline("fold-batchnorm,quantize{levels=4}")
    with pytest.raises(PassError) as caught:
        run_pipeline([*before, Failing(step), Analogue()], network, context)
    failing = "failing" if step == "run" else f"failing{{step={step}}}"
    assert str(caught.value) == f"pass {failing} (after fold-batchnorm,quantize{{levels=4}}): {text}"
    with pytest.raises(PassError) as caught:
        run_pipeline([Failing(step)], network, context)
    assert str(caught.value) == f"pass {failing}: {text}"


def test_run_in_order_without_device_passes(network, context):
    seen = []
    passes = parse_pipeline("fold-batchnorm,quantize,analogue,calibrate-offsets,recalibrate")
    result = run_pipeline(passes, network, context, lambda each, after: seen.append((each.name, after)))
    assert [name for name, _ in seen] == ["fold-batchnorm", "quantize", "analogue"]
    assert seen[-1][1] is result
    assert seen[1][1].layers[0].weight_code is not None
    assert seen[1][1].layers[0].input_code is None
    assert run_pipeline([], network, context) is network


def test_a_pass_may_not_change_the_outputs(network, context):
    @dataclass(frozen=True)
    class Dropping(NetworkPass):
        name: ClassVar[str] = "dropping"

        def run(self, network, context):
            from dataclasses import replace

            return replace(network, outputs=())

    with pytest.raises(ValueError, match="pass dropping changed the network's outputs") as caught:
        run_pipeline([*parse_pipeline("fold-batchnorm"), Dropping()], network, context)
    assert caught.value.__notes__ == ["in pass dropping (after fold-batchnorm)"]


def test_every_pass_file_is_registered():
    """Every concrete pass class in the folder has its line in the table, and every line its class of that name."""
    found = set()
    for path in PASSES_FOLDER.rglob("*.py"):
        names = [part for part in path.relative_to(PASSES_FOLDER).with_suffix("").parts if part != "__init__"]
        module = import_module(".".join(["xbcompile.passes", *names]))
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Pass) and value.__module__ == module.__name__:
                found |= {f"{module.__name__}:{value.__name__}"} if "name" in vars(value) else set()
    assert found == set(registry.PASSES.own.values())
    for name, where in registry.PASSES.own.items():
        loaded = load_pass(name)
        assert issubclass(loaded, NetworkPass | DevicePass)
        assert loaded.name == name
        assert f"{loaded.__module__}:{loaded.__name__}" == where
        assert where.split(":")[0].endswith(name.replace("-", "_"))  # one pass, one file


def test_every_target_s_pipeline_reads():
    from xbcompile.targets import target_names

    for name in target_names():
        text = load_target(name).pipeline
        assert print_pipeline(parse_pipeline(print_pipeline(parse_pipeline(text)))) == print_pipeline(
            parse_pipeline(text)
        )


@dataclass(frozen=True)
class Prune(NetworkPass):
    """A pass of another package."""

    name: ClassVar[str] = "prune"
    share: float = 0.5

    def run(self, network, context):
        return network


GROUP = "xbcompile.passes"


def test_a_registered_pass():
    with installed(GROUP, ("pruning", "prune", f"{__name__}:Prune")):
        assert "prune" in pass_names()
        assert load_pass("prune") is Prune
        assert parse_pipeline("prune{share=0.25}") == (Prune(0.25),)


def test_a_registered_pass_with_the_name_of_a_shipped_one():
    with (
        installed(GROUP, ("other", "quantize", "other:Quantize")),
        pytest.raises(ExtensionError, match="both xbcompile"),
    ):
        parse_pipeline("analogue")


@dataclass(frozen=True)
class Unnamed(NetworkPass):
    share: float = 0.5


@dataclass(frozen=True)
class Listing(Prune):
    shares: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ("Unnamed", "Unnamed.name is None; it is registered as 'prune'"),
        (
            "Listing",
            r"Listing.shares is declared as tuple\[int, ...\]; an option is an int, float, bool, str or a Literal",
        ),
        ("GROUP", "pass 'prune': 'xbcompile.passes' is a subclass neither of NetworkPass nor of DevicePass"),
    ],
)
def test_a_pass_that_breaks_the_contract_is_its_author_s_fault(attribute, text):
    with installed(GROUP, ("pruning", "prune", f"{__name__}:{attribute}")), pytest.raises(TypeError, match=text):
        parse_pipeline("prune")


def test_calibration_is_asked_for(network, context):
    with pytest.raises(PassError, match=r"pass pca\{components=2\}: pca needs calibration inputs"):
        run_pipeline(parse_pipeline("pca{components=2}"), network, context)
    given = PassContext(context.spec, {"x": np.ones((4, 6), np.float32)}, context.row_weights)
    assert run_pipeline(parse_pipeline("pca{components=2}"), network, given).layers[0].inputs == 2
