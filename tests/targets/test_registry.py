"""Descriptions: what is accepted, and each error by its text."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import xbcompile
from tests.support.installed import installed
from tests.support.small_programs import convolution_model, images
from xbcompile.errors import ExtensionError, TargetError
from xbcompile.ir import ArraySpec
from xbcompile.runtime import Session
from xbcompile.targets import ReadBlock, Target, WrittenImages, load_target, registry, target_names
from xbcompile.targets.families import FAMILIES, load_device, load_family
from xbcompile.targets.families.ideal import IdealArray, IdealParameters
from xbcompile.targets.quantity import quantity

M2TJ4 = (Path(registry.__file__).parent / "m2tj4.toml").read_text(encoding="utf-8")
ROWS = 'rows = { value = 4, unit = "1", source = "paper, section 3.1.2" }'
SIGMA = 'sigma_nl_ohm = { value = 0, unit = "Ohm", source = '


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", target_names())
def test_shipped_targets_are_complete(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.summary
    assert target.paper
    for quantity_ in target.quantities.values():
        assert quantity_["source"]
    assert Target.from_table(json.loads(target.to_json()), "again") == target
    assert target.device().read is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model = "multistate"', 'model = "multistate"\ncolour = "red"', "unknown key 'colour'; allowed: .*, extends"),
        ('summary = "', 'summary_ = "', "unknown key 'summary_'"),
        ('paper = "MultiSpin', '# "MultiSpin', "key 'paper' is missing"),
        ('name = "m2tj4"', "name = 4", "name = 4 is not text"),
        ('name = "m2tj4"', 'name = ""', "name = '' is no text of one line"),
        ('name = "m2tj4"', 'name = " "', "name = ' ' is no text"),
        ('name = "m2tj4"', r'name = "a\nb"', r"name = 'a\\nb' is no text of one line that can be read"),
        ('name = "m2tj4"', r'name = "\u001b[31m"', r"name = '\\x1b"),
        (
            'model = "multistate"',
            'model = "abacus"',
            "unknown model 'abacus'; allowed: ideal, resistance_sum, multistate",
        ),
        (
            ROWS,
            ROWS + '\nmass_kg = { value = 1, unit = "1", source = "x" }',
            "unknown quantity 'mass_kg'; known: rows, ",
        ),
        (ROWS, "", r"quantity 'rows' is missing \(rows \(current inputs\)\)"),
        (ROWS, "rows = 4", r'rows must be written as rows = \{ value = ..., unit = "1", source = "..." \}; found 4'),
        (ROWS, ROWS.replace(', source = "paper, section 3.1.2"', ""), "rows must be written as"),
        (ROWS, ROWS.replace('unit = "1"', 'unit = "m"'), "rows has unit 'm'; allowed: '1'"),
        (SIGMA, SIGMA.replace('"Ohm"', '"kOhm"'), "sigma_nl_ohm has unit 'kOhm'; allowed: 'Ohm'"),
        (
            ROWS,
            ROWS.replace("paper, section 3.1.2", " "),
            'rows has no source; name the paper and place, or write "assumed"',
        ),
        (ROWS, ROWS.replace('"paper, section 3.1.2"', "3"), "rows has no source"),
        (ROWS, ROWS.replace("value = 4", "value = 0"), "rows = 0 is out of range; allowed: 1 to 4096"),
        (ROWS, ROWS.replace("value = 4", "value = 4.0"), r"rows = 4\.0 is not a whole number"),
        (ROWS, ROWS.replace("value = 4", "value = true"), "rows = True is not a whole number"),
        (ROWS, ROWS.replace("value = 4", 'value = "4"'), "rows = '4' is not a whole number"),
        (SIGMA, SIGMA.replace("value = 0", "value = nan"), "sigma_nl_ohm = nan is out of range; allowed: 0 to 1e[+]12"),
        (SIGMA, SIGMA.replace("value = 0", "value = -1"), "sigma_nl_ohm = -1 is out of range"),
        (SIGMA, SIGMA.replace("value = 0", "value = inf"), "sigma_nl_ohm = inf is out of range"),
        (SIGMA, SIGMA.replace("value = 0", 'value = "small"'), "sigma_nl_ohm = 'small' is not a number"),
        ("value = 9402.4622", "value = 99999", "r_lowest_ohm = 99999 is not below r_highest_ohm = 9918.99"),
        ('name = "m2tj4"', "name = ", "is not valid TOML: "),
        (
            'name = "m2tj4"',
            'extends = "mram65"\nname = "m"',
            "extends = 'mram65' is unknown; allowed: ideal, m2tj4, memristor20, mram64",
        ),
        ("[quantities]", "[other]", "unknown key 'other'"),
    ],
)
def test_each_fault_of_a_description_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert M2TJ4.count(old) == 1
    path = written(tmp_path, M2TJ4.replace(old, new))
    with pytest.raises(TargetError, match=message) as caught:
        load_target(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "m2tj4"\nname = "m"\nquantities = 3', "mine.toml: quantities must be a table"),
        ('extends = 4\nname = "m"', "extends = 4 is unknown"),
        ('extends = ["m2tj4"]\nname = "m"', r"extends = \['m2tj4'\] is unknown"),
        (M2TJ4[: M2TJ4.index("[quantities]")] + "quantities = 3", "mine.toml: quantities must be a table"),
        (M2TJ4[: M2TJ4.index("[quantities]")], "key 'quantities' is missing"),
        ("", "is missing"),
    ],
)
def test_faults_of_whole_descriptions_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load_target(written(tmp_path, text))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"unknown target 'mram65'; allowed: ideal, m2tj4, memr.*, or the path of a .toml"
    ):
        load_target("mram65")
    with pytest.raises(TargetError, match=r"none.toml' does not exist; known targets: ideal, m2tj4, memr"):
        load_target(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TargetError, match=r"folder.toml' cannot be read: Is a directory"):
        load_target(tmp_path / "folder.toml")
    for content in (b"\xff\xfe\x00", b"rows = " + 5000 * b"9"):
        (tmp_path / "binary.toml").write_bytes(content)
        with pytest.raises(TargetError, match=r"binary.toml' is not valid TOML"):
            load_target(tmp_path / "binary.toml")


def test_a_file_may_extend_a_shipped_target_and_change_one_number(tmp_path: Path) -> None:
    text = 'extends = "mram64"\nname = "fast"\n[quantities]\n'
    text += 'f_clock_hertz = { value = 17.2e6, unit = "Hz", source = "paper, in principle" }\n'
    target, base = load_target(written(tmp_path, text)), load_target("mram64")
    changed = {key: value for key, value in target.quantities.items() if value != base.quantities[key]}
    assert list(changed) == ["f_clock_hertz"]
    assert target.array_spec.t_read_s == 1 / 17.2e6
    assert target.device_names == ("fast", "fast-emulator", "ideal")
    program = xbcompile.compile(convolution_model(), written(tmp_path, text))
    program.save(tmp_path / "p.xbar")
    (tmp_path / "mine.toml").unlink()  # the program holds the whole description
    loaded = xbcompile.load_program(tmp_path / "p.xbar")
    assert loaded.target == target
    assert Session(loaded, "fast").run({"x": images(1, 2, 4, 4)})["y"].shape == (1, 5)


def test_devices_are_named_after_their_target() -> None:
    target = load_target("mram64")
    assert target.device_names == ("mram64", "mram64-emulator", "ideal")
    kinds = {
        name: type(target.device(name)).__name__ for name in (None, "mram64", "physics", "emulator", "mram64-emulator")
    }
    assert kinds == {
        None: "ResistanceSumArray",
        "mram64": "ResistanceSumArray",
        "physics": "ResistanceSumArray",
        "emulator": "ErrorHistogramArray",
        "mram64-emulator": "ErrorHistogramArray",
    }
    with pytest.raises(
        TargetError, match="target 'mram64' has no device 'bench'; allowed: mram64, mram64-emulator, ideal"
    ):
        target.device("bench")
    assert load_target("ideal").device_names == ("ideal",)
    with pytest.raises(TargetError, match="target 'ideal' has no device 'physics'; allowed: ideal"):
        load_target("ideal").device("physics")


@pytest.mark.parametrize(
    "name", ["ideal", "sot", "emulator", "physics", "ideal-emulator", "mram64", "resistance_sum", "[/x]"]
)
def test_a_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    """A chip may be called as the exact device, another target, a kind of device, or a family: it is what its model says."""
    target = load_target(written(tmp_path, f'extends = "mram64"\nname = "{name}"'))
    assert len(set(target.device_names)) == 3
    kinds = {each: type(target.device(each)).__name__ for each in (None, *target.device_names)}
    default = kinds.pop(target.device_names[0])
    assert default == kinds.pop(None) == "ResistanceSumArray"
    assert list(kinds.values()) == ["ErrorHistogramArray", "IdealArray"]
    assert target.device_names[-1] == "ideal"
    assert [target.device_name(each) for each in (None, *target.device_names)][1:] == list(target.device_names)
    if name not in ("ideal", "emulator"):
        assert target.device_name("emulator") == f"{name}-emulator"
    program = xbcompile.compile(convolution_model(), target, effort=0)
    x = {"x": images(2, 2, 4, 4)}
    exact = Session(program, "ideal").run(x)["y"]
    for found in (Session(program).run(x)["y"], xbcompile.InferenceSession(program).run(None, x)[0]):
        assert np.abs(found - exact).max() > 1e-3


def test_one_device_has_one_name_in_corrections() -> None:
    target = load_target("mram64")
    for name in (None, "mram64", "physics", "mram64-physics"):
        assert target.device_name(name) == "mram64"
    assert target.device_name("emulator") == target.device_name("mram64-emulator") == "mram64-emulator"
    program = xbcompile.compile(convolution_model(), target, effort=0)
    assert {Session(program, name).corrections.chip for name in (None, "physics", "mram64")} == {"mram64 seed 0"}
    assert Session(program, "ideal", seed=3).corrections.chip == "ideal seed 3"


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_a_chip_s_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(TargetError, match=f"seed = {seed!r} of a chip is no whole number"):
        load_target("mram64").device(seed=seed)


def test_a_converter_has_two_codes_or_more_in_every_family() -> None:
    """The same bounds wherever codes are counted; 0 where a family may go without a converter."""
    found = {}
    for name in target_names():
        target = load_target(name)
        for quantity_name in ("converter_codes", "tdc_codes"):
            if quantity_name not in target.declared:
                continue
            declared = target.declared[quantity_name]
            found[target.model] = declared.low, declared.high
            none = "0, or " if declared.none == 0 else ""
            for codes in (1, -1, (1 << 20) + 1, *([] if none else [0])):
                with pytest.raises(
                    TargetError, match=f"{quantity_name} = {codes} is out of range; allowed: {none}2 to 1048576"
                ):
                    target.with_quantities("test", **{quantity_name: codes})
            for codes in (2, 1 << 20, *([0] if none else [])):
                target.with_quantities("test", **{quantity_name: codes})
    assert len(found) == 4
    assert set(found.values()) == {(2, 1 << 20)}


@pytest.mark.parametrize("name", ["mram64", "sot", "sot-single", "memristor20", "multicell", "m2tj4", "ideal"])
def test_numbers_out_of_range_are_refused_and_all_others_make_a_chip(name: str) -> None:
    """Every number of every family in turn: a clear error, or an array whose costs and readings are finite."""
    base = load_target(name).with_quantities("test", rows=6, columns=5)
    spec_facts = ("t_write_row_s", "t_read_s", "e_write_row_j", "e_read_j")
    for quantity_name, declared in base.declared.items():
        ends = [declared.low, declared.high] if quantity_name not in ("rows", "columns") else [declared.low]
        for value in (
            *ends,
            0,
            1,
            -1,
            2,
            1.5,
            np.nan,
            np.inf,
            10**400,
            10**5000,
            1e-300,
            declared.low - 1,
            True,
            "1",
            None,
        ):
            try:
                target = base.with_quantities("test", **{quantity_name: value})
            except TargetError:
                continue
            spec = target.array_spec
            assert all(0 <= getattr(spec, fact) < np.inf for fact in spec_facts)
            assert spec.rows * spec.columns <= 100
            cells = np.zeros((1, spec.rows, spec.columns), np.uint8 if spec.levels is not None else np.float32)
            loaded = target.device().load(WrittenImages.once(np.zeros(1, int), cells))  # type: ignore[attr-defined]
            readings = loaded.read(np.ones((1, 1, 1, spec.rows), np.float32), ReadBlock(np.zeros(1, int), 0))
            assert np.isfinite(readings).all(), (quantity_name, value)


@dataclass(frozen=True)
class HalvingParameters(IdealParameters):
    """A third party's family: an ideal array whose readings are scaled."""

    devices: ClassVar[Mapping[str, str]] = {"scaled": f"{__name__}:HalvingArray"}
    gain: float = quantity("1", 0, 10, "gain of every reading")
    inverts: bool = quantity("1", 0, 1, "every reading has the other sign")


