"""The page of a program: its data against the program, its text against strange names, itself in a real browser."""

from __future__ import annotations

import base64
import json
import math
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
from tests.support.small_programs import convolution_model, convolution_program, dense_model
from xbcompile.cli.running import run_program
from xbcompile.export.places import cell_content
from xbcompile.ir.schedule import STEP
from xbcompile.report.comparison import compare
from xbcompile.report.page import cells, panels
from xbcompile.report.page import page as page_of
from xbcompile.report.page.cells import TILE_FIELDS, cell_panel
from xbcompile.report.page.difference import difference_page
from xbcompile.report.page.packing import bits_of, in_bits, packed
from xbcompile.report.page.page import report_page
from xbcompile.report.page.panels import floorplan_panel, timeline_panel
from xbcompile.report.summary import summarize
from xbcompile.targets import load_target

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


TARGETS = ("ideal", "m2tj4", "memristor20", "mram64", "multicell", "sot", "sot-single")


def cells_of(panel: dict) -> np.ndarray:
    """The cells of a page, [images shown, rows, columns]."""
    size, bits = panel["rows"] * panel["columns"], panel["bits"]
    shown = unpacked(panel["shown"], "<i4")
    parts = []
    for i, piece in enumerate(panel["pieces"]):
        count = len(shown[i * panel["piece"] : (i + 1) * panel["piece"]]) * size
        if bits == 32:
            parts.append(unpacked(piece, "<f4"))
            continue
        data = unpacked(piece, "u1")
        parts.append(
            np.array([(int(data[at * bits // 8]) >> (at * bits % 8)) & ((1 << bits) - 1) for at in range(count)])
        )
    return np.concatenate(parts).reshape(len(shown), panel["rows"], panel["columns"])


@pytest.mark.parametrize("target", ["m2tj4", "sot", "memristor20"])
def test_cells_in_the_page_are_those_of_the_program(target):
    program = xbcompile.compile(convolution_model(), target, arrays=0)
    panel = data_of(report_page(program, []))["cells"]
    schedule = program.schedule
    shown = unpacked(panel["shown"], "<i4")
    assert sorted(shown) == list(range(schedule.images))
    np.testing.assert_array_equal(cells_of(panel), program.cells(shown))
    tiles = unpacked(panel["tiles"], "<i4").reshape(len(TILE_FIELDS), -1)
    for i, name in enumerate(TILE_FIELDS):
        np.testing.assert_array_equal(np.sort(tiles[i]), np.sort(schedule.tiles[name]))
    np.testing.assert_array_equal(
        unpacked(panel["permutation"], "<i4").reshape(schedule.images, -1), schedule.column_permutation[shown]
    )
    copies = unpacked(panel["copies"], "<i4").reshape(2, -1)
    np.testing.assert_array_equal(copies, [schedule.copies["image"], schedule.copies["array"]])
    assert sum(panel["utilisation"]["images"]) == schedule.images
    used = unpacked(panel["image_used"], "<f4").sum() * schedule.rows * schedule.columns
    assert used == pytest.approx(sum(layer.weight_code.codes.size for layer in program.network.layers))


@pytest.mark.parametrize("target", TARGETS)
def test_quantities_in_the_page_are_those_of_the_device(target):
    """Of continuous cells they are linear between the knots."""
    parameters = load_target(target).parameters
    program = xbcompile.compile(dense_model(6, 4, 3), target)
    given = cell_panel(program)["quantities"]
    levels = program.spec.levels
    cells = program.cells(np.arange(program.schedule.images)).ravel()
    for name, wanted in parameters.cell_states(cells).items():
        table = np.array(given["values"][name])
        found = table[cells] if levels is not None else np.interp(cells, given["at"], table)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert set(given["values"]) == set(parameters.cell_states(cells))


@given(st.sampled_from([1, 2, 3, 4, 5, 16]) | st.integers(17, 256), st.lists(st.integers(0, 255), max_size=40))
def test_small_numbers_come_back_from_their_bits(states, numbers):
    bits = bits_of(states)
    assert states <= 1 << bits
    cells = np.array([number % states for number in numbers], np.uint8)
    data = in_bits(cells, bits)
    assert len(data) == -(-len(cells) * bits // 8)
    back = np.unpackbits(data, bitorder="little")[: len(cells) * bits].reshape(-1, bits) @ (1 << np.arange(bits))
    np.testing.assert_array_equal(back, cells)


def test_a_large_program_shows_the_images_that_fit(monkeypatch):
    """Those that are first in some layer come before all others."""
    monkeypatch.setattr(cells, "_PIECE", 2)
    program = xbcompile.compile(convolution_model(), "m2tj4", packing="none", cuts="greedy")
    panel = cell_panel(program, most_bytes=1)
    tiles = program.schedule.tiles
    first = [int(tiles["image"][tiles["layer"] == layer].min()) for layer in range(2)]
    assert panel["images"] == program.schedule.images > 2
    assert unpacked(panel["shown"], "<i4").tolist() == panel["first_image"] == first
    assert panel["described"] == panel["images"]
    lenet = xbcompile.compile(onnx.load(MODELS / "mnist_lenet5_ternary.onnx"), "sot", effort=0.0)
    panel = cell_panel(lenet, most_bytes=1)  # several layers are first in one image, of which they have little
    assert unpacked(panel["shown"], "<i4").tolist() == list(dict.fromkeys(panel["first_image"]))[:2]
    assert panel["first_image"][-1] == lenet.schedule.tiles["image"][lenet.schedule.tiles["layer"] == 4].min()
    monkeypatch.setattr(cells, "MOST_TILES", 3)
    panel = cell_panel(program, most_bytes=1)
    image = unpacked(panel["tiles"], "<i4").reshape(len(TILE_FIELDS), -1)[6]
    assert len(image) <= 3
    assert set(image) == set(range(panel["described"]))


def test_traffic_adds_up_to_that_of_the_schedule():
    program = xbcompile.compile(convolution_model(), "memristor20", arrays=0, packing="none", floorplan="2x2x2")
    panel = floorplan_panel(program)
    assert len(panel["flows"]) == panel["flow_count"]  # few enough that all are there
    assert sum(each["values"] * each["hops"] for each in panel["flows"]) == program.schedule.hop_values > 0
    for name, end in (("sent", "from"), ("received", "to")):
        totals = np.zeros(program.schedule.arrays, int)
        for each in panel["flows"]:
            totals[each[end]] += each["values"]
        np.testing.assert_array_equal(panel[name], totals)
    assert floorplan_panel(convolution_program()) is None


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
    steps = program.schedule.steps
    assert len(binned["steps"]["array"]) == min(panels.FIRST_STEPS, len(steps))
    read = unpacked(binned["bins"]["read"], "<f4").reshape(binned["bins"]["rows"], -1)
    write = unpacked(binned["bins"]["write"], "<f4").reshape(binned["bins"]["rows"], -1)
    busy_s = (read.sum() + write.sum()) * program.schedule.makespan_s / panels.BINS
    assert busy_s == pytest.approx(float((steps["end_s"] - steps["start_s"]).sum()), rel=1e-5)
    assert read.max() <= 1 + 1e-6
    assert write.max() <= 1 + 1e-6


def test_batches_that_overlap(monkeypatch):
    """As many as run at a time; each array is busy for what one batch takes, times the batches, and never twice at once."""
    program = xbcompile.compile(convolution_model(), "memristor20", arrays=0, packing="none")
    schedule = program.schedule
    drawn = timeline_panel(program)
    assert drawn["overlapping"]
    assert drawn["batches"] == math.ceil(schedule.makespan_s / schedule.period_s) > 1
    assert drawn["span_s"] == schedule.makespan_s + (drawn["batches"] - 1) * schedule.period_s
    monkeypatch.setattr(panels, "MOST_STEPS", 1)
    binned = timeline_panel(program)
    read = unpacked(binned["bins"]["read"], "<f4").reshape(binned["bins"]["rows"], -1)
    lengths_s = (schedule.steps["end_s"] - schedule.steps["start_s"]).astype(float)
    once_s = np.bincount(schedule.steps["array"], weights=lengths_s, minlength=schedule.arrays)
    np.testing.assert_allclose(read.sum(axis=1) * drawn["span_s"] / panels.BINS, drawn["batches"] * once_s, rtol=1e-4)
    assert read.max() <= 1 + 1e-4


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
    page = report_page(xbcompile.compile(model, "m2tj4"), ["xbcompile <b>& \udcff"])
    assert "xbcompile &lt;b&gt;&amp; \\udcff" in page
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
    "convolution": (None, "m2tj4", {"arrays": 3}),
    "xor": ("xor.onnx", "mram64", {}),
    "floorplan": ("digits_mlp.onnx", "memristor20", {"arrays": 0, "floorplan": "4x4x2"}),
    "no layer": (None, "sot", {"digital": ["*"]}),
}


class Opened:
    """A page in a browser, and what came of it.

    Args:
        browser: of playwright.
        text: of the page.
        folder: for its file.
        scheme: light or dark.
        width: of the window, pixels.
    """

    def __init__(self, browser, text: str, folder, scheme: str = "light", width: int = 1200) -> None:
        path = folder / "page.html"
        path.write_text(text, encoding="utf-8")
        # The accessibility rules are run as text in the page, which its policy forbids to others.
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
        )
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type != "log" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri(), timeout=120_000)
        self.page.locator("html[data-drawn=yes]").wait_for(timeout=120_000)

    def check(self, least_pictures: int, name: str) -> None:
        """No error, no request, every picture drawn, nothing wider than the window, no accessibility rule broken."""
        from axe_playwright_python.sync_playwright import Axe

        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))] == []
        pictures = self.page.locator(".picture")
        assert pictures.count() >= least_pictures
        for i in range(pictures.count()):
            assert pictures.nth(i).locator("svg.main-svg").count() >= 1
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width
        broken = Axe().run(self.page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in broken] == []
        if screenshots := os.environ.get("XBCOMPILE_SCREENSHOTS"):
            self.page.screenshot(path=f"{screenshots}/{name}-{width}.png", full_page=True)


