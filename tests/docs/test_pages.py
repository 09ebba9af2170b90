"""README and every page of docs are worked through as a reader would, and must show what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.support.pages import (
    INSTALL,
    PAGES,
    ROOT,
    blocks,
    counts,
    installs,
    run_page,
    run_pages,
    shortened,
    with_outputs,
)
from xbcompile.cli.more_commands import app

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
WORKED_THROUGH = [
    name for name, text in TEXTS.items() if any(each.kind in ("commands", "python") for each in blocks(text))
]
ALONE = [name for name in WORKED_THROUGH if installs(TEXTS[name])]
TOGETHER = [
    name for name in WORKED_THROUGH if name not in ALONE
]  # in one process: most of a short command is loading libraries
GROUPS = [*([name] for name in ALONE), TOGETHER[::2], TOGETHER[1::2]]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_pages(names: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    texts = [TEXTS[name] for name in names]
    if "mnist:" in "".join(
        block.text for text in texts for block in blocks(text) if block.kind in ("commands", "python")
    ):
        request.getfixturevalue("mnist")  # skips or fails where it is missing
    ran = run_pages(texts, tmp_path)
    faults = [
        f"{name}: {fault}" for name, page in zip(names, ran, strict=True) for each in page if (fault := each.fault())
    ]
    assert not faults, "\n".join(faults)


def commands() -> list[str]:
    """Every command of all pages, those that are not run too."""
    return [command for text in TEXTS.values() for block in blocks(text) for command, _ in block.commands()]


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("xbcompile ")])
def test_every_command_is_one_that_is_taken(command: str) -> None:
    """Names of commands and options, and types of values; it is not run."""
    name, *arguments = shlex.split(command, comments=True)[1:]
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    if not name.startswith("-"):
        known[name].make_context(name, arguments)


def test_what_is_not_run_says_why() -> None:
    marked = [block for text in TEXTS.values() for block in blocks(text) if block.kind == "marked"]
    assert all(len(block.why.split()) > 2 for block in marked)
    *_, (_, commands, examples, left_out) = counts()
    assert left_out == len(marked)
    assert commands + examples > 10 * left_out


def test_how_to_pages_make_packages() -> None:
    pages = [blocks(text) for name, text in TEXTS.items() if name.startswith("docs/howto/add_a")]
    assert len(pages) == 4
    assert all(any(block.kind == "file" for block in page) for page in pages)
    assert sum(INSTALL in [command for block in page for command, _ in block.commands()] for page in pages) == 3


def test_readme_is_short_and_its_commands_can_be_typed() -> None:
    readme = TEXTS["README.md"]
    assert len(readme.splitlines()) <= 150
    assert readme.index("$ make demo") < readme.index("$ source .venv/bin/activate") < readme.index("$ xbcompile")
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_every_page_is_reached_from_the_first() -> None:
    index = TEXTS["docs/index.md"]
    named = {
        f"docs/{line}.md"
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in block.split("\n")
    }
    pages = {name for name in TEXTS if name.startswith("docs/")} - {"docs/index.md"}
    below = {name for name in pages if name.startswith("docs/api/")} - {"docs/api/index.md"}
    assert pages - below <= named


# The mechanism itself.
def test_kinds_of_blocks() -> None:
    page = "<!-- not run: a reason of one's own -->\n```console\n$ ls\n```\n"
    page += "<!-- status: 2 -->\n```\n$ xbcompile a \\\n    b\nno\n```\n"
    page += "```toml\n# a/b.toml\nx = 1\n```\n```text\nwords\n```\n```{image} a.png\nx\n```\n```python\n>>> 1\n1\n```\n"
    found = blocks(page)
    assert [each.kind for each in found] == ["marked", "commands", "file", "text", "python"]
    assert (found[0].why, found[1].status, found[2].name) == ("a reason of one's own", 2, "a/b.toml")
    assert found[1].commands() == [("xbcompile a b", "no\n")]
    assert all(page[each.start :].startswith(each.text) for each in found)


@pytest.mark.parametrize(
    "text", ["```\nls\n```\n", "```python\nx = 1\n```\n", "```text\nwords\n$ xbcompile targets\n```\n"]
)
def test_a_block_that_is_neither_run_nor_marked_is_an_error(text: str) -> None:
    with pytest.raises(AssertionError, match="not marked"):
        blocks(text)


def test_a_wrong_output_a_wrong_status_and_wrong_python_are_seen(tmp_path: Path) -> None:
    page = "```console\n$ xbcompile --version\nnothing\n$ xbcompile --version\n0...\n```\n"
    page += (
        "<!-- status: 1 -->\n```console\n$ xbcompile --version\n0...\n```\n```python\n>>> 1 + 1\n3\n>>> x = 2\n```\n"
    )
    page += "```python\n>>> x\n2\n```\n"
    ran = run_page(page, tmp_path)
    faults = [each.fault() for each in ran]
    assert re.match(r"xbcompile --version\nshown:\nnothing\n\nfound:\n", faults[0])
    assert "ended with status 0" in faults[2]
    assert re.search(r"Expected:\s+3\s+Got:\s+2", faults[3])
    assert faults[1] == faults[4] == ""
    mended = with_outputs(page, ran)
    assert "nothing" not in mended
    assert mended.replace(ran[0].printed, "", 1) == page.replace("nothing\n", "", 1)


def test_outputs_are_cut_as_they_were() -> None:
    printed = "a\nb\nc\nd; simulated in 2.1 s\nwritten: x (12,345 bytes, sha256 ab12)\n"
    assert shortened("x\n", printed) == "a\nb\nc\nd; simulated in ... s\nwritten: x (... bytes...)\n"
    assert shortened("x\n...\n", printed) == "a\n...\n"
    assert shortened("...\nx\n", printed) == "...\nwritten: x (... bytes...)\n"
    assert shortened("x\n...\nx\n\n", "a\nb\nc\n") == "a\n...\nc\n\n"