class HalvingArray(IdealArray):
    def __init__(self, parameters: HalvingParameters, seed: int = 0) -> None:
        spec: ArraySpec = parameters.array_spec()
        super().__init__(spec, seed)
        gain = -parameters.gain if parameters.inverts else parameters.gain
        self.spec = replace(spec, row_weight=spec.row_weight * gain)


FAMILIES_GROUP, TARGETS_GROUP = "xbcompile.families", "xbcompile.targets"
IDEAL = (Path(registry.__file__).parent / "ideal.toml").read_text(encoding="utf-8")
HALF = IDEAL.replace('model = "ideal"', 'model = "halving"').replace('name = "ideal"', 'name = "half"')
HALF += 'gain = { value = 0.5, unit = "1", source = "assumed" }\n'
HALF += 'inverts = { value = false, unit = "1", source = "assumed" }\n'


def halving(attribute: str = "HalvingParameters") -> AbstractContextManager[None]:
    return installed(FAMILIES_GROUP, ("halves", "halving", f"{__name__}:{attribute}"))


def test_a_third_party_adds_a_model_family(tmp_path: Path) -> None:
    path = written(tmp_path, HALF)
    with halving():
        target = load_target(path)
        assert target.device_names == ("half", "ideal")
        program = xbcompile.compile(convolution_model(), target)
        feeds = {"x": images(2, 2, 4, 4)}
        layer = program.network.layers[0]
        halved = Session(program).executors[0].run(feeds["x"])
        exact = Session(program, "ideal").executors[0].run(feeds["x"])
        bias = layer.bias[None, :, None, None]
        np.testing.assert_allclose(halved - bias, (exact - bias) / 2, rtol=0, atol=1e-5)
        with pytest.raises(TargetError, match="quantity 'gain' is missing"):
            load_target(written(tmp_path, HALF.replace("gain =", "# ")))
        with pytest.raises(TargetError, match=r"unknown model 'third'; allowed: ideal, resistance_sum, .*, halving"):
            load_target(written(tmp_path, HALF.replace('"halving"', '"third"')))
    with pytest.raises(TargetError, match="unknown model 'halving'; allowed: ideal"):
        load_target(written(tmp_path, HALF))


