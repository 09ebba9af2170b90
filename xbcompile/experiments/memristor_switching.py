"""Figures and numbers of memristors under write pulses: training on the array, tuning, thresholds, drops along lines.

Source of what is published: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), with its Supplementary Notes 1 and 2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from xbcompile.experiments.figure import Effort, Figure, Map, Panel, Series, numbers
from xbcompile.experiments.in_situ import InSituTraining, Rule
from xbcompile.experiments.measurement import Measured
from xbcompile.targets import load_target
from xbcompile.targets.families.differential_memristor import MemristorParameters
from xbcompile.targets.families.line_resistance import LineResistance
from xbcompile.targets.families.memristor_pulses import (
    Biasing,
    Thresholds,
    Tuning,
    WriteAndVerify,
    after_pulse,
    relative_error,
)

_LAST_EPOCHS = 10  # a curve's end is their mean
_QUICK_CHIPS = 3
_TUNING_CHIPS = 3  # a tuned array is 400 devices
_RULE_NAMES: dict[Rule, str] = {
    "fixed": "fixed amplitude (Manhattan rule)",
    "variable": "variable amplitude, nominal thresholds",
    "own": "variable amplitude, each device's own thresholds",
}


def parameters() -> MemristorParameters:
    """The numbers of the shipped `memristor20`."""
    found = load_target("memristor20").parameters
    assert isinstance(found, MemristorParameters)
    return found


def without_spread(p: MemristorParameters) -> MemristorParameters:
    """The same with all thresholds nominal.

    Args:
        p: the description's numbers.
    """
    return replace(p, v_set_threshold_sigma_volt=0.0, v_reset_threshold_sigma_volt=0.0)


def chips_of(effort: Effort) -> int:
    """How many chips are looked at.

    Args:
        effort: what it may cost.
    """
    return min(effort.seeds, _QUICK_CHIPS) if effort.quick else effort.seeds


@lru_cache(16)
def training_curve(rule: Rule, chips: int, spread: bool = True) -> np.ndarray:
    """`InSituTraining.train` with its own settings: float64 [epochs + 1, chips].

    Args:
        rule: of the amplitudes.
        chips: how many, from seed 0.
        spread: whether thresholds differ from device to device.
    """
    p = parameters()
    return InSituTraining(p if spread else without_spread(p), rule).train(range(chips))


def _ends(curve: np.ndarray) -> np.ndarray:
    return np.asarray(curve[-_LAST_EPOCHS:].mean(axis=0))


def _measured(values: np.ndarray, note: str = "") -> Measured:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measured(float(values.mean()), spread, len(values), note)


def trained_fidelity(effort: Effort, rule: Rule, spread: bool = True) -> Measured:
    """Per cent of the 30 training patterns of three classes that are right, mean of the last ten epochs, over chips.

    Args:
        effort: what it may cost.
        rule: of the amplitudes.
        spread: whether thresholds differ from device to device.
    """
    return _measured(
        _ends(training_curve(rule, chips_of(effort), spread)), "mean of the last 10 of 60 epochs; our letters"
    )


def variable_gain(effort: Effort) -> Measured:
    """Points that the variable amplitude reaches above the fixed one, chip by chip.

    Args:
        effort: what it may cost.
    """
    chips = chips_of(effort)
    return _measured(_ends(training_curve("variable", chips)) - _ends(training_curve("fixed", chips)))


def training_figure(effort: Effort) -> Figure:
    """Supplementary Fig. 7: fidelity against epochs, and what pulses do to devices of several thresholds.

    Args:
        effort: what it may cost.
    """
    chips = chips_of(effort)
    curves = {name: training_curve(rule, chips) for rule, name in _RULE_NAMES.items()}
    curves["fixed amplitude, no spread of thresholds"] = training_curve("fixed", chips, False)
    series = []
    for name, curve in curves.items():
        spread = numbers(curve.std(axis=1, ddof=1)) if chips > 1 else []
        series.append(Series(name, numbers(np.arange(len(curve))), numbers(curve.mean(axis=1)), spread))
    fidelity = Panel(
        "training on the array",
        "epoch",
        "training patterns right (%)",
        series,
        lines=[("published, fixed amplitude", 70.0)],
    )
    return Figure(
        [fidelity, _kinetics()],
        f"Mean and standard deviation over {chips} chips. Assumed: the switching equation with its speed and scale, outputs "
        "aimed at +-0.85, 60 epochs, starts in the lowest fifth of the range, our letters; figure memristor20-in-situ-choices "
        "shows others. The published curve is of the error; of it the text gives 70 % alone.",
    )


def choices_figure(effort: Effort) -> Figure:
    """What the assumptions of the training decide: fidelity of each rule under other ones, one changed at a time.

    Args:
        effort: what it may cost.
    """
    p, chips = parameters(), range(chips_of(effort))
    choices: dict[str, tuple[MemristorParameters, dict[str, Any]]] = {
        "as assumed": (p, {}),
        "no spread": (without_spread(p), {}),
        "no stuck devices": (replace(p, stuck_fraction=0.0), {}),
        "twice the scale": (replace(p, v_switch_scale_volt=2 * p.v_switch_scale_volt), {}),
        "a third of the change": (replace(p, threshold_change=p.threshold_change / 3), {}),
        "V/3 biasing": (p, {"biasing": "V/3"}),
        "outputs of +-1": (p, {"target": 1.0}),
        "starts anywhere": (p, {"start": 1.0}),
    }
    if effort.quick:
        choices = dict(list(choices.items())[:3])
    rules: tuple[Rule, ...] = ("fixed", "variable", "own")
    values: list[list[float | None]] = [
        [
            float(_ends(InSituTraining(changed, rule, **fields).train(chips)).mean())
            for changed, fields in choices.values()
        ]
        for rule in rules
    ]
    found = Map("training patterns right (%)", values, list(choices), list(rules))
    panel = Panel("end of training under other assumptions", "changed", "rule", map=found)
    return Figure(
        [panel], f"Means over {len(chips)} chips; the first column stands in the table. None was measured by the paper."
    )


def _kinetics() -> Panel:
    """Conductance against pulses of one sign, then the other, for thresholds within two standard deviations."""
    p, pulses = parameters(), 50
    z = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    thresholds = Thresholds(
        p.v_set_threshold_volt + p.v_set_threshold_sigma_volt * z,
        p.v_reset_threshold_volt + p.v_reset_threshold_sigma_volt * z,
    )
    state = np.zeros(len(z))
    found = [state]
    for step in range(2 * pulses):
        volt = np.full(len(z), p.v_write_volt if step < pulses else -p.v_write_volt)
        state = after_pulse(p, state, volt, thresholds)
        found.append(state)
    micro = 1e6 * (p.g_min_siemens + p.level_siemens * np.stack(found))
    count = numbers(np.arange(2 * pulses + 1))
    series = [Series(f"thresholds {deviation:+g} sigma", count, numbers(micro[:, i])) for i, deviation in enumerate(z)]
    return Panel("50 pulses of +1.3 V, then of -1.3 V", "pulse", "conductance (uS)", series)


@lru_cache(16)
def tuned_arrays(biasing: Biasing, tolerance: float, chips: int, passes: int) -> tuple[np.ndarray, tuple[Tuning, ...]]:
    """Whole arrays tuned to conductances uniform in the logarithm over the range: wanted states, and each pass over all devices.

    Args:
        biasing: of the lines.
        tolerance: of the conductance, relative.
        chips: how many, from seed 0.
        passes: how often all devices are looked at, and tuned where they are off.
    """
    p = parameters()
    shape = (chips, p.rows, 2 * p.columns)
    drawn = np.random.default_rng(0).uniform(size=shape)
    siemens = p.g_min_siemens * (p.g_max_siemens / p.g_min_siemens) ** drawn
    wanted = (siemens - p.g_min_siemens) / p.level_siemens
    thresholds = Thresholds.of_chips(p, range(chips), 0)
    state, found = np.zeros(shape), []
    for _ in range(passes):
        found.append(WriteAndVerify(tolerance, biasing=biasing).tune(p, state, wanted, thresholds))
        state = found[-1].state
    return wanted, tuple(found)


def tuning_figure(effort: Effort) -> Figure:
    """Tuning of whole arrays by write and verify: pulses, and errors after each device and after the whole array.

    Args:
        effort: what it may cost.
    """
    p, chips, tolerance = parameters(), 1 if effort.quick else _TUNING_CHIPS, 0.3
    counts = np.arange(0, 61)
    by_pulses, by_error = [], []
    errors = np.linspace(0, 100, 101)
    for biasing in ("V/2", "V/3"):
        wanted, passes = tuned_arrays(biasing, tolerance, chips, 2)
        pulses = passes[0].pulses.ravel()
        by_pulses.append(
            Series(f"{biasing} biasing", numbers(counts), [100 * float((pulses <= count).mean()) for count in counts])
        )
        states = {
            "each device, when tuned": passes[0].tuned,
            "all devices, after one pass": passes[0].state,
            "after two": passes[1].state,
        }
        for name, state in states.items():
            off = 100 * np.abs(relative_error(p, state, wanted))
            by_error.append(
                Series(f"{biasing}: {name}", numbers(errors), [100 * float((off <= e).mean()) for e in errors])
            )
    return Figure(
        [
            Panel("pulses to within 30 %", "write pulses", "devices done (%)", by_pulses),
            Panel("what is left of it", "tuning error (%)", "devices within (%)", by_error),
        ],
        f"Arrays of 400 devices: {chips}; conductances uniform in the logarithm over 10 to 100 uS, tuned from the lowest; "
        "amplitudes from 0.5 V in steps of 0.05 V (assumed). Half-selected devices drift while others are tuned, hence errors "
        "beyond the tolerance, as the paper had them (Fig. 5a, b). V/3 biasing gives every device of the array a third of the "
        "amplitude, of the other sign on most: with resets up to 1.9 V it sets those of the lowest set thresholds.",
    )


def tuning_pulses(effort: Effort) -> Measured:
    """Supplementary Note 2: write pulses per level, tuning devices to 13 levels from 10.5 to 100 uS and back within 7.5 %.

    Args:
        effort: what it may cost.
    """
    p, chips, devices = parameters(), chips_of(effort), 5
    up = np.geomspace(10.5e-6, 100e-6, 7)
    levels = np.append(up[1:], up[-2::-1])
    thresholds = Thresholds.of_chips(p, range(chips), 0).part(devices, 1)
    tuner = WriteAndVerify(0.075, 300)
    state = np.full((chips, devices, 1), (up[0] - p.g_min_siemens) / p.level_siemens)
    pulses = []
    for siemens in levels:
        wanted = np.full((devices, 1), (siemens - p.g_min_siemens) / p.level_siemens)
        found = tuner.tune(p, state, wanted, thresholds)
        state = found.state
        pulses.append(found.pulses.mean(axis=(1, 2)))
    return _measured(np.mean(pulses, axis=0), "five devices of each chip; amplitudes from 0.5 V in steps of 0.05 V")


def thresholds_figure(effort: Effort) -> Figure:
    """Fig. 2: set and reset voltages of the devices of one array, as sampled.

    Args:
        effort: what it may cost.
    """
    del effort
    p, width = parameters(), 0.05
    found = Thresholds.of_chips(p, range(1), 0)
    edges = np.arange(-2.4, 2.4 + width / 2, width)
    series = [
        Series(name, numbers(edges[:-1]), numbers(np.histogram(volt, edges)[0]), marks="steps")
        for name, volt in (("set", found.set_volt), ("reset", -found.reset_volt))
    ]
    ends = Series(
        "smallest and largest, Supplementary Note 1",
        [-1.9, -1.0, 0.7, 1.3],
        [0.0] * 4,
        marks="points",
        published=True,
    )
    note = "Normal distributions (assumed) whose two standard deviations reach the published smallest and largest thresholds."
    return Figure([Panel("400 devices", "threshold (V)", "devices", [*series, ends])], note)


def line_drop(count: int, siemens: float, segment_ohm: float) -> float:
    """Part of the voltage that is lost at the last of `count` equal devices on a line driven at the first one.

    Args:
        count: devices; between them lie count - 1 segments.
        siemens: of each device.
        segment_ohm: of each segment.
    """
    line = LineResistance(row_segment_ohm=segment_ohm)
    return float(1 - line.effective(np.full((1, 1, count), siemens))[0, 0, -1] / siemens)


def voltage_drop(effort: Effort) -> Measured:
    """Supplementary Note 1: drop in per cent along 70 devices of 10 uS.

    Args:
        effort: what it may cost.
    """
    del effort
    value = 100 * line_drop(70, 10e-6, parameters().r_row_segment_ohm)
    return Measured(value, note="69 segments of 3 Ohm; a contact like a further segment would make it 7.02 %")


def voltage_drop_figure(effort: Effort) -> Figure:
    """Supplementary Fig. 8: worst drop against devices of a line.

    Args:
        effort: what it may cost.
    """
    counts = np.array([10, 20, 40, 70, 100, 200, 400])[: 5 if effort.quick else None]
    ours = parameters().r_row_segment_ohm
    better = ours * (70 / 400) ** 2
    series = []
    for name, segment_ohm in ((f"{ours:g} Ohm", ours), (f"{better:.3f} Ohm", better)):
        for use, micro in (("inference, 10 uS", 10), ("set, 30 uS", 30), ("reset, 50 uS", 50)):
            drops = [100 * line_drop(int(count), 1e-6 * micro, segment_ohm) for count in counts]
            series.append(Series(f"{use}, {name} a segment", numbers(counts), drops))
    told = Series("told in the text", [70.0, 400.0, 40.0], [7.0, 7.0, 7.0], marks="points", published=True)
    note = (
        "The smaller resistance is derived: a line of 400 then loses what one of 70 does now. Text: about 7 % at 70 and 400 "
        "devices (inference), largest allowed for V/2 biasing about 7 %, hence 40 devices."
    )
    panel = Panel("line of equal devices", "devices", "voltage drop at the last (%)", [*series, told], x_scale="log")
    return Figure([replace(panel, y_scale="log")], note)
