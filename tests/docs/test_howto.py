"""Every how-to page is worked through in a folder of its own, and must show what it says.

A block whose first line is a comment with a path is a file. Lines with `$` are commands with what they print, `>>>` are Python,
all of a page in one session; `...` in what is shown stands for anything, and white space may differ.
"""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.model_kit import MODELS
from tests.support.other_process import install, run_modules

PAGES = sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.md"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
INSTALL = "python -m pip install --no-deps ."
DOCTEST = ["doctest", "-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE", "session.txt"]


@dataclass(frozen=True)
class Page:
    """What is in a page.

    Args:
        files: content by path.
        commands: what is called, and what it prints.
        python: the lines of all Python sessions.
    """

    files: dict[str, str]
    commands: tuple[tuple[str, str], ...]
    python: str

    @classmethod
    def parse(cls, text: str) -> Page:
        """The blocks of a page; each is a file, commands or Python, and there is no other kind."""
        files: dict[str, str] = {}
        commands: list[tuple[str, str]] = []
        python = ""
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            name = re.match(r"# (\S+\.\w+)\n", block)
            if name:
                files[name[1]] = block
            elif block.startswith("$ "):
                parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
                commands += zip(parts[::2], parts[1::2], strict=True)
            else:
                assert block.startswith(">>> "), f"no file, command or Python session:\n{block}"
                python += block
        return cls(files, tuple(commands), python)


def write_files(page: Page, folder: Path) -> None:
    for name, content in page.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def module_and_arguments(command: str) -> list[str]:
    """A command of a page as a call of a Python module."""
    words = shlex.split(command)
    if words[0] == "xbcompile":
        return ["xbcompile.cli", *words[1:]]
    assert words[:2] == ["python", "-m"], f"unknown command {command!r}"
    return words[2:]


def check_shown(command: str, shown: str, found: str) -> None:
    assert doctest.OutputChecker().check_output(shown, found, FLAGS), f"{command}\nshown:\n{shown}\nfound:\n{found}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path: Path, tmp_path: Path) -> None:
    page, folder, site = Page.parse(path.read_text(encoding="utf-8")), tmp_path / "work", tmp_path / "site"
    folder.mkdir()
    (folder / "models").symlink_to(MODELS)
    write_files(page, folder)
    (folder / "session.txt").write_text(page.python, encoding="utf-8")
    commands = [each for each in page.commands if each[0] != INSTALL]
    if len(commands) < len(page.commands):
        install(folder, site)
    found = run_modules(site, folder, [*(module_and_arguments(each) for each, _ in commands), DOCTEST])
    for (command, shown), printed in zip(commands, found[:-1], strict=True):
        check_shown(command, shown, printed)


def test_every_page_shows_files_and_outputs() -> None:
    pages = [Page.parse(path.read_text(encoding="utf-8")) for path in PAGES]
    assert len(pages) == 5
    assert all(page.files and page.python + "".join(shown for _, shown in page.commands) for page in pages)
    assert sum(INSTALL in dict(page.commands) for page in pages) == 3


def test_a_wrong_output_is_seen(tmp_path: Path) -> None:
    check_shown("xbcompile --version", "0...", "0.1.0\n")
    with pytest.raises(AssertionError, match=r"--version\s+shown:\s+nothing\s+found:\s+0"):
        check_shown("xbcompile --version", "nothing\n", "0.1.0\n")
    (tmp_path / "session.txt").write_text(">>> 1 + 1\n3\n")
    with pytest.raises(AssertionError, match=r"doctest .* ended with status 1:\s[^$]*Expected:\s+3"):
        run_modules(tmp_path, tmp_path, [DOCTEST])
