"""How far a command is: a bar on a terminal, lines elsewhere, nothing for machines; and errors for these."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress

import pytest

from tests.support.own_terminal import on_terminal
from xbcompile.cli import progress
from xbcompile.cli.progress import _duration, _State

QUICK = [
    sys.executable,
    "-c",
    "import xbcompile.cli.progress as p; p.LINE_EVERY = 0.02\nfrom xbcompile.cli import main; main()",
]
LINE = re.compile(r"xbcompile: [^:]+(: .+)?: (\d+ %, )?(\d+ (s|min \d+ s) so far|about \d+ (s|min \d+ s) left)")


@pytest.fixture
def letters(folder, done) -> str:
    done("compile", "letters_mlp", "-o", "letters.xbar", "--calibration", "letters:train")
    return "letters.xbar"


COMMANDS = {
    "compile": "compile letters_mlp -o p.xbar --calibration letters:train",
    "run": "run letters.xbar --data letters:test --repeat 2",
    "diagnose": "diagnose letters.xbar --data letters:train",
    "commission": "commission letters.xbar -o chip.fit",
    "plan": "plan letters_mlp",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_lines_where_there_is_no_terminal(letters, done, name, monkeypatch):
    """Each line says what is done and a time; the result is on the other stream, and machines see nothing else."""
    monkeypatch.setattr(progress, "LINE_EVERY", 0.001)
    command = COMMANDS[name].split()
    result = done(*command)
    lines = result.err.splitlines()
    assert lines
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert "so far" not in result.out
    assert done(*command, "--json").err == ""


def test_a_bar_on_a_terminal(folder, letters):
    """With what is done, and the time left; when it has ended, nothing of it is on the screen."""
    shown, status = on_terminal(folder, [*QUICK, *COMMANDS["run"].split()])
    assert status == 0
    assert re.search(r"\d+ of 1,280 samples", shown)
    assert re.search(r"about \d+ s left", shown)
    assert "━" in shown
    last = shown.rpartition("about")[2]
    assert "\x1b[2K" in last  # the line is wiped before the result
    assert not re.search(r"^xbcompile: ", shown, re.M)
    shown, status = on_terminal(folder, [*QUICK, *COMMANDS["run"].split(), "--json"])
    assert status == 0
    assert json.loads(shown)["samples"] == 640


def test_lines_on_a_terminal_that_can_do_nothing(folder, letters):
    shown, status = on_terminal(folder, [*QUICK, *COMMANDS["run"].split()], TERM="dumb")
    assert status == 0
    assert "\x1b" not in shown
    assert any(LINE.fullmatch(line) for line in shown.splitlines())


def test_errors_end_the_bar(folder, letters):
    shown, status = on_terminal(folder, [*QUICK, "compile", "nothing.onnx", "-o", "p.xbar"])
    assert status == 1
    assert "xbcompile: error: nothing.onnx: no such file" in shown


def test_time_left(monkeypatch):
    """After 30 s for a quarter, three quarters are left, which take 90 s; at the start nobody knows."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = _State("working")
    now[0] += 30
    assert state.times() == "30 s so far"
    state.update("still", 0.25)
    assert state.times() == "about 1 min 30 s left"
    state.update("still", 0.0)
    assert state.times() == "30 s so far"
    state.update("done", 1.0)
    assert state.times() == "about 0 s left"
    assert [_duration(each) for each in (0.4, 59.6, 3600, 7322)] == ["0 s", "1 min 0 s", "1 h 0 min", "2 h 2 min"]


def test_nothing_is_left_running_when_an_error_ends_it(capfd, monkeypatch):
    import threading

    monkeypatch.setattr(progress, "LINE_EVERY", 0.01)
    before = threading.active_count()
    with suppress(ValueError), progress.progress("working") as tell:
        tell("half", 0.5)
        time.sleep(0.1)
        raise ValueError
    assert threading.active_count() == before
    assert "xbcompile: half: 50 %, about 0 s left" in capfd.readouterr().err


