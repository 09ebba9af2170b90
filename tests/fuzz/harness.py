"""Attempts on the boundaries of the program, in processes of limited memory and time."""

from __future__ import annotations

import pickle
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, ModuleType
from typing import Any

from tests.support.worker_pool import Outcome, Tell, work_apart

BOUNDARIES = ("model", "program", "target", "data", "options")
EXAMPLES = 25  # of one block, which one process attempts in a row
SECONDS = 10  # of one example, of the processor's time
_WAITS = 6  # an example may last so many times as long, by the clock: nothing in it waits for anybody
MEMORY_BYTES = 3 * 2**30  # of a process, beyond what it takes to begin with
_GRACE_SECONDS = 60.0  # of a block beyond a single example's: code that no signal interrupts is ended then


class TooLong(BaseException):
    """An example took longer than it may; no handler of faults catches it."""


@dataclass(frozen=True)
class Block:
    """Examples of one boundary that follow from a seed, and how many seconds of a processor each may take."""

    boundary: str
    seed: int
    examples: int = EXAMPLES
    seconds: float = SECONDS


@dataclass(frozen=True)
class Finding:
    """An example that ended in something else than a result or one clear error.

    Args:
        boundary: its name.
        what: what came of it, in one line.
        example: the example, pickled.
    """

    boundary: str
    what: str
    example: bytes


@dataclass
class Tally:
    """What came of a block: how many examples gave a result and how many a clear error, and the findings."""

    results: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what came of another block too."""
        self.results += other.results
        self.refused += other.refused
        self.findings += other.findings


def boundary(name: str) -> ModuleType:
    """The module of a boundary, by its name among the others or its whole name."""
    return import_module(name if "." in name else f"tests.fuzz.boundaries.{name}")


def attempted(blocks: Iterable[Block], workers: int = 1) -> Iterator[Tally]:
    """What came of each block, as they are done."""
    modules = ("xbcompile.api.compiling", "xbcompile.runtime", "tests.fuzz.harness")
    for outcome in work_apart(
        _work,
        blocks,
        workers=workers,
        seconds=EXAMPLES * SECONDS * _WAITS + _GRACE_SECONDS,
        memory_bytes=MEMORY_BYTES,
        modules=modules,
    ):
        yield outcome.value if outcome.ending == "done" else _ended(outcome)


def _ended(outcome: Outcome) -> Tally:
    """The finding of a process that died or did not come back."""
    how = "took too long" if outcome.ending == "late" else f"ended the process with status {outcome.status}"
    example = outcome.told[-1] if outcome.told else pickle.dumps(None)
    return Tally(findings=[Finding(outcome.case.boundary, how, example)])


def _work(block: Block, tell: Tell) -> Tally:
    """Attempt the examples of a block; each is told before."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    module, tally = boundary(block.boundary), Tally()

    @seed(block.seed)
    @settings(
        max_examples=block.examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(module.examples)
    def each(example: Any) -> None:
        stored = pickle.dumps(example)
        tell(stored)
        tally.add(attempt(block.boundary, stored, block.seconds))

    each()
    return tally


def attempt(name: str, stored: bytes, seconds: float = SECONDS) -> Tally:
    """Attempt one example, pickled, in a folder of its own, for so many seconds of a processor at most."""
    from xbcompile.errors import XbcompileError

    attempt_it = boundary(name).attempt
    example = pickle.loads(stored)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGPROF, _too_long)
    with TemporaryDirectory() as folder:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, _WAITS * seconds)
        try:
            attempt_it(example, Path(folder))
        except XbcompileError as error:
            return Tally(refused=1) if _is_clear(str(error)) else _found(name, stored, f"unclear: {error!r}")
        except (Exception, TooLong) as error:  # any fault is what is looked for
            return _found(name, stored, _trace(error))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    return Tally(results=1)


def _found(name: str, stored: bytes, what: str) -> Tally:
    return Tally(findings=[Finding(name, what, stored)])


def _is_clear(message: str) -> bool:
    """Whether a message is one line that says something."""
    return len(message.split()) >= 4 and "\n" not in message.strip() and len(message) <= 2000


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TooLong("more time than an example has")


def _trace(error: BaseException) -> str:
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} at {' > '.join(places)}"


def blocks_for(name: str, minutes: float, first_seed: int) -> Iterator[Block]:
    """Blocks of examples of a boundary until the time is over."""
    end = time.monotonic() + 60 * minutes
    number = first_seed
    while time.monotonic() < end:
        yield Block(name, number)
        number += 1
