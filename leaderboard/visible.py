"""Make any text fit to be shown: nothing in it may hide, turn the direction of what follows, or go on for ever."""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

LONGEST = 4000
"""Letters of a prompt, reference or output that a page shows."""


def shorten(text: str, longest: int = LONGEST) -> tuple[str, int]:
    """Return the beginning of a text, and how many letters are left out."""
    return text[:longest], max(0, len(text) - longest)


def markup(text: str) -> Markup:
    """Return a text as HTML: escaped, with control, format and unpaired characters named in place of themselves."""
    if text.isprintable() and text.isascii():
        return Markup(escape(text))
    parts = []
    plain = ""
    for letter in text:
        if _harmless(letter):
            plain += letter
        else:
            parts += [escape(plain), Markup(f'<i class="ctl">U+{ord(letter):04X}</i>')]
            plain = ""
    return Markup("").join([*parts, escape(plain)])


def _harmless(letter: str) -> bool:
    if letter.isprintable() or letter in "\n\t":
        return True
    # Spaces of all widths are harmless; joiners and direction marks (Cf), controls (Cc) and halves of pairs (Cs) are not.
    return unicodedata.category(letter) == "Zs"
