"""The token × layer map of one sample: a small picture of what every generated token ran, and its text by depth."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

WIDEST = 400
"""The most tokens that a map shows; longer outputs are cut, and the page says so."""
STEPS = 8
"""Tints of the text, from no layer to all."""

Routes = Sequence[tuple[str, int]]
"""Digits per layer (0 skipped, 1 attention, 2 feed-forward, 3 both), with how many forwards in a row ran these."""

# Pixels: 0 skipped, 1 half of the layer ran, 2 all of it, 3 the prompt's pass. The colours are visible on white and on
# black: a picture cannot follow the theme of the page.
_PIXEL = str.maketrans("123", "112")
_PROMPT = "3"
_PALETTE = bytes.fromhex("000000 4a82d9 4a82d9 8a8f98")
_ALPHA = bytes.fromhex("00 73 ff b0")


@dataclass(frozen=True, slots=True)
class TokenMap:
    """What a page draws.

    Attributes:
        columns, layers: size of the picture in pixels; the first column is the token that the prompt's pass made.
        picture: a PNG, layer 0 at the bottom, as a data address.
        cut: tokens that did not fit.
        varies: not all tokens ran the same number of layers.
    """

    columns: int
    layers: int
    picture: str
    cut: int
    varies: bool

    @property
    def width(self) -> int:
        """Pixels across, on the page."""
        return min(14 * self.columns, 1200)

    @property
    def height(self) -> int:
        """Pixels from the lowest layer to the highest, on the page."""
        return min(6 * self.layers, 240)


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
    pixels = "".join(columns).translate(_PIXEL)
    rows = [_PROMPT + pixels[layer::layers] for layer in range(layers)]
    total = sum(times for _, times in routes)
    return TokenMap(
        columns=len(columns) + 1,
        layers=layers,
        picture="data:image/png;base64," + base64.b64encode(_png(rows[::-1])).decode(),
        cut=total - len(columns),
        varies=any(_worth(route) != _worth(routes[0][0]) for route, _ in routes),
    )


def _png(rows: Sequence[str]) -> bytes:
    """Return rows of pixels, digits from 0 to 3, as a PNG of a palette.

    Stored, not compressed: the bytes must not depend on the version of a library.
    """
    width = len(rows[0])
    padded = -(-width // 4)
    raw = b"".join(b"\0" + int(row.ljust(4 * padded, "0"), 4).to_bytes(padded, "big") for row in rows)
    header = struct.pack(">IIBBBBB", width, len(rows), 2, 3, 0, 0, 0)
    data = zlib.compress(raw, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"tRNS", _ALPHA), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def tints(routes: Routes, pieces: Sequence[str]) -> list[tuple[int, str]]:
    """Return the pieces with the step of their tint; the first came from the prompt's pass, at full depth.

    A piece is what a forward wrote, so its layers are those that this forward ran.
    """
    steps = [STEPS]
    for route, times in routes:
        steps += [_step(route)] * min(times, len(pieces))
        if len(steps) >= len(pieces):
            break
    runs: list[tuple[int, str]] = []
    same, text = STEPS, ""
    for step, piece in zip(steps, pieces, strict=False):
        if step != same:
            runs.append((same, text))
            same, text = step, ""
        text += piece
    return [*runs, (same, text)]


@lru_cache(1 << 16)
def _step(route: str) -> int:
    return round(STEPS * _worth(route) / len(route))


@lru_cache(1 << 16)
def _worth(route: str) -> float:
    return route.count("3") + 0.5 * (route.count("1") + route.count("2"))
