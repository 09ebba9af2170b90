"""The reproduce command's work: experiments in parallel processes, one table."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xbcompile.cli.processes import done_in_processes, threads_of_each
from xbcompile.errors import DataError
from xbcompile.experiments.reproduction import Experiment
from xbcompile.experiments.systems import EXPERIMENTS
from xbcompile.runtime.workers import processors

_WIDE = 140  # characters; fewer would cut the cells of all columns
_WIDE_COLUMNS = (
    "experiment",
    "published",
    "software",
    "array",
    "worst",
    "drop",
    "chips",
    "reads",
    "digital MACs",
    "goal",
    "met",
)
_NARROW_COLUMNS = ("experiment", "published", "array", "drop", "met")


def reproduce(
    models: Path, only: list[str], seeds: int, jobs: int | None, threads: int | None = None, *, show_progress: bool
) -> dict[str, Any]:
    """Run experiments; the keys are those of `reproduce --json`.

    Raises:
        DataError: no experiment has such a name, or a model or data set is missing.
        XbcompileError: a worker process was ended from outside.
    """
    names = [each.name for each in EXPERIMENTS]
    unknown = [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in names)]
    if unknown:
        raise DataError(
            f"no experiment is called {', '.join(unknown)}; allowed: {', '.join(names)}, or patterns of these"
        )
    chosen = [e for e in EXPERIMENTS if not only or any(fnmatchcase(e.name, pattern) for pattern in only)]
    for each in chosen:
        each.check(models)
    started = time.perf_counter()
    jobs = min(jobs or processors(), len(chosen))
    threads = threads or threads_of_each(jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: dict[str, dict[str, Any]] = {}
    with Progress(*columns, console=Console(stderr=True), disable=not show_progress, transient=True) as progress:
        task = progress.add_task("experiments", total=len(chosen))
        # Long ones first, so that no processor waits for the last one.
        order = sorted(chosen, key=lambda each: -each.weight)
        work = [partial(_timed, each, models, seeds, threads) for each in order]
        for number, row in done_in_processes(work, jobs):
            rows[order[number].name] = row
            progress.update(task, advance=1, description=order[number].name)
    return {
        "seeds": seeds,
        "rows": [rows[each.name] for each in chosen],
        "seconds": time.perf_counter() - started,
    }


def _timed(experiment: Experiment, models: Path, seeds: int, threads: int) -> dict[str, Any]:
    started = time.perf_counter()
    row = experiment.run(models, seeds, threads)
    return row | {"seconds": time.perf_counter() - started}


def print_reproduction(console: Console, result: dict[str, Any]) -> None:
    """Published figures beside ours; on a narrow console names instead of titles, and the main figures alone."""
    wide = console.width >= _WIDE
    columns = _WIDE_COLUMNS if wide else _NARROW_COLUMNS
    table = Table(header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in ("experiment", "goal") else "right")
    for row in result["rows"]:
        cells = _cells(row)
        cells["experiment"] = f"{row['title']} ({row['experiment']})" if wide else row["experiment"]
        table.add_row(*(cells[name] for name in columns))
    console.print(table)
    asked = [row for row in result["rows"] if row["met"] is not None]
    console.print(
        f"{sum(row['met'] for row in asked)} of {len(asked)} goals met; "
        f"accuracies in per cent, ± from chip to chip; {result['seconds']:.0f} s"
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """A row's cells by the name of their column."""
    return {
        "published": _published(row),
        "software": f"{row['software']:.2f}",
        "array": f"{row['array_mean']:.2f} ± {row['array_std']:.2f}",
        "worst": f"{row['array_worst']:.2f}",
        "drop": f"{row['software'] - row['array_mean']:.2f}",
        "chips": str(row["seeds"]),
        "reads": f"{row['reads_per_inference']:,}",
        "digital MACs": f"{row['digital_macs_per_inference'] or 0:,}",
        "goal": row["goal"] or "",
        "met": {True: "yes", False: "[bold]no[/]", None: ""}[row["met"]],
    }


def _published(row: dict[str, Any]) -> str:
    software, array = row["published_software"], row["published_array"]
    if software is None and array is None:
        return "none"
    return f"{'?' if software is None else f'{software:g}'} → {'?' if array is None else f'{array:g}'}"
