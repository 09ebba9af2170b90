"""What README and docs tell people to type: Python runs, every command is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer

from tests.support.model_kit import MODELS
from tests.support.other_process import run_modules
from xbcompile.cli.more_commands import app
from xbcompile.targets import load_target

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every `$ xbcompile ...` of all pages; a backslash at the end of a line goes on in the next one."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    return re.findall(r"^\$ (xbcompile .*)$", re.sub(r" \\\n\s*", " ", text), re.MULTILINE)


@pytest.mark.parametrize("block", blocks(README, "python"), ids=["onnxruntime's interface", "own interface"])
def test_python_runs(
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mnist: Callable[[str, int], tuple[np.ndarray, np.ndarray]],
) -> None:
    """On a model and images as a reader would have them; `image` is one, `images` are several."""
    images = mnist("test", 20)[0]
    model = onnx.load(MODELS / "mnist_bnn.onnx")
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": model, "image": images[:1], "images": images}
    exec(compile(block, "README.md", "exec"), names)
    if "outputs" in names:
        assert names["outputs"]["logits"].shape == (20, 10)


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_that_is_taken(command: str) -> None:
    """Names of commands and options, and types of values; it is not run."""
    name, *arguments = shlex.split(command)[1:]
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    if not name.startswith("-"):
        known[name].make_context(name, arguments)


def test_explain_prints_what_the_page_shows(tmp_path: Path) -> None:
    shown = re.search(r"^\$ (xbcompile explain models/mnist_lstm\.onnx)\n(.*?)^\n", README, re.MULTILINE | re.DOTALL)
    assert shown
    assert run_modules(tmp_path, ROOT, [["xbcompile.cli", *shlex.split(shown[1])[1:]]]) == [shown[2]]


def test_the_chip_of_ones_own_is_a_target(tmp_path: Path) -> None:
    (block,) = blocks(README, "toml")
    (tmp_path / "my_chip.toml").write_text(block, encoding="utf-8")
    assert load_target(tmp_path / "my_chip.toml") == load_target(ROOT / "docs" / "my_chip.toml")
