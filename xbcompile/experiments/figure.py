"""Figures of the papers as values: what is drawn, with what the text gives of it beside; `report.paper_figures` draws them.

A figure of the table's kind holds numbers of one run, so that its JSON file says all that its picture shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Effort:
    """How much a figure or a measurement may cost.

    Args:
        models: folder of the example networks.
        seeds: chips, or other repetitions, of each point.
        threads: worker threads.
        quick: whether a coarse answer will do: fewer points, images, repetitions.
    """

    models: Path
    seeds: int = 10
    threads: int = 1
    quick: bool = False


@dataclass(frozen=True)
class Series:
    """One line, set of points or set of bars.

    Args:
        name: for the legend, with what the text says of it where it is published.
        x: numbers along the first axis.
        y: as many, along the second.
        spread: standard deviations of y; empty: none.
        marks: how it is drawn; "steps" for histograms, x being the left edges.
        published: whether the numbers are the paper's own (from its text), not ours.
    """

    name: str
    x: list[float]
    y: list[float]
    spread: list[float] = field(default_factory=list)
    marks: Literal["line", "points", "bars", "steps"] = "line"
    published: bool = False


@dataclass(frozen=True)
class Map:
    """A matrix of numbers drawn as colours.

    Args:
        name: what the numbers are, with unit.
        values: [rows][columns]; None where nothing was found.
        x: of the columns, numbers or names.
        y: of the rows.
    """

    name: str
    values: list[list[float | None]]
    x: list[float | str]
    y: list[float | str]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        title: what it shows; may be empty.
        x_label: with unit.
        y_label: with unit.
        series: what is drawn; empty where there is a map.
        map: instead of series.
        x_scale: "linear" or "log".
        y_scale: likewise.
        lines: published or chosen levels to be marked, (name, number) on the second axis.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series] = field(default_factory=list)
    map: Map | None = None
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    lines: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """One figure of a paper, or one of ours beside it.

    Args:
        panels: side by side.
        note: what is assumed, and what differs from the paper and why; printed under the picture.
    """

    panels: list[Panel]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class PaperFigure:
    """What can be drawn.

    Args:
        name: unique: target, then the paper's number: "sot-fig4c"; file names start with it.
        title: what it shows, with the paper's number in words.
        make: computes it.
        weight: rough seconds with ten repetitions on one processor: long ones start first.
    """

    name: str
    title: str
    make: Callable[[Effort], Figure]
    weight: float = 10


def numbers(values: Any) -> list[float]:
    """Any numbers as a list of floats."""
    return [float(value) for value in np.asarray(values, np.float64).ravel()]
