"""Parsing of options, and printing, for all commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from dlbench.errors import DlbenchError
from dlbench.system import process_group
from dlbench.system.paths import expanded
from dlbench.system.stopping import EXIT_CODE, Stopped

if TYPE_CHECKING:
    from dlbench.data.task_options import Sources


def unique(values: Sequence[str] | None) -> tuple[str, ...]:
    """Return the values of an option, each once; a value may be several, separated by commas.

    The name of a file or folder that is there, such as `file:a,b.jsonl`, is one value whatever it holds.
    """
    return tuple(dict.fromkeys(one for value in values or () for one in _separated(value)))


def _separated(value: str) -> list[str]:
    if "," not in value or os.path.exists(os.path.expanduser(value.removeprefix("file:"))):
        return [value]
    return [one for part in value.split(",") if (one := part.strip())]


def at_home(param: typer.CallbackParam, value: Any) -> Any:
    """Expand `~` in the paths of an option, since a shell does not after `=`."""
    if isinstance(value, Path):
        return expanded(value, param.opts[0])
    if isinstance(value, str):
        return str(expanded(Path(value), param.opts[0]))
    return value if value is None else [at_home(param, path) for path in value]


def number(what: str, text: str, word: str) -> int | None:
    """Parse a number; None for a word that may be given instead."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise DlbenchError(f"{what} {text!r}: give a number, or `{word}`") from None


def batch_size_of(text: str) -> int | None:
    """Parse `N` or `auto`, which lm-eval also writes `auto:N`; None for auto."""
    return number("batch size", "auto" if text.startswith("auto:") else text, "auto")


def tokens(text: str | None) -> int | Literal["all"] | None:
    """Parse the bound of fits, `N` or `all`; None where none was given."""
    if text is None or text == "all":
        return text  # type: ignore[return-value]  # "all"
    return number("fit tokens", text, "all")


BUDGET_HELP = (
    "Target share of the layers, in (0, 1]; several by comma; auto: five where this model's quality bends. "
    "[0.25 0.5 0.75 for nano, auto for others]"
)


def budgets_of(given: Sequence[str] | None) -> tuple[float, ...] | Literal["auto"] | None:
    """Parse the values of --budget: shares, or the word `auto` alone; None where none is given."""
    words = unique(given)
    if words == ("auto",):
        return "auto"
    if "auto" in words:
        raise DlbenchError("--budget auto chooses the budgets itself: give it alone, or shares of the layers")
    try:
        return tuple(dict.fromkeys(map(float, words))) or None
    except ValueError:
        raise DlbenchError(f"budgets {' '.join(words)}: give shares of the layers such as 0.5, or `auto`") from None


def tasks_of(names: Sequence[str], sources: Sources | None = None) -> tuple[str, ...]:
    """Replace suites by their tasks; those that a suite holds only where their data is at hand are left out, and named.

    Args:
        names: tasks and suites.
        sources: where data comes from; None for no options.

    Raises:
        DlbenchError: there is no such task.
    """
    from dlbench.data import resolve
    from dlbench.data.task_options import Sources

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


def interrupted(stop: KeyboardInterrupt, rest: str) -> typer.Exit:
    """Return what to raise on Ctrl-C or `Stopped`, after printing a line.

    Args:
        stop: what was caught.
        rest: what happens to the work done so far.
    """
    told = isinstance(stop, Stopped)
    say(f"{stop if told else 'interrupted'}; {rest}")
    return typer.Exit(EXIT_CODE if told else 130)


def echo(text: object = "") -> None:
    """Print a line on standard output; typer's own function takes a terminal that has ASCII only for one with UTF-8."""
    print(text)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(message: str) -> None:
    """Print one line for people on stderr."""
    print("dlbench:", " ".join(message.split()), file=sys.stderr)
