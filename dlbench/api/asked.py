"""What words in the options of a run stand for: suites, limits, sets of methods."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.data import resolve
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry
from dlbench.system import process_group
from dlbench.terminal.said import say


def tasks_of(names: Sequence[str], sources: Sources | None = None) -> tuple[str, ...]:
    """Replace suites by their tasks; those that a suite holds only where their data is at hand are left out, and named.

    Args:
        names: tasks and suites.
        sources: where data comes from; None for no options.

    Raises:
        DlbenchError: there is no such task.
    """
    sources = sources or Sources()
    missing = resolve.without_data(names, sources)
    if missing and not process_group.rank():
        say(f"left out: {', '.join(missing)}, for want of their data: `dlbench prefetch`, then --data-dir")
    return tuple(name for name in resolve.expand_tasks(names, sources) if name not in missing)


def limited(text: str) -> tuple[int | None, bool]:
    """Parse `N`, `first:N` or `all`: documents per task, None for all, and whether to take the first ones."""
    if text == "all":
        return None, False
    try:
        return int(text.removeprefix("first:")), text.startswith("first:")
    except ValueError:
        raise DlbenchError(f"limit {text!r}: give a number, or `all`, or `first:N` for the first ones") from None


def given_methods(given: tuple[str, ...], official: bool) -> tuple[str, ...]:
    """Methods by name or path; an official run has the controls too, and no oracles."""
    if not official:
        return registry.expand(given)
    from dlbench.submission.protocol import CONTROLS

    return tuple(m for m in registry.expand((*given, *CONTROLS)) if registry.describe(m).deployable)