@pytest.fixture
def opened(browser, tmp_path):
    yield lambda text, *how: Opened(browser, text, tmp_path, *how)
    for context in browser.contexts:
        context.close()


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [("convolution", "light", 1200), ("xor", "dark", 600), ("floorplan", "light", 600), ("no layer", "dark", 1200)],
)
def test_in_a_browser(name, scheme, width, opened, tmp_path):
    """All that `Opened.check` says, and numbers as `inspect` has them."""
    model, target, options = CASES[name]
    program = xbcompile.compile(onnx.load(MODELS / model) if model else convolution_model(), target, **options)
    run = None
    if name == "floorplan":
        program.save(tmp_path / "p.xbar")
        run = run_program(tmp_path / "p.xbar", "digits:test:20", None, 0, 1, None, show_progress=False)
    found = opened(report_page(program, ["xbcompile report"], run), scheme, width)
    found.check(2 if name == "no layer" else 8 if run else 5, f"{name}-{scheme}")
    totals, page = summarize(program)["totals"], found.page
    for element, key in (("images", "images"), ("updates", "weight_updates"), ("reads", "reads_per_inference")):
        assert page.locator(f"#fact-{element}").inner_text() == f"{totals[key]:,}"
    assert page.locator("#layers tbody tr").count() == totals["layers"]
    assert page.locator("#again code").first.inner_text() == program.digest
    if totals["images"] > 1:
        page.locator("#image-choice").fill("1")
        page.keyboard.press("Tab")
        page.locator("#cells .gtitle", has_text="Image 1:").wait_for(timeout=120_000)
    if totals["images"]:
        check_one_cell(page, program)
    if run:
        for choice in ("#column-choice", "#site-choice"):
            for i in range(page.locator(f"{choice} option").count()):
                page.locator(choice).select_option(str(i))
        assert found.said == []


