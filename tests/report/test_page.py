"""The page of a program: its data against the program, its text against strange names, itself in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import zlib
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.model_kit import MODELS
from tests.support.small_programs import convolution_model, convolution_program
from xbcompile.ir.schedule import STEP
from xbcompile.report.page import panels
from xbcompile.report.page.page import report_page
from xbcompile.report.page.panels import TILE_FIELDS, cell_panel, packed, timeline_panel
from xbcompile.report.summary import summarize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


@pytest.mark.parametrize("target", ["m2tj4", "sot", "memristor20"])
def test_cells_in_the_page_are_those_of_the_program(target):
    program = xbcompile.compile(convolution_model(), target, arrays=0)
    panel = data_of(report_page(program, []))["cells"]
    schedule = program.schedule
    cells = np.concatenate([unpacked(piece, panel["dtype"]) for piece in panel["pieces"]])
    wanted = program.cells(np.arange(schedule.images))
    np.testing.assert_array_equal(cells.reshape(wanted.shape), wanted)
    tiles = unpacked(panel["tiles"], "<i4").reshape(-1, len(TILE_FIELDS))
    for i, name in enumerate(TILE_FIELDS):
        np.testing.assert_array_equal(tiles[:, i], schedule.tiles[name])
    np.testing.assert_array_equal(
        unpacked(panel["permutation"], "<i4").reshape(schedule.images, -1), schedule.column_permutation
    )
    assert sum(panel["utilisation"]["images"]) == schedule.images


def test_a_large_program_shows_the_images_that_fit(monkeypatch):
    monkeypatch.setattr(panels, "_PIECE", 2)
    program = convolution_program()
    panel = cell_panel(program, most_bytes=1)
    assert panel["images"] == program.schedule.images > panel["shown"] == 2
    assert panel["tile_count"] == np.count_nonzero(program.schedule.tiles["image"] < 2)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 999), st.integers(0, 400)).map(
            lambda each: (each[0], each[1] / 1000, min(each[1] + each[2], 1000) / 1000)
        ),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_shares_of_time_equal_a_loop_over_steps(spans, each):
    steps = np.zeros(len(spans), STEP)
    for step, (array, start, end) in zip(steps, spans, strict=True):
        step["array"], step["start_s"], step["end_s"] = array, start, end
    rows = -(-5 // each)
    wanted = np.zeros((rows, panels.BINS))
    edges = np.arange(panels.BINS + 1) / panels.BINS
    for array, start, end in spans:
        wanted[array // each] += (
            np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None) * panels.BINS
        )
    np.testing.assert_allclose(panels._shares(steps, 1.0, each, rows), wanted, atol=1e-9)


def test_many_steps_are_drawn_as_shares(monkeypatch):
    program = convolution_program(arrays=2)
    drawn = timeline_panel(program)
    assert drawn["bins"] is None
    assert len(drawn["steps"]["array"]) == len(program.schedule.steps)
    monkeypatch.setattr(panels, "MOST_STEPS", 1)
    binned = timeline_panel(program)
    assert binned["steps"] is None
    read = unpacked(binned["bins"]["read"], "<f4").reshape(binned["bins"]["rows"], -1)
    write = unpacked(binned["bins"]["write"], "<f4").reshape(binned["bins"]["rows"], -1)
    busy_s = (read.sum() + write.sum()) * program.schedule.makespan_s / panels.BINS
    steps = program.schedule.steps
    assert busy_s == pytest.approx(float((steps["end_s"] - steps["start_s"]).sum()), rel=1e-5)
    assert read.max() <= 1 + 1e-6
    assert write.max() <= 1 + 1e-6


def test_packed_is_little_endian():
    assert unpacked(packed(np.array([1, 258], ">i4")), "<i4").tolist() == [1, 258]


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_names_cannot_leave_their_places():
    model = convolution_model()
    model.graph.name = "a</title><img src=x onerror=alert(1)>"
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.name = "</script><script>alert(1)</script>\"'><b>"
    page = report_page(xbcompile.compile(model, "m2tj4"), ["xbcompile <b>&"])
    parser = _Elements()
    parser.feed(page)
    tags = [tag for tag, _ in parser.found]
    assert tags.count("script") == 3
    assert "img" not in tags
    assert "b" not in tags
    assert data_of(page)["layers"][0] == "</script><script>alert(1)</script>\"'><b>"


def test_nothing_is_loaded_from_elsewhere():
    parser = _Elements()
    parser.feed(report_page(convolution_program(), []))
    assert not [attributes for tag, attributes in parser.found if "src" in attributes or tag == "link"]
    assert all(attributes["href"].startswith("#") for tag, attributes in parser.found if tag == "a")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium was found, and CI is set")
        pytest.skip("no chromium was found")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


CASES = {
    "lenet5": ("mnist_lenet5_ternary.onnx", "sot", {"arrays": 3}),
    "xor": ("xor.onnx", "mram64", {}),
    "floorplan": ("digits_mlp.onnx", "m2tj4", {"arrays": 0, "floorplan": "40x40"}),
}


@pytest.mark.parametrize(("name", "scheme"), [("lenet5", "light"), ("xor", "dark"), ("floorplan", "light")])
def test_in_a_browser(name, scheme, browser, tmp_path):
    """No error, no request, every picture drawn, numbers as `inspect` has them."""
    model, target, options = CASES[name]
    program = xbcompile.compile(onnx.load(MODELS / model), target, **options)
    path = tmp_path / "page.html"
    path.write_text(report_page(program, ["xbcompile report"]), encoding="utf-8")
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 1200, "height": 900})
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), timeout=120_000)
    page.locator("html[data-drawn=yes]").wait_for(timeout=120_000)  # no evaluated text, which the page's policy forbids
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    pictures = page.locator(".picture")
    assert pictures.count() >= 5
    for i in range(pictures.count()):
        assert pictures.nth(i).locator("svg.main-svg").count() >= 1
    totals = summarize(program)["totals"]
    for element, key in (("images", "images"), ("updates", "weight_updates"), ("reads", "reads_per_inference")):
        assert page.locator(f"#fact-{element}").inner_text() == f"{totals[key]:,}"
    assert page.locator("#layers tbody tr").count() == totals["layers"]
    if totals["images"] > 1:
        page.locator("#image-choice").fill("1")
        page.keyboard.press("Tab")
        page.locator("#cells .gtitle", has_text="Image 1:").wait_for(timeout=120_000)
    if screenshots := os.environ.get("XBCOMPILE_SCREENSHOTS"):
        page.screenshot(path=f"{screenshots}/{name}-{scheme}.png", full_page=True)
    context.close()
