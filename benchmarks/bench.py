"""Speed and memory on this machine, beside other simulators and plain float inference.

    python -m benchmarks.bench [--rows W1,W4] [--quick] [--rounds 3] [--threads 1] [--before FILE] [--write-docs]

Every side of a row is set up in a process of its own; then all take turns, A B A B, on one thread and on two, and medians
count. Peers that are not installed are left out, and said so. All that is measured goes to build/bench/results.json, the
tables to the terminal and, with --write-docs, to docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import Cells, errors_of, tables, write_docs
from benchmarks.rows import ROWS, Row

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "bench"
ROUNDS, QUICK_ROUNDS = 3, 1
LEAST_SECONDS = 0.2  # of one measurement: short work is repeated
QUICK_LEAVES_OUT = ("chips", "resnet50", "M1e", "W5-256")


class Worker:
    """One side of a row in its process.

    Args:
        side: name of the side.
        work: name of the work.
        warm: numbers of threads with which the work is done once before anything is timed.
    """

    def __init__(self, side: str, work: str, warm: tuple[int, ...]) -> None:
        self.side = side
        self.log = FOLDER / f"{side}-{work.strip('-')}.log"
        command = [sys.executable, "-m", "benchmarks.worker", side, work, *map(str, warm)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def reply(self) -> dict[str, Any]:
        """The next line; a process that ended in place of it has failed."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        found: dict[str, Any] = json.loads(line) if line else {"failed": f"see {self.log.relative_to(ROOT)}"}
        return found

    def measure(self, threads: int, least_seconds: float) -> dict[str, Any]:
        """One measurement; a process that has ended fails it."""
        with suppress(BrokenPipeError):
            print(json.dumps({"threads": threads, "seconds": least_seconds}), file=self.process.stdin, flush=True)
        return self.reply()

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()


def run_row(row: Row, rounds: int) -> dict[str, Any]:
    """Everything that is measured of one row."""
    workers = [Worker(side, work, () if row.cold else row.threads) for side, work in row.sides]
    sides: dict[str, dict[str, Any]] = {}
    ready = []
    for worker in workers:
        sides[worker.side] = found = worker.reply()
        if "facts" in found:
            found["setup_peak_bytes"] = found.pop("peak_bytes")
            found["threads"] = {str(threads): [] for threads in row.threads}
            ready.append(worker)
    for _ in range(1 if row.once else rounds):
        for threads in row.threads:
            for worker in ready:
                measured = worker.measure(threads, 0 if row.once else LEAST_SECONDS)
                sides[worker.side]["threads"][str(threads)].append(measured)
    for worker in workers:
        worker.close()
    return {"row": row.name, "title": row.title, "unit": row.unit, "errors": row.errors, "sides": summed_up(sides, row)}


def summed_up(sides: dict[str, dict[str, Any]], row: Row) -> dict[str, dict[str, Any]]:
    """Each side with medians in place of single measurements, which stay too."""
    for side in sides.values():
        for threads, measured in side.get("threads", {}).items():
            failed = next((each["failed"] for each in measured if "failed" in each), None)
            if failed or not measured:
                side["failed"] = failed
                continue
            seconds = statistics.median(each["seconds"] for each in measured)
            side["threads"][threads] = {
                "seconds": seconds,
                "processor_seconds": statistics.median(each["processor_seconds"] for each in measured),
                "rate": side["facts"].get("samples", 1) / seconds,
                "peak_bytes": max(each["peak_bytes"] for each in measured),
                "all_seconds": [each["seconds"] for each in measured],
                "all_processor_seconds": [each["processor_seconds"] for each in measured],
            }
        if "failed" in side:
            side.pop("threads", None)
    return sides


def machine() -> dict[str, Any]:
    """See `benchmarks.machine`; a process of its own."""
    found = subprocess.run([sys.executable, "-m", "benchmarks.machine"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    described: dict[str, Any] = json.loads(found.stdout)
    return described


def chosen_rows(names: str | None, quick: bool) -> list[Row]:
    """Rows by their names; all, or all that are quick, where none are given."""
    if names is None:
        return [row for row in ROWS if not (quick and row.name in QUICK_LEAVES_OUT)]
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"no row {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def with_threads(rows: list[Row], threads: int | None) -> list[Row]:
    """Rows with one setting alone, where they have it."""
    return [replace(row, threads=(threads,)) if threads in row.threads else row for row in rows]


def show(console: Console, title: str, cells: Cells) -> None:
    """One table on the terminal."""
    table = Table(*cells[0], title=title, title_justify="left")
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", help="names, separated by commas; all of them otherwise")
    parser.add_argument("--quick", action="store_true", help="one round, without the longest rows")
    parser.add_argument("--rounds", type=int, help=f"measurements of each side ({ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="this setting alone, where a row has both")
    parser.add_argument("--before", type=Path, help="results.json of an earlier run on this machine, to compare with")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()
    rows = with_threads(chosen_rows(arguments.rows, arguments.quick), arguments.threads)
    console = Console(width=None if os.isatty(1) else 200)
    before = json.loads(arguments.before.read_text()) if arguments.before else None
    FOLDER.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "rows": []}
    for row in rows:
        console.print(f"{row.name}: {row.title}", highlight=False, markup=False)
        results["rows"].append(run_row(row, arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)))
        (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for title, cells in tables(results, before).items():
        show(console, title, cells)
    console.print(*errors_of(results), sep="\n", highlight=False, markup=False)
    if arguments.write_docs:
        write_docs(ROOT / "docs" / "performance.md", results, before)
    console.print(f"all figures: {(FOLDER / 'results.json').relative_to(ROOT)}", highlight=False)


if __name__ == "__main__":
    main()
