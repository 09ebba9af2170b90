"""`multicell`: Rzeszut et al., "Multi-state MRAM cells for hardware neuromorphic computing", Scientific Reports 12 (2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from xbcompile.experiments import array_costs as costs
from xbcompile.experiments import multicell_cells as cells
from xbcompile.experiments import multicell_splits as splits
from xbcompile.experiments.figure import Effort, PaperFigure
from xbcompile.experiments.measurement import Measured, Measurement
from xbcompile.experiments.reproduction import Experiment, Goal

# Every layer has an array of its own, as in the paper: weights are written once.
_STAYS = {"arrays": 0}
_PAPER = "quantize{per=matrix},analogue"
_PER_COLUMN = "quantize,analogue"
_DATA_AWARE = "quantize{method=data-aware},analogue"
_OURS = "quantize{method=data-aware},analogue,recalibrate{samples=1000}"


def _multicell(name: str, junctions: int, spread: float, words: str, passes: str, **fields: Any) -> Experiment:
    """The published error is below 3 % from four junctions on, comparable to software; it is not given for fewer."""
    defaults: dict[str, Any] = {
        "goal": None,
        "published": (None, 97.0) if junctions >= 4 else (None, None),
        "weight": 40,
    }
    plural = "s" * (junctions > 1)
    return Experiment(
        f"multicell-{name}",
        f"tanh 400-100-100-10 on multicell, {junctions} junction{plural}, {100 * spread:g} % spread{words}",
        "mnist_tanh",
        "multicell",
        passes=passes,
        calibration="mnist:train:4000",
        quantities={"junctions": junctions, "resistance_sigma": spread, "slope_sigma": spread},
        options=_STAYS,
        has_spread=spread > 0,
        **(defaults | fields),
    )


def _paper(junctions: int) -> Experiment:
    """One scale and offset per matrix, least squares, and no correction: weights rescaled by the amplifiers' gain."""
    words = ", one fit per matrix"
    return _multicell(f"{junctions}-paper", junctions, 0.05, words, _PAPER, procedure="paper")


def _switched(name: str, junctions: int, words: str, passes: str, quantity: str, **fields: Any) -> Experiment:
    """With what the paper's theory leaves out switched on."""
    found = _multicell(name, junctions, 0.05, words, passes, **fields)
    return replace(found, quantities={**found.quantities, quantity: 1})


EXPERIMENTS: tuple[Experiment, ...] = (
    *(_paper(junctions) for junctions in (1, 2, 3, 4, 7)),
    _switched("4-open-loop", 4, ", one pulse per state", _PAPER, "open_loop_writing", procedure="paper"),
    _switched("7-open-loop", 7, ", one pulse per state", _PAPER, "open_loop_writing", procedure="paper"),
    _switched("4-divider", 4, ", the divider's own sums", _PAPER, "divider_loads", procedure="paper"),
    _switched("4-divider-recalibrated", 4, ", the divider's own sums, recalibrated", _OURS, "divider_loads"),
    _multicell("1-columns", 1, 0.05, ", a fit per column", _PER_COLUMN),
    _multicell("1-data-aware", 1, 0.05, ", data-aware", _DATA_AWARE),
    _multicell("1", 1, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(array=96.8)),
    _multicell("2", 2, 0.0, ", data-aware, recalibrated", _OURS, goal=Goal(drop=0.2)),
    _multicell("3", 3, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(drop=0.3)),
    _multicell("4-columns", 4, 0.05, ", a fit per column", _PER_COLUMN),
    _multicell("4-data-aware", 4, 0.05, ", data-aware", _DATA_AWARE),
    _multicell("4", 4, 0.05, ", data-aware, recalibrated", _OURS, goal=Goal(array=97.0)),
)


def _measurement(name: str, title: str, unit: str, measure: Callable[[Effort], Measured], **fields: Any) -> Measurement:
    defaults: dict[str, Any] = {"published": None, "basis": "assumed", "procedure": "paper", "weight": 10}
    return Measurement(f"multicell-{name}", title, "multicell", unit, measure=measure, **(defaults | fields))


