"""Fig. 4 of Liu et al. (SOT-MRAM), and the numbers that go with it: the paper's example graph on simulated crossbars.

Spreads of conductances are those of the target, or `k_sigma` for both states. At a TMR of 600 % the text gives no
threshold: it is the middle between the weakest pass and the strongest no-pass of mean devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from xbcompile.experiments.figure import Effort, Figure, Panel, PaperFigure, Series, numbers
from xbcompile.experiments.graphs.circuits import connection_probability, graph_circuit, paper_graph
from xbcompile.experiments.graphs.sampling import (
    PUBLISHED_THRESHOLD_A,
    GraphSamples,
    Sampling,
    nominal_window_a,
    sample_graph,
)
from xbcompile.experiments.graphs.tiled import TiledGraph, TiledSampling, random_graph
from xbcompile.experiments.measurement import Measured, Measurement
from xbcompile.targets import load_target
from xbcompile.targets.families.spin_orbit import SpinOrbitArray, SpinOrbitParameters

TARGET = "sot-single"
MEASURED_TMR, IDEAL_TMR = 1.5, 6.0  # Fig. 4c and d
_SHOWN = 1000  # crossbars of Fig. 4c
_SAMPLES = 5  # of each crossbar where errors are counted
_MANY_NODES, _FEW_NODES, _SOURCES, _TILED_CHIPS = 1000, 300, 4, 3
_MEASURED_DEVICES = 100  # of Fig. 2c
_SPREADS = tuple(0.025 * step for step in range(17))
_FEW_SPREADS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)

ONE_CURVE = Sampling(samples=_SAMPLES, spread_curves=False)
SPREAD = Sampling(samples=_SAMPLES)
OURS = replace(SPREAD, lookup="mean-curve", threshold="crossbar")


def device_parameters(tmr: float, k_sigma: float | None = None) -> SpinOrbitParameters:
    """The target's devices with another TMR, and with one spread for both states; None: the measured spreads."""
    parameters = load_target(TARGET).parameters
    assert isinstance(parameters, SpinOrbitParameters)
    changed = replace(parameters, tmr=tmr)
    return changed if k_sigma is None else replace(changed, low_sigma=k_sigma, high_sigma=k_sigma)


def sampled(parameters: SpinOrbitParameters, sampling: Sampling, effort: Effort) -> list[GraphSamples]:
    """The example graph on as many chips as are asked for."""
    graph = paper_graph()
    return [sample_graph(graph, 0, 2, parameters, sampling, seed) for seed in range(effort.seeds)]


def _ideal() -> float:
    return connection_probability(graph_circuit(paper_graph(), 0, 2))


def _expectation_errors(samples: Sequence[GraphSamples]) -> list[float]:
    return [100 * each.expectation_error for each in samples]


def _total_errors(samples: Sequence[GraphSamples]) -> list[float]:
    return [100 * each.total_error(_ideal()) for each in samples]


def _measured(values: Sequence[float], note: str = "") -> Measured:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measured(float(np.mean(values)), spread, len(values), note)


def _current_panel(title: str, parameters: SpinOrbitParameters, threshold_a: float, effort: Effort) -> Panel:
    """Output currents of many crossbars, one sample each."""
    count = _SHOWN // 4 if effort.quick else _SHOWN
    samples = sample_graph(paper_graph(), 0, 2, parameters, Sampling(count))
    places, currents, connected = np.arange(count), samples.currents_a[0] * 1e6, samples.connected[0]
    series = [
        Series("connected", numbers(places[connected]), numbers(currents[connected]), marks="points"),
        Series("not connected", numbers(places[~connected]), numbers(currents[~connected]), marks="points"),
    ]
    lines = [(f"threshold {threshold_a * 1e6:.1f} µA", threshold_a * 1e6)]
    return Panel(title, "crossbar", "output current (µA)", series, lines=lines)


