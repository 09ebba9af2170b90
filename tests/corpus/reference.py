"""What plain onnxruntime makes of a model: the inputs on which it runs, and what it gives on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.corpus.files import stored_inputs
from tests.corpus.inputs import Attempt, Inputs, attempts, moved
from tests.fuzz.mutation_judge import reference as session_or_reason

MOVED_RUNS = 3
MOST_ATTEMPTS = 250

Feeds = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """Inputs and right outputs.

    Args:
        feeds: inputs on which onnxruntime runs the model; where it does not, those that were tried first.
        runs: its outputs on them: with its optimizations, without, and on inputs moved by a rounding. Empty where it does
            not run.
        single: inputs with one sample wherever a size is open that may count samples.
        single_run: its outputs on those.
        refusal: why it does not run; empty where it does.
        is_random: it gives other outputs on the same inputs.
    """

    feeds: Feeds
    runs: tuple[Feeds, ...] = ()
    single: Feeds = field(default_factory=dict)
    single_run: Feeds = field(default_factory=dict)
    refusal: str = ""
    is_random: bool = False


def ask(path: Path) -> Reference:
    """Find inputs that fit, and run onnxruntime on them."""
    try:
        inputs = Inputs(onnx.load(path, load_external_data=False))
    except Exception as error:  # no model at all
        return Reference({}, refusal=_one_line(error))
    stored = stored_inputs(path, [value.name for value in inputs.values])
    first = stored or inputs.feeds(next(attempts(inputs.values)))
    session = session_or_reason(path, optimized=True)
    if isinstance(session, str):
        return Reference(first, refusal=session)
    if stored is not None:
        outputs = _run(session, stored)
        if not isinstance(outputs, str):
            return _complete(path, session, stored, outputs, stored, outputs)
    reason = ""
    for index, attempt in enumerate(attempts(inputs.values)):
        outputs = _tried(session, inputs, attempt)
        if isinstance(outputs, tuple):
            return _with_single(path, session, inputs, attempt, *outputs)
        reason = reason or outputs
        if index >= MOST_ATTEMPTS:
            break
    return Reference(first, refusal=f"no inputs found: {reason}")


def _tried(session: onnxruntime.InferenceSession, inputs: Inputs, attempt: Attempt) -> tuple[Feeds, Feeds] | str:
    """Inputs and outputs, or why there are none."""
    try:
        feeds = inputs.feeds(attempt)
    except MemoryError as error:
        return str(error)
    outputs = _run(session, feeds)
    return outputs if isinstance(outputs, str) else (feeds, outputs)


def _with_single(
    path: Path,
    session: onnxruntime.InferenceSession,
    inputs: Inputs,
    attempt: Attempt,
    feeds: Feeds,
    outputs: Feeds,
) -> Reference:
    """The reference of an attempt that runs, its inputs of one sample being those of a batch of one where that runs too."""
    single = _tried(session, inputs, replace(attempt, batch=1))
    return _complete(path, session, feeds, outputs, *((feeds, outputs) if isinstance(single, str) else single))


def _complete(
    path: Path,
    session: onnxruntime.InferenceSession,
    feeds: Feeds,
    outputs: Feeds,
    single: Feeds,
    single_run: Feeds,
) -> Reference:
    again = _run(session, feeds)
    is_random = not all(_same(value, again[name]) for name, value in outputs.items())
    plain = session_or_reason(path, optimized=False)
    runs = [outputs]
    for each in (session,) if isinstance(plain, str) else (plain, session):
        runs += [_run(each, feeds)] + [_run(each, moved(feeds, seed)) for seed in range(MOVED_RUNS)]
    ran = tuple(run for run in runs if not isinstance(run, str))
    return Reference(feeds, ran, single, single_run, is_random=is_random)


def _run(session: onnxruntime.InferenceSession, feeds: Feeds) -> Any:
    """Outputs by name, or why there are none."""
    names = [value.name for value in session.get_outputs()]
    try:
        return dict(zip(names, session.run(None, feeds), strict=True))
    except Exception as error:  # onnxruntime has many
        return _one_line(error)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if not isinstance(left, np.ndarray) or left.dtype.kind == "O":
        return bool(np.all(left == right))
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