def test_a_family_with_the_name_of_a_shipped_one_is_refused() -> None:
    with installed(FAMILIES_GROUP, ("other", "ideal", "other:Ideal")), pytest.raises(ExtensionError, match="other"):
        load_target("ideal").parameters  # noqa: B018


@dataclass(frozen=True)
class Listed(IdealParameters):
    values: str = quantity("1", 0, 1, "no number")


@dataclass(frozen=True)
class Bare(IdealParameters):
    gain: float = field()  # type: ignore[misc]  # that is the fault


@dataclass(frozen=True)
class Taking(IdealParameters):
    writes_at_a_time: int = quantity("1", 0, 1, "a name that is taken")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("Listed", "Listed.values must be declared as an int, float or bool with quantity"),
        ("Bare", "Bare.gain must be declared as an int, float or bool with quantity"),
        ("Taking", "Taking.writes_at_a_time bears the name of a quantity that every target has"),
        ("HalvingArray", "HalvingArray'> is no subclass of xbcompile.targets.parameters.ArrayParameters"),
    ],
)
def test_a_family_that_breaks_the_contract_is_its_author_s_fault(tmp_path: Path, attribute: str, message: str) -> None:
    with halving(attribute), pytest.raises(TypeError, match=message):
        load_target(written(tmp_path, HALF))


