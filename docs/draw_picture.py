"""Draw docs/report.png, the picture of README: parts of a program's report, as a browser shows them.

    python docs/draw_picture.py

Needs MNIST (see docs/data.md), and chromium as the tests of pages do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
# Of the page, what fits into one picture.
STYLE = """
section:not(#summary, #arrays, #schedule), nav, footer, #utilisation { display: none !important }
"""
WIDTH = 1000
MODEL = str(ROOT / "models" / "mnist_lenet5.onnx")
COMPILE = ["compile", MODEL, "--target", "sot", "--arrays", "4", "--calibration", "mnist:train:500", "-o", "lenet.xbar"]


def main() -> None:
    """Compile, make the page, take the picture."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium found")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "report.html")
        for arguments in (COMPILE, ["report", "lenet.xbar", "-o", path.name]):
            subprocess.run([sys.executable, "-m", "xbcompile", *arguments], cwd=folder, check=True, capture_output=True)
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport={"width": WIDTH, "height": 700}, bypass_csp=True
        )
        page.goto(path.as_uri())
        page.wait_for_selector("#timeline svg")
        page.add_style_tag(content=STYLE)
        page.screenshot(path=ROOT / "docs" / "report.png", full_page=True)


if __name__ == "__main__":
    main()
