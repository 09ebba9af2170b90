"""What errors of memristors cost the letters' network: single sources, errors of imported weights.

Source of what is published: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), "Pattern classification" and Supplementary Fig. 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.data.datasets import load_data
from xbcompile.experiments.crossbar_perceptron import Perceptron, Weights
from xbcompile.experiments.figure import Effort, Figure, Panel, Series, numbers
from xbcompile.experiments.measurement import Measured
from xbcompile.experiments.memristor_switching import chips_of, parameters
from xbcompile.experiments.reproduction import Experiment, chip_accuracies

_SOURCES = (
    "tuning_tolerance",
    "stuck_fraction",
    "r_row_segment_ohm",
    "r_column_segment_ohm",
    "r_row_contact_ohm",
    "r_column_contact_ohm",
)


def accuracy_cost(effort: Effort, experiment: Experiment, switched_on: tuple[str, ...]) -> Measured:
    """Points of test accuracy between arrays without any of these errors and with some, over chips.

    Args:
        effort: what it may cost.
        experiment: which network, how mapped.
        switched_on: quantities of the target that keep their numbers; the other sources of errors are 0.
    """
    assert set(switched_on) <= set(_SOURCES)
    p, chips = parameters(), chips_of(effort)
    none = dict.fromkeys(_SOURCES, 0.0)
    found = []
    for quantities in (none, {**none, **{name: getattr(p, name) for name in switched_on}}):
        program = replace(experiment, quantities=quantities).compiled(effort.models, quantities)
        data = load_data(experiment.data, program.network.inputs, program.network.samples)
        found.append(np.array(chip_accuracies(program, data, experiment.device, chips, effort.threads)))
    cost = found[0] - found[1]
    spread = float(np.std(cost, ddof=1)) if chips > 1 else None
    return Measured(float(cost.mean()), spread, chips, f"from {found[0].mean():.2f} %")


@dataclass(frozen=True)
class SoftwareTraining:
    """Batch backpropagation of the letters' perceptron with clipped weights, from several starts side by side.

    The paper names the algorithm, the clipping and the slope of the neurons; all numbers here are assumed.

    Args:
        hidden: neurons.
        epochs: steps, each over all 40 patterns.
        rate: of the steps.
        momentum: of the steps.
        start: standard deviation of the first weights.
        target: output aimed at, plus and minus.
    """

    hidden: int = 10
    epochs: int = 1000
    rate: float = 0.1
    momentum: float = 0.9
    start: float = 0.05
    target: float = 0.85

    def task(self, part: str) -> Perceptron:
        """The four letters at the gain of the shipped `memristor20`.

        Args:
            part: "train" or "test".
        """
        p = parameters()
        return Perceptron.of_letters(part, 4, p.r_feedback_ohm * p.v_read_volt * p.level_siemens, self.target)

    def train(self, starts: int) -> Weights:
        """Weights in -1..1: float64 [starts, 17, hidden] and [starts, hidden + 1, 4].

        Args:
            starts: how many networks.
        """
        task = self.task("train")
        shapes = ((task.inputs.shape[1], self.hidden), (self.hidden + 1, task.classes))
        weights = [
            np.stack([np.random.default_rng([seed, i]).normal(0, self.start, shape) for seed in range(starts)])
            for i, shape in enumerate(shapes)
        ]
        steps = [np.zeros_like(each) for each in weights]
        for _ in range(self.epochs):
            hidden, outputs = task.outputs((weights[0], weights[1]))
            for i, gradient in enumerate(task.gradients(hidden, outputs, weights[1])):
                steps[i] = self.momentum * steps[i] - self.rate * gradient
                weights[i] = np.clip(weights[i] + steps[i], -1.0, 1.0)
        return weights[0], weights[1]


def import_errors(weights: Weights, error: float, runs: int) -> Weights:
    """Weights uniform in W (1 +- error), drawn anew for each run: a dimension of runs before the matrices.

    Args:
        weights: float64 [17, hidden] and [hidden + 1, 4], of one network.
        error: largest relative error.
        runs: how many.
    """
    rng = np.random.default_rng(0)
    first, second = (each * (1 + error * rng.uniform(-1, 1, (runs, *each.shape))) for each in weights)
    return first, second


def import_error_figure(effort: Effort) -> Figure:
    """Supplementary Fig. 5: best fidelity against hidden neurons, and percentiles of it under import errors.

    Args:
        effort: what it may cost.
    """
    starts, runs = (3, 20) if effort.quick else (10, 100)
    sizes = (2, 5, 10) if effort.quick else (2, 4, 6, 8, 10, 15, 20)
    best: dict[str, list[float]] = {"train": [], "test": []}
    for hidden in sizes:
        training = SoftwareTraining(hidden)
        weights = training.train(starts)
        for part, found in best.items():
            task = training.task(part)
            found.append(float(task.fidelity(task.outputs(weights)[1]).max()))
    by_size = [
        Series(f"best of {starts} starts, {part} patterns", numbers(sizes), found) for part, found in best.items()
    ]
    told = [("published, 10 hidden neurons, test", 82.34)]
    panels = [Panel("hidden neurons", "hidden neurons", "patterns right (%)", by_size, lines=told)]
    training = SoftwareTraining()
    weights = training.train(starts)
    task = training.task("test")
    chosen = int(task.fidelity(task.outputs(weights)[1]).argmax())
    one = (weights[0][chosen], weights[1][chosen])
    panels += [_percentiles(training.task(part), part, one, runs) for part in ("train", "test")]
    return Figure(
        panels,
        f"Our letters; steep neurons as in equation 1; {runs} runs for each error. The best network by the test set stands, as "
        "the paper shows the best fidelity. A perceptron without hidden layer is left out.",
    )


def _percentiles(task: Perceptron, part: str, weights: Weights, runs: int) -> Panel:
    """Minimum, quartiles and maximum over runs, against the largest error of a weight."""
    errors = np.arange(0, 101, 10)
    found = [task.fidelity(task.outputs(import_errors(weights, error / 100, runs))[1]) for error in errors]
    names = {"median": 50, "25 %": 25, "75 %": 75, "minimum": 0, "maximum": 100}
    series = [
        Series(name, numbers(errors), [float(np.percentile(each, percent)) for each in found])
        for name, percent in names.items()
    ]
    return Panel(f"import errors, {part} patterns", "largest error of a weight (%)", "patterns right (%)", series)
