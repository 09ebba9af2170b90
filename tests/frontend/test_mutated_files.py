"""Damaged model files: a clear error or a right answer, each judged in a process of limited memory and time.

`python -m tests.fuzz.mutations 500` runs more of them.
"""

from __future__ import annotations

import pytest

from tests.fuzz.mutated_models import BUILT, MODEL, NAMES, sound
from tests.fuzz.mutation_judge import Verdict, compared, ended, judge
from tests.fuzz.mutations import OF_BYTES, OF_MODELS, mutated
from tests.support.comparing import difference
from tests.support.worker_pool import Outcome

CASES = range(9000, 9064)


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return list(judge(CASES))


def test_no_findings(verdicts):
    assert [verdict for verdict in verdicts if verdict.is_finding] == []


def test_both_outcomes_occur(verdicts):
    """Mutations that all fail to load, or all do nothing, would test little."""
    kinds = [verdict.kind for verdict in verdicts]
    assert len(kinds) == len(CASES)
    assert kinds.count("refused") >= 10
    assert kinds.count("right") >= 10


def test_errors_are_one_line_that_names_something(verdicts):
    for verdict in verdicts:
        if verdict.kind == "refused":
            assert len(verdict.text.split()) >= 4


def test_a_case_is_the_same_file_everywhere():
    for case in range(60):
        assert mutated(case) == mutated(case)
    assert {mutated(case)[0].split(":")[0] for case in range(len(NAMES))} == set(NAMES)


def test_every_mutation_changes_files():
    """Of many cases, each kind of mutation changed at least one file."""
    changed = set()
    for case in range(600):
        what, files = mutated(case)
        base, _, steps = what.partition(": ")
        if files != dict(sound(base)):
            changed.update(steps.split(", "))
    assert changed >= {step.__name__ for step in (*OF_BYTES, *OF_MODELS)}


@pytest.mark.parametrize("name", BUILT)
def test_the_sound_models_are_right(name, tmp_path):
    """What the mutations start from compiles and equals onnxruntime."""
    from tests.fuzz.mutation_judge import compiled_and_run

    for file, content in sound(name):
        (tmp_path / file).write_bytes(content)
    assert compared(compiled_and_run(tmp_path / MODEL), tmp_path / MODEL) == ("right", "")


def test_the_judge_sees_wrong_answers(tmp_path):
    import numpy as np

    (tmp_path / MODEL).write_bytes(dict(sound("xor"))[MODEL])
    right = {"y": np.ones((2, 3), np.float32)}
    assert difference(right, [right]) is None
    assert "differs by 0.1" in str(difference({"y": right["y"] - np.float32(0.1)}, [right]))
    assert "is float64" in str(difference({"y": right["y"].astype("f8")}, [right]))
    assert "NaN or infinite" in str(difference({"y": right["y"] * np.nan}, [right]))
    assert "differs by nan" in str(difference({"y": right["y"] * np.nan}, [right], overflows=True))
    assert "outputs" in str(difference({}, [right]))
    assert compared(("refused", "we do not feel like it"), tmp_path / MODEL)[0] == "WRONGLY REFUSED"
    assert compared(("refused", "holds NaN or infinite values"), tmp_path / MODEL)[0] == "refused"
    assert compared(("TRACEBACK", "KeyError"), tmp_path / MODEL) == ("TRACEBACK", "KeyError")


def test_dead_and_endless_workers_are_findings(monkeypatch):
    from tests.fuzz import mutation_judge

    monkeypatch.setattr(mutation_judge, "SECONDS", 0.0)
    (verdict,) = judge([9001])
    assert verdict.kind == "HANG"
    assert verdict.is_finding
    assert ended(Outcome(9001, "died", told=("compiling",), status=-11)).kind == "CRASH"
    assert ended(Outcome(9001, "died", told=("compiling", "running the reference"), status=-11)).kind == "no reference"
