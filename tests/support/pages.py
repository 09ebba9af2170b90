"""What README and the pages of docs tell people to type: found, run as a reader would, and compared with what is shown.

A block whose first line is a comment with a path is a file. Lines with `$` are commands with what they print, `>>>` are Python, all of
a page in one session and in the page's order; `...` in what is shown stands for anything, and white space may differ. A block of `text`
is looked at alone. Before a block there may stand, as a comment that readers do not see, `<!-- not run: REASON -->`, or
`<!-- status: 1 -->` where a command is shown that must fail; standard error is shown then, too.

`python -m tests.support.pages` counts what runs; `--write PAGE ...` puts what commands print today into pages.
"""

from __future__ import annotations

import argparse
import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.other_process import install

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "models" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)  # fmt: skip
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
INSTALL = "python -m pip install --no-deps ."
COLUMNS = 100  # of the terminal whose outputs pages show
FOLDERS = ("models", "benchmarks", "docs")  # what commands of pages find beside them
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|status): (?P<why>.+?) -->\n)?```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^\$ (?P<line>(?:.*\\\n)*.*)\n(?P<shown>(?:(?!\$ ).*\n)*)", re.MULTILINE)
# What no two calls have in common, and what stands for it in a page.
CHANGING = (
    (re.compile(r"(simulated|measured|planned) in [\d.]+ (?:s|min)"), r"\1 in ... s"),
    (re.compile(r"\([\d,]+ bytes(, sha256 \w+)?\)"), "(... bytes...)"),
)


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Args:
        kind: "file", "commands", "python", "text" or "marked".
        text: what is between its fences.
        why: the reason why a marked one is not run.
        status: with which its commands end.
        start: where its text begins in the page.
    """

    kind: str
    text: str
    why: str = ""
    status: int = 0
    start: int = 0

    @property
    def name(self) -> str:
        """The path of a file."""
        return self.text.split("\n", 1)[0].removeprefix("# ")

    def commands(self) -> list[tuple[str, str]]:
        """Each command, lines that a backslash joins in one, and what is shown below it."""
        return [(re.sub(r"\\\n\s*", "", match["line"]), match["shown"]) for match in COMMAND.finditer(self.text)]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order; what is none of the kinds is an error. Directives of the site are no blocks."""
    return [block_of(match) for match in BLOCK.finditer(page) if not match["language"].startswith("{")]


def block_of(match: re.Match[str]) -> Block:
    """One block of a page."""
    text, start = match["text"], match.start("text")
    if match["mark"] == "not run":
        return Block("marked", text, why=match["why"], start=start)
    status = int(match["why"]) if match["mark"] else 0
    for kind, looks in (("file", r"# \S+\.\w+\n"), ("commands", r"\$ "), ("python", ">>> ")):
        if re.match(looks, text):
            return Block(kind, text, status=status, start=start)
    assert match["language"] == "text" and not re.search(r"^(\$|>>>) ", text, re.MULTILINE), (
        f"no file, command, Python session or text, and not marked:\n{text}"
    )
    return Block("text", text, start=start)


def called(command: str) -> list[str]:
    """A command of a page as a Python module and its arguments."""
    words = shlex.split(command, comments=True)
    if words[0] == "xbcompile":
        return ["xbcompile", *words[1:]]
    assert words[:2] == ["python", "-m"], f"unknown command {command!r}"
    return words[2:]


# Runs in a process of its own: modules as `python -m` does, and Python sessions, one after another, as most of a short command is
# the time that libraries load.
_ONE_AFTER_ANOTHER = """
import contextlib, doctest, io, json, runpy, sys

sys.path.insert(0, "")
names, results = {"__name__": "__main__"}, []
asked = json.load(sys.stdin)
for item in asked["items"]:
    printed, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        if isinstance(item, str):
            test = doctest.DocTestParser().get_doctest(item, names, "page", None, 0)
            status = doctest.DocTestRunner(optionflags=asked["flags"]).run(test, clear_globs=False).failed
            names = test.globs
        else:
            sys.argv = list(item)
            try:
                runpy.run_module(item[0], run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                status = int(ended.code or 0)
    results.append((status, printed.getvalue(), errors.getvalue()))
json.dump(results, sys.stdout)
"""


@dataclass(frozen=True)
class Ran:
    """A command or a Python session of a page, and what came of it.

    Args:
        block: where it stands.
        command: as it is shown; "" for Python.
        shown: what the page says that it prints.
        status: with which it ended; of Python, how many examples failed.
        printed: what it printed.
    """

    block: Block
    command: str
    shown: str
    status: int
    printed: str

    @property
    def as_said(self) -> bool:
        """Whether it ended as the page says."""
        return self.status == self.block.status

    def fault(self) -> str:
        """What is not as the page says, or nothing."""
        if not self.as_said:
            return f"{self.command or 'Python'}\nended with status {self.status}:\n{self.printed}"
        if self.command and not doctest.OutputChecker().check_output(self.shown, self.printed, FLAGS):
            return f"{self.command}\nshown:\n{self.shown}\nfound:\n{self.printed}"
        return ""


def run_page(page: str, folder: Path) -> list[Ran]:
    """Work through a page in an empty folder.

    Args:
        page: its text.
        folder: where its files are written and its commands called, beside this repository's models and pages.
    """
    site, work = folder / "site", folder / "work"
    work.mkdir()
    for name in FOLDERS:
        (work / name).symlink_to(ROOT / name)
    found = blocks(page)
    for block in found:
        if block.kind == "file":
            path = work / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    items: list[tuple[Block, str, str]] = []
    for block in found:
        items += [(block, *each) for each in block.commands()] if block.kind == "commands" else []
        items += [(block, "", "")] if block.kind == "python" else []
    if any(command == INSTALL for _, command, _ in items):
        install(work, site)
        items = [each for each in items if each[1] != INSTALL]
    results = _in_other_process([called(command) if command else block.text for block, command, _ in items], work, site)
    return [
        Ran(block, command, shown, status, out + (err if block.status or (status and command) else ""))
        for (block, command, shown), (status, out, err) in zip(items, results, strict=True)
    ]


def _in_other_process(items: Sequence[str | list[str]], work: Path, site: Path) -> list[tuple[int, str, str]]:
    """Status, output and errors of each command or session."""
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": str(COLUMNS)}
    asked = json.dumps({"items": items, "flags": FLAGS})
    command = [sys.executable, "-c", _ONE_AFTER_ANOTHER]
    done = subprocess.run(command, cwd=work, env=environment, input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def with_outputs(page: str, ran: Sequence[Ran]) -> str:
    """A page with what its commands printed; as many first and last lines where it leaves out some in the middle."""
    printed = {(each.block.start, each.command): each for each in ran if each.command and each.as_said}
    for block in reversed(blocks(page)):
        text, matches = block.text, [*COMMAND.finditer(block.text)]
        for match, (command, shown) in reversed([*zip(matches, block.commands(), strict=True)]):
            if found := printed.get((block.start, command)):
                text = text[: match.start("shown")] + shortened(shown, found.printed) + text[match.end() :]
        page = page[: block.start] + text + page[block.start + len(block.text) :]
    return page


def shortened(shown: str, printed: str) -> str:
    """What is printed, cut as what was shown: `...` alone on a line leaves out all between the lines before and after it."""
    for pattern, instead in CHANGING:
        printed = pattern.sub(instead, printed)
    lines = [line.rstrip() for line in printed.rstrip("\n").split("\n")]
    head, cut, tail = shown.rstrip("\n").partition("...\n") if "...\n" in shown else (shown, "", "")
    last = "\n" if shown.endswith("\n\n") else ""  # an empty line before the next command
    if not cut:
        return "\n".join(lines) + "\n" + last
    first, end = head.count("\n"), len(tail.rstrip("\n").split("\n")) if tail.strip() else 0
    return "\n".join([*lines[:first], "...", *(lines[-end:] if end else [])]) + "\n" + last


def counts() -> Iterator[tuple[str, int, int, int]]:
    """Of each page: commands and Python examples that are run, and blocks that are marked as not run."""
    for path in PAGES:
        found = blocks(path.read_text(encoding="utf-8"))
        commands = sum(len(block.commands()) for block in found if block.kind == "commands")
        examples = sum(len(re.findall(r"^>>> ", block.text, re.MULTILINE)) for block in found if block.kind == "python")
        yield path.relative_to(ROOT).as_posix(), commands, examples, sum(block.kind == "marked" for block in found)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[-1])
    parser.add_argument("--write", nargs="+", type=Path, metavar="PAGE", help="put what their commands print into these pages")
    options = parser.parse_args()
    if not options.write:
        rows = [*counts()]
        for name, *numbers in (*rows, ("all", *(sum(row[i] for row in rows) for i in (1, 2, 3)))):
            print("{:40}{:4} commands {:4} Python examples {:4} blocks marked".format(name, *numbers))
    for path in options.write or ():
        page = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            ran = run_page(page, Path(folder))
        path.write_text(with_outputs(page, ran), encoding="utf-8")
        print(*(each.fault() for each in ran if each.fault() and not (each.command and each.as_said)), sep="\n")


if __name__ == "__main__":
    main()