def output_currents(tmr: float, effort: Effort) -> Figure:
    """Figs. 4c and d: write noise alone, and all spreads, for one TMR."""
    measured = device_parameters(tmr)
    if tmr == MEASURED_TMR:
        threshold_a, where = PUBLISHED_THRESHOLD_A, "as published"
    else:
        circuit = graph_circuit(paper_graph(), 0, 2)
        threshold_a = sum(nominal_window_a(circuit, measured, Sampling().read_volt)) / 2
        where = "in the middle of the window of mean devices (assumed)"
    panels = [
        _current_panel("write noise alone", device_parameters(tmr, 0.0), threshold_a, effort),
        _current_panel("conductances spread", measured, threshold_a, effort),
    ]
    return Figure(
        panels,
        f"TMR {100 * tmr:.0f} %, low resistance as derived from the junction's area (the published threshold played no part); "
        f"10 mV; threshold {where}. Switching curves spread (assumed width), voltages from the mean threshold's curve.",
    )


def _sweep(
    name: str,
    tmr: float,
    sampling: Sampling,
    errors: Callable[[Sequence[GraphSamples]], list[float]],
    effort: Effort,
) -> Series:
    """An error in per cent against k_sigma in per cent: mean and sample deviation over chips."""
    spreads = _FEW_SPREADS if effort.quick else _SPREADS
    found = [_measured(errors(sampled(device_parameters(tmr, k), sampling, effort))) for k in spreads]
    deviations = numbers([each.spread or 0.0 for each in found])
    return Series(name, numbers(np.multiply(spreads, 100)), numbers([each.value for each in found]), deviations)


def expectation_error(effort: Effort) -> Figure:
    """Fig. 4e, with thresholds chosen better beside it."""
    window, chip, crossbar = (replace(SPREAD, threshold=each) for each in ("window", "chip", "crossbar"))
    series = [
        _sweep("TMR 150 %, 11.5 µA", MEASURED_TMR, SPREAD, _expectation_errors, effort),
        _sweep("TMR 600 %, middle of the window", IDEAL_TMR, window, _expectation_errors, effort),
        _sweep("ours: 150 %, threshold per chip", MEASURED_TMR, chip, _expectation_errors, effort),
        _sweep("ours: 150 %, threshold per crossbar", MEASURED_TMR, crossbar, _expectation_errors, effort),
    ]
    panel = Panel("", "conductance noise k_sigma (%)", "error of expectation (%)", series)
    note = "Readings that contradict what is written; mean and deviation over chips of 1,000 crossbars, 5 samples each."
    return Figure([panel], note)


def total_error(effort: Effort) -> Figure:
    """Fig. 4f, with the lookup and thresholds of ours beside it."""
    series = [
        _sweep("one switching curve", MEASURED_TMR, ONE_CURVE, _total_errors, effort),
        _sweep("curves spread, mean threshold looked up", MEASURED_TMR, SPREAD, _total_errors, effort),
        _sweep("ours: mean probability looked up, threshold per crossbar", MEASURED_TMR, OURS, _total_errors, effort),
    ]
    panel = Panel("", "conductance noise k_sigma (%)", "total error (%)", series)
    return Figure(
        [panel],
        "Distance of the share of passes from 0.44; TMR 150 %, threshold 11.5 µA. The spread of the curves is assumed; where the "
        "two published curves cross (from 15 % on) depends on it.",
    )


def _probability(effort: Effort) -> Measured:
    samples = sampled(device_parameters(MEASURED_TMR, 0.0), replace(ONE_CURVE, samples=10), effort)
    energy_j = samples[0].pulses / samples[0].connected.size * device_parameters(MEASURED_TMR).e_write_device_j
    note = f"exactly {_ideal():g}; {energy_j * 1e12:.1f} pJ of write pulses a sample"
    return _measured([each.probability for each in samples], note)


def _window_current(effort: Effort) -> Measured:
    circuit = graph_circuit(paper_graph(), 0, 2)
    lowest, highest = (
        1e6 * a for a in nominal_window_a(circuit, device_parameters(MEASURED_TMR), Sampling().read_volt)
    )
    return Measured((lowest + highest) / 2, note=f"weakest pass {lowest:.2f}, strongest no-pass {highest:.2f}")


def _expectation(tmr: float, sampling: Sampling, effort: Effort) -> Measured:
    return _measured(_expectation_errors(sampled(device_parameters(tmr), sampling, effort)))


