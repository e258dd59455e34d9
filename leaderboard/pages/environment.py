"""The templates of all pages, with their filters and globals, and the style sheet."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

import dlbench
from dlbench.leaderboard import formatting
from dlbench.leaderboard.charts.style import COLOURS, LABEL, PALETTE, PAPER
from dlbench.leaderboard.data.entries import kind_of

TRUSTS = {
    "self-reported": "its author alone stands for it",
    "validated": "a maintainer checked its files",
    "rerun": "a maintainer ran it again and got the same",
    "reproduced": "somebody else ran it independently and got the same",
}
THEME = (
    ("paper", "#fffffe", "#16181c"),
    ("raised", "#f6f6f3", "#1e2126"),
    ("ink", "#17191d", "#e9e8e3"),
    ("soft", "#5a5f68", "#a8adb8"),
    ("line", "#d9d9d4", "#3b4049"),
    ("hair", "#ebebe7", "#272b32"),
    ("accent", "#2159b8", "#86b4ff"),
    ("fill", "#cbd6e6", "#3a4a63"),
    ("better", "#1d5fb0", "#7fb4ff"),
    ("worse", "#b4430c", "#ff9d66"),
    ("wonbg", "#e6eefa", "#1b2a40"),
    ("lostbg", "#fbebe2", "#3a2418"),
    ("base", "#efece2", "#33312a"),
    ("tie", "#f0eee6", "#2a2a27"),
)


@cache
def environment() -> Environment:
    """Return the templates; their filters write figures as the tables and sentences do."""
    made = Environment(
        loader=PackageLoader("dlbench.leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        score=formatting.score,
        percent=formatting.hundredths,
        whole=formatting.whole,
        number=formatting.number,
        milliseconds=formatting.milliseconds,
    )
    made.globals.update(
        version=dlbench.__version__,
        counted=formatting.counted,
        kind_of=kind_of,
        trusts=TRUSTS,
        paper=PAPER[0],
        label_colour=LABEL[0],
        accent=PALETTE[1][0],
    )
    return made


def style() -> str:
    """Return the style sheet of all pages."""
    return environment().get_template("board.css").render(theme=THEME, colours=COLOURS)
