"""What a pattern costs on the arrays that a paper had: time from a program's schedule, energy of the cells that hold weights.

`inspect` and `reproduce` give an upper estimate: all cells of each array, at full drive and mean conductance. Here the cells in
use count, nominal and without line resistance: t V^2 sum_k u_k^2 sum_m (G+ + G-)_km, the heat in cells alone, at full drive
(u = 1) or with the mean u_k^2 of real patterns. Amplifiers, converters, switches and digital work are not in it.
"""

from __future__ import annotations

import numpy as np

from xbcompile.data.datasets import load_data
from xbcompile.experiments.figure import Effort
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.reproduction import Experiment
from xbcompile.ir import MatrixLayer
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import evaluate
from xbcompile.report.summary import summarize
from xbcompile.targets.families.differential_memristor import MemristorParameters
from xbcompile.targets.families.serial_junctions import SerialJunctionParameters

_PATTERNS = 500  # of the test set, for the mean squares of drives
_PROGRAMS: dict[str, Program] = {}


def program_of(experiment: Experiment, effort: Effort) -> Program:
    """The experiment's program; compiled once in a process.

    Args:
        experiment: what is compiled.
        effort: where networks lie.
    """
    if experiment.name not in _PROGRAMS:
        _PROGRAMS[experiment.name] = experiment.compiled(effort.models, experiment.quantities)
    return _PROGRAMS[experiment.name]


def total(effort: Effort, experiment: Experiment, key: str, factor: float = 1.0, note: str = "") -> Measured:
    """One of the program's totals, see docs/json.md.

    Args:
        effort: where networks lie.
        experiment: what is compiled.
        key: of the totals.
        factor: to the measurement's unit.
        note: of the measurement.
    """
    return Measured(factor * summarize(program_of(experiment, effort))["totals"][key], note=note)


def patterns_per_second(effort: Effort, experiment: Experiment) -> Measured:
    """One over the time that a pattern takes from input to output; the next one waits, as signals are not held between layers.

    Args:
        effort: where networks lie.
        experiment: what is compiled.
    """
    totals = summarize(program_of(experiment, effort))["totals"]
    held = totals["inferences_per_s"]
    return Measured(1 / totals["makespan_s"], note=f"{held:,.0f} a second if each layer held what it reads")


def used_energy(effort: Effort, experiment: Experiment, unit_j: float, full_drive: bool) -> Measured:
    """Energy of the cells that hold weights, per pattern.

    Args:
        effort: where networks lie.
        experiment: what is compiled; each layer is read once per pattern.
        unit_j: the measurement's unit in joules.
        full_drive: every row at full drive, or the first patterns of the experiment's data.
    """
    program = program_of(experiment, effort)
    p = program.target.parameters
    energy_j = 0.0
    for layer, squares in zip(program.network.layers, _mean_squares(experiment, effort, full_drive), strict=True):
        energy_j += p.t_read_s * p.v_read_volt**2 * float(squares @ _row_siemens(program, layer))
    return Measured(energy_j / unit_j)


def _row_siemens(program: Program, layer: MatrixLayer) -> np.ndarray:
    """Conductance of the cells on each row, both of each pair: float64 [inputs]."""
    p, code = program.target.parameters, layer.weight_code
    assert code is not None
    if isinstance(p, SerialJunctionParameters):
        return np.asarray(p.cell_siemens[p.pairs[code.codes]].sum(axis=(0, 2, 3)))
    assert isinstance(p, MemristorParameters)
    values = np.abs(np.asarray(code.codes, np.float64))
    return np.asarray((2 * p.g_min_siemens + p.level_siemens * np.minimum(values, 1.0)).sum(axis=(0, 2)))


def _mean_squares(experiment: Experiment, effort: Effort, full_drive: bool) -> list[np.ndarray]:
    """Mean u^2 of each row of each layer: float64 [inputs]."""
    network = program_of(experiment, effort).network
    if full_drive:
        return [np.ones(layer.inputs) for layer in network.layers]
    data = load_data(f"{experiment.data}:{_PATTERNS}", network.inputs, network.samples)
    values = evaluate(network, data.inputs, [layer.input for layer in network.layers])
    return [_drive_squares(layer, np.concatenate(each)) for layer, each in zip(network.layers, values, strict=True)]


def _drive_squares(layer: MatrixLayer, x: np.ndarray) -> np.ndarray:
    code = layer.input_code
    assert code is not None
    assert code.low is not None
    assert code.high is not None
    drive = 2 * (np.clip(x.astype(np.float64), code.low, code.high) - code.low) / (code.high - code.low) - 1
    return np.asarray(np.square(drive).reshape(-1, layer.inputs).mean(axis=0))