def _total(sampling: Sampling, effort: Effort) -> Measured:
    samples = sampled(device_parameters(MEASURED_TMR), sampling, effort)
    return _measured(_total_errors(samples), f"{np.mean([each.probability for each in samples]):.3f} pass")


def _slower_rise(effort: Effort) -> Measured:
    """Error at 600 % as a part of that at 150 %, both summed over the spreads, with thresholds chosen alike."""
    window = replace(ONE_CURVE, threshold="window")
    found = []
    for seed in range(effort.seeds):
        summed = [
            sum(
                sample_graph(paper_graph(), 0, 2, device_parameters(tmr, k), window, seed).expectation_error
                for k in _FEW_SPREADS
            )
            for tmr in (IDEAL_TMR, MEASURED_TMR)
        ]
        found.append(summed[0] / summed[1])
    return _measured(found)


def _threshold_of_the_chip(effort: Effort) -> Measured:
    """Error with the threshold chosen per chip as a part of that with the published one."""
    parameters = device_parameters(MEASURED_TMR)
    common, chosen = (
        sampled(parameters, replace(SPREAD, threshold=each), effort) for each in (PUBLISHED_THRESHOLD_A, "chip")
    )
    pairs = zip(common, chosen, strict=True)
    at_ua = 1e6 * float(np.mean([each.thresholds_a[0] for each in chosen]))
    return _measured([b.expectation_error / a.expectation_error for a, b in pairs], f"{at_ua:.2f} µA on average")


def _crossing(effort: Effort) -> Measured:
    """The k_sigma in per cent from which the spread of curves does better than one curve."""
    spreads = 100 * np.array(_SPREADS)
    one, many = (
        np.array(_sweep("", MEASURED_TMR, each, _total_errors, replace(effort, quick=False)).y)
        for each in (ONE_CURVE, SPREAD)
    )
    apart = many - one
    after = np.flatnonzero((apart[1:] <= 0) & (apart[:-1] > 0))
    if not len(after):
        return Measured(float(spreads[-1]), note=f"no crossing up to {spreads[-1]:g} %")
    i = int(after[0])
    return Measured(float(spreads[i] + apart[i] / (apart[i] - apart[i + 1]) * (spreads[i + 1] - spreads[i])))


def _tmr_of_devices(effort: Effort) -> Measured:
    """TMR of devices in per cent: 100 devices a chip, as measured in Fig. 2c."""
    parameters = load_target("sot").parameters
    assert isinstance(parameters, SpinOrbitParameters)
    side = replace(parameters, rows=_MEASURED_DEVICES, columns=1, devices_per_weight=1)

    def ratios(correlation: float) -> np.ndarray:
        chips = [SpinOrbitArray(replace(side, state_correlation=correlation), seed) for seed in range(effort.seeds)]
        states = [chip.device_siemens(0)[0] for chip in chips]
        return 100 * np.array([each[1] / each[0] - 1 for each in states])

    found, independent = ratios(parameters.state_correlation), ratios(0.0)
    note = f"{found.min():.0f} to {found.max():.0f}; {independent.min():.0f} to {independent.max():.0f} if independent"
    return Measured(float(found.mean()), float(found.std(ddof=1)), found.size, note)


def _tiled(sampling: TiledSampling, effort: Effort) -> Measured:
    """Error of expectation on a random graph of 1,000 nodes (300 if quick), in per cent, and what it takes."""
    graph, sources, samples = random_graph(_FEW_NODES if effort.quick else _MANY_NODES), range(_SOURCES), 2
    chips = [TiledGraph(graph, load_target("sot"), sampling, seed) for seed in range(min(effort.seeds, _TILED_CHIPS))]
    found = [chip.sample(sources, samples) for chip in chips]
    reads = np.mean([each.reads for each in found]) / (samples * len(sources))
    reached = 100 * np.mean([each.really.mean() for each in found])
    note = f"{len(graph)} nodes on {len(chips[0].tiles)} arrays, {reached:.0f} % reached, {reads:,.0f} reads a question"
    return _measured([100 * each.expectation_error for each in found], note)


