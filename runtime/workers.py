"""Worker threads of a session."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

from xbcompile.errors import RunError
from xbcompile.whole_numbers import whole_number

MOST_THREADS = 1024  # assumed: more than any machine has processors for

Done = TypeVar("Done")


def processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover  # not every system tells
        return os.cpu_count() or 1


class Workers:
    """Threads that are started when there is work for more than one, once for all layers of a session.

    Args:
        threads: how many; None: one per processor that the process may use.

    Raises:
        RunError: no number of threads.
    """

    def __init__(self, threads: int | None = None) -> None:
        what = "how many threads work, None for one per processor"
        given = None if threads is None else whole_number("threads", threads, 1, MOST_THREADS, what, RunError)
        self.threads = given or processors()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="xbcompile")

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Do all tasks; numpy and the kernels release the interpreter.

        Args:
            tasks: those that may be done at the same time.
        """
        if self.threads <= 1 or len(tasks) <= 1:
            for task in tasks:
                task()
            return
        for done in [self._pool.submit(task) for task in tasks]:
            done.result()

    def start(self, task: Callable[[], Done]) -> Future[Done]:
        """Begin a task, which must not call `run`.

        Args:
            task: what is done.
        """
        return self._pool.submit(task)


ALONE = Workers(1)
