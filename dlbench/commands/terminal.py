"""What commands share: reading options, printing, one line on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from dlbench.errors import DlbenchError
from dlbench.system.paths import expanded

PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}
"""Typer without rich, whose import takes longer than all the rest of the help."""


def unique(values: Sequence[str] | None) -> tuple[str, ...]:
    """What an option was given, each once."""
    return tuple(dict.fromkeys(values or ()))


def at_home(param: typer.CallbackParam, value: Any) -> Any:
    """Expand `~` in the path, or in all paths, that an option was given: a shell leaves it alone after `=`."""
    if isinstance(value, Path):
        return expanded(value, param.opts[0])
    return value if value is None else [at_home(param, path) for path in value]


def number(what: str, text: str, word: str) -> int | None:
    """A number, or None for the word that stands in its place."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise DlbenchError(f"{what} {text!r}: give a number, or `{word}`") from None


def limited(text: str) -> tuple[int | None, bool]:
    """Documents per task, None for all, and whether the first ones are meant: `N`, `first:N` or `all`."""
    if text == "all":
        return None, False
    try:
        return int(text.removeprefix("first:")), text.startswith("first:")
    except ValueError:
        raise DlbenchError(f"limit {text!r}: give a number, or `all`, or `first:N` for the first ones") from None


def interrupted(rest: str) -> typer.Exit:
    """What to raise when people press Ctrl-C; `rest` tells what becomes of the work."""
    say(f"interrupted; {rest}")
    return typer.Exit(130)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(message: str) -> None:
    """Print one line for people on stderr."""
    print("dlbench:", " ".join(message.split()), file=sys.stderr)
