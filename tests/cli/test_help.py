"""What `--help` says, and what a shell completes: groups, examples that run, and the protocols of three shells."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from xbcompile.cli.help import _COMMANDS, EXAMPLES
from xbcompile.cli.more_commands import app
from xbcompile.frontend.examples import example_names
from xbcompile.targets import target_names

APPLICATION: Any = get_command(app)
LONG = {"demo", "reproduce", "study", "sensitivity", "report", "diagnose", "export"}  # run elsewhere, or for minutes


def test_every_command_has_two_examples_and_a_group():
    grouped = [name for members in _COMMANDS.values() for name in members]
    assert sorted(grouped) == sorted(EXAMPLES) == sorted(APPLICATION.commands)
    assert all(len(examples) == 2 for examples in EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_has_groups_and_examples(done, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = done(name, "--help").out
    assert text.endswith("\nExamples:\n" + "".join(f"  {each}\n" for each in EXAMPLES[name]))
    assert max(map(len, text.partition("Examples:")[0].splitlines())) <= 80
    options = [each.opts[-1] for each in APPLICATION.commands[name].params if each.param_type_name == "option"]
    for option in options:
        assert len(re.findall(rf"^  (?:-\w, )?{option}(?![-\w])", text.partition("Examples:")[0], re.M)) == 1, option
    assert "Output options:" in text


@pytest.mark.parametrize("example", [each for examples in EXAMPLES.values() for each in examples])
def test_examples_can_be_read(example):
    """Names of commands and options, and values of the right kinds."""
    program, name, *arguments = shlex.split(example)
    assert program == "xbcompile"
    APPLICATION.commands[name].make_context(name, arguments)


def test_examples_run_one_after_another(done):
    """In an empty folder; those that take long are left out."""
    for name, examples in EXAMPLES.items():
        for example in examples if name not in LONG else ():
            done(*shlex.split(example)[1:])


def completed(shell: str, line: str, folder: Path) -> list[str]:
    """What a shell is told where the user presses Tab at the end of a line."""
    words = line.split(" ")
    environment = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    result = subprocess.run(
        [sys.executable, "-c", "from xbcompile.cli import main; main()"],
        cwd=folder,
        env=os.environ | {"_XBCOMPILE_COMPLETE": f"complete_{shell}"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    return re.findall(r'"([^"]*)"', result.stdout) if shell == "zsh" else result.stdout.split()


@pytest.fixture
def files(folder) -> Path:
    for name in ("a.xbar", "b.xbar", "a.onnx", "t.toml", "c.fit", ".hidden.xbar", "other"):
        (folder / name).touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.xbar").touch()
    return folder


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_targets(files, shell):
    names = [name for name in target_names() if name.startswith("mr")]
    assert completed(shell, "xbcompile targets mr", files) == names


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inspect ", ["a.xbar", "b.xbar", "sub/"]),
        ("run sub/", ["sub/deep.xbar"]),
        ("explain mnist_lenet5_n", []),
        ("explain a", ["a.onnx"]),
        ("compile digits", ["digits_mlp"]),
        ("compile a.onnx --target sot", ["sot", "sot-single"]),
        ("compile a.onnx --target t", ["t.toml"]),
        ("compile a.onnx --passes pca,quiet", ["pca,quiet-columns"]),
        ("run a.xbar --device mram64-0v8-", ["mram64-0v8-emulator"]),
        ("run a.xbar --fit ", ["c.fit", "sub/"]),
        ("glossary recy", ["recycled"]),
        ("dia", ["diagnose"]),
        ("inspect nowhere/", []),
    ],
)
def test_what_is_completed(files, monkeypatch, line, expected):
    """Through the application's own completion, as a shell asks for it."""
    from typer._completion_classes import FishComplete

    *words, incomplete = line.split(" ")
    found = FishComplete(APPLICATION, {}, "xbcompile", "_XBCOMPILE_COMPLETE").get_completions(words, incomplete)
    assert [each.value for each in found] == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(folder, shell):
    result = subprocess.run(
        [sys.executable, "-m", "xbcompile", "--show-completion", shell],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "COMPLETE" in result.stdout


def test_example_networks_come_with_the_package(models, cli):
    assert example_names() == sorted(path.stem for path in models.glob("*.onnx"))
    error = cli("explain", "nothing").err
    assert "no such file; check the path of the model, or name an example network: digits_mlp, " in error


def test_a_file_of_the_name_of_an_example_is_the_file(folder, refused):
    (folder / "xor").write_bytes(b"no model")
    assert "xor: not an ONNX model" in refused("explain", "xor")


def test_demo(folder, done):
    """Each command that it shows runs as it stands, and gives what the demo left."""
    text = done("demo").out
    assert "accuracy on memristor20: " in text
    page = (folder / "xbcompile-demo" / "letters.html").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ xbcompile (.*)$", text, re.M)
    assert [each.split()[0] for each in commands] == ["compile", "verify", "run", "report"]
    assert f"xbcompile {commands[3]}" in page
    program = (folder / "xbcompile-demo" / "letters.xbar").read_bytes()
    done(*shlex.split(commands[0]))
    assert (folder / "xbcompile-demo" / "letters.xbar").read_bytes() == program


def test_demo_where_nothing_can_be_written(folder, refused):
    (folder / "file").touch()
    assert "output 'file' is a file" in refused("demo", "-o", "file")


def test_what_next_runs(folder, done):
    name = "a b.xbar"
    lines = done("compile", "letters_mlp", "-o", name, "--calibration", "letters:train").out.splitlines()
    commands = [shlex.split(line) for line in lines[lines.index("what next:") + 1 :]]
    assert [each[:3] for each in commands] == [["xbcompile", each, name] for each in ("run", "report", "inspect")]
    for command in (commands[0], commands[2]):
        done(*command[1:])
    assert "what next" not in done("compile", "xor", "-o", "p.xbar", "--json").out