@dataclass(frozen=True)
class Misdirected(HalvingParameters):
    devices: ClassVar[Mapping[str, str]] = {"one": f"{__name__}:HALF", "two": f"{__name__}:NoSuchArray"}


def test_a_device_that_breaks_the_contract_or_is_missing(tmp_path: Path) -> None:
    with halving("Misdirected"):
        target = load_target(written(tmp_path, HALF))
        assert target.device_names == ("half", "half-two", "ideal")
        with pytest.raises(
            TypeError, match=r"device 'one' of model family 'halving': .* is no subclass of SimulatedDevice"
        ):
            target.device()
        with pytest.raises(ExtensionError, match=r"device 'two' of package halves \(.*:NoSuchArray\) cannot be loaded"):
            target.device("two")
        assert isinstance(target.device("ideal"), IdealArray)


@pytest.fixture
def chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an importable package `chips_package`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chips_package", raising=False)
    package = tmp_path / "chips_package"
    package.mkdir()
    (package / "__init__.py").touch()
    return package


def chip(name: str, file: str) -> tuple[str, str, str]:
    return "chips-package", name, f"chips_package:{file}"


def test_a_third_party_adds_a_target(chips: Path, tmp_path: Path) -> None:
    (chips / "my_chip.toml").write_text('extends = "m2tj4"\nname = "my-chip"\nsummary = "mine"', encoding="utf-8")
    with installed(TARGETS_GROUP, chip("my-chip", "my_chip.toml")):
        assert target_names() == sorted([*registry.TARGETS.own, "my-chip"])
        target = load_target("my-chip")
        assert (target.name, target.summary, target.model) == ("my-chip", "mine", "multistate")
        assert target.array_spec == load_target("m2tj4").array_spec
        mine = load_target(written(tmp_path, 'extends = "my-chip"\nname = "other"'))
        assert (mine.name, mine.summary) == ("other", "mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "my-chip', "target 'my-chip' of package chips-package .* is not valid TOML"),
        ('extends = "m2tj4"\nname = "your-chip"', "name = 'your-chip'; it must be the registered name, 'my-chip'"),
        ('extends = "m2tj4"', "name = None; it must be the registered name, 'my-chip'"),
        ('extends = "my-chip"\nname = "my-chip"', "targets extend each other in a circle: my-chip, my-chip"),
        ('extends = "m2tj5"\nname = "my-chip"', "chips-package .*: extends = 'm2tj5' is unknown; allowed: ideal"),
    ],
)
def test_faults_of_a_third_party_s_target_are_named(chips: Path, text: str, message: str) -> None:
    (chips / "my_chip.toml").write_text(text, encoding="utf-8")
    with installed(TARGETS_GROUP, chip("my-chip", "my_chip.toml")), pytest.raises(TargetError, match=message):
        load_target("my-chip")


