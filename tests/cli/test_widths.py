"""What commands print fits 80 and 60 columns, with every number that a wide console shows, and with words of the glossary."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from xbcompile.cli import command, terminal
from xbcompile.report.fitted import FittedTable, pairs
from xbcompile.report.glossary import GLOSSARY
from xbcompile.report.sensitivity import print_sensitivity

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
WITH_UNIT = re.compile(r"\d[\d,.]* (?:(?:[fpnµmkMG]?[JsVAW]|[kM]?Ohm|LSB|dot|bytes|levels)\b|[%±])")
COMMANDS = {
    "compile": "compile letters_mlp -o again.xbar --calibration letters:train --rewrite changed --floorplan 3x3",
    "explain": "explain mnist_lenet5",
    "plan": "plan mnist_lenet5 --require images<=1 --require stationary",
    "inspect": "inspect letters.xbar --schedule --image 0",
    "real cells": "inspect real.xbar --image 0",
    "run": "run letters.xbar --data letters:test:20 --repeat 2 --require accuracy>=0",
    "commission": "commission letters.xbar -o chip.fit",
    "diagnose": "diagnose letters.xbar --data letters:train",
    "verify": "verify letters.xbar --model letters_mlp",
    "targets": "targets",
    "target": "targets mram64",
    "passes": "passes",
    "compare": "compare letters.xbar real.xbar",
    "where": "where letters.xbar --cell 0,3,5",
    "glossary": "glossary",
    "characterize": "characterize mram64 --vectors 2",
    "study": "study m2tj4 --quick --seeds 2 --states 2,4 --matrices 2",
    "export": "export letters.xbar --trace trace.json",
    "report": "report letters.xbar -o letters.html",
}
Printed = list[tuple[Callable[[Console, Any], None] | None, Any]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, Printed]:
    """What each command hands to the terminal: functions that print, with what they print, and single lines."""
    found: dict[str, Printed] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("widths"))
        for name, line in {
            "": "compile letters_mlp -o letters.xbar --calibration letters:train",
            " ": "compile letters_mlp -o real.xbar --target memristor20 --calibration letters:train",
            **COMMANDS,
        }.items():
            mine: Printed = []
            patch.setattr(terminal, "show", lambda printer, value, mine=mine: mine.append((printer, value)))
            patch.setattr(terminal, "show_line", lambda text, mine=mine: mine.append((None, text)))
            patch.setattr(sys, "argv", ["xbcompile", *line.split()])
            with pytest.raises(SystemExit) as ended:
                command()
            assert ended.value.code in (0, 1 if name == "plan" else 0), line
            found[name] = mine
    return found


def shown(what: Printed, columns: int, patch, capsys) -> str:
    patch.setenv("COLUMNS", str(columns))
    for printer, value in what:
        if printer is None:
            terminal.show_line(value)
        else:
            terminal.show(printer, value)
    return capsys.readouterr().out


def assert_whole(narrow: str, wide: str, columns: int) -> None:
    """No line is too long, nothing is cut, and every number of the wide text is in the narrow one, beside its unit."""
    assert max(map(len, narrow.splitlines())) <= columns
    assert "…" not in narrow
    for pattern in (NUMBER, WITH_UNIT):
        wanted = Counter(each for each in pattern.findall(wide) if len(each) < 30)  # longer ones are rows of cells
        assert wanted <= Counter(pattern.findall(narrow))


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_fits(printed, name, columns, monkeypatch, capsys):
    wide, narrow = (shown(printed[name], each, monkeypatch, capsys) for each in (300, columns))
    assert wide
    assert_whole(narrow, wide, columns)


def test_words_of_tables_are_explained(printed, monkeypatch, capsys):
    """The name of every column of every table is a word of the glossary, but for names of files and numbers."""
    headings: set[str] = set()
    draw = FittedTable.__rich_console__

    def noted(table, console, options):
        headings.update(table.headings)
        yield from draw(table, console, options)

    monkeypatch.setattr(FittedTable, "__rich_console__", noted)
    for each in printed.values():
        shown(each, 200, monkeypatch, capsys)
    print_sensitivity(Console(file=StringIO()), SENSITIVITY)
    from xbcompile.report import reproduction

    headings |= {*reproduction._ROWS_WIDE, *reproduction._NUMBERS_WIDE, "title"}
    assert len(headings) > 90
    known = {word for term in GLOSSARY for word in (term.word, *term.also)}
    files = {"letters.xbar", "real.xbar", ""}
    for heading in sorted(headings - files):
        if "Ohm" in heading or " N up to" in heading or "fewest" in heading:  # with numbers of the study
            heading = re.sub(r"[\d.]+ Ohm|alone|\d+$| \d.*$", "", heading)
        assert all(part.strip() in known for part in heading.split("+")), heading


SENSITIVITY: dict[str, Any] = {
    "model": "letters_mlp",
    "target": "memristor20",
    "samples": 640,
    "data": "letters:test",
    "repeat": 3,
    "software": 89.6875,
    "baseline": {"mean": 88.1, "std": 0.16, "per_seed": [88.0, 88.2]},
    "noise": 0.3,
    "seconds": 12.0,
    "numbers": [
        {
            "name": "a_rather_long_name_of_a_number_ohm",
            "value": 12345.678,
            "low": {"value": 1e-9, "accuracy": {"mean": 12.34, "per_seed": [1, 2]}, "error": None},
            "high": {"value": 98765.4, "accuracy": None, "error": "too large"},
            "swing": 75.76,
            "within_noise": False,
        }
    ],
}


@pytest.mark.parametrize("columns", [80, 60])
def test_sensitivity_fits(columns, monkeypatch, capsys):
    what: Printed = [(print_sensitivity, SENSITIVITY)]
    wide, narrow = (shown(what, each, monkeypatch, capsys) for each in (300, columns))
    assert_whole(narrow, wide, columns)


WORDS = st.text(st.sampled_from("ab,/µ中[] "), max_size=30)
NUMBERS = st.sampled_from(
    ["", "0", "12,345.6 µs", "98.0 %", "1.5e-09", "-3 LSB", "0.6140 ± 0.1144", "1,234,567.8901 µs"]
)


@given(
    rows=st.lists(st.tuples(WORDS, NUMBERS, WORDS, NUMBERS, NUMBERS), max_size=6),
    columns=st.integers(24, 200),
    narrow=st.sampled_from(["split", "stack"]),
)
def test_tables_of_any_content_fit(rows, columns, narrow):
    """No line is too long, no number is broken, and no character of a text is lost, for 1 row, none, and empty cells."""
    table = FittedTable("name", narrow=narrow, title="of these", caption="all of it")
    table.add_column("one number", "right")
    table.add_column("text", max_width=20)
    for name in ("another", "third"):
        table.add_column(name, "right")
    for row in rows:
        table.add_row(*row)
        table.add_section()
    out = StringIO()
    terminal.TextConsole(file=out, width=columns).print(table)
    text = out.getvalue()
    assert max(map(cell_len, text.splitlines())) <= columns
    for row in rows:
        for number in (row[1], row[3], row[4]):
            assert number in text
        for words in (row[0], row[2]):
            wanted = Counter(words.replace(" ", ""))
            assert not wanted - Counter(text)


def test_names_beside_values_on_a_narrow_console():
    for columns in (10, 30, 80):
        out = StringIO()
        Console(file=out, width=columns).print(pairs([("a name", "value " * 9), ("none", "")], columns))
        text = out.getvalue()
        assert text.count("value") == 9
        assert "none" not in text
        assert max(map(len, text.splitlines())) <= columns


def test_columns_of_the_environment_are_heeded(cli, monkeypatch):
    """Piped output has 160 columns, unless `COLUMNS` says otherwise; what is no number says nothing."""
    widths = {}
    for value in ("", "wide", "80", "0"):
        monkeypatch.setenv("COLUMNS", value)
        widths[value] = max(map(len, cli("targets").out.splitlines()))
    assert widths["80"] <= 80 < widths[""] == widths["wide"] <= 160
