"""What ends a command early: the signals of schedulers, which act as Ctrl-C does, and a time limit."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from dlbench.errors import DlbenchError

EXIT_CODE = 143
"""Of a command that was told to stop: 128 + SIGTERM, as shells count."""
PATIENCE = 6.0
"""Seconds after a signal until the process ends even where its main thread is busy in a library."""
SIGNALS = tuple(s for name in ("SIGTERM", "SIGUSR1") if (s := getattr(signal, name, None)) is not None)
"""SIGTERM by `kill` and schedulers; SIGUSR1 by schedulers some time before the end, where they are asked to."""
OVER = "stopped by --time-limit"
_BEGUN = time.monotonic()
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


class Stopped(KeyboardInterrupt):
    """The command was told to stop; the message says by what."""


@contextlib.contextmanager
def by_signals() -> Iterator[list[str]]:
    """While entered, the first signal of `SIGNALS` raises `Stopped` in the main thread; later ones do nothing.

    A handler of Python's runs when the main thread returns to Python. Where it does not within `PATIENCE`, being in a
    library that waits for another process or a file system, the process ends all the same.

    Yields:
        A list that gets the message of what was raised.
    """
    received = list[str]()
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield received
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        received.append(f"stopped by {signal.Signals(number).name}")
        raise Stopped(received[0])

    before = {number: signal.getsignal(number) for number in SIGNALS}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()
    threading.Thread(target=_insist, args=(reading, ended), daemon=True).start()
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to at once, by the system's handler
    try:
        for number in SIGNALS:
            signal.signal(number, stop)
        yield received
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writing)


@contextlib.contextmanager
def by_default() -> Iterator[None]:
    """While entered within `by_signals`, signals do what they do in any program.

    For a library that forks workers and ends them by a signal: they would inherit the handlers, and with them the pipe
    by which this process is told that it has to end.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)


def _insist(reading: int, ended: threading.Event) -> None:
    """End the process where a signal has come and the command has not ended by itself."""
    while received := os.read(reading, 1):
        if received[0] in SIGNALS:
            if not ended.wait(PATIENCE):
                name = signal.Signals(received[0]).name
                print(f"dlbench: stopped by {name}; what was finished is kept", file=sys.stderr, flush=True)
                os._exit(EXIT_CODE)
            break
    os.close(reading)


def seconds(text: str) -> float:
    """Parse a duration such as `3h50m`, `90m`, `1d` or a number of seconds.

    Raises:
        DlbenchError: it is none, or not above zero.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text.strip().lower())
    try:
        whole = "".join(map("".join, parts)) == text.strip().lower() and parts
        total = sum(float(number) * _UNITS[unit] for number, unit in parts) if whole else float(text)
        if not 0 < total < 1e9:
            raise ValueError
    except ValueError:
        raise DlbenchError(f"time limit {text!r}: give a duration such as 3h50m, 90m or 3600 (seconds)") from None
    return total


def begin() -> None:
    """Count time limits from now on: a call in a process that began long before it."""
    global _BEGUN
    _BEGUN = time.monotonic()


def left(limit: float | None) -> float | None:
    """Seconds that are left of a time limit, counted from the process' start or from `begin`; None for no limit."""
    return None if limit is None else limit - (time.monotonic() - _BEGUN)


def is_over(limit: float | None) -> bool:
    """Whether a time limit is over."""
    remaining = left(limit)
    return remaining is not None and remaining <= 0


def check_time(limit: float | None) -> None:
    """Stop where a time limit is over; called between pieces of work.

    Raises:
        Stopped: the time is over.
    """
    if is_over(limit):
        raise Stopped(OVER)
