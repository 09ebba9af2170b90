"""A process that sets up one side of a row and times it whenever it is asked to.

    python -m benchmarks.worker SIDE WORK THREADS...

Every side has a process of its own, so that no library's thread settings or memory reach another. Requests are lines of JSON on
standard input, {"threads": 1, "seconds": 0.2}; replies are lines of JSON on standard output, which nobody else can write to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from benchmarks.side import Side, make_side


def memory_bytes(field: str) -> int:
    """A line of /proc/self/status, such as VmHWM: the largest resident memory."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":")) * 1024


def forget_peak() -> None:
    """Let the peak of memory begin anew (proc(5): 5 resets VmHWM)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def processor_seconds() -> float:
    """Of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


def measure(side: Side, threads: int, least_seconds: float) -> dict[str, Any]:
    """Seconds of one run, wall and processor, from as many runs as take so long."""
    runs, wall, processor = 0, time.perf_counter(), processor_seconds()
    while not runs or time.perf_counter() - wall < least_seconds:
        side.run(threads)
        runs += 1
    wall, processor = time.perf_counter() - wall, processor_seconds() - processor
    return {"seconds": wall / runs, "processor_seconds": processor / runs, "peak_bytes": memory_bytes("VmHWM")}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not look like a reply
    name, work, *threads = sys.argv[1:]
    try:
        side = make_side(name, work)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}), file=replies)
        return
    for count in threads:
        side.run(int(count))
    print(json.dumps({"facts": side.facts, "peak_bytes": memory_bytes("VmHWM")}), file=replies)
    forget_peak()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(measure(side, request["threads"], request["seconds"])), file=replies)


if __name__ == "__main__":
    main()
