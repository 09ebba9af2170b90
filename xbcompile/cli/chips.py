"""A program on one chip after another, in this process or in several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.cli.processes import done_in_processes, threads_of_each
from xbcompile.data.datasets import Data, load_data
from xbcompile.data.stored import StoredArray, blocks
from xbcompile.errors import DataError
from xbcompile.ir.corrections import Corrections, Effort
from xbcompile.program.program import Program, load_program
from xbcompile.reference.sequence import with_initial_states
from xbcompile.runtime import ColumnStatistics, Cost, LayerStatistics, Session, cost_of, load_corrections
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.runtime.prepared import MEMORY_BYTES, PreparedProgram


@dataclass(frozen=True)
class ChipRun:
    """What a run on one chip gave.

    Args:
        cost: of the run.
        effort: what it took to fit the chip's corrections.
        statistics: of the layers; readings are observed on the first chip alone.
        columns: of the columns, by layer; likewise.
        has_converter: whether the chip has one.
        not_finite: how many output values are NaN or infinite.
        accuracy: fraction of samples classified right; None without labels.
        rule: how classes were read; None without labels.
        outputs: by name, where they are wanted.
    """

    cost: Cost
    effort: Effort
    statistics: list[LayerStatistics]
    columns: list[ColumnStatistics]
    has_converter: bool
    not_finite: int
    accuracy: float | None
    rule: dict[str, Any] | None
    outputs: dict[str, Any]


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
    """

    path: Path
    data: str
    device: str | None = None
    fit: Path | None = None
    states: tuple[tuple[str, str], ...] = ()
    threshold: float | None = None
    threads: int | None = None
    memory_bytes: int = MEMORY_BYTES

    @cached_property
    def program(self) -> Program:
        """The program."""
        return load_program(self.path)

    @cached_property
    def loaded(self) -> Data:
        """The samples.

        Raises:
            DataError: there is a threshold, and they have no labels.
        """
        network, states = self.program.network, dict(self.states)
        loaded = load_data(self.data, network.inputs, network.samples, states.values(), finite=False)
        if loaded.labels is None and self.threshold is not None:
            raise DataError(f"--threshold {self.threshold:g} is for accuracy, and data {self.data!r} has no labels")
        return loaded

    @cached_property
    def classifier(self) -> Classifier:
        """How classes are read."""
        return Classifier.of(self.program.network, self.threshold)

    @cached_property
    def prepared(self) -> PreparedProgram:
        """What the chips share."""
        return PreparedProgram(self.program, self.threads, self.memory_bytes)

    @cached_property
    def corrections(self) -> Corrections | None:
        """Of the chip that is run; None: to be fitted."""
        return None if self.fit is None else load_corrections(self.fit)

    def software_accuracy(self) -> float | None:
        """Of the user's model on the samples; None where the program does not hold it."""
        assert self.loaded.labels is not None
        states = dict(self.states)
        inputs = with_initial_states(self.program.network, self.loaded.inputs, states)
        chunk = self.prepared.samples_at_once(inputs)
        return software_accuracy(self.program, inputs, self.loaded.labels, states, self.classifier, chunk)

    def run(self, seed: int, first: bool, keep_outputs: bool, progress: Callable[[int], None] | None = None) -> ChipRun:
        """Run the samples on a chip.

        Args:
            seed: which.
            first: observe readings.
            keep_outputs: hand them back.
            progress: told the number of samples done.
        """
        session, states = Session(self.prepared, self.device, seed, self.corrections), dict(self.states)
        network, labels, inputs = self.program.network, self.loaded.labels, self.loaded.inputs
        scored = network.outputs[0].name
        not_finite = 0

        def wanted() -> Iterator[dict[str, Any]]:
            nonlocal not_finite
            for part in session.run_parts(inputs, progress, states=states, observe=first):
                not_finite += count_not_finite(part)
                kept = part if keep_outputs else {} if labels is None else {scored: part[scored]}
                yield kept

        outputs = session.join(inputs, wanted(), states)
        accuracy = rule = None
        if labels is not None:
            output = network.samples.samples_first(scored, outputs[scored])
            accuracy, rule = self.classifier.accuracy(output, labels), self.classifier.rule(output)
        return ChipRun(
            cost_of(self.program, session.counters),
            session.corrections_effort,
            session.statistics,
            session.column_statistics,
            session.device.lsb is not None,
            not_finite,
            accuracy,
            rule,
            outputs if keep_outputs else {},
        )


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
            bench.run(seed, not i, keep_last and i == last, partial(_further, progress, i * samples))
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
    return _kept(bench).run(seed, first, keep_outputs)


@cache
def _kept(bench: Bench) -> Bench:
    """The bench whose program, samples and sessions the chips of one process share."""
    return bench


def count_not_finite(values: dict[str, Any]) -> int:
    """How many numbers are NaN or infinite."""
    floats = (x for x in values.values() if isinstance(x, np.ndarray | StoredArray) and x.dtype.kind == "f")
    return sum(int(np.count_nonzero(~np.isfinite(block))) for x in floats for block in blocks(x))
