"""Work on many cases in processes of limited memory and time, each of which is replaced when it dies or takes too long."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

MEMORY_BYTES = 4 * 2**30
MODULES = ("xbcompile.api.compiling", "xbcompile.runtime")

Tell = Callable[[Any], None]
Work = Callable[[Any, Tell], Any]  # of a case; what it tells on its way is kept, however it ends


@dataclass(frozen=True)
class Outcome:
    """What came of one case.

    Args:
        case: the case.
        ending: "done", "died" (the process ended by itself) or "late" (it was ended after its time).
        value: what the work returned, where it is done.
        told: what the work told before.
        status: of the process that died.
    """

    case: Any
    ending: str
    value: Any = None
    told: tuple[Any, ...] = ()
    status: int | None = None


@dataclass
class _Worker:
    """A process and what it works on."""

    process: Any
    connection: Connection
    case: Any = None
    since: float = 0.0
    told: list[Any] = field(default_factory=list)

    def take(self, case: Any) -> None:
        self.case, self.since, self.told = case, time.monotonic(), []
        self.connection.send(("case", case))

    def outcome(self, ending: str, value: Any = None, status: int | None = None) -> Outcome:
        return Outcome(self.case, ending, value, tuple(self.told), status)


def work_apart(
    work: Work,
    cases: Iterable[Any],
    *,
    workers: int = 1,
    seconds: float,
    memory_bytes: int = MEMORY_BYTES,
    modules: Sequence[str] = MODULES,
) -> Iterator[Outcome]:
    """Work on the cases; outcomes come as they are done.

    Args:
        work: a function of a module, which each process imports.
        cases: what can be sent to a process; taken as processes become free.
        workers: processes at a time.
        seconds: time of each case.
        memory_bytes: memory of each process beyond what it takes to begin with.
        modules: what a process imports to begin with.
    """
    pending = iter(cases)
    running: list[_Worker] = []

    def employ(worker: _Worker | None) -> None:
        for case in pending:
            worker = worker or _started(work, memory_bytes, modules)
            worker.take(case)
            running.append(worker)
            return
        if worker is not None:
            worker.connection.send(("end", None))
            worker.process.join()

    for _ in range(workers):
        employ(None)
    while running:
        ready = wait([worker.connection for worker in running], timeout=0.2)
        for worker in list(running):
            outcome = _heard(worker) if worker.connection in ready else None
            if outcome is None and time.monotonic() - worker.since > seconds:
                worker.process.kill()
                worker.process.join()
                outcome = worker.outcome("late")
            if outcome is not None:
                running.remove(worker)
                yield outcome
                employ(worker if outcome.ending == "done" else None)


def _heard(worker: _Worker) -> Outcome | None:
    """Take one message of a worker; its outcome where it is the last one."""
    try:
        kind, value = worker.connection.recv()
    except EOFError:
        worker.process.join()
        return worker.outcome("died", status=worker.process.exitcode)
    if kind == "done":
        return worker.outcome("done", value)
    worker.told.append(value)
    return None


def _started(work: Work, memory_bytes: int, modules: Sequence[str]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, memory_bytes, modules), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    return _Worker(process, ours)


def _serve(connection: Connection, work: Work, memory_bytes: int, modules: Sequence[str]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in modules:
        import_module(module)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send("ready")

    def tell(value: Any) -> None:
        connection.send(("told", value))

    while True:
        kind, case = connection.recv()
        if kind == "end":
            return
        connection.send(("done", work(case, tell)))
