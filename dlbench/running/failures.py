"""Rows that a run leaves out, since their methods failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from accelerate.utils import gather_object

from dlbench.errors import MethodError, RowsLeftOutError
from dlbench.running.job import Job

_SHOWN = 3


class Failures:
    """What failed in a run, in its fits and while it decoded."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.lines: list[str] = []
        """One for each row that is left out, with the reason."""
        self._decoding: dict[str, str] = {}

    def fitted(self, jobs: Sequence[Job], lines: Sequence[str]) -> None:
        """Take what failed in fits; the jobs have no settings of it.

        Raises:
            MethodError: no method is left.
        """
        self.lines += lines
        self._tell(jobs, lines)

    def decoded(self, failed: Mapping[str, MethodError]) -> None:
        """Take what failed while this process decoded, by the settings' content keys."""
        self._decoding.update({key: str(error) for key, error in failed.items()})

    def drop(self, jobs: Sequence[Job]) -> None:
        """Drop the settings of the jobs that failed in any process; all processes call this.

        Raises:
            MethodError: no method is left.
        """
        self._drop(jobs, dict(gather_object(list(self._decoding.items()))))

    def timed(self, jobs: Sequence[Job], reasons: Mapping[str, str]) -> None:
        """Drop the settings whose methods decided otherwise while they were timed, by their content keys.

        Raises:
            MethodError: no method is left.
        """
        self._drop(jobs, reasons)

    def _drop(self, jobs: Sequence[Job], reasons: Mapping[str, str]) -> None:
        lines = []
        for job in jobs:
            for setting in (s for s in job.settings if s.key in reasons):
                at = "" if setting.budget is None else f" at {setting.budget:g}"
                lines.append(f"{setting.name}{at} on {job.conditions.task.name}: {reasons[setting.key]}")
            job.settings = [s for s in job.settings if s.key not in reasons]
        self.lines += lines
        self._tell(jobs, lines)

    def end(self) -> None:
        """Say at the end of a run what it left out.

        Raises:
            RowsLeftOutError: it left something out.
        """
        if self.lines:
            more = len(self.lines) - _SHOWN
            shown = "; ".join(self.lines[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise RowsLeftOutError(f"rows left out, since their methods failed: {len(self.lines)}: {shown}")

    def _tell(self, jobs: Sequence[Job], lines: Sequence[str]) -> None:
        if lines and not any(job.oracles or any(s.name != "full" for s in job.settings) for job in jobs):
            raise MethodError(lines[0].partition(": ")[2])
        for line in lines:
            self.note(f"no row: {line}")
