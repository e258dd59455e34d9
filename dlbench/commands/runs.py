"""`dlbench runs`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, interrupted, print_json, print_table
from dlbench.errors import DlbenchError, RowsLeftOutError
from dlbench.system.folder_lock import holder
from dlbench.terminal.event_log import STATE_FILE, last_event

_EVERY = 2.0
_LARGEST = 1 << 20


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", callback=at_home, help="Run folders, or folders of such.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the state again until no run is going on.")] = False,
    as_json: declared.AsJson = False,
) -> None:
    """List runs with their state: running, and how far; finished; or unfinished."""
    try:
        while True:
            found = [_state(folder) for given in folders or [Path()] for folder in _runs(given)]
            if as_json:
                print_json(found)
            else:
                print_table([("run", "state", "models", "tasks", "at"), *map(_row, found)])
            if not follow or all(one["state"] != "running" for one in found):
                return
            time.sleep(_EVERY)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "the runs go on") from None


def _runs(folder: Path) -> list[Path]:
    """The run folders that a path leads to.

    Raises:
        DlbenchError: it leads to none.
    """
    from dlbench.records.run_folder import RUN_FILE

    found = [path.parent for path in (folder / RUN_FILE, *sorted(folder.glob(f"*/{RUN_FILE}"))) if path.is_file()]
    if not found:
        raise DlbenchError(f"{folder}: no run there: give folders that `dlbench run --out` wrote")
    return found


def _state(folder: Path) -> dict[str, Any]:
    """What is known of a run without its lock."""
    from dlbench.records.run_folder import RUN_FILE

    spec = _read(folder / RUN_FILE).get("spec")
    spec = spec if isinstance(spec, dict) else {}
    by = holder(folder)
    done = _finished(folder)
    return {
        "run": str(folder),
        "state": "running" if by else "finished" if done else "unfinished",
        "by": by,
        "models": spec.get("models", []),
        "tasks": spec.get("tasks", []),
        "progress": {} if done and not by else _read(folder / STATE_FILE),
    }


def _finished(folder: Path) -> bool:
    """Whether the last run in a folder came to its end, by its log; an old or removed log leaves it to the records."""
    from dlbench.records.run_folder import RUN_FILE

    if last := last_event(folder, ("run", "ended", "finished")):
        return last["event"] == "finished" or last.get("by") == RowsLeftOutError.__name__
    records = folder / "records.jsonl"
    return records.is_file() and records.stat().st_mtime >= (folder / RUN_FILE).stat().st_mtime


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text()) if path.stat().st_size <= _LARGEST else None
    except (OSError, ValueError):
        content = None
    return content if isinstance(content, dict) else {}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    progress = one["progress"]
    at = " ".join(str(progress[name]) for name in ("work", "what") if progress.get(name))
    if progress.get("of"):
        at += f" {progress.get('done', 0):,} of {progress['of']:,}"
    cells = (one["run"], one["state"], *(", ".join(map(str, one[name]))[:60] for name in ("models", "tasks")), at)
    return tuple("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell) for cell in cells)
