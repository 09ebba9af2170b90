"""What a run must show."""

from __future__ import annotations

import pytest

from xbcompile.cli.required import check_labels, judged, parse_requirements
from xbcompile.errors import DataError

RESULT = {
    "data": "d.npz",
    "accuracy": {"mean": 0.9, "per_seed": [0.88, 0.92], "software": 0.95},
    "cost": {"energy_per_inference_j": 2e-6, "time_per_inference_s": 1e-3},
}


@pytest.mark.parametrize(
    ("text", "found", "met"),
    [
        ("accuracy>=0.9", 0.9, True),
        ("accuracy >= 0.91", 0.9, False),
        ("accuracy_worst>=0.88", 0.88, True),
        ("accuracy_drop<=0.04", 0.05, False),
        ("energy_per_inference_j<=2e-6", 2e-6, True),
        ("time_per_inference_s<=1e-4", 1e-3, False),
    ],
)
def test_each_name(text, found, met):
    (row,) = judged(RESULT, parse_requirements([text]))
    assert (row["found"], row["met"]) == (pytest.approx(found), met)
    assert row["asked"].startswith(text.split()[0].split("=")[0].rstrip("<>"))


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy>0.9", "speed>=1", "accuracy>=nan", "accuracy>=", ">=1", "accuracy>=x"]
)
def test_texts_that_ask_nothing(text):
    with pytest.raises(DataError, match="is unknown; write NAME>=NUMBER"):
        parse_requirements([text])


def test_accuracy_needs_labels():
    with pytest.raises(DataError, match=r"accuracy>=0\.5 needs labels"):
        check_labels(parse_requirements(["time_per_inference_s<=1", "accuracy>=0.5"]), "d.npz")
    check_labels(parse_requirements(["time_per_inference_s<=1"]), "d.npz")
    assert judged({**RESULT, "accuracy": None}, parse_requirements(["time_per_inference_s<=1"]))[0]["met"]
