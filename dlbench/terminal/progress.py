"""Progress on the terminal: bars with the work done, the work left and the time that it will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dlbench.system.watching import beside
from dlbench.terminal.event_log import EventLog

How = Literal["auto", "lines", "json", "quiet"]
EVERY = 30.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Progress bars of a run; plain lines where there is no terminal. What it is told goes to a log too.

    Args:
        shown: False in all processes of a run but the first, which print nothing.
        how: "auto" draws bars on a terminal; "lines" and "json" print lines there too, "quiet" nothing.
        rank: of this process, for the log.
    """

    def __init__(self, shown: bool, how: How = "auto", rank: int = 0) -> None:
        self.log = EventLog(rank, echo=shown and how == "json")
        self.listener: Callable[[str, int, int], None] | None = None
        """Is told the kind of work, how much is done, and of how much."""
        shown = shown and how not in ("json", "quiet")
        self.console = Console(stderr=True)
        self.shown, self._bare = shown, how != "auto" or not self.console.is_terminal
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
            disable=not shown or self._bare,
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
            self.log.state(name, done=finished, of=total, **({} if what is None else {"what": what}))
            self._tell(name, finished, total)
            self._bars.advance(task, amount)
            if what is not None:
                self._bars.update(task, what=escape(what))
                self._print_bare(f"{name}: {what}")

        with self._reporting(lambda: f"{name}: {finished:,} of {total:,}", ends=True):
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
        task = self._bars.add_task(kind, total=None, what=escape(name + about))
        self.log.event("begun", work=kind, what=name, seconds=seconds)
        self.log.state(kind, what=name, seconds=seconds)
        if seconds is None:
            self._print_bare(f"{kind}: {name}")
        start, count = time.perf_counter(), ""

        def say(step: int, steps: int) -> None:
            nonlocal count
            count = f", step {step:,} of {steps:,}"
            self._bars.update(task, completed=step, total=steps)
            self.log.state(kind, what=name, seconds=seconds, done=step, of=steps)
            self._tell(kind, step, steps)

        def report() -> str:
            foreseen = "" if seconds is None else f" of about {_clock(seconds)}"
            return f"{kind}: {name}: {_clock(time.perf_counter() - start)}{foreseen}{count}"

        with self._reporting(report):
            yield say
        self._bars.remove_task(task)
        self.log.event("done", work=kind, what=name, took=round(time.perf_counter() - start, 1))

    def _tell(self, work: str, done: int, of: int) -> None:
        if self.listener is not None:
            self.listener(work, done, of)

    @contextmanager
    def _reporting(self, report: Callable[[], str], *, ends: bool = False) -> Iterator[None]:
        """Where there is no terminal, print a line every `EVERY` seconds while entered.

        Args:
            report: returns the line.
            ends: whether the last of them is printed when the work is done.
        """
        if not self.shown or not self._bare:
            yield
            return

        last = None

        def watch(done: threading.Event) -> None:
            nonlocal last
            while not done.wait(EVERY):
                last = report()
                self._print_bare(last)

        with beside(watch):
            yield
        if ends and last not in (None, report()):
            self._print_bare(report())

    def note(self, line: str) -> None:
        """Print a line that stays on the screen."""
        self.log.event("note", text=line)
        if self.shown:
            self.console.print(line, highlight=False, markup=False)

    def line(self, line: str) -> None:
        """Print a line where no bars are drawn."""
        self.log.event("line", text=line)
        self._print_bare(line)

    def _print_bare(self, line: str) -> None:
        if self.shown and self._bare:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    """Minutes and seconds, as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
