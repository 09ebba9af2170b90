"""The sensitivity command's work: assumed numbers of a target at both ends of their ranges, in parallel processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from xbcompile.cli.characters import visible
from xbcompile.cli.output import check_ending, check_output
from xbcompile.cli.processes import done_in_processes, threads_of_each
from xbcompile.cli.progress import progress
from xbcompile.errors import TargetError
from xbcompile.experiments.sensitivity import (
    Accuracies,
    Ends,
    Trial,
    accuracy_json,
    ends_to_run,
    noise_of,
    sensitivity_rows,
)
from xbcompile.files import write_atomically
from xbcompile.runtime.workers import processors
from xbcompile.targets import Target

_ENDINGS = (".png", ".svg", ".json")


def run_sensitivity(
    trial: Trial,
    only: Sequence[str],
    outputs: Sequence[Path],
    jobs: int | None,
    threads: int | None,
    *,
    show_progress: bool,
) -> dict[str, Any]:
    """Run a trial with each assumed number of its target at both ends; the keys are those of `sensitivity --json`.

    Args:
        trial: network, target, data, chips.
        only: names and patterns of assumed numbers; none: all.
        outputs: files to write, .png, .svg or .json.
        jobs: programs at a time; None: as many as there are processors.
        threads: worker threads of each; None: the processors, shared.
        show_progress: on the error output.

    Raises:
        TargetError: no assumed number has such a name.
        ProgramError: a file cannot be written.
        XbcompileError: the target's own numbers do not work, or a worker process was ended from outside.
    """
    names = _chosen(trial.target, only)
    for path in outputs:
        check_ending(path, _ENDINGS)
        check_output(path, trial.model, trial.data, trial.calibration)
    started = time.perf_counter()
    ends = ends_to_run(trial.target, names)
    jobs = min(jobs or processors(), len(ends) + 1)
    trial = replace(trial, threads=threads or threads_of_each(jobs))
    found: Ends = {}
    with progress("compiling and running", show_progress) as tell:
        work: list[Callable[[], Accuracies | str]] = [trial.run, *(partial(trial.run_end, *end) for end in ends)]
        for done, (number, accuracies) in enumerate(done_in_processes(work, jobs), 1):
            if number > 0:
                found[ends[number - 1]] = accuracies
            elif isinstance(accuracies, Accuracies):
                baseline = accuracies
            tell(f"{done} of {len(work)} programs compiled and run", done / len(work))
    result: dict[str, Any] = {
        "model": str(trial.model),
        "target": trial.target.name,
        "device": trial.target.device_name(trial.device),
        "data": trial.data,
        "samples": baseline.samples,
        "repeat": trial.repeat,
        "software": baseline.software,
        "baseline": accuracy_json(baseline),
        "noise": noise_of(baseline.arrays),
        "numbers": sensitivity_rows(trial.target, names, baseline, found),
        "seconds": time.perf_counter() - started,
        "warnings": baseline.warnings,
    }
    for path in outputs:
        write_atomically(path, _content(path, result))
    return result


def _chosen(target: Target, only: Sequence[str]) -> list[str]:
    """Names of assumed numbers."""
    names = list(target.assumed_ranges)
    unknown = [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in names)]
    if unknown or not names:
        which = f"no assumed number is called {', '.join(unknown)}" if unknown else "no number says that it is assumed"
        allowed = f"; allowed: {', '.join(names)}, or patterns of these" if names else ""
        raise TargetError(f"target {target.name!r}: {which}{allowed}")
    return [name for name in names if not only or any(fnmatchcase(name, pattern) for pattern in only)]


def _content(path: Path, result: dict[str, Any]) -> bytes:
    """What a file of this ending holds."""
    if path.suffix == ".json":
        return json.dumps(result, indent=1).encode() + b"\n"
    from xbcompile.report.sensitivity import plot_sensitivity

    return plot_sensitivity(visible(result))[path.suffix[1:]]
