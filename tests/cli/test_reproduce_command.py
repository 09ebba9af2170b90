"""`xbcompile reproduce` with small experiments, measurements and figures: what is chosen, printed, written, and when it fails."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import xbcompile.cli.reproducing as reproducing
from xbcompile.errors import DataError
from xbcompile.experiments.figure import Effort, Figure, Panel, PaperFigure, Series
from xbcompile.experiments.measurement import Measured, Measurement
from xbcompile.experiments.reproduction import Experiment, Goal
from xbcompile.experiments.systems import EXPERIMENTS, FIGURES, MEASUREMENTS
from xbcompile.report.reproduction import number, print_reproduction, system_of
from xbcompile.targets import target_names

TOTALS = {"totals": {"weight_updates": 28, "reads_per_inference": 6368}, "layers": []}


@dataclass(frozen=True)
class Small(Experiment):
    """An experiment of known accuracies: 90 on chip 0, 91 on chip 1 and so on."""

    def check(self, models: Path) -> None:
        if self.model == "none":
            raise DataError("no such network")

    def run(self, models: Path, seeds: int, threads: int) -> dict[str, Any]:
        return self.row(95.0, [90.0 + seed for seed in range(seeds)], TOTALS, 10)


def measured(value: float, effort: Effort) -> Measured:
    return Measured(value, 0.01 * effort.seeds, effort.seeds, "quick" if effort.quick else "")


def made(effort: Effort) -> Figure:
    return Figure([Panel("", "x", "y", [Series("a", [0.0, 1.0], [1.0, float(effort.seeds)])])], "a note")


ROWS = [
    Small("sot-row", "a row", "m", "sot", Goal(array=90.0), (95.2, 93.0), procedure="paper"),
    Small("sot-other", "another", "m", "sot-single", None, (None, 80.0)),
    Small("m2tj4-row", "of another system", "m", "m2tj4", Goal(array=90.6)),
]
NUMBERS = [
    Measurement("sot-number", "a number", "sot", "uA", 11.5, "predicted", "paper", partial(measured, 12.0), 11, 13),
    Measurement("m2tj4-n", "missed", "m2tj4", "", None, "assumed", "ours", partial(measured, 1.0), high=0.5),
]
PICTURES = [PaperFigure("sot-fig1", "Fig. 1", made), PaperFigure("m2tj4-fig2", "Fig. 2", made)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """These in place of the papers', one after the other in this process."""
    for name, value in (("EXPERIMENTS", ROWS), ("MEASUREMENTS", NUMBERS), ("FIGURES", PICTURES)):
        monkeypatch.setattr(reproducing, name, value)
    monkeypatch.setattr(
        reproducing, "done_in_processes", lambda tasks, jobs: ((i, task()) for i, task in enumerate(tasks))
    )


def test_json_has_rows_measurements_and_figures(cli: Any, folder: Path) -> None:
    result = cli("reproduce", "--quick", "--figures", "deep/figures", "--json")
    found = json.loads(result.out)
    assert sorted(found) == ["figures", "measurements", "rows", "seconds", "seeds"]
    assert found["seeds"] == 2
    assert [(row["experiment"], row["array_per_seed"], row["met"]) for row in found["rows"]] == [
        ("sot-row", [90.0, 91.0], True),
        ("sot-other", [90.0, 91.0], None),
        ("m2tj4-row", [90.0, 91.0], False),
    ]
    first, second = found["measurements"]
    assert (first["measurement"], first["value"], first["met"], first["note"]) == ("sot-number", 12.0, True, "quick")
    assert second["met"] is False
    assert [each["figure"] for each in found["figures"]] == ["sot-fig1", "m2tj4-fig2"]
    assert found["figures"][0]["files"] == [f"deep/figures/sot-fig1.{ending}" for ending in ("png", "svg", "json")]
    assert sorted(path.name for path in Path("deep/figures").iterdir()) == [
        f"{name}.{ending}" for name in ("m2tj4-fig2", "sot-fig1") for ending in ("json", "png", "svg")
    ]
    read = json.loads(Path("deep/figures/sot-fig1.json").read_text())
    assert (read["name"], read["panels"][0]["series"][0]["y"]) == ("sot-fig1", [1.0, 2.0])
    assert result.status == 1  # goals are missed


