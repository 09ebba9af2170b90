"""The tables of `make bench`, from measurements that are made up; and the sides that need no other simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbcompile
from benchmarks.float_runtime import float_outputs
from benchmarks.machine import product_flops
from benchmarks.networks import dense, resnet18, resnet50
from benchmarks.report import BEGIN, END, tables, write_docs
from benchmarks.rows import ROWS
from benchmarks.side import SIDES, relative_error
from benchmarks.work import WORKS, batches, readings_of, uniform

LIMITS = {"sgemm_flops": 1e11, "dgemm_flops": 5e10, "normals": 5e8, "copied_bytes": 1e10}


def side(*rates: float, samples: int = 100, peak: int = 0, **facts: Any) -> dict[str, Any]:
    """A side that was measured on one thread, two, ..."""
    threads = {
        str(i + 1): {
            "seconds": samples / rate,
            "processor_seconds": 2 * samples / rate,
            "rate": rate,
            "peak_bytes": peak,
        }
        for i, rate in enumerate(rates)
    }
    return {"facts": {"samples": samples, **facts}, "setup_peak_bytes": 3 << 20, "threads": threads}


def row(name: str, unit: str, **sides: dict[str, Any]) -> dict[str, Any]:
    return {"row": name, "title": name, "unit": unit, "errors": "", "sides": sides}


def results(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"machine": {"limits": LIMITS}, "rows": list(rows)}


def test_ratios_are_ours_on_two_threads_over_a_peers_better_setting() -> None:
    """The limit: 2 x 10**6 / 10**11 s of products and 10**4 / 5 x 10**8 s of normals are 40 us, 4 % at 1,000 a second."""
    own = side(1000, 1700, products=10**6, readings=10**4, draws=True)
    found = tables(results(row("W1", "images/s", xbcompile=own, lightning=side(500, 200), crosssim={"missing": "x"})))
    assert found["Speed"][1] == [
        *("W1", "W1", "images/s", "1,000 / 1,700", "1.70", "4 %", "500 / 200 (3.4x)", "not installed", "-", "-")
    ]


def test_without_noise_the_limit_is_the_product_alone() -> None:
    own = side(1000, 1700, products=10**6, readings=10**4, draws=False)
    assert tables(results(row("W2", "images/s", xbcompile=own)))["Speed"][1][5] == "2 %"


def test_a_side_that_failed_leaves_the_others() -> None:
    found = tables(results(row("W1", "images/s", xbcompile=side(10, 20), lightning={"failed": "see x.log"})))
    assert found["Speed"][1][6] == "failed"
    assert tables(results(row("W1", "images/s", xbcompile={"failed": "see x.log"})))["Speed"][1][3] == "failed"


def test_start_up_counts_beyond_pythons_own_and_chips_beside_sessions() -> None:
    rows = [row("python", "s", command=side(50, samples=1)), row("start-help", "s", command=side(4, samples=1))]
    rows.append(row("chips", "s", repeat=side(0.5, samples=1), sessions=side(0.1, samples=1)))
    cells = tables(results(*rows))["Seconds"]
    assert [each[2:] for each in cells[1:]] == [
        ["0.02", "0.04", "-"],
        ["0.25", "0.5", "beyond Python's own 0.23"],
        ["2", "4", "a session per chip 10 (5x)"],
    ]


def test_an_earlier_run_is_set_beside_by_time_per_sample_or_memory() -> None:
    now = [
        row("W4", "vectors/s", xbcompile=side(50, 80)),
        row("M1", "MiB", memory=side(1, peak=1 << 30, input_bytes=0)),
    ]
    then = [
        row("W4", "vectors/s", xbcompile=side(10, 20, samples=10)),
        row("M1", "MiB", memory=side(1, peak=3 << 30, input_bytes=0)),
    ]
    found = tables(results(*now), results(*then))
    assert [found[title][1][-1] for title in ("Speed", "Memory")] == ["4x", "3x"]
    assert tables(results(*now), results())["Speed"][0][-1] == "badcrossbar"
    assert found["Memory"][1][2:5] == ["1,024", "3", "0"]


def test_tables_stand_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nbehind\n")
    measured = {
        **results(),
        "machine": {"processor": "P", "processors": 2, "versions": {"numpy": "2"}, "limits": LIMITS},
    }
    measured["rows"] = [{**row("W1", "images/s", xbcompile=side(10, 20)), "errors": "xbcompile: cells"}]
    for _ in range(2):
        write_docs(page, measured)
        text = page.read_text()
        assert text.startswith(
            f"before\n{BEGIN}\nP, 2 processors; numpy 2.\n\n**Limits of the machine, one thread**\n\n| what |"
        )
        assert "\n| W1 | W1 | images/s | 10 / 20 | 2.00 | - | - | - | - | - |\n" in text
        assert text.endswith(f"\n- W1: xbcompile: cells\n{END}\nbehind\n")
        assert text.count("**Speed**") == 1
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write_docs(page, measured)


def test_rows_name_sides_and_pieces_of_work_that_there_are() -> None:
    assert len({each.name for each in ROWS}) == len(ROWS)
    for each in ROWS:
        for name, work in each.sides:
            assert name in SIDES
            assert work in WORKS or name in ("command", "lines", "badcrossbar")


def test_readings_and_products_of_a_matrix() -> None:
    """130 x 70 on 64 x 64: three tiles of each of two column blocks convert 3 x 70 sums of 130 x 70 products."""
    program = xbcompile.compile(dense(130, 70), "sot", arrays=0, cuts="greedy", packing="none")
    assert readings_of(program) == {"readings": 3 * 70, "products": 130 * 70}


def test_networks_are_those_of_their_names() -> None:
    """Weights of the convolutions and of the classifier, as published: 11.2 million for ten classes, and 25.5 million."""
    for model, classes, millions in ((resnet18(), 10, 11.16), (resnet50(), 1000, 25.5)):
        sizes = [np.prod(each.dims) for each in model.graph.initializer if len(each.dims) > 1]
        assert sum(sizes) / 1e6 == pytest.approx(millions, rel=2e-3)
        assert model.graph.initializer[-1].dims[0] == classes
    outputs = float_outputs(resnet18(), uniform(resnet18(), 2))
    assert outputs.shape == (2, 10)
    assert 0.1 < outputs.std() < 10


def test_batches_and_errors() -> None:
    parts = batches({"x": np.arange(7)}, 3)
    assert [part["x"].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    expected = np.array([[0.0, 2.0], [4.0, 6.0]])
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + np.sqrt(5), expected) == pytest.approx(1)


def test_products_are_counted_by_their_operations() -> None:
    assert 1e8 < product_flops(np.float32) < 1e13
