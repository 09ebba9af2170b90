"""The run command's work: accuracy over chips, statistics, counters, cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xbcompile.api.evaluation import run_facts
from xbcompile.cli.chips import Bench, run_chips
from xbcompile.cli.commissioning import check_one_chip
from xbcompile.cli.progress import progress
from xbcompile.cli.required import check_labels, judged, parse_requirements
from xbcompile.cli.saving import save_outputs
from xbcompile.errors import DataError
from xbcompile.runtime.prepared import MEMORY_BYTES

# Part of a layer's inputs outside of the range that they are coded for, above which it is told.
CLIPPED_FRACTION = 0.01


def run_program(
    path: Path,
    data: str,
    device: str | None,
    seed: int,
    repeat: int,
    output: Path | None,
    fit: Path | None = None,
    state: Sequence[str] | None = None,
    threshold: float | None = None,
    threads: int | None = None,
    jobs: int = 1,
    memory_mib: int | None = None,
    require: Sequence[str] | None = None,
    *,
    labels: str | None = None,
    show_progress: bool,
) -> dict[str, Any]:
    """Run a program on `repeat` chips; the keys are those of `run --json`."""
    required = parse_requirements(require or ())
    if fit is not None:
        check_one_chip(repeat)
    memory_bytes = MEMORY_BYTES if memory_mib is None else memory_mib << 20
    states = tuple(parse_states(state or ()).items())
    bench = Bench(path, data, device, fit, states, threshold, threads, memory_bytes, labels)
    evaluation, loaded = bench.evaluation, bench.loaded
    if loaded.labels is None:
        check_labels(required, data)
    started = time.perf_counter()
    software = evaluation.software_accuracy()  # first: labels that do not fit are told before the work
    seeds = list(range(seed, seed + repeat))
    every = loaded.samples * repeat
    with progress("running", show_progress) as tell:
        runs = run_chips(
            bench,
            seeds,
            jobs,
            output is not None,
            lambda done: tell(f"{done:,} of {every:,} samples", done / every if every else None),
        )
    if output is not None:
        save_outputs(output, runs[-1].outputs)
    seconds = time.perf_counter() - started
    facts = run_facts(evaluation, runs, seeds, software, None if fit is None else str(fit), seconds)
    return facts | {"requirements": judged(facts, required)}


def parse_states(settings: Iterable[str]) -> dict[str, str]:
    """States from `OUT=IN` texts: the input by the output whose value of one sample it takes in the next.

    Raises:
        DataError: a text is not of that form, or an input is given twice.
    """
    states: dict[str, str] = {}
    for setting in settings:
        output, equals, name = setting.rpartition("=")
        if not (output and equals and name) or name in states.values():
            raise DataError(
                f"--state {setting}: write --state OUTPUT=INPUT, once for each input that takes an output of the call before"
            )
        states[output] = name
    return states
