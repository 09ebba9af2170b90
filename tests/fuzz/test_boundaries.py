"""A short part of the attempts on each boundary, the same every time, and proof that they see what is wrong."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path

import pytest

from tests.fuzz.harness import BOUNDARIES, Block, Tally, attempt, attempted

FAULTY = "tests.support.faulty_boundary"
HERE = Path(__file__).parent / "boundaries"
PRESENT = [name for name in BOUNDARIES if (HERE / f"{name}.py").is_file()]


@pytest.mark.parametrize("name", PRESENT)
def test_no_findings_at_a_boundary(name):
    (tally,) = attempted([Block(name, seed=20261201, seconds=30)])  # machines that run tests are slower than most
    assert [finding.what for finding in tally.findings] == []
    assert tally.results > 0, "examples that are all refused test little"
    assert tally.refused > 0, "examples that are all accepted test little"


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("mute", "unclear"),
        ("raises", "IndexError: list index"),
        ("late", "TooLong: more time"),
        ("waits", "TooLong: more time"),
    ],
)
def test_what_is_wrong_is_a_finding(how, what):
    assert attempt(FAULTY, pickle.dumps("result")) == Tally(results=1)
    assert attempt(FAULTY, pickle.dumps("refused")) == Tally(refused=1)
    (finding,) = attempt(FAULTY, pickle.dumps(how), seconds=0.2).findings
    assert finding.what.startswith(what)
    assert pickle.loads(finding.example) == how


def test_examples_that_end_the_process_are_findings():
    (tally,) = attempted([Block(FAULTY, seed=1)])
    (finding,) = tally.findings
    assert finding.what == f"ended the process with status {-signal.SIGSEGV}"
    assert pickle.loads(finding.example) == "dies"
