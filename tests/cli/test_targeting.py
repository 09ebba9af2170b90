"""--set changes one number of a target, checked like the description's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support.small_programs import dense_model
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
    ("setting", "value"),
    [
        ("writes_at_a_time=1", 1),
        ("writes_while_reading=0", False),
        ("writes_while_reading=false", False),
        ("shares_columns=0", False),
        ("shares_rows=0", False),
        ("shares_rows=true", True),
        ("rows=8", 8),
        ("rows=1e1", 10),
    ],
)
def test_what_the_electronics_allow_and_whole_numbers(setting, value):
    name = setting.partition("=")[0]
    found = getattr(changed_target("m2tj4", [setting]).array_spec, name)
    assert (found, type(found)) == (value, type(value))


def test_a_description_with_control_numbers_is_listed(done, tmp_path):
    lines = [
        'extends = "m2tj4"\nname = "gated"\n[quantities]',
        'shares_rows = { value = 0, unit = "1", source = "a test" }',
        'writes_while_reading = { value = false, unit = "1", source = "a test" }',
        'writes_at_a_time = { value = 2, unit = "1", source = "a test" }',
    ]
    (tmp_path / "gated.toml").write_text("\n".join(lines))
    shown = " ".join(done("targets", tmp_path / "gated.toml").out.split())
    assert "shares_rows" in shown
    assert "writes_at_a_time" in shown
    spec = changed_target(str(tmp_path / "gated.toml"), ["rows=8"]).array_spec
    assert (spec.shares_rows, spec.writes_while_reading, spec.writes_at_a_time) == (False, False, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stats=2", "has no quantity 'stats' (did you mean 'states'?); known: rows"),
        ("states", "write --set NAME=VALUE with a number"),
        ("states=many", "write --set NAME=VALUE with a number"),
        ("shares_rows=2", "shares_rows = 2 is not true or false"),
        ("shares_rows=0.5", "shares_rows = 0.5 is not true or false"),
        ("writes_at_a_time=0.5", "writes_at_a_time = 0.5 is not a whole number"),
        ("writes_at_a_time=-1", "writes_at_a_time = -1 is out of range"),
        ("states=true", "states = True is not a whole number"),
        ("states=inf", "states = inf is not a whole number"),
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


def test_names_are_printed_as_they_are(done, folder):
    """Of a target, a device, a layer, a model: none of what a terminal's markup would take for tags, or for a picture."""
    name = "[/x]:warning:[bold]"
    (folder / "own.toml").write_text(f'extends = "m2tj4"\nname = "{name}"\nsummary = "[/s]"\n', encoding="utf-8")
    model = dense_model(6, 4, 3)
    for number, node in enumerate(model.graph.node):
        node.name = f"[/{node.op_type}]{number}"
    (folder / "m[").mkdir()
    onnx.save(model, "m[/m].onnx")
    np.savez("d.npz", x=np.random.default_rng(0).random((20, 6), dtype=np.float32), labels=np.zeros(20, np.int64))
    for command in (
        ("targets", "own.toml"),
        ("plan", "m[/m].onnx", "--target", "own.toml"),
        ("compile", "m[/m].onnx", "-o", "p.xbar", "--target", "own.toml", "--calibration", "d.npz", "--effort", "0"),
        ("inspect", "p.xbar"),
        ("run", "p.xbar", "--data", "d.npz"),
        ("commission", "p.xbar", "-o", "p.fit"),
        ("diagnose", "p.xbar", "--data", "d.npz"),
    ):
        out = done(*command).out
        assert name in out, command
        assert ("[/Gemm]" in out) == (command[0] not in ("targets", "commission")), command
    assert "[/s]" in done("targets", "own.toml").out
