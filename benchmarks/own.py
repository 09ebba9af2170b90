"""Our sides: a program run, compiled, run on many chips. Only the public interface is used."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import xbcompile
from benchmarks.float_runtime import float_outputs
from benchmarks.side import relative_error
from benchmarks.work import WORKS, Work, calibration_of, readings_of
from xbcompile.runtime import Session

CHIPS = 100


def compiled(work: Work) -> tuple[xbcompile.Program, dict[str, np.ndarray]]:
    """The program of a piece of work, and its inputs."""
    model = work.model()
    program = xbcompile.compile(model, work.target, calibration=calibration_of(work, model), **work.options)
    return program, work.inputs(model, work.samples)


class MemorySide:
    """One run, whose largest memory is what counts."""

    def __init__(self, name: str) -> None:
        self.work = WORKS[name]
        self.program, self.feeds = compiled(self.work)
        self.facts: dict[str, Any] = {
            "samples": self.work.samples,
            "input_bytes": sum(x.nbytes for x in self.feeds.values()),
        }

    def run(self, threads: int) -> None:
        Session(self.program, self.work.device, threads=threads).run_samples(self.feeds)


class ProgramSide(MemorySide):
    """A program in a session for each number of threads; setting sessions up is not timed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sessions: dict[int, Session] = {}
        self.facts |= readings_of(self.program)
        self.facts["draws"] = bool(self.work.noise)
        feeds = {name: x[: self.work.batch] for name, x in self.feeds.items()}
        (found,) = self._session(1).run_samples(feeds).values()
        self.facts["error"] = relative_error(found, float_outputs(self.work.model(), feeds))

    def run(self, threads: int) -> None:
        self._session(threads).run_samples(self.feeds)

    def _session(self, threads: int) -> Session:
        if threads not in self.sessions:
            fitted = next((each.corrections for each in self.sessions.values()), None)
            self.sessions[threads] = Session(self.program, self.work.device, corrections=fitted, threads=threads)
        return self.sessions[threads]


class SessionsSide(MemorySide):
    """Chip after chip, each in a session of its own, calibrated."""

    def run(self, threads: int) -> None:
        for seed in range(CHIPS):
            Session(self.program, self.work.device, seed=seed, threads=threads).run_samples(self.feeds)


class RepeatSide:
    """The same by `xbcompile run --repeat`: a process of its own, whose start is timed too."""

    def __init__(self, name: str) -> None:
        work = WORKS[name]
        program, feeds = compiled(work)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        program.save(folder / "program.xbar")
        np.savez(folder / "data.npz", **feeds)
        self.command = [sys.executable, "-m", "xbcompile.cli", "run", str(folder / "program.xbar")]
        self.command += ["--data", str(folder / "data.npz"), "--repeat", str(CHIPS), "--json"]
        self.facts: dict[str, Any] = {"samples": work.samples}

    def run(self, threads: int) -> None:
        """The command takes all processors."""
        printed = subprocess.run(self.command, check=True, capture_output=True, text=True).stdout
        json.loads(printed)


class CompileSide:
    """Compiling, verification included."""

    def __init__(self, name: str) -> None:
        self.work = WORKS[name]
        self.model = self.work.model()
        self.facts: dict[str, Any] = {}

    def run(self, threads: int) -> None:
        xbcompile.compile(self.model, self.work.target, **self.work.options)
