"""Fig. 3c to g of Liu et al. as values, and ours beside them."""

from __future__ import annotations

import numpy as np

from xbcompile.experiments.figure import Effort, Figure, Map, Panel, PaperFigure, Series, numbers
from xbcompile.experiments.switching.training import Recipe, train
from xbcompile.experiments.switching.trainings import (
    GAIN_V,
    HELD_OUT,
    accuracies,
    parameters,
    size_for,
    spread_rule,
    trained,
    training_data,
)
from xbcompile.targets.families.switching import SwitchingCurves

_CURVE = (
    "Shape (normal distribution function), mean and spread of the thresholds are assumed, the window is the text's, from 1 % to "
    "99 %; both directions alike."
)
_TRAINING = (
    "Fashion-MNIST; numbers that the text does not give were chosen on held-out training images. Adam proposes changes of "
    "weights that exist in the devices alone."
)
_VOLTS = "voltage of the pulse (V)"
_PER_CENT = "probability of switching (%)"
_RATES_LABEL = "accuracy on the test images (%)"


def _curve(name: str, curves: SwitchingCurves, threshold_v: float, volts: np.ndarray) -> Series:
    """Probability against signed voltage: of +1 for positive ones, of -1 for negative ones."""
    probability = np.where(
        volts >= 0, curves.probability(volts, threshold_v), curves.probability(volts, threshold_v, to=-1)
    )
    return Series(name, numbers(volts), numbers(100 * probability))


def device_curves(pulse_s: float, effort: Effort) -> Figure:
    """Fig. 3c or d: curves of several devices of one chip."""
    curves = parameters().curves(pulse_s)
    most = float(curves.voltage(0.999, curves.threshold_v * (1 + 3 * curves.threshold_sigma)))
    volts = np.linspace(-most, most, 101 if effort.quick else 401)
    devices = curves.thresholds(0, 0, (5 if effort.quick else 20,))
    lines = [_curve(f"device {index}", curves, float(each), volts) for index, each in enumerate(devices)]
    lines.append(_curve("mean", curves, curves.threshold_v, volts))
    title = f"pulses of {1e9 * pulse_s:g} ns"
    note = f"{_CURVE} Device to device {100 * curves.threshold_sigma:g} % of the mean threshold of {curves.threshold_v:g} V."
    return Figure([Panel(title, _VOLTS, _PER_CENT, lines)], note)


def figure_3c(effort: Effort) -> Figure:
    """Pulses of 10 ns."""
    return device_curves(parameters().t_write_pulse_s, effort)


def figure_3d(effort: Effort) -> Figure:
    """Pulses of 2 ns."""
    return device_curves(parameters().t_short_pulse_s, effort)


def figure_3e(effort: Effort) -> Figure:
    """One device, pulses of several lengths."""
    p = parameters()
    lengths_s = np.geomspace(p.t_short_pulse_s, p.t_write_pulse_s, 3 if effort.quick else 6)
    volts = np.linspace(0, float(p.curves(p.t_short_pulse_s).voltage(0.999)), 101 if effort.quick else 401)
    lines = []
    for each in (float(min(max(each, p.t_short_pulse_s), p.t_write_pulse_s)) for each in lengths_s):
        curves = p.curves(each)
        lines.append(_curve(f"{1e9 * each:.1f} ns", curves, curves.threshold_v, volts))
    note = (
        f"{_CURVE} The text gives 10 and 2 ns; between them thresholds follow a + b / t and windows a power of t (assumed), and "
        "the lengths shown are ours."
    )
    return Figure([Panel("mean device", _VOLTS, _PER_CENT, lines)], note)


def _learning(rule: str, name: str, effort: Effort) -> Series:
    """Accuracy after each epoch: mean and sample deviation over chips."""
    found = accuracies(rule, size_for(effort, rule))
    spread = numbers(found.std(axis=0, ddof=1)) if len(found) > 1 else []
    epochs = numbers(np.arange(1, found.shape[1] + 1))
    return Series(name, epochs, numbers(found.mean(axis=0)), spread, "line" if len(epochs) > 1 else "points")


