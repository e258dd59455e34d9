"""Processes that work out the views of a board and write their pages in parallel."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from threading import current_thread, main_thread
from types import TracebackType
from typing import TypeVar

from dlbench.errors import DlbenchError
from dlbench.system.cpu import cores

Result = TypeVar("Result")


class WorkerError(DlbenchError):
    """A worker process ended before it was done."""


class Workers:
    """Runs calls in other processes, or in this one where `processes` is 1. Results are the same.

    Used as a context manager, it ends its processes. They start with the first calls, by `spawn`: a fork would copy
    locks that threads of torch, of a BLAS or of the chart renderer hold.

    Args:
        processes: how many calls run at a time. With more than one, the program's main module must be importable
            without running it, as Python's `multiprocessing` requires.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, calls: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """Return the results of calls, in order; what a call raises is raised here.

        The first calls start at once, further ones as results are taken, so that few results wait in memory.

        Raises:
            WorkerError: a worker was killed.
        """
        if self.processes == 1:
            return (call() for call in calls)
        rest = iter(calls)
        with _told():
            return self._results(deque(map(self._submit, islice(rest, 2 * self.processes))), rest)

    def _submit(self, call: Callable[[], Result]) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"), initializer=_begin)
        if sys.platform == "win32":
            return self._pool.submit(call)
        # A worker that starts here inherits the mask: Ctrl-C is held back until its own handler is set (`_begin`).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _held_back():
                return self._pool.submit(call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _results(self, waiting: deque[Future[Result]], rest: Iterator[Callable[[], Result]]) -> Iterator[Result]:
        while waiting:
            with _told():
                result = waiting.popleft().result()
                waiting.extend(map(self._submit, islice(rest, 1)))
            yield result


ALONE = Workers(1)
"""Everything runs in this process."""

LARGE = 8_000_000
"""Bytes of run folders from which on several processes pay off: each takes two seconds to start."""
MOST = 4
"""The most processes that are started without being asked for: each takes a quarter of a gigabyte."""


def enough(run_dirs: Iterable[Path]) -> int:
    """Return how many processes suit the size of these runs on this machine."""
    files = (path for run_dir in run_dirs for path in (*run_dir.glob("*.jsonl"), *run_dir.glob("samples/*.jsonl")))
    return min(MOST, cores()) if sum(path.stat().st_size for path in files) >= LARGE else 1


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold Ctrl-C back while a worker is started, which else would find half of what it is sent.

    A mask does not do that alone: a signal may reach another thread, and Python answers it in the main one.
    """
    if current_thread() is not main_thread():  # only the main thread answers signals
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if received:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _told() -> Iterator[None]:
    """Turn a broken pool into a message that says what happened."""
    try:
        yield
    except BrokenProcessPool:
        raise WorkerError(
            "a worker of the board was killed, as happens where memory runs out; --processes 1 takes least"
        ) from None


def _begin() -> None:
    """Prepare a worker process: its signals and its number of threads."""
    # Ctrl-C reaches every process of the terminal; only the first one reports it.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Read when numpy is imported, which is later. One thread each: the workers together use all cores.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
