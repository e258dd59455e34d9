"""Print on any terminal: characters that its encoding lacks are replaced, and never end the program."""

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
"""Character → ASCII to print where the terminal's encoding lacks it."""


def print_anything() -> None:
    """Let standard output and standard error print any text.

    A character that the terminal's encoding lacks is replaced by ASCII, or else by a question mark. Half of a surrogate
    pair, which no encoding has (an undecodable byte of a file name becomes one), is printed as an escape.
    """
    codecs.register_error("dlbench.plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dlbench.plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def printable(text: str) -> str:
    """Return a text as standard output can have it: for writers that take any terminal for one with UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    codecs.register_error("dlbench.plainer", _plainer)
    return text.encode(encoding, "dlbench.plainer").decode(encoding)


def plain(character: str) -> str:
    """The ASCII text to print for a character."""
    if 0xD800 <= ord(character) <= 0xDFFF:
        return f"\\u{ord(character):04x}"
    plainer = unicodedata.normalize("NFKD", character.translate(PLAINER))
    return plainer.encode("ascii", "ignore").decode() or "?"
