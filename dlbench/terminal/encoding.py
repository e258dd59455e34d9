"""Print on any terminal: what its encoding lacks is replaced, never a reason to end."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

PLAINER = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "•": "*", "…": "...", "≥": ">=", "≤": "<=", "≈": "~"}
    | {"→": "->", "←": "<-", "†": "+", "±": "+-", "√": "sqrt", "“": '"', "”": '"', "‘": "'", "’": "'"}
    | {"●": "@", "○": "o", "■": "#", "□": "n", "▲": "A", "△": "a", "◆": "D", "◇": "d", "▼": "V", "▽": "v"}
    | {"✚": "x", "▶": "P", "▷": "p", "█": "#", "│": "|", "└": "+", "─": "-", "━": "-"}
    | {chr(dots): "." for dots in range(0x2801, 0x2900)}  # braille: the lines of a chart
)
"""What stands for a character that a terminal does not have."""


def print_anything() -> None:
    """Let standard output and error print whatever they are given.

    A character that the terminal's encoding lacks is replaced by a plainer one, or else a question mark. Half of a
    surrogate pair, which no encoding has (a byte of a file name that is no text becomes one), is printed as an escape.
    """
    codecs.register_error("dlbench.plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dlbench.plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def plain(character: str) -> str:
    """ASCII for a character."""
    if 0xD800 <= ord(character) <= 0xDFFF:
        return f"\\u{ord(character):04x}"
    plainer = unicodedata.normalize("NFKD", character.translate(PLAINER))
    return plainer.encode("ascii", "ignore").decode() or "?"
