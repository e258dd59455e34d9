"""What happens in a run, told to machines: a log file of JSON lines, and a file that holds the present state."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Container
from pathlib import Path
from typing import Any

LOG_FILE, STATE_FILE = "log.jsonl", "state.json"
_EVERY = 1.0
"""Least seconds between two writings of the state while one kind of work goes on, and ten times that in the log."""
_MOST = 16 << 20
"""Bytes from which on the log of a folder is begun anew; the older one stays beside it."""

_LONGEST = 1 << 20
"""Bytes of a line up to which it is read."""


class EventLog:
    """Keeps the events of one process; they are written from when the run's folder is known, those before it too.

    The log is for people and programs that look back; where it cannot be written, the run goes on.

    Args:
        rank: of this process.
        echo: whether events go to stderr too.
    """

    def __init__(self, rank: int = 0, *, echo: bool = False) -> None:
        self._rank, self._echo = rank, echo
        self._folder: Path | None = None
        self._waiting: list[str] = []
        self._stated, self._logged, self._work = 0.0, 0.0, ""

    def open(self, folder: Path) -> None:
        """Write to a folder from now on; the state is that of the first process."""
        self._folder = folder
        with contextlib.suppress(OSError):
            if (folder / LOG_FILE).stat().st_size > _MOST:
                (folder / LOG_FILE).replace(folder / f"{LOG_FILE}.old")
        waiting, self._waiting = self._waiting, []
        self._append("".join(waiting))

    def event(self, kind: str, **facts: Any) -> None:
        """Add an event.

        Args:
            kind: such as "note" or "fit".
            facts: about it, of JSON.
        """
        content = {"time": round(time.time(), 3), "rank": self._rank, "event": kind, **facts}
        line = json.dumps(content, ensure_ascii=False, default=str) + "\n"
        if self._echo:
            sys.stderr.write(line)
            sys.stderr.flush()
        if self._folder is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def state(self, work: str, **facts: Any) -> None:
        """Tell how far the work is; it is written at most once in a second, and seldom to the log.

        Args:
            work: such as "decode".
            facts: about it, of JSON.
        """
        now, new = time.monotonic(), work != self._work
        if new or now - self._logged >= 10 * _EVERY:
            self._logged, self._work = now, work
            self.event("progress", work=work, **facts)
        if self._folder is None or self._rank or not (new or now - self._stated >= _EVERY):
            return
        self._stated = now
        scratch = self._folder / f".{STATE_FILE}.scratch"
        with contextlib.suppress(OSError):
            scratch.write_text(json.dumps({"time": round(time.time(), 3), "work": work, **facts}, default=str))
            os.replace(scratch, self._folder / STATE_FILE)

    def _append(self, text: str) -> None:
        if self._folder is not None and text:
            with contextlib.suppress(OSError), (self._folder / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(text)


def last_event(folder: Path, kinds: Container[str]) -> dict[str, Any]:
    """Return the last event of some kinds that the first process of a run has told; empty where the log has none."""
    last: dict[str, Any] = {}
    with contextlib.suppress(OSError), (folder / LOG_FILE).open("rb") as file:
        while line := file.readline(_LONGEST):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") in kinds and event.get("rank") == 0:
                    last = event
    return last
