"""The reproduce command's work: experiments, measurements and figures in parallel processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from xbcompile.cli.output import make_folder
from xbcompile.cli.processes import done_in_processes, threads_of_each
from xbcompile.cli.progress import progress
from xbcompile.errors import DataError
from xbcompile.experiments.figure import Effort, PaperFigure
from xbcompile.experiments.measurement import Measurement
from xbcompile.experiments.reproduction import Experiment
from xbcompile.experiments.shared import shared_folder
from xbcompile.experiments.systems import EXPERIMENTS, FIGURES, MEASUREMENTS
from xbcompile.files import scratch_folder, write_atomically
from xbcompile.runtime.workers import processors

QUICK_SEEDS = 2


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Kind = TypeVar("Kind", bound=_Named)
Key = tuple[str, str]  # kind and name, of which each kind has its own
Task = tuple[Key, float, Callable[[], dict[str, Any]]]  # with weight and work


def reproduce(
    models: Path,
    only: list[str],
    seeds: int,
    jobs: int | None,
    threads: int | None = None,
    *,
    quick: bool = False,
    figures: Path | None = None,
    show_progress: bool,
) -> dict[str, Any]:
    """Run experiments, measure, draw; the keys are those of `reproduce --json`.

    Args:
        models: folder of the example networks.
        only: names and patterns of experiments, measurements and figures; none: all.
        seeds: chips per experiment, and repetitions of what is measured or drawn; `quick` takes 2.
        jobs: of them at a time; None: as many as there are processors.
        threads: worker threads of each; None: the processors, shared.
        quick: coarse answers will do: fewer test images of large networks, one chip for each of several networks.
        figures: folder for figures, which is made; None: none is drawn.
        show_progress: on the error output.

    Raises:
        DataError: nothing has such a name, or a model or data set is missing.
        ProgramError: the folder cannot be made or written.
        XbcompileError: a worker process was ended from outside.
    """
    _check_names(only, figures)
    experiments, measurements = _chosen(EXPERIMENTS, only), _chosen(MEASUREMENTS, only)
    pictures = [] if figures is None else [(each, figures) for each in _chosen(FIGURES, only)]
    for each in experiments:
        each.check(models)
    if figures is not None:
        make_folder(figures)
    started = time.perf_counter()
    jobs = min(jobs or processors(), len(experiments) + len(measurements) + len(pictures))
    effort = Effort(models, QUICK_SEEDS if quick else seeds, threads or threads_of_each(jobs), quick)
    tasks: list[Task] = [
        *((("experiment", each.name), each.weight, partial(_experiment, each, effort)) for each in experiments),
        *((("measurement", each.name), each.weight, partial(_measurement, each, effort)) for each in measurements),
        *((("figure", each.name), each.weight, partial(_drawn, each, effort, folder)) for each, folder in pictures),
    ]
    with scratch_folder() as shared:
        work = [(key, weight, partial(_timed, task, shared)) for key, weight, task in tasks]
        found = _all_done(work, jobs, show_progress)
    return {
        "seeds": effort.seeds,
        "rows": [found["experiment", each.name] for each in experiments],
        "measurements": [found["measurement", each.name] for each in measurements],
        "figures": [found["figure", each.name] for each, _ in pictures],
        "seconds": time.perf_counter() - started,
    }


def _check_names(only: Sequence[str], figures: Path | None) -> None:
    """Raise DataError for names that nothing has, and for those of figures alone where none is to be drawn."""
    names = [*(each.name for each in EXPERIMENTS), *(each.name for each in MEASUREMENTS)]
    pictures = [each.name for each in FIGURES]
    unknown = [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in (*names, *pictures))]
    if unknown:
        raise DataError(
            f"no experiment is called {', '.join(unknown)}; allowed: {', '.join((*names, *pictures))}, or patterns of these"
        )
    undrawn = [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in names)]
    if undrawn and figures is None:
        raise DataError(f"{', '.join(undrawn)} can be drawn, but no folder is given: add --figures DIR")


def _chosen(all_of_a_kind: Sequence[Kind], only: Sequence[str]) -> list[Kind]:
    return [each for each in all_of_a_kind if not only or any(fnmatchcase(each.name, pattern) for pattern in only)]


def _all_done(tasks: Sequence[Task], jobs: int, show_progress: bool) -> dict[Key, dict[str, Any]]:
    """Results by kind and name of tasks: long ones first, so that no processor waits for the last one."""
    order = sorted(tasks, key=lambda task: -task[1])
    found: dict[Key, dict[str, Any]] = {}
    whole, done = sum(weight for _, weight, _ in order), 0.0
    with progress(f"0 of {len(order)} done", show_progress) as tell:
        for number, result in done_in_processes([work for _, _, work in order], jobs):
            key, weight, _ = order[number]
            found[key], done = _written(result), done + weight
            tell(f"{len(found)} of {len(order)} done, {key[1]} last", done / whole)
    return found


def _timed(work: Callable[[], dict[str, Any]], shared: Path) -> dict[str, Any]:
    """In a worker: do it, with the results that others left in a folder."""
    started = time.perf_counter()
    with shared_folder(shared):
        return work() | {"seconds": time.perf_counter() - started}


def _experiment(experiment: Experiment, effort: Effort) -> dict[str, Any]:
    if not effort.quick:
        return experiment.run(effort.models, effort.seeds, effort.threads)
    # Of several networks, chips of all of them together are as many as one row needs.
    return experiment.coarse().run(effort.models, 1 if experiment.networks else effort.seeds, effort.threads)


def _measurement(measurement: Measurement, effort: Effort) -> dict[str, Any]:
    return measurement.run(effort)


def _drawn(paper_figure: PaperFigure, effort: Effort, folder: Path) -> dict[str, Any]:
    """In a worker: compute a figure; an entry of `figures`, with the contents of its files, which the parent writes."""
    from xbcompile.report.paper_figures import draw_figure

    figure = paper_figure.make(effort)
    files = {
        folder / f"{paper_figure.name}.{ending}": content
        for ending, content in draw_figure(paper_figure.name, paper_figure.title, figure.as_json()).items()
    }
    return {
        "figure": paper_figure.name,
        "title": paper_figure.title,
        "note": figure.note,
        "files": [str(path) for path in files],
        "contents": list(files.values()),
    }


def _written(result: dict[str, Any]) -> dict[str, Any]:
    """A result of a worker, its files written, each whole or not at all."""
    for path, content in zip(result.get("files", ()), result.pop("contents", ()), strict=True):
        write_atomically(path, content)
    return result