def test_what_compile_and_commission_tell():
    """Parts of the whole that rise from 0, and stay below 1 until all is done."""
    import xbcompile

    told: list[tuple[str, float]] = []
    program = xbcompile.compile("letters_mlp", calibration="letters:train", progress=lambda *each: told.append(each))
    assert [name for name, _ in told] == [
        *("reading the model", "fold-batchnorm", "quantize", "thermometer"),
        *("mapping", "scheduling", "verifying"),
    ]
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert parts[0] == 0
    assert parts[-1] < 1
    told.clear()
    xbcompile.commission(program, progress=lambda *each: told.append(each))
    assert told == [("layer fc1", 0.0), ("layer fc2", 0.5)]


FAILURES = [
    (["inspect", "no.xbar"], 1, "ProgramError", "program file 'no.xbar' does not exist"),
    (["compile", "no.onnx", "-o", "p.xbar"], 1, "ModelError", "no.onnx: no such file"),
    (["compile", "xor", "-o", "p.xbar", "--target", "no"], 1, "TargetError", "unknown target 'no'"),
    (["plan", "xor", "--array", "3"], 1, "ScheduleError", "write --array ROWSxCOLUMNS"),
    (["explain", "xor", "--dim", "x"], 1, "ModelError", "--dim x"),
    (["run", "no.xbar", "--data", "x"], 1, "ProgramError", "does not exist"),
    (["commission", "no.xbar", "-o", "c.fit"], 1, "ProgramError", "does not exist"),
    (["diagnose", "no.xbar", "--data", "x"], 1, "ProgramError", "does not exist"),
    (["verify", "no.xbar"], 1, "ProgramError", "does not exist"),
    (["targets", "no"], 1, "TargetError", "unknown target 'no'"),
    (["characterize", "sot"], 1, "TargetError", "characterize works on model resistance_sum"),
    (["study", "m2tj4", "--states", "x"], 1, "TargetError", "--states 'x'"),
    (["reproduce", "no"], 1, "DataError", "no experiment is called no"),
    (["sensitivity", "xor", "no", "--data", "x"], 1, "TargetError", "no assumed number is called no"),
    (["export", "no.xbar"], 1, "ProgramError", "nothing to export"),
    (["where", "no.xbar"], 1, "ProgramError", "give either a weight"),
    (["report", "no.xbar", "-o", "p.html"], 1, "ProgramError", "does not exist"),
    (["compare", "no.xbar", "no.xbar"], 1, "ProgramError", "does not exist"),
    (["glossary", "xylophone"], 1, "ProgramError", "has no word 'xylophone'"),
    (["inspect", "--no"], 2, "UsageError", "No such option: --no"),
    (["inspect"], 2, "UsageError", "Missing argument"),
    (["inspect", "p.xbar", "--image", "x"], 2, "UsageError", "Invalid value for '--image': 'x'"),
    (["nothing"], 2, "UsageError", "No such command 'nothing'"),
    (["inspect", "a\x1b[31m\u202e.xbar"], 1, "ProgramError", "a\x1b[31m\u202e.xbar"),
]


@pytest.mark.parametrize(("command", "status", "kind", "words"), FAILURES)
def test_errors_are_objects_for_machines(cli, command, status, kind, words):
    """The same status and the same line on the error output as without `--json`, and the message as it is."""
    plain, result = cli(*command), cli(*command, "--json")
    assert (plain.status, plain.out) == (status, "")
    assert (result.status, result.err) == (status, plain.err)
    found = json.loads(result.out)["error"]
    assert found["kind"] == kind
    assert words in found["message"] or words.encode("unicode_escape").decode() in found["message"]
    assert set(found) == {"kind", "message"}


def test_errors_of_the_system_are_objects(folder, cli):
    os.mkdir("folder.xbar")
    result = cli("inspect", "folder.xbar", "--json")
    assert result.status == 1
    assert json.loads(result.out)["error"]["kind"].endswith("Error")
