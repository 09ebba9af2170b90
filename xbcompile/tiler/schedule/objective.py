"""What a schedule is made for: one figure of merit, or a weighted sum of several."""

from __future__ import annotations

from dataclasses import dataclass

from xbcompile.errors import ScheduleError, shown

OBJECTIVES = ("latency", "throughput", "energy", "weight-updates")
LEAST_WEIGHT, MOST_WEIGHT = 1e-100, 1e100  # of a figure: weighted sums stay finite


@dataclass(frozen=True)
class Figures:
    """The figures of one schedule, or lower bounds on them.

    Args:
        latency_s: makespan of one batch.
        period_s: time from one batch to the next: the smaller, the higher the throughput.
        energy_j: of the writes and reads of one batch.
        weight_updates: array writes per batch; where all images stay in their arrays, once and for all.
    """

    latency_s: float
    period_s: float
    energy_j: float
    weight_updates: int

    def of(self, name: str) -> float:
        """The figure that an objective makes small."""
        return dict(zip(OBJECTIVES, (self.latency_s, self.period_s, self.energy_j, self.weight_updates), strict=True))[
            name
        ]


@dataclass(frozen=True)
class Objective:
    """Weights of the figures, each relative to its lower bound.

    Args:
        weights: name and weight, in the order of `OBJECTIVES`; weights are positive.
    """

    weights: tuple[tuple[str, float], ...]

    def weight(self, name: str) -> float:
        """Weight of one figure; 0 where it has none."""
        return dict(self.weights).get(name, 0.0)

    def value(self, figures: Figures, bounds: Figures) -> float:
        """Weighted sum of the figures, each divided by its lower bound (a bound of 0 counts as 1); less is better."""
        if len(self.weights) == 1:
            return figures.of(self.weights[0][0])
        return sum(weight * figures.of(name) / (bounds.of(name) or 1.0) for name, weight in self.weights)

    def rank(self, figures: Figures, bounds: Figures) -> tuple[float, ...]:
        """The order of schedules: by value, ties by latency, weight updates, period and energy."""
        ties = (figures.latency_s, figures.weight_updates, figures.period_s, figures.energy_j)
        return (self.value(figures, bounds), *ties)


def parse_objective(text: str) -> Objective:
    """Read "latency", "throughput", "energy", "weight-updates", or a weighted sum: "latency=0.5,energy=0.5".

    Raises:
        ScheduleError: an unknown name, a name given twice, or a weight that is no positive number.
    """
    hint = f'use one of {", ".join(OBJECTIVES)}, or a weighted sum such as "latency=0.5,energy=0.5"'
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, given, number = (piece.strip() for piece in part.partition("="))
        if name not in OBJECTIVES:
            raise ScheduleError(f"objective={shown(text)}: {shown(name)} is unknown; {hint}")
        if name in weights:
            raise ScheduleError(f"objective={shown(text)}: {name!r} is given twice; {hint}")
        try:
            weights[name] = float(number) if given else 1.0
        except ValueError:
            raise ScheduleError(
                f"objective={shown(text)}: the weight {shown(number)} of {name!r} is no number; {hint}"
            ) from None
        if not LEAST_WEIGHT <= weights[name] <= MOST_WEIGHT:
            raise ScheduleError(
                f"objective={shown(text)}: the weight of {name!r} is {number[:30]}; weights are positive numbers "
                f"from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
            )
        if not given and "," in text:
            raise ScheduleError(f"objective={shown(text)}: {name!r} has no weight; {hint}")
    return Objective(tuple((name, weights[name]) for name in OBJECTIVES if name in weights))