def check_one_cell(page, program) -> None:
    """What the page reads out of the first cell of the lowest tile is what `where --cell` says of it."""
    tiles = program.schedule.tiles
    lowest = tiles[np.argmax(tiles["row"])]
    image = int(lowest["image"])
    page.locator("#image-choice").fill(str(image))
    page.keyboard.press("Tab")
    page.locator("#cells .gtitle", has_text=f"Image {image}:").wait_for(timeout=120_000)
    row, column = int(lowest["row"]), int(program.schedule.column_permutation[image, lowest["column"]])
    page.locator("#cell-row").fill(str(row))
    page.locator("#cell-column").fill(str(column))
    page.keyboard.press("Tab")
    page.locator("#cell-words", has_text=f"row {row}, column {column}").wait_for(timeout=120_000)
    words = page.locator("#cell-words").inner_text()
    array = int(program.schedule.copies["array"][program.schedule.copies["image"] == image][0])
    held = [each for each in cell_content(program, array, row, column) if each["image"] == image]
    value = float(re.search(r"value (\S+?)(?: |;)", words)[1])
    assert value == pytest.approx(held[0]["cell_value"], rel=1e-4)
    assert words.endswith(f"{held[0]['layer']}[{held[0]['input']},{held[0]['output']}]")


def test_images_whose_cells_are_elsewhere(opened, monkeypatch):
    """Where tiles are is told of them too, and any image may be chosen."""
    monkeypatch.setattr(cells, "_PIECE", 1)
    monkeypatch.setattr(panels, "MOST_STEPS", 1)
    program = xbcompile.compile(convolution_model(), "m2tj4", packing="none", cuts="greedy")
    monkeypatch.setattr(page_of, "cell_panel", lambda program: cell_panel(program, most_bytes=1))
    found = opened(report_page(program, []))
    found.check(5, "elsewhere")
    last = program.schedule.images - 1
    found.page.locator("#image-choice").fill(str(last + 5))
    found.page.keyboard.press("Tab")
    found.page.locator("#cells .gtitle", has_text=f"Image {last}: layer").wait_for(timeout=120_000)
    assert "tile of fc;" in found.page.locator("#image-words").inner_text()
    found.page.locator("#timeline-choice").select_option("1")
    found.page.locator("#timeline .gtitle", has_text="The first").wait_for(timeout=120_000)


