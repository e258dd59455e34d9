"""Escape untrusted text for a page: no markup, no invisible or direction-changing characters, a limited length."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 4000
"""Characters of a prompt, reference or output that a page shows."""
_PLAIN = re.compile(r"[\w .,:;!?()/+*=-]*", re.ASCII)
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


def shorten(text: str, longest: int = LONGEST) -> tuple[str, int]:
    """Return the beginning of a text, and how many characters are left out."""
    return text[:longest], max(0, len(text) - longest)


def html(text: str) -> str:
    """Return a text as HTML: escaped, with control, format and unpaired characters named in place of themselves.

    Sample pages hold hundreds of thousands of pieces, so this returns plain strings and is fast on plain words.
    """
    if _PLAIN.fullmatch(text):
        return text
    if not text.isascii() or not text.isprintable():
        strange = [ord(letter) for letter in set(text) if not _harmless(letter)]
        named = {number: f'<i class="ctl">U+{number:04X}</i>' for number in strange}
        if named:
            return text.translate(_ENTITIES | named)
    return text.translate(_ENTITIES)


def _harmless(letter: str) -> bool:
    if letter.isprintable() or letter in "\n\t":
        return True
    # Spaces of all widths are harmless; joiners and direction marks (Cf), controls (Cc), halves of pairs (Cs) are not.
    return unicodedata.category(letter) == "Zs"
