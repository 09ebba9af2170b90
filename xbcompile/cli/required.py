"""What a run must show, as `run --require accuracy>=0.95`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from xbcompile.errors import DataError

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}
_TEXT = re.compile(r"\s*(?P<name>\w+)\s*(?P<comparison>>=|<=)\s*(?P<limit>\S+)\s*")
# What each name is in a run's result; accuracies are None without labels.
_VALUES: dict[str, Callable[[dict[str, Any]], float]] = {
    "accuracy": lambda result: result["accuracy"]["mean"],
    "accuracy_worst": lambda result: min(result["accuracy"]["per_seed"]),
    "accuracy_drop": lambda result: result["accuracy"]["software"] - result["accuracy"]["mean"],
    "energy_per_inference_j": lambda result: result["cost"]["energy_per_inference_j"],
    "time_per_inference_s": lambda result: result["cost"]["time_per_inference_s"],
}


def parse_requirements(texts: Sequence[str]) -> list[tuple[str, str, float]]:
    """Name, comparison and limit of each text.

    Raises:
        DataError: a text is not `NAME>=NUMBER` or `NAME<=NUMBER` with a known name.
    """
    found = []
    for text in texts:
        match = _TEXT.fullmatch(text)
        limit = math.nan
        if match is not None:
            try:
                limit = float(match["limit"])
            except ValueError:
                limit = math.nan
        if match is None or match["name"] not in _VALUES or not math.isfinite(limit):
            raise DataError(
                f"requirement {text!r} is unknown; write NAME>=NUMBER or NAME<=NUMBER, NAME one of {', '.join(_VALUES)}"
            )
        found.append((match["name"], match["comparison"], limit))
    return found


def check_labels(requirements: Sequence[tuple[str, str, float]], data: str) -> None:
    """Raise DataError where accuracy is asked for, for data without labels."""
    for name, comparison, limit in requirements:
        if name.startswith("accuracy"):
            raise DataError(f"requirement {name}{comparison}{limit:g} needs labels, which data {data!r} has not")


def judged(result: dict[str, Any], requirements: Sequence[tuple[str, str, float]]) -> list[dict[str, Any]]:
    """What became of each requirement: `asked`, `found`, `met`.

    Args:
        result: of a run.
        requirements: of `parse_requirements`.

    Raises:
        DataError: accuracy is asked for, and the data has no labels.
    """
    rows = []
    for name, comparison, limit in requirements:
        if name.startswith("accuracy") and result["accuracy"] is None:
            raise DataError(
                f"requirement {name}{comparison}{limit:g} needs labels, which data {result['data']!r} has not"
            )
        value = float(_VALUES[name](result))
        rows.append(
            {"asked": f"{name}{comparison}{limit:g}", "found": value, "met": _COMPARISONS[comparison](value, limit)}
        )
    return rows