def test_two_programs_in_a_browser(opened, tmp_path):
    programs = [xbcompile.compile(convolution_model(), target) for target in ("mram64", "memristor20")]
    result = {"names": ["a<b>.xbar", "b.xbar"], **compare(*programs)}
    found = opened(difference_page(programs, result, ["xbcompile compare"]), "light", 600)
    found.check(4, "difference")
    shown = found.page.locator("#summary tbody tr")
    assert shown.count() == len(result["figures"])
    first = found.page.locator("#summary tbody tr").first.locator("td")
    assert first.first.inner_text() == f"{programs[0].schedule.images:,}"
    assert found.page.locator("#decided tbody tr").count() == len(result["decided"])
    same = {"names": ["a", "a"], **compare(programs[0], programs[0])}
    assert "hold the same program" in difference_page([programs[0]] * 2, same, [])


def test_what_json_has_no_number_for(tmp_path):
    """NaN among the readings' errors does not keep a page from being read."""
    row = {"layer": "fc", "readings": [1, 0], "mean_error_lsb": [math.nan, None], "range_used_fraction": None}
    column = row | {"mean_absolute_error_lsb": [math.inf, None]}
    layer = {"layer": "fc", "mean_error_lsb": math.nan, "mean_absolute_error_lsb": math.inf, "lowest_input": None}
    layer |= dict.fromkeys(
        (
            "highest_input",
            "clipped_fraction",
            "saturated_low_fraction",
            "saturated_high_fraction",
            "range_used_fraction",
        )
    )
    run = {"layers": [layer], "columns": [column], "has_converter": True, "accuracy": None, "device": "sot"}
    run |= {"data": "x", "samples": 1, "seeds": [0]}
    data = data_of(report_page(convolution_program(), [], run))
    assert data["run"]["columns"][0]["mean_error_lsb"] == [None, None]
