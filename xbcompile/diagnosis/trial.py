"""Trying an advice before it is given: the program compiled with it, on the same chip, on some of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbcompile.diagnosis.ablation import model_of
from xbcompile.diagnosis.diagnosis import relative_error
from xbcompile.errors import XbcompileError
from xbcompile.passes.contract import Pass
from xbcompile.passes.pipeline import parse_pipeline, pipelines_with, print_pipeline
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import model_outputs
from xbcompile.runtime.session import Session
from xbcompile.units import percent

MOST_SAMPLES = 200
LEAST_GAIN = 0.02  # of the output error, or of the accuracy: less may be noise; assumed

# Compiles the program's model again: (pipeline, calibration inputs) -> program.
Recompile = Callable[[str, dict[str, np.ndarray]], Program]
# Accuracy, or anything else that should be large, of the first graph output of the first samples of the data.
Score = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Figures:
    """What a program reaches on the samples of a trial.

    Args:
        relative_error: of the first graph output, see `EndToEnd`; None where it is no float tensor or does not vary.
        score: the caller's; None without one.
    """

    relative_error: float | None
    score: float | None


@dataclass(frozen=True)
class Trial:
    """One advice, tried.

    Args:
        pipeline: the pipeline with the pass.
        samples: how many were run.
        before: the program as it is.
        after: the program with the pass.
    """

    pipeline: str
    samples: int
    before: Figures
    after: Figures

    @property
    def helps(self) -> bool:
        """Whether the output error falls, or the score rises and the error does not, by more than noise."""
        error, changed = self.before.relative_error, self.after.relative_error
        ratio = 1.0 if error is None or changed is None or not error > 0 else changed / error
        gain = 0.0 if self.before.score is None or self.after.score is None else self.after.score - self.before.score
        return ratio < 1 - LEAST_GAIN or (ratio <= 1 and gain > LEAST_GAIN)

    def __str__(self) -> str:
        before, after, parts = self.before, self.after, []
        if before.relative_error is not None and after.relative_error is not None:
            parts.append(f"output error {percent(before.relative_error)} -> {percent(after.relative_error)}")
        if before.score is not None and after.score is not None:
            parts.append(f"accuracy {100 * (after.score - before.score):+.1f} points")
        return f"{', '.join(parts)} on {self.samples} samples"


class TrialRuns:
    """Tries passes on a program, each once.

    The first half of the data is run. Programs without calibration inputs of their own are calibrated on the other half.

    Args:
        program: the program, with its model.
        feeds: graph inputs by name, at least two samples.
        recompile: compiles its model again.
        score: accuracy of the first samples of the data.
        device: a device name of the program's target; None takes the default.
        seed: which chip.
        threads: worker threads; None takes one per processor.
    """

    def __init__(
        self,
        program: Program,
        feeds: dict[str, np.ndarray],
        recompile: Recompile,
        score: Score | None = None,
        device: str | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self._threads = threads
        self.program, self._recompile, self._score = program, recompile, score
        self._device, self._seed = device, seed
        axes, name = program.network.samples, program.network.outputs[0].name
        self.samples = axes.whole(min(axes.samples(feeds) // 2, MOST_SAMPLES))
        self.trials: dict[str, Trial | None] = {}
        if self.samples:
            self._feeds = axes.first(feeds, self.samples)
            self._calibration = program.calibration or axes.rest(feeds, self.samples)
            exact = model_outputs(model_of(program), axes, self._feeds, [name])[name]
            self._reference = axes.samples_first(name, exact)
            self._before = self._figures(program)

    def try_out(self, each: Pass) -> Trial | None:
        """What a pass gains; None where no pipeline with it compiles, or there are too few samples to tell."""
        key = str(each)
        if key not in self.trials:
            self.trials[key] = self._tried(each) if self.samples else None
        return self.trials[key]

    def _tried(self, each: Pass) -> Trial | None:
        for passes in pipelines_with(parse_pipeline(self.program.pipeline), each):
            pipeline = print_pipeline(passes)
            try:
                changed = self._recompile(pipeline, self._calibration)
                after = self._figures(changed)
            except XbcompileError:  # not at this place of the pipeline, not on this target, not for this model
                continue
            return Trial(pipeline, self.samples, self._before, after)
        return None

    def _figures(self, program: Program) -> Figures:
        name = program.network.outputs[0].name
        session = Session(program, self._device, self._seed, threads=self._threads)
        output = session.run_samples(self._feeds, observe=False)[name]
        output = program.network.samples.samples_first(name, output)
        return Figures(relative_error(output, self._reference), None if self._score is None else self._score(output))
