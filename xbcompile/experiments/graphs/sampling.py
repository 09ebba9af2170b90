"""Probabilistic graphs sampled on small crossbars of spin-orbit devices, and what goes wrong in it.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications", Fig. 4. Each sample writes all
cells to high resistance, and then gives each a pulse that switches it with its edge's probability, by the device's own
switching curve; the crossbar is read at 10 mV and its output current compared with a threshold. A current above it is a pass.

The error of expectation is the share of readings that contradict what is really written; the total error is the distance of the
share of passes from the graph's exact probability.

Voltages come from a lookup table. The text says that the average of all curves made it, and that this skews results at low
noise: a curve about the mean threshold ("mean-threshold") does so, as thresholds spread about it, so that every probability is
drawn towards a half; an average of the probabilities themselves ("mean-curve") does not, as it is right on average.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from xbcompile.errors import DataError
from xbcompile.experiments.graphs.circuits import GraphCircuit, graph_circuit
from xbcompile.targets.counter_random import key_of, uniform
from xbcompile.targets.families.spin_orbit import SpinOrbitArray, SpinOrbitParameters
from xbcompile.targets.families.switching import SwitchingCurves

if TYPE_CHECKING:
    from networkx import DiGraph

PUBLISHED_THRESHOLD_A = 11.5e-6  # text of Fig. 4c
_CALIBRATION_WRITES = 1 << 40  # numbers of writes far from those of samples

Lookup = Literal["mean-threshold", "mean-curve", "own"]


@dataclass(frozen=True)
class Sampling:
    """How a graph is sampled.

    Args:
        crossbars: side by side on one chip, each with devices of its own.
        samples: of each crossbar.
        spread_curves: whether the switching thresholds of devices spread; False: all have the mean curve.
        lookup: where voltages come from: see above; "own": every device's curve is known.
        threshold: ampere; "window": the middle between the weakest pass and the strongest no-pass of mean devices; "chip" or
            "crossbar": of the currents that this chip, or each crossbar, gives when all configurations are written once, the
            threshold with the fewest misreadings.
        read_volt: at the source; 10 mV in the paper.
    """

    crossbars: int = 1000
    samples: int = 1
    spread_curves: bool = True
    lookup: Lookup = "mean-threshold"
    threshold: float | Literal["window", "chip", "crossbar"] = PUBLISHED_THRESHOLD_A
    read_volt: float = 0.01

    def check(self) -> None:
        """Raise DataError where a number is out of range."""
        if self.crossbars < 1 or self.samples < 1:
            raise DataError(f"{self.crossbars} crossbars and {self.samples} samples: both must be at least 1")
        if not self.read_volt > 0:
            raise DataError(f"a read voltage of {self.read_volt:g} V gives no current to compare; it must be above 0")


@dataclass(frozen=True, eq=False)
class GraphSamples:
    """What sampling gave.

    Args:
        connected: whether source and target really were connected, bool [samples, crossbars].
        currents_a: of the target's line, float64 of the same shape.
        thresholds_a: float64 [crossbars].
        edges: cells of a crossbar.
    """

    connected: np.ndarray
    currents_a: np.ndarray
    thresholds_a: np.ndarray
    edges: int

    @property
    def passed(self) -> np.ndarray:
        """What the thresholds say, bool [samples, crossbars]."""
        return self.currents_a > self.thresholds_a

    @property
    def probability(self) -> float:
        """Share of passes."""
        return float(self.passed.mean())

    @property
    def expectation_error(self) -> float:
        """Share of readings that contradict the configuration of their crossbar."""
        return float((self.passed != self.connected).mean())

    def total_error(self, ideal: float) -> float:
        """Distance of the share of passes from the exact probability."""
        return abs(self.probability - ideal)

    @property
    def pulses(self) -> int:
        """Write pulses of all samples: one to high resistance and one that may switch, for each cell."""
        return 2 * self.edges * self.connected.size


class GraphChip:
    """A chip of crossbars for one question to a graph.

    Device [c, e] of one large array is edge e of crossbar c: what devices are made of, and what writes add, is the target's.

    Args:
        circuit: of the question.
        parameters: of a spin-orbit target.
        sampling: how many crossbars, and how they are used.
        seed: which chip.
    """

    def __init__(
        self, circuit: GraphCircuit, parameters: SpinOrbitParameters, sampling: Sampling, seed: int = 0
    ) -> None:
        sampling.check()
        self.circuit, self.sampling, self.seed = circuit, sampling, seed
        self.parameters = replace(parameters, rows=sampling.crossbars, columns=circuit.edges, devices_per_weight=1)
        self.device = SpinOrbitArray(self.parameters, seed)
        self.switching = self._switching_probabilities(self.parameters.curves())

    def _switching_probabilities(self, curves: SwitchingCurves) -> np.ndarray:
        """With which probability each device switches at the voltage that it is given, float64 [crossbars, edges]."""
        wanted, sampling = self.circuit.probabilities, self.sampling
        if not sampling.spread_curves:
            curves = replace(curves, threshold_sigma=0.0)
        own_v = curves.thresholds(self.seed, 0, (sampling.crossbars, self.circuit.edges))
        if sampling.lookup == "own":
            voltages = curves.voltage(wanted, own_v)
        else:
            voltages = (curves if sampling.lookup == "mean-threshold" else mean_curve(curves)).voltage(wanted)
        return curves.probability(voltages, own_v)

    def currents_a(self, on: np.ndarray, write: int) -> np.ndarray:
        """Output currents of all crossbars, float64 [crossbars].

        Args:
            on: which cells have low resistance, bool [crossbars, edges].
            write: its number; what it draws is keyed by it.
        """
        plus, _ = self.device.conductances(0, np.array([write]), on.astype(np.uint8))
        return self.sampling.read_volt * self.circuit.conductance(plus)

    def thresholds_a(self) -> np.ndarray:
        """Thresholds, float64 [crossbars]."""
        threshold, count = self.sampling.threshold, self.sampling.crossbars
        if not isinstance(threshold, str):
            return np.full(count, float(threshold))
        if threshold == "window":
            lowest, highest = nominal_window_a(self.circuit, self.parameters, self.sampling.read_volt)
            return np.full(count, (lowest + highest) / 2)
        configurations = self.circuit.configurations
        measured = [
            self.currents_a(np.broadcast_to(on, (count, self.circuit.edges)), _CALIBRATION_WRITES + index)
            for index, on in enumerate(configurations)
        ]
        connected = self.circuit.connected(configurations)
        weights = self.circuit.configuration_probabilities()
        currents = np.stack(measured, axis=1)
        if threshold == "crossbar":
            return best_thresholds(currents, np.broadcast_to(connected, currents.shape), weights)
        pooled = [np.tile(each, count)[None] for each in (connected, weights)]
        return np.full(count, best_thresholds(currents.reshape(1, -1), *pooled)[0])

    def sample(self) -> GraphSamples:
        """Write and read all crossbars as often as asked for."""
        connected, currents = [], []
        for number in range(self.sampling.samples):
            drawn = uniform(key_of("graph pulses", self.seed, number), self.switching.shape)
            on = drawn < self.switching
            connected.append(self.circuit.connected(on))
            currents.append(self.currents_a(on, number))
        return GraphSamples(np.stack(connected), np.stack(currents), self.thresholds_a(), self.circuit.edges)


def sample_graph(
    graph: DiGraph,
    source: Hashable,
    target: Hashable,
    parameters: SpinOrbitParameters,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> GraphSamples:
    """Sample whether a path leads from source to target, on the small crossbars of one chip.

    Args:
        graph: each edge has an attribute `probability` above 0 and below 1.
        source: where paths begin.
        target: where they end.
        parameters: of a spin-orbit target, `load_target("sot-single").parameters`.
        sampling: how; None: as the paper did.
        seed: the chip.

    Raises:
        DataError: see `graph_circuit`, `Sampling.check`; calibration of a crossbar with too many edges.
    """
    return GraphChip(graph_circuit(graph, source, target), parameters, sampling or Sampling(), seed).sample()


def mean_curve(curves: SwitchingCurves) -> SwitchingCurves:
    """The average of the curves of many devices: normal, with the variances of thresholds and of pulses added."""
    wider = np.hypot(curves.sigma_v, curves.threshold_sigma * curves.threshold_v) / curves.sigma_v
    return replace(curves, window_v=float(curves.window_v * wider), threshold_sigma=0.0)


def nominal_currents_a(circuit: GraphCircuit, parameters: SpinOrbitParameters, read_volt: float) -> np.ndarray:
    """Output current of mean devices in each of the circuit's `configurations`, float64 [2^edges]."""
    high_resistance, low_resistance = parameters.state_siemens
    return read_volt * circuit.conductance(np.where(circuit.configurations, low_resistance, high_resistance))


