"""Work in processes side by side, which end with this one however it ends."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from xbcompile.errors import XbcompileError
from xbcompile.runtime.workers import processors

Result = TypeVar("Result")

_SOON = 0.2  # seconds between the signals to processes of a group at most; assumed


def threads_of_each(jobs: int) -> int:
    """Worker threads of one of so many processes, which share the processors that this one may use."""
    return max(1, processors() // jobs)


def done_in_processes(tasks: Sequence[Callable[[], Result]], jobs: int) -> Iterator[tuple[int, Result]]:
    """Results with the numbers of their tasks, as they come.

    The processes are copies of a new one that has loaded this package: copies of this one would lack its threads. An interruption
    is left to this one.

    Args:
        tasks: picklable; they begin in this order.
        jobs: processes.

    Raises:
        XbcompileError: a process was ended from outside.
        whatever a task raises: the others are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xbcompile.cli.chips", "xbcompile.api.compiling"])
    pool = ProcessPoolExecutor(jobs, context, _follow_parent, (context.Event(),))
    with pool:
        try:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited while they start
            try:
                numbers = {pool.submit(task): number for number, task in enumerate(tasks)}
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        except BrokenProcessPool:
            time.sleep(_SOON)  # a signal to all processes of a group ends this one as well
            raise XbcompileError(
                "a worker process was ended from outside; if for want of memory, try --jobs 1"
            ) from None
        except BaseException:  # nobody wants the other results any more
            for worker in multiprocessing.active_children():
                worker.terminate()
            pool.shutdown(cancel_futures=True)  # soon done: its workers are dead
            raise


def _follow_parent(warned: Event) -> None:
    """In a worker: leave an interruption to the parent, which ends the workers, and end with the parent however it ends.

    Args:
        warned: set once one of the workers has warned that compiled kernels cannot be kept.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def is_first(record: logging.LogRecord) -> bool:
        told = warned.is_set()
        warned.set()
        return not told

    logging.getLogger("xbcompile").addFilter(is_first)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
