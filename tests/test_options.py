"""Options: they check themselves, go into the program whole, and make the same program again."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import CODED, dense_model, images
from xbcompile.errors import PipelineError, ScheduleError, XbcompileError
from xbcompile.options import CompileOptions, MappingOptions, PlanOptions
from xbcompile.program.program import load_program

OTHERS = {  # a value that is no default, of every option
    "arrays": 2,
    "batch": 3,
    "cuts": "greedy",
    "packing": "in-order",
    "objective": "energy",
    "effort": 0.5,
    "digital": ("fc1",),
    "dims": {"n": 2},
    "batch_axis": {"x": 1, "state": None},
    "keep_inputs": ("w",),
    "fixed_inputs": {"rate": 16000, "state": [[0.5, 0.25]]},
    "passes": CODED,
    "rewrite": "matched",
    "floorplan": "4x4",
    "scramble": False,
    "seed": 7,
    "embed_model": False,
}


NESTED: list = []
NESTED.append(NESTED)


def test_every_option_comes_back_from_json():
    assert OTHERS.keys() == {each.name for each in fields(CompileOptions)}
    for options in (CompileOptions(), CompileOptions(**OTHERS)):
        assert CompileOptions.from_table(json.loads(json.dumps(options.to_table()))) == options
    with pytest.raises(ValueError, match=r"options \['arrays', 'colour'\] are missing or unknown"):
        CompileOptions.from_table({name: 1 for name in OTHERS if name != "arrays"} | {"colour": 1})


def test_equal_settings_are_equal_options():
    assert CompileOptions(effort=0).to_table() == CompileOptions(effort=0.0).to_table()
    assert str(CompileOptions(effort=0)) == str(CompileOptions(effort=0.0))


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.array])
def test_integers_of_any_kind_are_options(kind):
    """They are kept as Python's, so that equal settings make equal programs."""
    given = CompileOptions(
        arrays=kind(2), batch=kind(3), seed=kind(4), dims={"n": kind(5)}, batch_axis={"x": kind(1), "y": None}
    )
    wanted = CompileOptions(arrays=2, batch=3, seed=4, dims={"n": 5}, batch_axis={"x": 1, "y": None})
    assert given == wanted
    assert json.dumps(given.to_table()) == json.dumps(wanted.to_table())
    assert PlanOptions(array=[kind(8), kind(9)], slices=kind(3)) == PlanOptions(array=(8, 9), slices=3)
    assert MappingOptions(effort=np.int64(1)) == MappingOptions(effort=1.0)
    assert CompileOptions(scramble=np.False_).to_table() == CompileOptions(scramble=False).to_table()


def test_options_of_another_class_are_refused():
    for asked, wrong in ((xbcompile.compile, PlanOptions()), (xbcompile.plan, CompileOptions()), (xbcompile.plan, 3)):
        with pytest.raises(
            ScheduleError, match=r"options=.*: give (CompileOptions|PlanOptions)\(\.\.\.\), or its fields by name"
        ):
            asked(dense_model(3, 2), options=wrong)
    for require in (3, [3], None, np.array(3), {"a": 1}):
        with pytest.raises(ScheduleError, match=r"require=.*: give texts"):
            xbcompile.plan([[4, 4]], require=require)


def test_one_name_is_not_a_list_of_letters():
    assert MappingOptions(digital="fc1") == MappingOptions(digital=["fc1"]) == MappingOptions(digital=("fc1",))
    assert MappingOptions(keep_inputs="fc1") == MappingOptions(keep_inputs=["fc1"])


