"""Numbers of the papers that are no accuracies of compiled networks: a row each of a second table of `reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from xbcompile.experiments.figure import Effort


@dataclass(frozen=True)
class Measured:
    """What came out.

    Args:
        value: in the measurement's unit.
        spread: sample standard deviation over repetitions; None: one alone.
        repetitions: how many.
        note: more of it, in words; may be empty.
    """

    value: float
    spread: float | None = None
    repetitions: int = 1
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """One number.

    Args:
        name: unique; target first: "sot-graph-probability".
        title: what it is, in words, with the paper's section or figure.
        target: name of the shipped target.
        unit: of the numbers; empty: none.
        published: the paper's number; None where it has none.
        basis: "predicted": follows from published numbers alone; "calibrated": a number of ours was set so that this or a
            related figure comes out; "assumed": rests on numbers that are in no text.
        procedure: "paper": as the paper did it; "ours".
        measure: computes it.
        low: what must be reached at least; None: not asked for.
        high: what must not be exceeded.
        weight: rough seconds with ten repetitions on one processor.
    """

    name: str
    title: str
    target: str
    unit: str
    published: float | None
    basis: Literal["predicted", "calibrated", "assumed"]
    procedure: Literal["paper", "ours"]
    measure: Callable[[Effort], Measured]
    low: float | None = None
    high: float | None = None
    weight: float = 10

    def run(self, effort: Effort) -> dict[str, Any]:
        """Measure: one entry of the `measurements` of `reproduce --json`."""
        found = self.measure(effort)
        asked = self.low is not None or self.high is not None
        met = (self.low is None or found.value >= self.low) and (self.high is None or found.value <= self.high)
        return {
            "measurement": self.name,
            "title": self.title,
            "target": self.target,
            "unit": self.unit,
            "published": self.published,
            "value": found.value,
            "spread": found.spread,
            "repetitions": found.repetitions,
            "note": found.note,
            "basis": self.basis,
            "procedure": self.procedure,
            "low": self.low,
            "high": self.high,
            "met": met if asked else None,
        }
