"""Colours (light and dark), shapes and dashes of series, the same in every chart of a site."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlbench.leaderboard.data.entries import kind_of, shown
from dlbench.leaderboard.data.views import BoardView

# Light and dark colour of each series in turn. Charts are drawn in the light ones; the page's style sheet, and the
# script for charts that it draws, turn exactly these values into the dark ones: no two may be equal.
PALETTE = (
    ("#c2410c", "#ff9a5c"),
    ("#2159b8", "#86b4ff"),
    ("#0f766e", "#4fd0c0"),
    ("#a21b5a", "#ff8fb8"),
    ("#6b3fc0", "#bda2ff"),
    ("#8a6a00", "#e0bd4a"),
    ("#3f7d20", "#94d36b"),
    ("#9a3324", "#f3a294"),
    ("#1a6f9c", "#6ccbf2"),
    ("#7a3d86", "#dc9eea"),
)
CONTROL = (("#746c61", "#a69d90"), ("#5d6b70", "#8fa0a6"), ("#7b6d62", "#b5a79b"), ("#6d6a78", "#a19eae"))
OTHER = ("#b5b2aa", "#5b5a57")
FULL = ("#17191d", "#f4f3ee")
DENSE = ("#18191e", "#f3f3ed")
ORACLE = ("#6c7077", "#9a9fa8")
LABEL = ("#565b65", "#a8adb8")
AXIS = ("#b9bcc2", "#4a4f59")
GRID = ("#e9e8e4", "#292d34")
PAPER = ("#fffffe", "#16181c")
FRONT = ("#2158b9", "#87b5ff")
FLOOR = ("#7d7469", "#a79d91")
COLOURS = (*PALETTE, *CONTROL, OTHER, FULL, DENSE, ORACLE, LABEL, AXIS, GRID, PAPER, FRONT, FLOOR)

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
_ORACLES = {"oracle": ("circle", (6, 3)), "oracle_cross": ("square", (2, 3)), "oracle@full": ("triangle-up", (4, 2))}
TELLING = len(PALETTE)
"""How many series a chart can tell apart by colour."""


_OWN = {
    "hidden_router": 1,
    "static_skip": 3,
    "calm": 0,
    "static_exit": 2,
    "sequence_router": 4,
    "llm_drop": 5,
    "short_gpt": 6,
    "entropy_exit": 7,
    "mind_skip": 8,
    "d_llm": 9,
}
"""Colours of the methods that stand together most often, so that these differ; others have one by their name's hash."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a series looks, in charts and beside its name."""

    label: str
    kind: str
    """`full`, `dense`, `method`, `control` or `oracle`."""
    colour: str
    shape: str
    hollow: bool
    dash: tuple[int, int] | None

    @property
    def lined(self) -> bool:
        """Whether its points are joined."""
        return self.kind in ("method", "control", "oracle")


def site_marks(views: Iterable[BoardView]) -> dict[str, Mark]:
    """Give every series of a site its mark: methods have colours; controls, references and oracles are grey.

    A mark depends on the series' name alone, so it is the same on every board, whatever else runs there.
    """
    kinds: dict[str, tuple[str, str]] = {}
    for view in views:
        for entry in view.entries:
            kinds.setdefault(entry.label, (kind_of(entry), entry.method))
    marks: dict[str, Mark] = {}
    for label, (kind, method) in sorted(kinds.items()):
        if kind == "full":
            mark = Mark(label, kind, FULL[0], "diamond", False, None)
        elif kind == "dense":
            mark = Mark(label, kind, DENSE[0], "square", True, None)
        elif kind == "oracle":
            shape, dash = _ORACLES.get(method, ("cross", (4, 2)))
            mark = Mark(label, kind, ORACLE[0], shape, True, dash)
        else:
            mark = _by_name(label, kind)
        marks[label] = mark
    return marks


def _by_name(label: str, kind: str) -> Mark:
    """Return the mark of a method or a control; its colour and its shape are drawn apart, so few share both."""
    number = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
    shades = PALETTE if kind == "method" else CONTROL
    place = _OWN.get(label, number % len(shades)) if kind == "method" else number % len(shades)
    shape = SHAPES[(_OWN[label] if label in _OWN else number // len(shades)) % len(SHAPES)]
    return Mark(label, kind, shades[place][0], shape, False, None)


def view_marks(view: BoardView, marks: Mapping[str, Mark]) -> list[Mark]:
    """Return the marks of a view's series that have a point to show, in the order of its table."""
    return [marks[label] for label in dict.fromkeys(entry.label for entry in view.entries if shown(entry))]