@pytest.mark.parametrize(
    ("names", "rows", "numbers", "status"),
    [
        (["sot*"], ["sot-row", "sot-other"], ["sot-number"], 0),
        (["m2tj4-n"], [], ["m2tj4-n"], 1),
        (["m2tj4-row"], ["m2tj4-row"], [], 0),  # of ten chips, the mean is 94.5
        (["*-row", "sot-number"], ["sot-row", "m2tj4-row"], ["sot-number"], 0),
    ],
)
def test_names_choose_all_kinds_alike(
    cli: Any, folder: Path, names: list[str], rows: list[str], numbers: list[str], status: int
) -> None:
    result = cli("reproduce", *names, "--json")
    found = json.loads(result.out)
    assert [row["experiment"] for row in found["rows"]] == rows
    assert [row["measurement"] for row in found["measurements"]] == numbers
    assert (found["figures"], result.status) == ([], status)
    assert list(folder.iterdir()) == []


def test_what_is_wrong_is_told_before_the_work(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Small, "run", lambda *arguments: pytest.fail("it ran"))
    (folder / "file").touch()
    for arguments, message in (
        (
            ["sot-row", "nothing"],
            "no experiment is called nothing; allowed: sot-row, sot-other, m2tj4-row, sot-number, ",
        ),
        (["sot-fig1"], "sot-fig1 can be drawn, but no folder is given: add --figures DIR"),
        (["--figures", "file"], "output 'file' is a file; give the name of a folder"),
        (["--figures", "file/folder"], "output 'file/folder' is a file; give the name of a folder"),
    ):
        result = cli("reproduce", *arguments)
        assert (result.status, result.out) == (1, "")
        assert result.err.startswith(f"xbcompile: error: {message}")
        assert len(result.err.splitlines()) == 1
    monkeypatch.setattr(reproducing, "EXPERIMENTS", [replace(ROWS[0], model="none")])
    result = cli("reproduce", "--figures", "new")
    assert result.err == "xbcompile: error: no such network\n"
    assert not (folder / "new").exists()


def printed(width: int, rows: list[dict[str, Any]], numbers: list[dict[str, Any]]) -> str:
    stream = StringIO()
    result = {"rows": rows, "measurements": numbers, "figures": [], "seconds": 1.0}
    print_reproduction(Console(file=stream, width=width), result)
    return stream.getvalue()


def test_tables_fit_their_console() -> None:
    """At 80 columns no cell is cut or wrapped, and all columns are there. The spread is the sample's: 0.16 / sqrt(2)."""
    name = "memristor20-letters-oblivious"  # the longest
    row = ROWS[0].row(98.19, [97.61, 97.77], TOTALS, 10) | {"experiment": name, "networks": 3, "network_std": 0.514}
    measurement = NUMBERS[0].run(Effort(Path("models"), 3)) | {"measurement": name}
    for width in (80, 160):
        text = printed(width, [row], [measurement])
        for cell in (name, "95.2 → 93", "97.69 ± 0.11", "0.50", "± 0.51", "11.5", "12 ± 0.03", "predicted"):
            assert cell in text
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        assert re.search(r"digital\s+MACs", text)
        assert "11 to 13" in text


def test_systems_have_headings_in_their_order_and_missed_goals_are_named() -> None:
    rows = [each.run(Path(), 2, 1) for each in ROWS]
    numbers = [each.run(Effort(Path())) for each in NUMBERS]
    text = printed(160, rows, numbers)
    lines = [line.strip() for line in text.splitlines()]
    headings = [line for line in lines if line in ("sot", "m2tj4", "sot-single")]
    assert headings == ["sot", "m2tj4", "sot", "m2tj4"]  # of both tables
    assert "2 of 4 goals met; missed: m2tj4-row, m2tj4-n; 1 s" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.44641, "0.4464"),
        (1234567.0, "1,235,000"),
        (1e12, "1e+12"),
        (-2500.4, "-2,500"),
        (3.5e-13, "3.5e-13"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_all_of_the_papers_have_names_of_their_own_and_can_go_to_another_process() -> None:
    everything: tuple[tuple[Any, ...], ...] = (EXPERIMENTS, MEASUREMENTS, FIGURES)
    for kind in everything:
        assert len({each.name for each in kind}) == len(kind)
    targets = target_names()
    for each in (each for kind in everything for each in kind):
        assert system_of(each.name) in targets
        pickle.dumps(each)
    assert {each.target for each in MEASUREMENTS} <= set(targets)
