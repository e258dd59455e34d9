"""The trackers of a run, together: what one of them cannot do never ends the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dlbench.errors import DlbenchError
from dlbench.tracking.tracker import Row, TrackedRun, Tracker, make

EVERY = 2.0
"""Least seconds between two logged states of one kind of work."""


class Trackers:
    """A run in any number of trackers; of none it does nothing.

    Args:
        names: of the trackers.
        note: prints a line.
    """

    def __init__(self, names: Sequence[str], note: Callable[[str], None]) -> None:
        self._names, self._note = names, note
        self._open: dict[str, Tracker] = {}
        self._logged: dict[str, float] = {}

    def begin(self, run: TrackedRun) -> None:
        """Open the run in all of them.

        Raises:
            DlbenchError: one of them refuses; nothing was decoded yet.
        """
        for name in self._names:
            tracker = make(name)
            try:
                tracker.begin(run)
            except Exception as error:  # whatever a package of others raises
                self.end(ok=False)
                line = " ".join(str(error).split()) or type(error).__name__
                raise DlbenchError(f"--track {name}: {line[:500]}; --offline keeps it on this machine") from error
            self._open[name] = tracker

    def advance(self, work: str, done: int, of: int) -> None:
        """Log how far a kind of work is, at most every `EVERY` seconds, and its end."""
        now = time.monotonic()
        if self._open and (done >= of or now - self._logged.get(work, -EVERY) >= EVERY):
            self._logged[work] = now
            self._each(lambda tracker: tracker.advance(work, done, of))

    def rows(self, rows: Sequence[Row]) -> None:
        """Log the records."""
        self._each(lambda tracker: tracker.rows(rows))

    def end(self, ok: bool) -> None:
        """Close the run; it is closed once."""
        self._each(lambda tracker: tracker.end(ok))
        self._open = {}

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever a package of others raises: the run is worth more
                del self._open[name]
                self._note(f"{name} failed, and the run goes on without it: {' '.join(str(error).split())[:300]}")
