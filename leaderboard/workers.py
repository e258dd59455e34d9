"""Processes that share out what is independent on a board: its views, and their pages."""

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
from types import TracebackType
from typing import TypeVar

from dlbench.errors import DlbenchError
from dlbench.system.processes import cores

Result = TypeVar("Result")


class WorkerError(DlbenchError):
    """A worker ended before its work was done."""


class Workers:
    """Makes calls in other processes; with one process, where they are asked for. Results are the same either way.

    Used as a context, it leaves no process behind. They start with the first calls, by `spawn`: a fork would take along
    the locks of whatever threads are there, those of torch, of a BLAS or of the renderer of charts.

    Args:
        processes: how many calls are made at a time. Where they are several, the program's main module must be
            importable without running it, as Python's `multiprocessing` asks for.
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

        The first calls start at once, further ones as results are taken, so that few of them wait in memory.

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
        # A worker that starts here keeps the mask: Ctrl-C waits until it is ready to end without a word.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
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
"""No other process."""

LARGE = 8_000_000
"""Bytes of run folders from which on several processes are worth their start, which takes each of them two seconds."""
MOST = 4
"""Processes that are started unasked: each takes a quarter of a gigabyte."""


def enough(run_dirs: Iterable[Path]) -> int:
    """Return how many processes suit the size of these runs on this machine."""
    files = (path for run_dir in run_dirs for path in (*run_dir.glob("*.jsonl"), *run_dir.glob("samples/*.jsonl")))
    return min(MOST, cores()) if sum(path.stat().st_size for path in files) >= LARGE else 1


@contextmanager
def _told() -> Iterator[None]:
    """Say in words that a worker is gone."""
    try:
        yield
    except BrokenProcessPool:
        raise WorkerError(
            "a worker of the board was killed, as happens where memory runs out; --processes 1 takes least"
        ) from None


def _begin() -> None:
    """Prepare a worker."""
    # Ctrl-C reaches every process of the terminal; the one that people started tells of it.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Read when numpy is imported, which is later: the workers together keep the cores busy.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
