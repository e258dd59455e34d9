"""Watch processes that this one has started: say which are lost, and end them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil

GRACE = 3.0
"""Seconds for a process to end when it is asked to."""
STOPPED, STUCK = 30.0, 600.0
"""Seconds until a process is given up that is stopped by a signal, and until all are that use no processor time."""
LOOK, IDLE = 1.0, 1.0
"""Seconds between two looks at the processes, and of processor time in `STUCK` up to which one has done nothing."""


def end(workers: Sequence[subprocess.Popen[Any]]) -> None:
    """End processes: ask them, and kill those that have not ended after `GRACE` seconds."""
    for worker in workers:
        worker.terminate()
    limit = time.monotonic() + GRACE
    for worker in workers:
        try:
            worker.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()


@contextlib.contextmanager
def beside(watch: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run a function in a thread of its own while entered.

    Args:
        watch: called with an event that is set at the end; it is waited for.
    """
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def ending_stopped(worker: subprocess.Popen[bytes], is_over: Callable[[], bool] = lambda: False) -> Iterator[list[str]]:
    """Watch a process while its output is read, and end it where that ends otherwise.

    Args:
        worker: the process.
        is_over: asked once in a second whether the process is to be ended.

    Yields:
        A list that gets the reason where the process was given up.
    """
    given_up: list[str] = []

    def look(done: threading.Event) -> None:
        watch = Watch([worker.pid])
        while not done.wait(LOOK):
            lost = watch.lost([worker.poll()])
            if lost or is_over():
                given_up.extend([lost[1]] if lost else [])
                worker.kill()
                return

    try:
        with beside(look):
            yield given_up
    finally:
        end([worker])
        if worker.stdout is not None:
            worker.stdout.close()


def killed_by(number: int) -> str:
    """Say which signal has ended a process."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"was killed by {name}" + (", as the system does where memory runs out" if name == "SIGKILL" else "")


class Watch:
    """Notices processes that are there and do nothing: stopped by a signal, or all of them idle."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._looked = time.monotonic()
        self._stopped: dict[int, float] = {}
        self._busy, self._used, self._counted = self._looked, 0.0, self._looked

    def lost(self, codes: Sequence[int | None]) -> tuple[list[int], str] | None:
        """Return the indices of processes that may be lost, and why; looks once in a second.

        Args:
            codes: exit codes of the processes; None for those that have not ended.
        """
        now, before = time.monotonic(), self._looked
        if now - before < LOOK:
            return None
        self._looked = now
        if now - before > 10 * LOOK:  # this process was stopped itself, or the machine slept
            self._stopped, self._busy = {}, now
        for index, (pid, code) in enumerate(zip(self._pids, codes, strict=True)):
            with contextlib.suppress(psutil.Error):
                if code is None and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    if now - self._stopped.setdefault(index, now) >= STOPPED:
                        return [index], f"has been stopped (SIGSTOP) for {STOPPED:.0f} s, so it was ended"
                else:
                    self._stopped.pop(index, None)
        if now - self._counted < STUCK / 20:  # to look for children takes long where many processes run
            return None
        self._counted, used = now, sum(map(_seconds, self._pids))
        if abs(used - self._used) > IDLE * len(self._pids):
            self._busy, self._used = now, used
        if now - self._busy >= STUCK and not self._stopped:
            there = [index for index, code in enumerate(codes) if code is None]
            return there, f"did nothing for {STUCK:.0f} s, nor did any other process"
        return None


def _seconds(pid: int) -> float:
    """Processor time that a process and its children have used."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(one.cpu_times()[:2])
    return total