_SEVEN = EXPERIMENTS[4]


def _of_splits(junctions: int) -> Measurement:
    """Published: comparable to software where cells have more than three junctions, and below 3 %."""
    return _measurement(
        f"splits-{junctions}",
        f"error of such networks on arrays, {junctions} junction{'s' * (junctions > 1)} (Fig. 5c)",
        "%",
        partial(splits.array_error, experiment=_paper(junctions)),
        published=3.0 if junctions >= 4 else None,
        high=3.0 if junctions >= 4 else None,
        weight=45,
    )


MEASUREMENTS: tuple[Measurement, ...] = (
    _measurement(
        "splits-software",
        "error of 400-100-100-10 networks, each trained and tested on a random split of its own (Fig. 5c)",
        "%",
        splits.software_error,
        weight=150,
    ),
    *(_of_splits(junctions) for junctions in range(1, 8)),
    _measurement(
        "write-voltage",
        "voltage for the last of seven serial junctions",
        "V",
        cells.last_write_voltage,
        published=3.25,
        basis="calibrated",
        low=3.2,
        high=3.3,
    ),
    *(
        _measurement(
            f"{junctions}-write-failures",
            f"cells of {junctions} junctions in a wrong state after {junctions + 1} programming cycles",
            "%",
            partial(cells.programming_failures, junctions=junctions),
        )
        for junctions in (4, 7)
    ),
    _measurement(
        "divider-signed",
        "the divider's own sums against the common G_sum, random cells, inputs of both signs",
        "% rms",
        partial(cells.divider_error, signed=True),
        procedure="ours",
    ),
    _measurement(
        "divider-unsigned",
        "the same, inputs of one sign",
        "% rms",
        partial(cells.divider_error, signed=False),
        procedure="ours",
    ),
    _measurement(
        "latency",
        "time from an image to its outputs, layers one after the other",
        "us",
        partial(
            costs.total, experiment=_SEVEN, key="makespan_s", factor=1e6, note="each layer has the whole circuit's 1 us"
        ),
        published=1.0,
    ),
    _measurement(
        "energy-arrays",
        "energy of an image, all cells of three arrays of 400x100 pairs at full drive and mean conductance",
        "pJ",
        partial(costs.total, experiment=_SEVEN, key="e_per_inference_j", factor=1e12),
    ),
    _measurement(
        "energy-used-full",
        "the same of the cells that hold weights, full drive",
        "pJ",
        partial(costs.used_energy, experiment=_SEVEN, unit_j=1e-12, full_drive=True),
    ),
    _measurement(
        "energy-used",
        "the same, real images",
        "pJ",
        partial(costs.used_energy, experiment=_SEVEN, unit_j=1e-12, full_drive=False),
    ),
    _measurement(
        "energy-amplifiers",
        "energy of the neurons' operational amplifiers",
        "pJ",
        partial(cells.amplifier_energy, experiment=_SEVEN),
    ),
    _measurement(
        "energy",
        "energy of an image: cells that hold weights and amplifiers",
        "pJ",
        partial(cells.energy_per_image, experiment=_SEVEN),
        published=37.4,
    ),
)

FIGURES: tuple[PaperFigure, ...] = (
    PaperFigure("multicell-fig1", "Resistance against voltage (Fig. 1)", cells.loops_figure, 3),
    PaperFigure("multicell-fig3", "States and write voltages of seven junctions (Fig. 3)", cells.states_figure, 3),
    PaperFigure(
        "multicell-fig5c",
        "Error against junctions (Fig. 5c)",
        partial(cells.junctions_figure, experiments=EXPERIMENTS[:5]),
        60,
    ),
    PaperFigure("multicell-write-failures", "Programming in one cycle per state (ours)", cells.failures_figure, 5),
)
