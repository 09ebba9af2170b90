"""Compiling and running damaged models in processes of limited memory and time, and judging what comes of it."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.support.comparing import difference
from tests.support.integer_sums import precise_session
from tests.support.worker_pool import Outcome, Tell, work_apart

SECONDS = 20.0

# Files that onnxruntime may run and that are refused on purpose: their messages say what is wrong with them.
LIMITS = (
    "NaN or infinite",
    "not a valid ONNX model",
    "is not supported (allowed",
    "IR version",
    "lies outside the model's folder",
    "names must be unique",
    "bytes, but its shape",
    "is not UTF-8",
)


@dataclass(frozen=True)
class Verdict:
    """What came of one case: `kind` is "right", "refused", "no reference" or, in capitals, a finding."""

    case: int
    what: str
    kind: str
    text: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind.isupper()


def judge(cases: Iterable[int], workers: int = 1) -> Iterator[Verdict]:
    """Judge the cases, as they are done."""
    for outcome in work_apart(_judged, cases, workers=workers, seconds=SECONDS):
        yield outcome.value if outcome.ending == "done" else ended(outcome)


def ended(outcome: Outcome) -> Verdict:
    """The verdict on a case whose process died or took too long: a finding where that was while compiling."""
    phase = outcome.told[-1] if outcome.told else "compiling"
    if phase != "compiling":
        kind = "no reference"
    else:
        kind = "HANG" if outcome.ending == "late" else "CRASH"
    how = f"the process ended with status {outcome.status} " if outcome.ending == "died" else ""
    return Verdict(outcome.case, _what(outcome.case), kind, f"{how}while {phase}")


def _what(case: int) -> str:
    from tests.fuzz.mutations import mutated

    return mutated(case)[0]


def _judged(case: int, tell: Tell) -> Verdict:
    from tests.fuzz.mutated_models import MODEL
    from tests.fuzz.mutations import mutated

    what, files = mutated(case)
    tell("compiling")
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / MODEL
        found = compiled_and_run(path)
        tell("running the reference")
        return Verdict(case, what, *compared(found, path))


def compiled_and_run(path: Path) -> tuple[str, Any]:
    """("outputs", their values on each probe), or how it ended otherwise."""
    import xbcompile
    from xbcompile.runtime import Session

    try:
        program = xbcompile.compile(path, "ideal")
    except xbcompile.XbcompileError as error:
        text = str(error)
        return ("refused", text) if text.strip() else ("NO MESSAGE", repr(error))
    except MemoryError as error:
        return ("MEMORY", repr(error))
    except Exception as error:  # any fault is what is looked for
        return ("TRACEBACK", _trace(error))
    try:
        feeds = probes(path)
        if isinstance(feeds, str):
            return ("no reference", feeds)
        return ("outputs", Session(program, threads=1).run(feeds))
    except xbcompile.XbcompileError as error:
        return ("cannot run", f"{type(error).__name__}: {error}")
    except MemoryError as error:
        return ("MEMORY", repr(error))
    except Exception as error:  # any fault is what is looked for
        return ("TRACEBACK", _trace(error))


def _trace(error: Exception) -> str:
    import traceback

    places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__}: {str(error)[:300]} at {' > '.join(places)}"


def reference(path: Path, optimized: bool) -> Any:
    """A session of plain onnxruntime on the file, or its error as text."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return precise_session(str(path), options)
    except Exception as error:  # any fault is what is looked for
        return f"{type(error).__name__}: {error}"


def probes(path: Path) -> dict[str, np.ndarray] | str:
    """Random inputs of the shapes and types that onnxruntime says the file has; else why not."""
    session = reference(path, optimized=True)
    if isinstance(session, str):
        return session
    random = np.random.default_rng(1)
    sizes: dict[str, int] = {}
    feeds = {}
    for value in session.get_inputs():
        kinds = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2", "tensor(int64)": "i8"}
        kinds |= {"tensor(int32)": "i4", "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(bool)": "?"}
        if value.type not in kinds:
            return f"an input of type {value.type}"
        shape = [d if isinstance(d, int) else sizes.setdefault(d or value.name, 2 + len(sizes)) for d in value.shape]
        if any(size < 0 for size in shape) or np.prod([float(size) for size in shape]) > 1e6:
            return f"an input of shape {shape}"
        dtype = np.dtype(kinds[value.type])
        feeds[value.name] = (random.random(shape) if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)
    return feeds


def compared(found: tuple[str, Any], path: Path) -> tuple[str, str]:
    kind, value = found
    if kind not in ("outputs", "refused", "cannot run"):
        return kind, str(value)
    if kind == "refused" and any(limit in value for limit in LIMITS):
        return "refused", value
    feeds = probes(path)
    wanted = [feeds] if isinstance(feeds, str) else [_run(path, feeds, optimized) for optimized in (True, False)]
    sound = [each for each in wanted if not isinstance(each, str)]
    if not sound:
        return ("refused", value) if kind == "refused" else ("no reference", str(wanted[0]))
    if kind != "outputs":
        return ("WRONGLY REFUSED" if kind == "refused" else "CANNOT RUN"), value
    differences = [difference(value, [each], overflows=True) for each in sound]
    return ("right", "") if None in differences else ("WRONG", str(differences[0]))


def _run(path: Path, feeds: dict[str, np.ndarray], optimized: bool) -> dict[str, Any] | str:
    session = reference(path, optimized)
    if isinstance(session, str):
        return session
    names = [value.name for value in session.get_outputs()]
    try:
        return dict(zip(names, session.run(None, feeds), strict=True))
    except Exception as error:  # any fault is what is looked for
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutations")
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    start = time.monotonic()
    for verdict in judge(range(options.first, options.first + options.count), options.workers):
        kinds[verdict.kind] += 1
        if verdict.is_finding or options.verbose:
            print(f"{verdict.case} {verdict.kind} ({verdict.what}): {' '.join(verdict.text.split())[:600]}", flush=True)
    total = sum(kinds.values())
    findings = sum(count for kind, count in kinds.items() if kind.isupper())
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    print(f"{total} cases in {time.monotonic() - start:.0f} s: {counts}; {findings} findings")