def test_arrays_of_fixed_inputs_are_compared_by_content():
    """What numpy holds is kept as JSON has it."""
    given = {"a": np.arange(4).reshape(2, 2), "b": np.float32(0.5), "c": ((1, 2), [3, 4]), "d": np.array(True)}
    wanted = {"a": [[0, 1], [2, 3]], "b": 0.5, "c": [[1, 2], [3, 4]], "d": True}
    assert MappingOptions(fixed_inputs=given) == MappingOptions(fixed_inputs=wanted)


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        (MappingOptions, {"arrays": -1}, ScheduleError, "arrays=-1: give the number of physical arrays"),
        (MappingOptions, {"arrays": 1.5}, ScheduleError, "arrays=1.5"),
        (MappingOptions, {"arrays": True}, ScheduleError, "arrays=True"),
        (MappingOptions, {"batch": 0}, ScheduleError, "batch=0: give the inferences served"),
        (MappingOptions, {"cuts": "oblique"}, ScheduleError, "cuts='oblique' is unknown: use one of auto, greedy"),
        (MappingOptions, {"packing": "loose"}, ScheduleError, "packing='loose' is unknown: use one of auto, dense"),
        (MappingOptions, {"cuts": "free", "packing": "none"}, ScheduleError, "chosen while packing"),
        (MappingOptions, {"objective": "beauty"}, ScheduleError, "'beauty' is unknown"),
        (MappingOptions, {"effort": float("nan")}, ScheduleError, "effort=nan is out of range"),
        (MappingOptions, {"effort": True}, ScheduleError, "effort=True: give a number"),
        (MappingOptions, {"effort": np.float32(0)}, ScheduleError, "give a number"),
        (MappingOptions, {"effort": "1"}, ScheduleError, "effort='1': give a number"),
        (MappingOptions, {"objective": None}, ScheduleError, "objective=None: give text"),
        (MappingOptions, {"digital": b"fc"}, ScheduleError, "digital=b'fc': give text, or several"),
        (MappingOptions, {"digital": [1]}, ScheduleError, "give text, or several"),
        (MappingOptions, {"dims": "n"}, ScheduleError, "dims='n': give sizes by name"),
        (MappingOptions, {"keep_inputs": [1]}, ScheduleError, "keep_inputs=[1]: give text, or several"),
        (MappingOptions, {"fixed_inputs": ["x"]}, ScheduleError, "fixed_inputs=['x']: give values by name"),
        (CompileOptions, {"scramble": "false"}, ScheduleError, "scramble='false': give True or False"),
        (CompileOptions, {"passes": []}, ScheduleError, "give text, or None"),
        (CompileOptions, {"floorplan": 1}, ScheduleError, "floorplan=1: give text, or None"),
        (PlanOptions, {"array": 5}, ScheduleError, "array=5: give rows and columns, or None"),
        (
            CompileOptions,
            {"rewrite": "some"},
            ScheduleError,
            "rewrite='some' is unknown: use one of all, changed, matched",
        ),
        (CompileOptions, {"seed": -1}, ScheduleError, "seed=-1: give the seed"),
        (CompileOptions, {"floorplan": "2x"}, ScheduleError, "floorplan '2x': give site rows x site columns"),
        (CompileOptions, {"passes": "quantise"}, PipelineError, "quantise"),
        (MappingOptions, {"arrays": 2.0}, ScheduleError, "arrays=2.0: give the number of physical arrays"),
        (MappingOptions, {"arrays": "2"}, ScheduleError, "arrays='2': give"),
        (MappingOptions, {"arrays": 2**31}, ScheduleError, "a whole number from 0 to 2,147,483,647"),
        (MappingOptions, {"batch": 2**63}, ScheduleError, "batch=9223372036854775808: give the inferences"),
        (MappingOptions, {"batch": 10**5000}, ScheduleError, "batch=a whole number of 16610 bits: give"),
        (MappingOptions, {"batch": [3]}, ScheduleError, "batch=[3]: give"),
        (MappingOptions, {"effort": 10**5000 * -1}, ScheduleError, "is out of range; allowed: numbers from 0"),
        (MappingOptions, {"dims": {"n": 2.0}}, ScheduleError, "dims={'n': 2.0}: 2.0 of 'n' is no whole number"),
        (MappingOptions, {"dims": {1: 2}}, ScheduleError, "dims={1: 2}: give sizes by name"),
        (MappingOptions, {"batch_axis": {"x": "0"}}, ScheduleError, "'0' of 'x' is no whole number"),
        (MappingOptions, {"fixed_inputs": {3: 2}}, ScheduleError, "give values by name"),
        (MappingOptions, {"fixed_inputs": {"x": NESTED}}, ScheduleError, "'x' has more than 64 lists within lists"),
        (MappingOptions, {"objective": "x" * 10**6}, ScheduleError, "xxx...xxx"),
        (CompileOptions, {"seed": 2**128}, ScheduleError, "seed=a whole number of 129 bits: give the seed"),
        (CompileOptions, {"seed": 1.0}, ScheduleError, "seed=1.0: give the seed"),
        (CompileOptions, {"scramble": 1}, ScheduleError, "scramble=1: give True or False"),
        (CompileOptions, {"passes": "a" * 30_000}, PipelineError, "pipeline text of 30,000 characters"),
        (PlanOptions, {"array": (4,)}, ScheduleError, "array=(4,): give rows and columns, two whole numbers"),
        (PlanOptions, {"array": (4, 4, 4)}, ScheduleError, "two whole numbers"),
        (PlanOptions, {"array": (4.0, 4)}, ScheduleError, "two whole numbers"),
        (PlanOptions, {"array": ("4", True)}, ScheduleError, "two whole numbers"),
        (PlanOptions, {"array": (2**70, 4)}, ScheduleError, "rows: at most 65,536 are planned with"),
        (PlanOptions, {"slices": 2.0}, ScheduleError, "slices=2.0: give reads"),
        (PlanOptions, {"array": (0, 4)}, ScheduleError, "array of 0 rows x 4 columns"),
        (PlanOptions, {"slices": 256}, ScheduleError, "slices=256: give reads per input vector"),
    ],
)
def test_wrong_options_are_refused(kind: type, options: dict, error: type[XbcompileError], text: str) -> None:
    with pytest.raises(error) as caught:
        kind(**options)
    assert text in str(caught.value)


def test_an_option_that_does_not_exist_is_a_fault_of_the_program_that_gives_it():
    for asked in (xbcompile.compile, xbcompile.plan):
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            asked(dense_model(3, 2), colour="red")


@pytest.mark.parametrize("changes", [{}, {"arrays": 3, "cuts": "balanced", "rewrite": "changed"}])
def test_a_program_says_how_to_make_it_again(tmp_path, changes) -> None:
    """Options of the file, and the same model, target and calibration inputs: the same bytes."""
    model, data = dense_model(20, 9, 4), {"x": images(60, 20)}
    given = {"passes": "quantize{method=data-aware},analogue,recalibrate{samples=20}", "arrays": 2, "seed": 3} | changes
    program = xbcompile.compile(model, "m2tj4", calibration=data, **given)
    program.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded.options == CompileOptions(**given)
    assert (loaded.cuts, loaded.packing) == (program.cuts, program.packing)
    again = xbcompile.compile(model, loaded.target, calibration=data, options=loaded.options)
    again.save(tmp_path / "again.xbar")
    assert (tmp_path / "again.xbar").read_bytes() == (tmp_path / "p.xbar").read_bytes()
    other = xbcompile.compile(model, loaded.target, calibration=data, options=loaded.options, seed=4)
    assert other.options == replace(loaded.options, seed=4)
    assert not np.array_equal(other.schedule.column_permutation, program.schedule.column_permutation)
