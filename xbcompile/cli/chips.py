"""A program on one chip after another, in this process or in several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

from xbcompile.api.evaluation import ChipRun, Evaluation
from xbcompile.cli.processes import done_in_processes, threads_of_each
from xbcompile.data.datasets import Data, load_data
from xbcompile.ir.corrections import Corrections
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import load_corrections
from xbcompile.runtime.prepared import MEMORY_BYTES


@dataclass(frozen=True)
class Bench:
    """A program and the samples that each chip runs; small, as what it names is loaded where it is used.

    Args:
        path: of the program.
        data: see `load_data`.
        device: a device name of the program's target; None takes the default.
        fit: file of the corrections of the one chip that is run; None: they are fitted on each.
        states: pairs of an output and the input that takes it in the next sample.
        threshold: see `Classifier.of`.
        threads: worker threads; None takes one per processor.
        memory_bytes: see `Session`.
        labels: name of the labels in the data; None: found.
    """

    path: Path
    data: str
    device: str | None = None
    fit: Path | None = None
    states: tuple[tuple[str, str], ...] = ()
    threshold: float | None = None
    threads: int | None = None
    memory_bytes: int = MEMORY_BYTES
    labels: str | None = None

    @cached_property
    def program(self) -> Program:
        """The program."""
        return load_program(self.path)

    @cached_property
    def loaded(self) -> Data:
        """The samples."""
        network, states = self.program.network, dict(self.states)
        return load_data(self.data, network.inputs, network.samples, states.values(), labels=self.labels, finite=False)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What each chip does.

        Raises:
            DataError: there is a threshold, and the samples have no labels.
        """
        program, corrections = self.program, self.corrections  # in this order, faults are told
        return Evaluation(
            program,
            self.loaded,
            self.device,
            corrections,
            dict(self.states),
            self.threshold,
            self.threads,
            self.memory_bytes,
        )

    @cached_property
    def corrections(self) -> Corrections | None:
        """Of the chip that is run; None: to be fitted."""
        return None if self.fit is None else load_corrections(self.fit)


def run_chips(
    bench: Bench, seeds: Sequence[int], jobs: int, keep_last: bool, progress: Callable[[int], None]
) -> list[ChipRun]:
    """Run a bench on chips, in order of their seeds; the results are the same for any number of jobs.

    Args:
        bench: what each runs.
        seeds: of the chips.
        jobs: chips at a time, each in a process of its own; 1: all in this one.
        keep_last: hand back the last chip's outputs.
        progress: told the number of samples done, of all chips.
    """
    samples, last = bench.loaded.samples, len(seeds) - 1
    if min(jobs, len(seeds)) == 1:
        return [
            bench.evaluation.run(seed, not i, keep_last and i == last, partial(_further, progress, i * samples))
            for i, seed in enumerate(seeds)
        ]
    jobs = min(jobs, len(seeds))
    shared = replace(bench, threads=bench.threads or threads_of_each(jobs))
    tasks = [partial(_run_in_worker, shared, seed, not i, keep_last and i == last) for i, seed in enumerate(seeds)]
    runs: dict[int, ChipRun] = {}
    for number, run in done_in_processes(tasks, jobs):
        runs[number] = run
        progress(len(runs) * samples)
    return [runs[number] for number in range(len(seeds))]


def _further(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _run_in_worker(bench: Bench, seed: int, first: bool, keep_outputs: bool) -> ChipRun:
    return _kept(bench).evaluation.run(seed, first, keep_outputs)


@cache
def _kept(bench: Bench) -> Bench:
    """The bench whose program, samples and sessions the chips of one process share."""
    return bench
