"""What commands print, wherever it goes: names of others, poor encodings, streams that are closed, full or gone."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.support.model_kit import model_of
from tests.support.own_terminal import on_terminal, start_on_terminal
from xbcompile import load_program
from xbcompile.cli import terminal
from xbcompile.cli.characters import plain, visible

MAIN = [sys.executable, "-c", "from xbcompile.cli import main; main()"]
NAMES = st.text(
    st.sampled_from("a[]/\\:bold $\x00\x07\x1b\n\r\t\x7f\x9b\u202e\u2066\u200b\u2028\ud800µ±中"), max_size=12
)
# Names as they might stand in a file of somebody else; the second closes no tag, the third moves the cursor and rings.
HOSTILE = ["enc[attn]", "a[/]", "b\x1b[2J\x07\r", "[bold]c\u202e", "d\\", ":train:"]


@given(text=st.text())
def test_visible(text):
    """Nothing that a terminal obeys is left, and what it shows is as it was."""
    shown = visible(text)
    assert shown.isprintable()
    assert shown == "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)  # as Python spells them
    assert visible({text: [text, 1, None, (text,)]}) == {shown: [shown, 1, None, (shown,)]}


@given(text=st.text(), encoding=st.sampled_from(["ascii", "latin-1", "koi8-r", "utf-8"]))
def test_plain(text, encoding):
    shown = plain(visible(text), encoding)
    shown.encode(encoding)
    if visible(text) == text and text.encode(encoding, "ignore").decode(encoding) == text:
        assert shown == text


def test_plain_characters():
    assert plain("1 µJ ± 2 Ω → σ²", "ascii") == "1 uJ +- 2 Ohm -> sigma^2"
    assert plain("1 µJ ± 2 Ω → σ²", "latin-1") == "1 µJ ± 2 Ohm -> sigma²"
    assert plain("中", "latin-1") == "\\u4e2d"


@given(name=NAMES)
def test_a_name_is_printed_as_it_is(name):
    """In every place that `report` puts names: lines, bold parts of them, cells, titles and captions of tables."""

    def printer(console: Console, value: str) -> None:
        console.print(f"<{value}>")
        console.print(Text.assemble("<", (value, "bold"), ">"))
        table = Table("<", title=f"<{value}>", caption=f"<{value}>", box=None, pad_edge=False)
        table.add_row(f"<{value}>")
        console.print(table)

    out, before = io.StringIO(), sys.stdout
    sys.stdout = out
    try:
        terminal.show(printer, name)
    finally:
        sys.stdout = before
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert [line for line in lines if line != "<"] == [f"<{visible(name)}>"] * 5


def hostile_model() -> onnx.ModelProto:
    """A chain of matrix layers, each called by one of the names, with an activation between."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], {}, "x"
    for number, name in enumerate(HOSTILE):
        constants[f"w{number}"] = rng.normal(size=(4, 4)).astype(np.float32)
        last = number == len(HOSTILE) - 1
        nodes.append(helper.make_node("MatMul", [value, f"w{number}"], ["y" if last else f"m{number}"], name=name))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"]))
        value = f"r{number}"
    return model_of(nodes, {"x": ["n", 4]}, ["y"], constants)


@pytest.fixture
def hostile(folder, done) -> str:
    """Their program, in a file with such a name."""
    onnx.save(hostile_model(), "model[bold]\x1b[31m.onnx")
    np.savez("data[x].npz", x=np.ones((3, 4), np.float32))
    done("compile", "model[bold]\x1b[31m.onnx", "-o", "p[b]\x9b.xbar", "--target", "ideal")
    return "p[b]\x9b.xbar"


@pytest.mark.parametrize(
    "command",
    [
        ["compile", "MODEL", "-o", "again[b].xbar", "--target", "ideal", "--print-after", "all"],
        ["inspect", "PROGRAM", "--schedule", "--image", "0"],
        ["explain", "MODEL"],
        ["plan", "MODEL", "--require", "images<=1"],
        ["run", "PROGRAM", "--data", "DATA", "-o", "out[b].npz"],
        ["diagnose", "PROGRAM", "--data", "DATA"],
        ["verify", "PROGRAM", "--model", "MODEL"],
    ],
    ids=lambda command: command[0],
)
def test_names_of_others(hostile, cli, command):
    known = {"PROGRAM": hostile, "MODEL": "model[bold]\x1b[31m.onnx", "DATA": "data[x].npz"}
    result = cli(*(known.get(each, each) for each in command))
    assert result.status in (0, 1 if command[0] == "plan" else 0), result.err
    for text in (result.out, result.err):
        assert all(line.isprintable() for line in text.splitlines()), text
    names = visible(HOSTILE) if command[0] not in ("verify",) else []
    for name in names:
        assert name in result.out
    # A machine reads what is in the file.
    told = cli(*(known.get(each, each) for each in command if each not in ("--print-after", "all")), "--json")
    if command[0] in ("inspect", "explain"):
        assert json.loads(told.out)
        assert all(json.dumps(name)[1:-1] in told.out for name in HOSTILE)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "no\x1b[31m.xbar"],
        ["run", "no\x1b[31m.xbar", "--data", "x"],
        ["compile", "no[b]\x1b.onnx", "-o", "p.xbar"],
        ["targets", "no\x1b[31m\u202e"],
        ["no\x1b[31m"],
        ["inspect", "--no\x1b[31m"],
        ["inspect", "p.xbar", "--image", "\x1b[31m\udcff"],
        ["reproduce", "\x1b[31m"],
        ["study", "m2tj4", "--states", "\x1b"],
    ],
)
def test_names_in_messages(cli, command):
    status, out, err = cli(*command)
    assert status in (1, 2)
    assert out == ""
    assert all(line.isprintable() for line in err.splitlines())
    assert "\\x1b" in err