def test_a_target_with_the_name_of_a_shipped_one_is_refused(chips: Path) -> None:
    with installed(TARGETS_GROUP, chip("mram64", "mram64.toml")), pytest.raises(ExtensionError, match="chips-package"):
        target_names()
    with (
        installed(TARGETS_GROUP, chip("my-chip", "none.toml")),
        pytest.raises(ExtensionError, match="FileNotFoundError"),
    ):
        load_target("my-chip")


def test_the_registry_of_families_is_complete() -> None:
    """Every shipped target's model is in the table, and everything in the table can be loaded."""
    assert {load_target(name).model for name in target_names()} == set(FAMILIES.own)
    for name in FAMILIES.own:
        assert all(load_device(name, device) for device in load_family(name, "test").devices)


# --- numbers that are changed from Python


@pytest.mark.parametrize(
    ("value", "found"), [(8, 8), (8.0, 8), (np.int64(8), 8), (np.float32(8), 8), (True, None), (8.5, None), ("8", None)]
)
def test_whole_numbers_may_come_as_any_number(value: Any, found: int | None) -> None:
    if found is None:
        with pytest.raises(TargetError, match=r"target 'm2tj4': rows = .* is not a whole number"):
            load_target("m2tj4").with_quantities("test", rows=value)
        return
    target = load_target("m2tj4").with_quantities("test", rows=value)
    assert target.quantities["rows"] == {"value": 8, "unit": "1", "source": "test"}
    assert type(target.quantities["rows"]["value"]) is int
    assert type(target.parameters.rows) is int
    assert Target.from_table(json.loads(target.to_json()), "again") == target


@pytest.mark.parametrize("value", [0, 0.0, False, np.bool_(False), np.int8(0)])
def test_flags_may_come_as_numbers(value: Any) -> None:
    spec = load_target("m2tj4").with_quantities("test", shares_rows=value, writes_at_a_time=1.0).array_spec
    assert (spec.shares_rows, spec.shares_columns, spec.writes_at_a_time) == (False, True, 1)
    assert (type(spec.shares_rows), type(spec.writes_at_a_time)) == (bool, int)


def test_flags_of_a_family(tmp_path: Path) -> None:
    with halving():
        target = load_target(written(tmp_path, HALF))
        assert target.parameters.inverts is False
        assert target.with_quantities("test", inverts=1).parameters.inverts is True
        for wrong in ("2", "0.5", '"yes"', "1.0"):
            with pytest.raises(TargetError, match=f"inverts = .{wrong[1:-1]}.* is not true or false"):
                load_target(written(tmp_path, HALF.replace("value = false", f"value = {wrong}")))


def test_float_quantities_take_any_number() -> None:
    target = load_target("m2tj4").with_quantities("test", sigma_nl_ohm=np.float32(0.5), sigma_perp_ohm=np.int32(2))
    assert (target.parameters.sigma_nl_ohm, target.parameters.sigma_perp_ohm) == (0.5, 2.0)
    json.loads(target.to_json())
