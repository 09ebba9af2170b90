"""Where the accuracy of a program goes, on data of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xbcompile.api.progress import shown_progress
from xbcompile.data.datasets import load_data
from xbcompile.diagnosis import diagnosis
from xbcompile.errors import DataError
from xbcompile.program.program import Program
from xbcompile.runtime.accuracy import Classifier


def diagnose(
    program: Program,
    data: Any,
    device: str | None = None,
    seed: int = 0,
    score: Callable[[np.ndarray], float] | None = None,
    progress: bool | Callable[[str, float], None] | None = None,
    threads: int | None = None,
    *,
    labels: Any = None,
    threshold: float | None = None,
) -> diagnosis.Diagnosis:
    """Measure what each source of error costs, per layer and end to end.

    Tensors of all layers are held for all samples.

    Args:
        program: the program, with its model.
        data: at least two samples, of any kind that `run` takes.
        device: a device name of the program's target; None takes the default.
        seed: which chip.
        score: accuracy, or anything else, of the first graph output; None: the accuracy, where the data have labels.
        progress: True: show what is measured; or a function that is told that, and the part (0 to 1) of all that is done.
        threads: worker threads; None takes one per processor.
        labels: the name of the labels in the data, see `run`; or the labels.
        threshold: a single output above it is of the second class; None: as the network says.

    Raises:
        ProgramError: the program does not hold its model, or has layers inside a recurrence.
        TargetError: no such device, or its errors cannot be told apart.
        DataError: fewer than two samples, inputs that do not fit, or tensors that are not finite.
    """
    loaded = load_data(data, program.network.inputs, program.network.samples, labels=labels)
    if loaded.labels is None and threshold is not None:
        raise DataError(f"threshold {threshold:g} is for accuracy, and the data have no labels")
    if score is None and loaded.labels is not None:
        classifier, known = Classifier.of(program.network, threshold), loaded.labels
        score = lambda output: classifier.accuracy(output, known)  # noqa: E731  # one of two scores
    with shown_progress("diagnosing", progress) as tell:
        return diagnosis.diagnose(program, loaded.inputs, device, seed, score, tell, threads)
