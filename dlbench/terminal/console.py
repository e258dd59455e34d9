"""Where results are printed."""

from __future__ import annotations

from rich.console import Console


def open_console(width: int = 110) -> Console:
    """Return the terminal; where output goes to a log, which has no edge to wrap at, a console of some width."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