GRAPH_FIGURES = (
    PaperFigure("sot-fig4c", "Fig. 4c: output currents, TMR 150 %", partial(output_currents, MEASURED_TMR), 2),
    PaperFigure("sot-fig4d", "Fig. 4d: output currents, TMR 600 %", partial(output_currents, IDEAL_TMR), 2),
    PaperFigure("sot-fig4e", "Fig. 4e: error of expectation against conductance noise", expectation_error, 60),
    PaperFigure("sot-fig4f", "Fig. 4f: total error against conductance noise", total_error, 45),
)

GRAPH_MEASUREMENTS = (
    Measurement(
        "sot-graph-probability",
        "P(0 → 2) of the example graph, ideal curves (Fig. 4a)",
        TARGET,
        "",
        0.44,
        "predicted",
        "paper",
        _probability,
        0.425,
        0.455,
        5,
    ),
    Measurement(
        "sot-graph-threshold",
        "middle between pass and no-pass at 10 mV, mean devices (Fig. 4c)",
        TARGET,
        "µA",
        11.5,
        "predicted",
        "paper",
        _window_current,
        weight=1,
    ),
    Measurement(
        "sot-graph-expectation-150",
        "error of expectation, TMR 150 %, measured spread (Fig. 4c)",
        TARGET,
        "%",
        None,
        "assumed",
        "paper",
        partial(_expectation, MEASURED_TMR, SPREAD),
        weight=2,
    ),
    Measurement(
        "sot-graph-expectation-600",
        "error of expectation, TMR 600 %, measured spread (Fig. 4d)",
        TARGET,
        "%",
        None,
        "assumed",
        "paper",
        partial(_expectation, IDEAL_TMR, replace(SPREAD, threshold="window")),
        weight=2,
    ),
    Measurement(
        "sot-graph-slower-rise",
        "error at 600 % over that at 150 %, k_sigma 0 to 30 % (Fig. 4e)",
        TARGET,
        "",
        None,
        "predicted",
        "paper",
        _slower_rise,
        high=0.5,
        weight=15,
    ),
    Measurement(
        "sot-graph-total-one",
        "total error, one switching curve (Fig. 4f)",
        TARGET,
        "%",
        None,
        "predicted",
        "paper",
        partial(_total, ONE_CURVE),
        weight=2,
    ),
    Measurement(
        "sot-graph-total-spread",
        "total error, curves spread (Fig. 4f)",
        TARGET,
        "%",
        None,
        "assumed",
        "paper",
        partial(_total, SPREAD),
        weight=2,
    ),
    Measurement(
        "sot-graph-crossing",
        "k_sigma from which spread curves do better than one (Fig. 4f)",
        TARGET,
        "%",
        15.0,
        "assumed",
        "paper",
        _crossing,
        weight=30,
    ),
    Measurement(
        "sot-graph-total-ours",
        "total error, curves spread, mean probability looked up, threshold per crossbar",
        TARGET,
        "%",
        None,
        "assumed",
        "ours",
        partial(_total, OURS),
        weight=3,
    ),
    Measurement(
        "sot-graph-threshold-per-chip",
        "error of expectation, threshold per chip over published threshold",
        TARGET,
        "",
        None,
        "assumed",
        "ours",
        _threshold_of_the_chip,
        high=0.5,
        weight=5,
    ),
    Measurement(
        "sot-graph-tiled-at-once",
        "1,000 nodes on tiled arrays, all rows of a wave driven at once, threshold 0.5",
        "sot",
        "%",
        None,
        "assumed",
        "ours",
        partial(_tiled, TiledSampling(rows_at_a_time=4096, threshold=0.5)),
        weight=10,
    ),
    Measurement(
        "sot-graph-tiled",
        "the same, one row of a tile at a time, threshold per chip",
        "sot",
        "%",
        None,
        "assumed",
        "ours",
        partial(_tiled, TiledSampling()),
        high=0.5,
        weight=40,
    ),
    Measurement(
        "sot-device-tmr",
        "TMR of 100 devices a chip, mean and deviation (Fig. 2c)",
        "sot",
        "%",
        166.0,
        "assumed",
        "paper",
        _tmr_of_devices,
        weight=1,
    ),
)