def figure_3f(effort: Effort) -> Figure:
    """Accuracy after each epoch by rule; right: what ours take back."""
    size = size_for(effort)
    paper = {
        "single": "one curve (published: 83 on average)",
        "multiple": "spread of curves (published: 76 at most)",
        "ideal": "ideal stochastic (published: one curve is close to it)",
        "deterministic": "deterministic (published: below the spread)",
        "sigmoidal": "sigmoidal (published: below the spread)",
    }
    ours = {
        "single": "one curve",
        "per device": "each device's bias measured",
        "short pulses": "pulses of 2 ns",
        "per array": "bias and gain searched per chip",
        "multiple": "spread of curves",
        "deterministic, own rate": "deterministic, learning rate of its own",
        "sigmoidal, own rate": "sigmoidal, learning rate of its own",
    }
    published = [
        Series(f"published, {name}", [float(size.epochs)], [value], marks="points", published=True)
        for name, value in (("one curve", 83.0), ("spread", 76.0))
    ]
    panels = [
        Panel(
            "the paper's rules",
            "epoch",
            _RATES_LABEL,
            [*(_learning(r, n, effort) for r, n in paper.items()), *published],
        ),
        Panel("ours", "epoch", _RATES_LABEL, [_learning(r, n, effort) for r, n in ours.items()]),
    ]
    images = "all" if size.images is None else f"the first {size.images:,}"
    note = (
        f"{_TRAINING} {size.chips} chips (rules without curves: one), {images} training images in each epoch. "
        "Left: rules without voltages all at one learning rate, at which the sign of an updated weight never changes and the "
        "sigmoid hardly sees an update; at rates of their own (right) both learn, which the paper does not show. The text gives "
        "no number for these rules."
    )
    return Figure(panels, note)


def figure_3g(effort: Effort) -> Figure:
    """Accuracy against the bias voltages of both directions, one chip, looked at with held-out training images."""
    volts = np.array([0.13, 0.17, 0.21]) if effort.quick else np.array([0.11, 0.13, 0.15, 0.17, 0.19, 0.21])
    data = training_data(HELD_OUT, 5_000 if effort.quick else 20_000)
    rows = [
        [train(data, spread_rule((plus, minus), GAIN_V, 0), Recipe(1), 0).accuracy[-1] for plus in volts.tolist()]
        for minus in volts.tolist()
    ]
    name = "accuracy (%)"
    values = Map(name, [[float(each) for each in row] for row in rows], [*numbers(volts)], [*numbers(-volts)])
    note = (
        f"{_TRAINING} One chip, one pass through {len(data.images):,} images, looked at with {HELD_OUT:,} others; the voltage "
        f"rises by {GAIN_V:g} V for an update of one learning rate (assumed). The text: best above 0.17 V both ways, worse at "
        "0.2 V, and worst where the two differ."
    )
    panel = Panel("bias voltages", "bias towards +1 (V)", "bias towards -1 (V)", map=values)
    return Figure([panel], note)


def figure_pulses(effort: Effort) -> Figure:
    """Ours: how often devices are written in a training, against what they stand."""
    size, lines = size_for(effort), []
    for rule, name in (
        ("multiple", "a pulse for every update"),
        ("per device", "only where the state differs, bias per device"),
    ):
        pulses = np.concatenate([each.ravel() for each in trained(rule, size, 0).pulses])
        count, edges = np.histogram(pulses, 40, (0, float(pulses.max()) + 1))
        lines.append(Series(name, numbers(edges[:-1]), numbers(count), marks="steps"))
    note = f"{_TRAINING} One chip. The endurance is {parameters().endurance_writes:g} pulses."
    return Figure([Panel("pulses of one training", "pulses of a device", "devices", lines)], note)


FIGURES: tuple[PaperFigure, ...] = (
    PaperFigure("sot-fig3c", "probability of switching, pulses of 10 ns (Fig. 3c)", figure_3c, 1),
    PaperFigure("sot-fig3d", "probability of switching, pulses of 2 ns (Fig. 3d)", figure_3d, 1),
    PaperFigure("sot-fig3e", "probability of switching, lengths of pulses (Fig. 3e)", figure_3e, 1),
    PaperFigure("sot-fig3f", "training on the device, by rule (Fig. 3f)", figure_3f, 400),
    PaperFigure("sot-fig3g", "training on the device, by bias voltages (Fig. 3g)", figure_3g, 60),
    PaperFigure("sot-training-pulses", "write pulses of a training on the device", figure_pulses, 60),
)
