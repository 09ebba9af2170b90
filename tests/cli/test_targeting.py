"""--set changes one number of a target, checked like the description's own."""

from __future__ import annotations

import pytest

from xbcompile import load_program
from xbcompile.cli.targeting import changed_target
from xbcompile.errors import TargetError
from xbcompile.targets import load_target


def test_numbers_change_and_say_where_they_come_from(done, models):
    done("compile", models / "xor.onnx", "-o", "x.xbar", "--target", "m2tj4", "--set", "states=2", "--set", "rows=8")
    target = load_program("x.xbar").target
    assert (target.parameters.states, target.parameters.rows, target.parameters.columns) == (2, 8, 4)
    assert target.quantities["states"]["source"] == "command line"
    assert target.quantities["columns"] == load_target("m2tj4").quantities["columns"]


def test_nothing_set():
    assert changed_target("m2tj4", None) == load_target("m2tj4")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stats=2", "has no quantity 'stats' (did you mean 'states'?); known: rows"),
        ("states", "write --set NAME=VALUE with a number"),
        ("states=many", "write --set NAME=VALUE with a number"),
        ("states=2.5", "states = 2.5 is not a whole number"),
        ("states=1", "states = 1 is out of range; allowed: 2 to 256"),
        ("sigma_nl_ohm=nan", "sigma_nl_ohm = nan is out of range"),
        ("r_highest_ohm=1", "is not below r_highest_ohm"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(TargetError) as caught:
        changed_target("m2tj4", [setting])
    assert message in str(caught.value)
