"""The token × layer map of one sample: an SVG of what every generated token ran, and its text tinted by depth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

WIDEST = 400
"""Tokens that a map shows; longer outputs are cut, and the page says so."""
STEPS = 8
"""Tints of the text, from no layer to all."""

_WHOLE, _HALF = re.compile("3+"), re.compile("[12]+")

Routes = Sequence[tuple[str, int]]
"""Digits per layer (0 passed by, 1 attention, 2 feed-forward, 3 both), with how many forwards in a row did the same."""


@dataclass(frozen=True, slots=True)
class TokenMap:
    """What a page draws.

    Attributes:
        columns, layers: size of the picture, in cells; the first column is the token that the prompt's pass made.
        whole, half: paths in cells, layer 0 at the bottom: where the layer ran, and where half of it did.
        cut: tokens that did not fit.
        varies: not all tokens ran the same number of layers.
    """

    columns: int
    layers: int
    whole: str
    half: str
    cut: int
    varies: bool

    @property
    def first(self) -> str:
        """The path of the first column: the prompt's pass runs every layer."""
        return _column(self.layers)

    @property
    def width(self) -> int:
        """Pixels across."""
        return min(14 * self.columns, 1200)

    @property
    def height(self) -> int:
        """Pixels from the lowest layer to the highest."""
        return min(6 * self.layers, 240)


@cache
def _column(layers: int) -> str:
    return "".join(f"M0 {layer}.5h1" for layer in range(layers))


def token_map(routes: Routes) -> TokenMap | None:
    """Return the map of a sample's routes; None where there are none, or they do not fit together."""
    if not routes or len({len(route) for route, _ in routes}) != 1:
        return None
    layers = len(routes[0][0])
    columns: list[str] = []
    for route, times in routes:
        if len(columns) >= WIDEST:
            break
        columns += [route] * min(times, WIDEST - len(columns))
    whole: list[str] = []
    half: list[str] = []
    for layer, row in enumerate(map("".join, zip(*columns, strict=True))):
        y = layers - layer - 1
        # The first column is the prompt's pass.
        whole += [f"M{run.start() + 1} {y}.5h{run.end() - run.start()}" for run in _WHOLE.finditer(row)]
        half += [f"M{run.start() + 1} {y}.5h{run.end() - run.start()}" for run in _HALF.finditer(row)]
    total = sum(times for _, times in routes)
    worths = {_worth(route) for route, _ in routes}
    return TokenMap(
        len(columns) + 1, layers, "".join(whole), "".join(half), total - len(columns), len(worths) > 1
    )


def tints(routes: Routes, pieces: Sequence[str]) -> list[tuple[int, str]]:
    """Return the pieces with the step of their tint; the first came from the prompt's pass, at full depth.

    A piece is what a forward wrote, so its layers are those that the forward before it ran.
    """
    found: list[tuple[int, str]] = []
    steps = [STEPS]
    for route, times in routes:
        steps += [round(STEPS * _worth(route) / len(route))] * min(times, len(pieces))
        if len(steps) >= len(pieces):
            break
    for step, piece in zip(steps, pieces, strict=False):
        if found and found[-1][0] == step:
            found[-1] = (step, found[-1][1] + piece)
        else:
            found.append((step, piece))
    return found


@lru_cache(1 << 16)
def _worth(route: str) -> float:
    return route.count("3") + 0.5 * (route.count("1") + route.count("2"))