def call(folder, *command, environment=(), **options):
    return subprocess.run(
        [*MAIN, *map(str, command)],
        cwd=folder,
        env=os.environ | dict(environment),
        capture_output="stdout" not in options,
        check=False,
        **options,
    )


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C"},
    "POSIX without UTF-8": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_encodings(folder, program, environment):
    np.savez(folder / "d.npz", x=np.ones((3, 6), np.float32))
    for command in (
        ["inspect", program],
        *([["run", program, "--data", "d.npz"], ["run", "--help"]] if environment == ENCODINGS["ascii"] else []),
        ["inspect", "中\udcff.xbar"],
    ):
        result = call(folder, *command, environment=environment)
        assert result.returncode == (1 if "中" in str(command[-1]) else 0), result.stderr
        assert b"Traceback" not in result.stderr
        shown = result.stdout + result.stderr
        assert shown
        if "ascii" in str(environment) or "PYTHONUTF8" in environment:
            assert shown.isascii()
            assert b"\\u" not in result.stdout


def shell(folder, text):
    command = text.replace("xbcompile", f"{sys.executable} -c 'from xbcompile.cli import main; main()'")
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=False)


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams(folder, model, closed):
    """What libraries print on a number that is free must not get into the file that is written under it."""
    result = shell(folder, f"xbcompile compile model.onnx -o p.xbar --target mram64 --json {closed}")
    assert result.returncode == 0
    assert load_program(folder / "p.xbar").network.layers
    if ">&-" not in closed.replace("2>&-", ""):
        assert json.loads(result.stdout)["totals"]["layers"] == 2  # and no warning among it


def test_error_output_without_a_reader(folder):
    """The status says it all."""
    for command, status in (("inspect nothing.xbar", 1), ("nothing", 2), ("targets", 0)):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.Popen([*MAIN, *command.split()], cwd=folder, stdout=subprocess.DEVNULL, stderr=writing)
        os.close(writing)
        assert process.wait(30) == status


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full exists on Linux only")
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("inspect nothing.xbar 2>/dev/full", 1),
        ("targets --json 2>/dev/full >/dev/full", 1),
        ("--help >/dev/full", 1),
        ("compile model.onnx -o p.xbar --target mram64 --json 2>/dev/full", 0),
        ("--help | head -c 1", 0),
        ("targets --json | head -c 1", 0),
    ],
)
def test_full_and_broken_streams(folder, model, command, status):
    result = shell(folder, f"xbcompile {command}")
    assert result.returncode == status
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr
    assert sorted(set(os.listdir(folder)) - {"p.xbar"}) == ["model.onnx"]


def test_output_on_standard_output(folder, program):
    """The program alone goes into the pipe, and into the file behind it; what is said of it goes to the error output."""
    for place in ("| cat > p.xbar", "> p.xbar"):
        result = shell(folder, f"xbcompile compile model.onnx -o /dev/stdout --target ideal {place}")
        assert result.returncode == 0
        assert b"verified and written: /dev/stdout" in result.stderr
        assert (folder / "p.xbar").read_bytes() == (folder / program).read_bytes()
        (folder / "p.xbar").unlink()


STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.mark.parametrize(("columns", "name"), [(0, "xterm"), (1, "xterm"), (20, "xterm"), (200, "xterm"), (80, "dumb")])
def test_on_a_terminal(folder, hostile, columns, name):
    """A spinner, tables as wide as there is room, styles; and nothing that a name has said."""
    command = (
        ["compile", "model[bold]\x1b[31m.onnx", "-o", "q.xbar", "--target", "ideal"]
        if columns == 200
        else ["inspect", hostile]
    )
    shown, status = on_terminal(folder, [*MAIN, *command], 24, columns, TERM=name)
    assert status == 0
    assert "Traceback" not in shown
    assert "\x1b[31m" not in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    if columns == 200:
        for each in visible(HOSTILE):
            assert each in STYLES.sub("", shown)
        assert "\x1b[1m" in shown


WAITING = [
    sys.executable,
    "-c",
    "import os, time, pathlib\n"
    "def slow(*arguments):\n    pathlib.Path('begun').touch(); time.sleep(60)\n"
    "import xbcompile.files; xbcompile.files.os.replace = slow\n"
    "from xbcompile.cli import main; main()",
    *["compile", "model.onnx", "-o", "out.xbar", "--target", "ideal"],
]


def until(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interruption_from_the_keyboard(folder, model):
    def act(master):
        until(folder / "begun")
        os.write(master, b"\x03")

    shown, status = on_terminal(folder, WAITING, 24, 80, act)
    assert status == 130
    assert shown.endswith("xbcompile: interrupted\r\n")
    assert "\x1b[?25h" in shown  # the cursor is shown again
    assert sorted(os.listdir(folder)) == ["begun", "model.onnx"]


def test_a_terminal_that_goes_away(folder, model):
    master, process = start_on_terminal(folder, WAITING)
    until(folder / "begun")
    os.close(master)
    assert process.wait(30) == 128 + signal.SIGHUP
    assert sorted(os.listdir(folder)) == ["begun", "model.onnx"]
