"""Progress on the terminal: bars with the work done, the work left and the time that it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


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
        task = self._bars.add_task(name, total=total, what="")

        def done(amount: int, what: str | None = None) -> None:
            self._bars.advance(task, amount)
            if what is not None:
                self._bars.update(task, what=what)
                self._say(f"{name}: {what}")

        yield done
        self._bars.update(task, what="")

    @contextmanager
    def stage(self, name: str, kind: str = "fit") -> Iterator[Callable[[int, int], None]]:
        """Show a bar that is removed when its work is done; yields `say(step, steps)`, which sets it."""
        task = self._bars.add_task(kind, total=None, what=name)
        self._say(f"{kind}: {name}")

        def say(step: int, steps: int) -> None:
            self._bars.update(task, completed=step, total=steps)

        yield say
        self._bars.remove_task(task)

    def note(self, line: str) -> None:
        """Print a line that stays on the screen."""
        if self.shown:
            self.console.print(line, highlight=False, markup=False)

    def _say(self, line: str) -> None:
        """Print a line where there is no terminal to draw bars on."""
        if self.shown and not self.console.is_terminal:
            self.console.print(line, highlight=False)