def nominal_window_a(circuit: GraphCircuit, parameters: SpinOrbitParameters, read_volt: float) -> tuple[float, float]:
    """Weakest pass and strongest no-pass of mean devices, in amperes."""
    currents = nominal_currents_a(circuit, parameters, read_volt)
    connected = circuit.connected(circuit.configurations)
    return float(currents[connected].min()), float(currents[~connected].max())


def best_thresholds(currents_a: np.ndarray, connected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The thresholds with the fewest misreadings, float64 [sets]; of several, the one with the widest gap about it.

    Args:
        currents_a: float64 [sets, readings].
        connected: which of them should pass, bool of the same shape.
        weights: how likely each reading is, to be broadcast with them.
    """
    order = np.argsort(currents_a, axis=1)
    sorted_a, passes = (np.take_along_axis(each, order, 1) for each in (currents_a, connected))
    weight = np.take_along_axis(np.broadcast_to(weights, currents_a.shape), order, 1)
    missed = np.cumsum(weight * passes, axis=1)
    wrong = weight * ~passes
    false_passes = wrong.sum(axis=1, keepdims=True) - np.cumsum(wrong, axis=1)
    misread = (missed + false_passes)[:, :-1]  # with the threshold behind each reading but the last
    gap = np.diff(sorted_a, axis=1)
    least = misread.min(axis=1, keepdims=True)
    best = np.where(misread <= least + 1e-12, gap, -1.0).argmax(axis=1)
    sets = np.arange(len(best))
    return (sorted_a[sets, best] + sorted_a[sets, best + 1]) / 2
