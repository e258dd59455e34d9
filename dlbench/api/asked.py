"""What words in the options of a run stand for: suites, limits, sets of methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlbench.data import resolve
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec
from dlbench.system import process_group, stopping
from dlbench.terminal.said import say


def spec_of(
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    sources: Sources,
    *,
    limit: str | None,
    official: bool,
    fit_seeds: int | None,
    time_limit: str | None,
    **options: Any,
) -> RunSpec:
    """The run that was asked for, checked as far as that needs no torch; says what is left out, or runs code.

    Args:
        methods: names, also `core` and `all`, and paths of plugin files.
        tasks: tasks and suites.
        sources: where they come from.
        limit: `N`, `first:N` or `all`; None for the suite's own number, in an official run for all.
        official: whether the run follows the official protocol.
        fit_seeds: fits of each method that learns; None for 1, in an official run 3.
        time_limit: such as `3h50m`; None for no limit.
        **options: the other fields of `RunSpec`.

    Raises:
        DlbenchError: an option is invalid; the message says what would be valid.
    """
    for left_out in registry.unusable(methods).values():
        say(f"left out: {left_out}")
    sources.check(tasks)
    count, first = limited(limit or ("all" if official else str(resolve.documents_per_task(tasks))))
    spec = RunSpec(
        methods=given_methods(methods, official),
        tasks=tasks_of(tasks, sources),
        sources=sources,
        limit=count,
        limit_first=first,
        official=official,
        fit_seeds=fit_seeds if fit_seeds is not None else 3 if official else 1,
        time_limit=None if time_limit is None else stopping.seconds(time_limit),
        **options,
    )
    spec.check()
    if process_group.rank() == 0:
        for name, path in spec.task_code():
            say(f"task {name!r} runs code of its own: {path} names functions, or a class")
    return spec


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
