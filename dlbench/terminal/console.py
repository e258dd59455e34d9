"""The console that results are printed on."""

from __future__ import annotations

from rich.console import Console


def open_console(width: int = 110) -> Console:
    """Open the terminal; where output goes to a file, which has no width, a console `width` characters wide."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
