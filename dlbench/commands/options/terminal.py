"""Parsing of options, and printing, for all commands."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from dlbench.errors import DlbenchError
from dlbench.system.paths import expanded
from dlbench.system.stopping import EXIT_CODE, Stopped
from dlbench.terminal.said import say


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
