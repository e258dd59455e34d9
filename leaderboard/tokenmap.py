"""The token × layer map of one sample: an SVG of what every generated token ran, and its text tinted by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDEST = 400
"""Tokens that a map shows; longer outputs are cut, and the page says so."""
STEPS = 8
"""Tints of the text, from no layer to all."""

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


def token_map(routes: Routes) -> TokenMap | None:
    """Return the map of a sample's routes; None where there are none, or they do not fit together."""
    if not routes or len({len(route) for route, _ in routes}) != 1:
        return None
    layers = len(routes[0][0])
    whole: list[str] = []
    half: list[str] = []
    open_runs: list[tuple[str, int]] = [("0", 1)] * layers  # what each layer does, since which column
    at = 1

    def close(layer: int, until: int) -> None:
        did, since = open_runs[layer]
        if did != "0" and until > since:
            path = whole if did == "3" else half
            path.append(f"M{since} {layers - layer - 0.5:g}h{until - since}")

    for route, times in routes:
        if at > WIDEST:
            break
        for layer, did in enumerate(route):
            if did != open_runs[layer][0]:
                close(layer, at)
                open_runs[layer] = (did, at)
        at += times
    columns = min(at, WIDEST + 1)
    for layer in range(layers):
        close(layer, columns)
    total = 1 + sum(times for _, times in routes)
    worths = {_worth(route) for route, _ in routes}
    return TokenMap(columns, layers, "".join(whole), "".join(half), total - columns, len(worths) > 1)


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


def _worth(route: str) -> float:
    return route.count("3") + 0.5 * (route.count("1") + route.count("2"))
