"""One model through xbcompile in all ways, beside what plain onnxruntime gives."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.reference import Reference, ask
from tests.support.comparing import difference, relative_error, shape_difference
from tests.support.worker_pool import Outcome, Tell, work_apart

KINDS = {
    "right": "as onnxruntime gives it; on a noisy target: it runs, and shapes and types are right",
    "error": "a clear error, where onnxruntime runs the model",
    "refused": "a clear error, where onnxruntime does not run the model either",
    "unchecked": "it runs, but onnxruntime gives nothing to compare with",
    "slow": "more than the time or the memory that a file has",
    "wrong": "other numbers, shapes or types than onnxruntime's; or two commands that contradict each other",
    "fault": "an exception that is no clear error, or the process ended",
}
FINDINGS = ("wrong", "fault")
MEMORY_BYTES = 8 * 2**30
QUICKLY = {"effort": 0, "cuts": "greedy", "packing": "dense", "embed_model": False}  # numbers are judged, not mappings


@dataclass(frozen=True)
class Task:
    """A file to judge: its name in the corpus, where it lies, and the noisy targets."""

    name: str
    path: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """What one way through the compiler came to.

    Args:
        name: "ideal" (compiled for the exact target, the model run once), "samples" (sample by sample), "explain", or a
            noisy target.
        kind: one of KINDS.
        text: what went wrong, or why nothing could be compared.
        seconds: time of it.
        error: on a noisy target, root mean square of the outputs' errors over that of the outputs.
    """

    name: str
    kind: str
    text: str = ""
    seconds: float = 0.0
    error: float | None = None


@dataclass(frozen=True)
class Verdict:
    """All about one file.

    Args:
        name: the file in the corpus.
        stages: what each way came to, in order.
        macs: multiply-accumulates per inference; None where they are not known.
        macs_on_arrays: those on arrays.
    """

    name: str
    stages: tuple[Stage, ...]
    macs: int | None = None
    macs_on_arrays: int | None = None

    @property
    def kind(self) -> str:
        """What the first stage, the exact target, came to."""
        return self.stages[0].kind

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


Result = tuple[str, str, float | None]  # kind, text and error of a stage


def judge(tasks: Iterable[Task], jobs: int, seconds: float) -> Iterator[Verdict]:
    """Verdicts as they come, each from a process of limited memory and time."""
    for outcome in work_apart(judged, tasks, workers=jobs, seconds=seconds, memory_bytes=MEMORY_BYTES):
        yield outcome.value if outcome.ending == "done" else unfinished(outcome)


def unfinished(outcome: Outcome) -> Verdict:
    """The verdict on a file whose process died or took too long: the stages that were done, and the one that was not."""
    stages = [told for told in outcome.told if isinstance(told, Stage)]
    at = next((told for told in reversed(outcome.told) if isinstance(told, str)), "onnxruntime")
    text = f"ended with status {outcome.status}" if outcome.ending == "died" else ""
    if at == "onnxruntime":
        stages.append(Stage("ideal", "refused" if text else "slow", f"while onnxruntime runs it {text}".strip()))
    else:
        stages.append(Stage(at, "fault" if text else "slow", text))
    return Verdict(outcome.case.name, tuple(stages))


def judged(task: Task, tell: Tell) -> Verdict:
    """All stages of a file; `tell` hears of each as it begins and as it ends."""
    tell("onnxruntime")
    path = Path(task.path)
    reference = ask(path)
    way = _Way(path, reference)
    stages: list[Stage] = []

    def stage(name: str, run: Callable[[], Result]) -> None:
        tell(name)
        stages.append(_timed(name, run, runs=not reference.refusal))
        tell(stages[-1])

    stage("ideal", way.ideal)
    if way.session is not None and stages[0].kind in ("right", "wrong"):
        stage("samples", way.samples)
    stage("explain", lambda: way.explain(stages[0]))
    if stages[0].kind in ("right", "wrong", "unchecked"):
        for target in task.targets:
            stage(target, partial(way.noisy, target))
    return Verdict(task.name, tuple(stages), way.macs, way.macs_on_arrays)


class _Way:
    """The stages of one file."""

    def __init__(self, path: Path, reference: Reference) -> None:
        self.path = path
        self.reference = reference
        self.session: Any = None
        self.compiled = False
        self.macs: int | None = None
        self.macs_on_arrays: int | None = None

    def ideal(self) -> Result:
        from xbcompile import InferenceSession

        session = InferenceSession(self.path, **QUICKLY)
        self.compiled = True
        outputs = _named(session, session.run(None, self.reference.feeds))
        self.session = session.session
        return self._compared(outputs)

    def samples(self) -> Result:
        """Chunks of one sample: what mixes samples must not be parted."""
        outputs = self.session.run_samples(self.reference.feeds, chunk=1)
        wanted = self.reference.runs[0] if self.reference.runs else {}
        return self._compared({name: _of_one_call(value, wanted.get(name)) for name, value in outputs.items()})

    def explain(self, ideal: Stage) -> Result:
        """Its MACs; a model that `compile` takes must be explained, and one that it refuses must not."""
        from xbcompile.errors import ModelError
        from xbcompile.frontend.explain import explain

        try:
            totals = explain(self.path).totals
        except ModelError:
            if self.compiled:
                raise
            return "right", "", None
        self.macs, self.macs_on_arrays = totals.macs, totals.macs_on_arrays
        if min(self.macs, self.macs_on_arrays) < 0:
            return "wrong", f"{self.macs:,} MACs", None
        if not self.compiled and ideal.kind in ("error", "refused"):
            return "wrong", "explains a model that compile refuses", None
        return "right", "", None

    def noisy(self, target: str) -> Result:
        """One sample on a target with errors, compiled without calibration."""
        import xbcompile

        program = xbcompile.compile(self.path, target, **QUICKLY)
        outputs = xbcompile.Session(program, threads=1).run(self.reference.single or self.reference.feeds)
        if self.reference.refusal:
            return "unchecked", "", None
        text = shape_difference(outputs, self.reference.single_run)
        return "wrong" if text else "right", text or "", relative_error(outputs, self.reference.single_run)

    def _compared(self, outputs: dict[str, Any]) -> Result:
        if self.reference.refusal:
            return "unchecked", self.reference.refusal, None
        if self.reference.is_random:
            text = shape_difference(outputs, self.reference.runs[0])
            return "wrong" if text else "unchecked", text or "onnxruntime gives other numbers each time", None
        text = difference(outputs, self.reference.runs)
        return "wrong" if text else "right", text or "", None


def _of_one_call(value: Any, wanted: Any) -> Any:
    """An output without the axis that counts calls where no axis of it counts samples; here there is one call."""
    are_arrays = isinstance(value, np.ndarray) and isinstance(wanted, np.ndarray)
    return value[0] if are_arrays and value.shape == (1, *wanted.shape) else value


def _named(session: Any, outputs: list[Any]) -> dict[str, Any]:
    return dict(zip([value.name for value in session.get_outputs()], outputs, strict=True))


def _timed(name: str, run: Callable[[], Result], runs: bool) -> Stage:
    """A stage, whatever it raises; `runs`: whether onnxruntime runs the model."""
    from xbcompile import XbcompileError

    start, error = time.perf_counter(), None
    try:
        kind, text, error = run()
    except XbcompileError as raised:
        kind, text = "error" if runs else "refused", f"{type(raised).__name__}: {raised}"
        if "\n" in str(raised) or not str(raised).strip():
            kind = "fault"
    except MemoryError as raised:
        kind, text = "slow", f"out of memory: {raised}"
    except Exception as raised:  # any fault is what is looked for
        kind, text = "fault", _trace(raised)
    return Stage(name, kind, text, time.perf_counter() - start, error)


def _trace(error: Exception) -> str:
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} at {' > '.join(places)}"
