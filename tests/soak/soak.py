"""Many models compiled, run and verified in one process, whose memory, open files, threads and temporary files must not grow.

    python -m tests.soak.soak                 # 1,000 models; status 1 on growth
    python -m tests.soak.soak --cycles 200 --seed 7

Each cycle has a model of its own: a random graph, or every tenth time the shipped xor. It is compiled for one target after the
other, saved, loaded, verified, inspected by its digest, run on the target's devices, and refused now and then with wrong inputs.
Kernels are compiled for each layout and type that they meet first, and libraries keep memory of the largest call that they have
seen, so that a warm-up goes before; free memory is given back to the system before each look.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

import xbcompile
from tests.fuzz.random_graphs import generate
from tests.support.model_kit import MODELS
from xbcompile.errors import DataError, XbcompileError
from xbcompile.program.program import load_program
from xbcompile.runtime import Session
from xbcompile.targets import target_names

# Assumed: what resident memory may grow by after the warm-up, in any number of cycles, from the middle of so many looks to that
# of the last: a single one may fall on a large model.
MOST_MEMORY_BYTES = 64 << 20
LOOKS = 3
MOST_FILES = 2  # open files, and threads: pools of the libraries may grow once more


@dataclass(frozen=True)
class Look:
    """What the process has after so many cycles.

    Args:
        cycles: done.
        memory_bytes: resident.
        files: open.
        threads: running.
        temporary: entries in the folder for temporary files.
    """

    cycles: int
    memory_bytes: int
    files: int
    threads: int
    temporary: int


def look(cycles: int, folder: Path) -> Look:
    """Count what the process has."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    return Look(cycles, pages * resource.getpagesize(), files, threads, len(list(folder.iterdir())))


def growth(looks: list[Look], warm_up: int, memory_bytes: int = MOST_MEMORY_BYTES) -> list[str]:
    """What grew after the warm-up by more than it may."""
    warm = [each for each in looks if each.cycles >= warm_up]
    first, last = warm[0], warm[-1]
    found = []
    early, late = (median([each.memory_bytes for each in some]) for some in (warm[:LOOKS], warm[-LOOKS:]))
    if late - early > memory_bytes:
        found.append(f"memory grew by {(late - early) / 2**20:.0f} MiB; allowed: {memory_bytes / 2**20:.0f}")
    for name, most in (("files", MOST_FILES), ("threads", MOST_FILES), ("temporary", 0)):
        more = getattr(last, name) - getattr(first, name)
        if more > most:
            found.append(f"{name} grew by {more}; allowed: {most}")
    return found


def soak(
    cycles: int, seed: int, every: int, cycle: Callable[[int, int, Path], str]
) -> Iterator[tuple[Look, Counter[str]]]:
    """Looks after every so many cycles, and how these ended."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tempfile.tempdir = name  # what anybody leaves behind is seen
        try:
            ends: Counter[str] = Counter()
            for number in range(cycles):
                ends[cycle(seed, number, folder)] += 1
                if (number + 1) % every == 0:
                    yield look(number + 1, folder), ends
        finally:
            tempfile.tempdir = before


def one_cycle(seed: int, number: int, folder: Path) -> str:
    """Compile a model, run and verify it: "done", or "refused" where it does not fit the target."""
    names = target_names()
    target = names[number % len(names)]
    model, feeds = _xor() if number % 10 == 9 else _random(seed, number)
    path = folder / "program.xbar"
    try:
        program = xbcompile.compile(model, target, effort=0, arrays=number % 3)
        program.save(path)
        loaded = load_program(path)
        assert not xbcompile.verify(loaded)
        assert loaded.digest == program.digest
        for device in (*loaded.target.device_names[:2], None):
            Session(loaded, device, seed=number).run(feeds)
        xbcompile.InferenceSession(loaded).run(None, feeds)
        _refused(loaded, feeds)
    except XbcompileError:
        return "refused"
    finally:
        path.unlink(missing_ok=True)
    return "done"


def _xor() -> tuple[onnx.ModelProto, dict[str, Any]]:
    return onnx.load(MODELS / "xor.onnx"), {"input": np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)}


def _random(seed: int, number: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    case = generate(seed, number)
    return case.model, case.feeds


def _refused(program: Any, feeds: dict[str, Any]) -> None:
    """An error keeps what it was raised in until it is dropped."""
    try:
        Session(program).run({**feeds, "no such input": 0})
    except DataError:
        return
    raise AssertionError("an unknown input was taken")


def main() -> int:
    """The command line; its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=50, help="cycles between looks")
    parser.add_argument("--warm-up", type=int, default=400, help="cycles before what grows counts")
    chosen = parser.parse_args()
    looks, started = [], time.monotonic()
    print("cycles  resident MiB  open files  threads  temporary files  done  refused  seconds")
    for found, ends in soak(chosen.cycles, chosen.seed, chosen.every, one_cycle):
        looks.append(found)
        print(
            f"{found.cycles:6}  {found.memory_bytes / 2**20:12.1f}  {found.files:10}  {found.threads:7}  {found.temporary:15}"
            f"  {ends['done']:4}  {ends['refused']:7}  {time.monotonic() - started:7.0f}",
            flush=True,
        )
    faults = growth(looks, min(chosen.warm_up, chosen.cycles // 2))
    print(
        "\n".join(faults)
        or f"no growth; Python objects: {len(gc.get_objects()):,}, threads: {threading.active_count()}"
    )
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
