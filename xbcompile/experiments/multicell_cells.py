"""Figures and numbers of cells of serial junctions: loops, states, write voltages, failures, the divider, energy.

Source of what is published: Rzeszut et al., Sci. Rep. 12, 7178 (2022). Table 1, from which the paper's Figs. 1 and 3 were
computed, is not in its text; the numbers of `multicell` that stand for it are derived or assumed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xbcompile.experiments.array_costs import program_of, used_energy
from xbcompile.experiments.figure import Effort, Figure, Panel, Series, numbers
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.reproduction import Experiment
from xbcompile.targets import load_target
from xbcompile.targets.families.junction_switching import SwitchingCells, current_at, programming_volts
from xbcompile.targets.families.serial_junctions import SerialJunctionParameters

_SAMPLE = 1  # seed of the cells of figures; medians of write voltages are of another sample
_SWEEP_POINTS = 200  # of a quarter of a loop
_BINS = 120


def cells_of(junctions: int) -> SerialJunctionParameters:
    """The shipped `multicell` with so many junctions.

    Args:
        junctions: in a cell.
    """
    found = load_target("multicell").parameters
    assert isinstance(found, SerialJunctionParameters)
    return replace(found, junctions=junctions)


def last_write_voltage(effort: Effort) -> Measured:
    """Voltage at which the last of seven nominal junctions becomes antiparallel.

    Args:
        effort: what it may cost.
    """
    cells = SwitchingCells.of_chip(cells_of(7), _SAMPLE, 200 if effort.quick else 2000).write_volts()[-1]
    return Measured(
        float(SwitchingCells.nominal(cells_of(7)).write_volts()[-1]),
        note=f"spread: {cells.mean():.2f} +- {cells.std(ddof=1):.2f} V over cells: the last one has the highest threshold",
    )


def programming_failures(effort: Effort, junctions: int) -> Measured:
    """Per cent of cells that one pulse per state leaves in another state, all states alike.

    Args:
        effort: what it may cost.
        junctions: in a cell.
    """
    p, count = cells_of(junctions), 200 if effort.quick else 2000
    wrong = []
    for seed in range(_SAMPLE, _SAMPLE + effort.seeds):
        own = SwitchingCells.of_chip(p, seed, count).write_volts()
        reached = (own[:, None] <= programming_volts(p)[:, None]).sum(axis=0)
        wrong.append(100 * float((reached != np.arange(junctions + 1)[:, None]).mean()))
    spread = float(np.std(wrong, ddof=1)) if len(wrong) > 1 else None
    return Measured(float(np.mean(wrong)), spread, len(wrong), f"{junctions + 1} cycles, {count:,} cells")


def divider_error(effort: Effort, signed: bool) -> Measured:
    """Root mean square of the divider's voltage less that of the common G_sum, over the latter's, in per cent.

    Args:
        effort: what it may cost.
        signed: inputs uniform in -1..1; otherwise 0..1.
    """
    p, inputs, rng = cells_of(4), 400, np.random.default_rng(0)
    columns, vectors = (50, 20) if effort.quick else (500, 50)
    siemens = p.cell_siemens[rng.integers(0, p.junctions + 1, (2, inputs, columns))]
    drive = rng.uniform(-1 if signed else 0, 1, (vectors, inputs))
    sums = drive @ siemens
    own = sums[0] / siemens[0].sum(axis=0) - sums[1] / siemens[1].sum(axis=0)
    common = (sums[0] - sums[1]) / (inputs * (p.cell_siemens[0] + p.cell_siemens[-1]) / 2)
    gain = float((own * common).sum() / np.square(common).sum())
    rms = 100 * float(np.sqrt(np.square(own - common).mean() / np.square(common).mean()))
    rest = 100 * float(np.sqrt(np.square(own - gain * common).mean() / np.square(gain * common).mean()))
    return Measured(rms, note=f"400 random pairs of cells; {rest:.1f} % after the common gain of {gain:.2f}")


def amplifier_energy(effort: Effort, experiment: Experiment) -> Measured:
    """Energy of the neurons' operational amplifiers while a pattern passes once, in pJ.

    Args:
        effort: where networks lie.
        experiment: what is compiled.
    """
    program = program_of(experiment, effort)
    p, neurons = program.target.parameters, sum(layer.outputs for layer in program.network.layers)
    one_j = p.i_amplifier_ampere * p.v_supply_volt * p.t_read_s
    amplifiers = neurons * p.amplifiers_per_neuron
    note = f"{amplifiers} amplifiers of {1e12 * one_j:.1f} pJ; 37.4 pJ would be {37.4e-12 / one_j:.1f} of them"
    return Measured(1e12 * amplifiers * one_j, note=note)


def energy_per_image(effort: Effort, experiment: Experiment) -> Measured:
    """Cells in use on real images, and amplifiers, in pJ.

    Args:
        effort: where networks lie.
        experiment: what is compiled.
    """
    cells = used_energy(effort, experiment, 1e-12, full_drive=False).value
    amplifiers = amplifier_energy(effort, experiment).value
    note = "not in it: sigmoid blocks (their current is not in the text), bias inputs, softmax, programming"
    return Measured(cells + amplifiers, note=note)


def _quarter(limit_volt: float) -> np.ndarray:
    return np.linspace(limit_volt / _SWEEP_POINTS, limit_volt, _SWEEP_POINTS)


def _loop(cells: SwitchingCells, names: list[str]) -> list[Series]:
    """R(V) of the cells from parallel up, back, down and back."""
    limit = 1.15 * float(np.max(cells.write_volts()[-1]))
    up, down = _quarter(limit), -_quarter(1.3 * float(np.max(cells.erase_volt())))
    volts = np.concatenate([up, up[::-1], down, down[::-1]])
    ohm = cells.loop(volts)
    ohm = ohm.reshape(len(volts), -1)
    return [Series(name, numbers(volts), numbers(ohm[:, i] / 1e3)) for i, name in enumerate(names)]


def loops_figure(effort: Effort) -> Figure:
    """Fig. 1: resistance against voltage of one junction and of three in series.

    Args:
        effort: what it may cost.
    """
    samples = 2 if effort.quick else 5
    panels = []
    for junctions in (1, 3):
        p = cells_of(junctions)
        series = _loop(SwitchingCells.of_chip(p, _SAMPLE, samples), [f"cell {i + 1}" for i in range(samples)])
        series += _loop(SwitchingCells.nominal(p), ["nominal"])
        title = f"{junctions} junction{'s' * (junctions > 1)}"
        panels.append(Panel(title, "voltage over the cell (V)", "resistance (kOhm)", series))
    return Figure(
        panels,
        "Four straight lines and two thresholds per junction; numbers derived or assumed, as Table 1 is not in the text. Towards "
        "the antiparallel state junctions switch one by one, back all at once: that is how a cell is written and erased.",
    )


def states_figure(effort: Effort) -> Figure:
    """Fig. 3: seven junctions: resistances read in each state, write-read-erase curves, write voltages.

    Args:
        effort: what it may cost.
    """
    p, count = cells_of(7), 200 if effort.quick else 4000
    cells = SwitchingCells.of_chip(p, _SAMPLE, count)
    rank, volts = cells.order(), cells.write_volts()
    read = [p.v_read_volt / _current(p, cells, rank < state) / 1e3 for state in range(p.junctions + 1)]
    edges = np.linspace(0.9 * float(np.min(read)), 1.05 * float(np.max(read)), _BINS)
    histograms = [
        Series(f"state {state}", numbers(edges[:-1]), numbers(np.histogram(ohm, edges)[0]), marks="steps")
        for state, ohm in enumerate(read)
    ]
    edges = np.linspace(0.9 * float(volts.min()), 1.05 * float(volts.max()), _BINS)
    writes = [
        Series(f"to state {n + 1}", numbers(edges[:-1]), numbers(np.histogram(each, edges)[0]), marks="steps")
        for n, each in enumerate(volts)
    ]
    curve = _loop(SwitchingCells.nominal(p), ["nominal cell"])
    told = Series("published, seven junctions", [3.25], [0.0], marks="points", published=True)
    return Figure(
        [
            Panel("read at 0.2 V", "resistance (kOhm)", "cells", histograms),
            Panel("write, read, erase", "voltage over the cell (V)", "resistance (kOhm)", curve),
            Panel("write voltages", "voltage over the cell (V)", "cells", [*writes, told]),
        ],
        f"{count} cells; spreads of 5 % each of resistances, slopes and thresholds (assumed). The mean threshold is derived "
        "from the published 3.25 V for the last of seven nominal junctions.",
    )


def _current(p: SerialJunctionParameters, cells: SwitchingCells, antiparallel: np.ndarray) -> np.ndarray:
    return current_at(*cells.in_states(antiparallel), p.v_read_volt)


def failures_figure(effort: Effort) -> Figure:
    """Programming in one cycle per state: wrong cells against junctions and against the spread of thresholds (ours).

    Args:
        effort: what it may cost.
    """
    quick = replace(effort, seeds=min(effort.seeds, 2), quick=True)
    junctions = list(range(1, 8))
    found = [programming_failures(quick, n) for n in junctions]
    by_spread = []
    for n in (4, 7):
        shares = []
        spreads = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1)
        for spread in spreads:
            p = cells_of(n)
            p = replace(p, v_switch_sigma_volt=spread * p.v_switch_volt, v_read_volt=0.05)
            own = SwitchingCells.of_chip(p, _SAMPLE, 1000).write_volts()
            reached = (own[:, None] <= programming_volts(p)[:, None]).sum(axis=0)
            shares.append(100 * float((reached != np.arange(n + 1)[:, None]).mean()))
        by_spread.append(Series(f"{n} junctions", [100 * s for s in spreads], shares))
    return Figure(
        [
            Panel(
                "5 % spreads",
                "junctions in series",
                "cells in a wrong state (%)",
                [Series("one pulse per state", numbers(junctions), [each.value for each in found])],
            ),
            Panel("resistances 5 %", "spread of thresholds (%)", "cells in a wrong state (%)", by_spread),
        ],
        "All states alike; amplitudes half-way between medians of neighbouring write voltages. The paper proposes further "
        "cycles or adaptive programming where spreads are too large.",
    )


def junctions_figure(effort: Effort, experiments: tuple[Experiment, ...]) -> Figure:
    """Fig. 5c: error against junctions, one fit per matrix.

    Args:
        effort: what it may cost.
        experiments: of rising numbers of junctions.
    """
    chips = min(effort.seeds, 1 if effort.quick else 3)
    rows = [each.run(effort.models, chips, effort.threads) for each in experiments]
    x = numbers([each.quantities["junctions"] for each in experiments])
    errors = [100 - row["array_mean"] for row in rows]
    series = [Series("array, one fit per matrix", x, errors, [row["array_std"] for row in rows])]
    lines = [("software", 100 - rows[0]["software"]), ("published for four and more: below 3 %", 3.0)]
    panel = Panel(
        "tanh 400-100-100-10 on MNIST", "junctions in series", "error (%)", series, y_scale="log", lines=lines
    )
    return Figure([panel], f"{chips} chips; the paper varies the hidden neurons and averages 50 splits of its data.")
