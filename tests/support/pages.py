"""What README and the pages of docs tell people to type: found, run as a reader would, and compared with what is shown.

A block whose first line is a comment with a path is a file. Lines with `$` are commands with what they print, `>>>` are Python,
all of a page in one session and in the page's order; `...` in what is shown stands for anything, and white space may differ. A
block of `text` is looked at alone. Before a block there may stand, as a comment that readers do not see,
`<!-- not run: REASON -->`, or `<!-- status: 1 -->` where a command is shown that must fail; standard error is shown then, too.

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
    r"^(?:<!-- (?P<mark>not run|status): (?P<why>.+?) -->\n)?```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$",
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
    is_text = match["language"] == "text" and not re.search(r"^(\$|>>>) ", text, re.MULTILINE)
    assert is_text, f"no file, command, Python session or text, and not marked:\n{text}"
    return Block("text", text, start=start)


def called(command: str) -> list[str]:
    """A command of a page as a Python module and its arguments."""
    words = shlex.split(command, comments=True)
    if words[0] == "xbcompile":
        return ["xbcompile", *words[1:]]
    assert words[:2] == ["python", "-m"], f"unknown command {command!r}"
    return words[2:]


# Runs in a process of its own: modules as `python -m` does, and Python sessions, one after another, as most of a short command is
# the time that libraries load. Each page has a folder and names of its own.
_ONE_AFTER_ANOTHER = """
import contextlib, doctest, io, json, os, runpy, sys

sys.path.insert(0, "")
asked, results = json.load(sys.stdin), []
for page in asked["pages"]:
    os.chdir(page["folder"])
    names, loaded = {"__name__": "__main__"}, set(sys.modules)
    for item in page["items"]:
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
    for name in set(sys.modules) - loaded:  # a page's own modules
        if os.path.realpath(getattr(sys.modules[name], "__file__", None) or "/").startswith(os.path.realpath(page["folder"])):
            del sys.modules[name]
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


def installs(page: str) -> bool:
    """Whether a page makes a package and installs it: then it needs a process of its own."""
    return any(command == INSTALL for block in blocks(page) for command, _ in block.commands())


def run_page(page: str, folder: Path) -> list[Ran]:
    """Work through one page; see `run_pages`."""
    return run_pages([page], folder)[0]


def run_pages(pages: Sequence[str], folder: Path) -> list[list[Ran]]:
    """Work through pages in one process, each in an empty folder.

    Args:
        pages: their texts; one that installs a package stands alone.
        folder: where their files are written and their commands called, beside this repository's models and pages.
    """
    site, asked, found = folder / "site", [], []
    for number, page in enumerate(pages):
        work = folder / f"page{number}"
        work.mkdir()
        _write_files(page, work)
        items: list[tuple[Block, str, str]] = []
        for block in blocks(page):
            items += [(block, *each) for each in block.commands()] if block.kind == "commands" else []
            items += [(block, "", "")] if block.kind == "python" else []
        if installs(page):
            assert len(pages) == 1, "a page that installs a package stands alone"
            install(work, site)
            items = [each for each in items if each[1] != INSTALL]
        calls = [called(command) if command else block.text for block, command, _ in items]
        asked.append({"folder": str(work), "items": calls})
        found.append(items)
    results = iter(_in_other_process(asked, site))
    return [[_ran(*item, *next(results)) for item in items] for items in found]


def _ran(block: Block, command: str, shown: str, status: int, out: str, err: str) -> Ran:
    return Ran(block, command, shown, status, out + (err if block.status or (status and command) else ""))


def _write_files(page: str, work: Path) -> None:
    for name in FOLDERS:
        (work / name).symlink_to(ROOT / name)
    for block in blocks(page):
        if block.kind == "file":
            path = work / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def _in_other_process(pages: Sequence[dict[str, object]], site: Path) -> list[tuple[int, str, str]]:
    """Status, output and errors of each command or session of all pages."""
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-c", _ONE_AFTER_ANOTHER]
    asked = json.dumps({"pages": pages, "flags": FLAGS})
    done = subprocess.run(command, env=environment, input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def with_outputs(page: str, ran: Sequence[Ran]) -> str:
    """A page with what its commands printed; as many first and last lines where it leaves out some in the middle."""
    for block in reversed(blocks(page)):
        text, matches = block.text, [each for each in COMMAND.finditer(block.text) if each["line"] != INSTALL]
        here = [each for each in ran if each.command and each.block.start == block.start]
        for match, found in reversed([*zip(matches, here, strict=True)] if here else []):
            if found.as_said and found.fault():
                text = text[: match.start("shown")] + shortened(found.shown, found.printed) + text[match.end() :]
        page = page[: block.start] + text + page[block.start + len(block.text) :]
    return page


def shortened(shown: str, printed: str) -> str:
    """What is printed, cut as what was shown: `...` alone on a line leaves out all between the lines before and after it."""
    for pattern, instead in CHANGING:
        printed = pattern.sub(instead, printed)
    lines, kept = ([line.rstrip() for line in text.rstrip("\n").split("\n")] for text in (printed, shown))
    last = "\n" if shown.endswith("\n\n") else ""  # an empty line before the next command
    if "..." in kept:
        after = len(kept) - kept.index("...") - 1
        lines = [*lines[: kept.index("...")], "...", *(lines[-after:] if after else [])]
    return "\n".join(lines) + "\n" + last


def counts() -> Iterator[tuple[str, int, int, int]]:
    """Of each page: commands and Python examples that are run, and blocks that are marked as not run; last of all pages."""
    sums = [0, 0, 0]
    for path in PAGES:
        found = blocks(path.read_text(encoding="utf-8"))
        commands = sum(len(block.commands()) for block in found if block.kind == "commands")
        examples = sum(len(re.findall(r"^>>> ", block.text, re.MULTILINE)) for block in found if block.kind == "python")
        numbers = (commands, examples, sum(block.kind == "marked" for block in found))
        sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        yield path.relative_to(ROOT).as_posix(), *numbers
    yield "all", sums[0], sums[1], sums[2]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[-1])
    parser.add_argument(
        "--write", nargs="+", type=Path, metavar="PAGE", help="put what their commands print into these pages"
    )
    options = parser.parse_args()
    if not options.write:
        for name, *numbers in counts():
            print("{:40}{:4} commands {:4} Python examples {:4} blocks marked".format(name, *numbers))
    for path in options.write or ():
        page = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            ran = run_page(page, Path(folder))
        path.write_text(with_outputs(page, ran), encoding="utf-8")
        print(*(each.fault() for each in ran if each.fault() and not (each.command and each.as_said)), sep="\n")


if __name__ == "__main__":
    main()
