"""Progress on the terminal: bars with the work done, the work left and the time that it will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

EVERY = 30.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Progress bars of a run; plain lines where there is no terminal.

    Args:
        shown: False in all processes of a run but the first, which print nothing.
    """

    def __init__(self, shown: bool) -> None:
        self.console = Console(stderr=True)
        self.shown = shown
        self._bars = Bars(
            TextColumn("[bold]{task.description:<8}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("·"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[what]}"),
            console=self.console,
            disable=not shown or not self.console.is_terminal,
            expand=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Show a bar that stays on the screen; yields `done(amount, what="")`, which advances it."""
        task, finished = self._bars.add_task(name, total=total, what=""), 0

        def done(amount: int, what: str | None = None) -> None:
            nonlocal finished
            finished += amount
            self._bars.advance(task, amount)
            if what is not None:
                self._bars.update(task, what=what)
                self.line(f"{name}: {what}")

        with self._reporting(lambda: f"{name}: {finished:,} of {total:,}"):
            yield done
        self._bars.update(task, what="")

    @contextmanager
    def stage(self, name: str, kind: str = "fit", seconds: float | None = None) -> Iterator[Callable[[int, int], None]]:
        """Show a bar that is removed when its work is done; yields `say(step, steps)`, which sets it.

        Args:
            name: what is worked on.
            kind: of work.
            seconds: that it will take, as far as is known.
        """
        about = "" if seconds is None else f" · about {_clock(seconds)}"
        task = self._bars.add_task(kind, total=None, what=name + about)
        if seconds is None:
            self.line(f"{kind}: {name}")
        start, count = time.perf_counter(), ""

        def say(step: int, steps: int) -> None:
            nonlocal count
            count = f", step {step:,} of {steps:,}"
            self._bars.update(task, completed=step, total=steps)

        def report() -> str:
            foreseen = "" if seconds is None else f" of about {_clock(seconds)}"
            return f"{kind}: {name}: {_clock(time.perf_counter() - start)}{foreseen}{count}"

        with self._reporting(report):
            yield say
        self._bars.remove_task(task)

    @contextmanager
    def _reporting(self, report: Callable[[], str]) -> Iterator[None]:
        """Where there is no terminal, print a line every `EVERY` seconds while entered."""
        if not self.shown or self.console.is_terminal:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(EVERY):
                self.line(report())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def note(self, line: str) -> None:
        """Print a line that stays on the screen."""
        if self.shown:
            self.console.print(line, highlight=False, markup=False)

    def line(self, line: str) -> None:
        """Print a line where there is no terminal to draw bars on."""
        if self.shown and not self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    """Minutes and seconds, as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
