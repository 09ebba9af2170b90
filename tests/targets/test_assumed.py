"""Assumed numbers of descriptions: which they are, and the ranges to try."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xbcompile.errors import TargetError
from xbcompile.targets import load_target, target_names

OWN = 'extends = "sot"\nname = "mine"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", target_names())
def test_every_number_that_the_source_calls_assumed_has_a_range(name: str) -> None:
    """0 has no half, so that those of devices must be given; of the exact array what costs nothing stays so."""
    target = load_target(name)
    said = [key for key, entry in target.quantities.items() if "assumed" in entry["source"]]
    assert list(target.assumed_ranges) == said
    for key, tried in target.assumed_ranges.items():
        assert tried.low < tried.high or (name == "ideal" and target.quantities[key]["value"] == 0), key
        for end in (tried.low, tried.high):
            assert target.with_quantities("a test", **{key: end}).quantities[key]["value"] == end


def test_without_a_range_half_and_one_and_a_half_times(tmp_path: Path) -> None:
    text = OWN + '[quantities]\nrows = { value = 5, unit = "1", source = "Assumed, as columns" }\n'
    text += 'shares_rows = { value = true, unit = "1", source = "assumed" }\n'
    text += 'read_noise = { value = 0.2, unit = "1", source = "assumed" }\ntmr = { value = 2, unit = "1", source = "measured" }\n'
    target = load_target(written(tmp_path, text))
    ranges = target.assumed_ranges
    assert (ranges["rows"].low, ranges["rows"].high, ranges["rows"].given) == (2, 7, False)
    assert ranges["read_noise"].low == pytest.approx(0.1)  # not the range that sot gives for its own
    assert "tmr" not in ranges
    assert (ranges["shares_rows"].low, ranges["shares_rows"].high) == (0, 1)
    assert ranges["reference_columns"] == load_target("sot").assumed_ranges["reference_columns"]


def test_ranges_are_no_part_of_what_a_program_holds(tmp_path: Path) -> None:
    plain = load_target(written(tmp_path, OWN))
    other = load_target(written(tmp_path, OWN + "[assumed]\nread_noise = [0.1, 0.2]\n"))
    assert other == plain
    assert other.to_json() == plain.to_json()
    assert other.assumed_ranges["read_noise"].high == 0.2
    changed = other.with_quantities("a test", read_noise=0.15, v_read_volt=0.2)
    assert "read_noise" not in changed.assumed_ranges
    assert changed.assumed_ranges["t_read_s"] == other.assumed_ranges["t_read_s"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("assumed = 3", "mine.toml: assumed must be a table"),
        ("[assumed]\nread_noise = 0.1", "range of read_noise must be written as read_noise = [low, high]; found 0.1"),
        ("[assumed]\nread_noise = [0.1]", "must be written as read_noise = [low, high]"),
        ("[assumed]\nread_noise = [0.2, 0.1]", "the range of read_noise falls, from 0.2 to 0.1"),
        ("[assumed]\nread_noise = [-1, 0.1]", "range of read_noise: read_noise = -1 is out of range"),
        ("[assumed]\nrows = [1.5, 3]", "range of rows: rows = 1.5 is not a whole number"),
        ("[assumed]\nnothing = [1, 2]", "a range for 'nothing', which is none of its quantities"),
        (
            "[assumed]\nlow_sigma = [0, 0.1]",
            "low_sigma, whose source does not say that it is assumed: 'paper, Fig. 2c'",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        load_target(written(tmp_path, OWN + table))
