"""Pages of large programs: how many bytes, how long to make, how long until a browser shows them.

    python -m benchmarks.pages [--only lenet5,resnet50] [--folder build/pages] [--write-docs]

Programs are compiled once and kept in the folder, with their pages. A page is made by `xbcompile report` in a process of its
own, and opened by chromium: first paint is when something is seen (tables, and the drawing of the network), complete is when
all pictures are drawn and answer.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from rich.console import Console

from benchmarks.bench import ROOT, show
from benchmarks.networks import gpt2_small, resnet50
from benchmarks.report import Cells, markdown, write_between

MARK = "<!-- pages -->"
MEBIBYTE = 1 << 20


class Case(NamedTuple):
    """One program: what it is called, how its model is made, and the options of `compile` and `report`."""

    title: str
    model: Callable[[], onnx.ModelProto]
    target: str
    compiling: tuple[str, ...] = ()
    reporting: tuple[str, ...] = ()


CASES = {
    "lenet5": Case(
        "LeNet-5 on `mram64`, with a run of 1,000 images",
        lambda: onnx.load(ROOT / "models" / "mnist_lenet5.onnx"),
        "mram64",
        ("--calibration", "mnist:train:500"),
        ("--data", "mnist:test:1000"),
    ),
    "resnet50": Case("ResNet-50 on `sot`", resnet50, "sot"),
    "resnet50-stay": Case("the same, weights that stay", resnet50, "sot", ("--arrays", "0")),
    "gpt2-small": Case("GPT-2 small on `sot`", gpt2_small, "sot"),
}


def measured(name: str, case: Case, folder: Path) -> list[str]:
    """One row of the table."""
    program, page = folder / f"{name}.xbar", folder / f"{name}.html"
    if not program.exists():
        model = folder / f"{name}.onnx"
        onnx.save(case.model(), model)
        call("compile", str(model), "--target", case.target, *case.compiling, "-o", str(program))
        model.unlink()
    started = time.perf_counter()
    call("report", str(program), *case.reporting, "-o", str(page))
    make_s = time.perf_counter() - started
    opened = open_page(page)
    return [
        case.title,
        f"{opened['images']:,}",
        f"{page.stat().st_size / MEBIBYTE:.1f}",
        f"{make_s:.1f}",
        f"{opened['paint_s']:.2f}",
        f"{opened['complete_s']:.2f}",
    ]


def call(*arguments: str) -> None:
    """The command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "xbcompile", *arguments], check=True, stdout=subprocess.DEVNULL)


def open_page(page: Path) -> dict[str, Any]:
    """Open a page in a new browser: seconds until its first paint and until it is complete, and its number of images."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no chromium was found; install it to measure how long pages take to open")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        tab.goto(page.as_uri(), timeout=300_000, wait_until="commit")
        tab.locator("html[data-drawn=yes]").wait_for(timeout=300_000)
        complete_s = time.perf_counter() - started
        paint_ms = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        images = int(tab.locator("#fact-images").inner_text().replace(",", ""))
        browser.close()
    return {"paint_s": paint_ms / 1000, "complete_s": complete_s, "images": images}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"names, separated by commas: {', '.join(CASES)}; all of them otherwise")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "pages", help="where programs and pages are kept"
    )
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"no page {', '.join(unknown)}; there are: {', '.join(CASES)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    cells: Cells = [["page", "weight images", "MiB", "made in, s", "first paint, s", "complete, s"]]
    cells += [measured(name, CASES[name], given.folder) for name in names]
    show(Console(), "Pages of `xbcompile report`", cells)
    if given.write_docs:
        write_between(ROOT / "docs" / "performance.md", MARK, markdown(cells))


if __name__ == "__main__":
    main()
