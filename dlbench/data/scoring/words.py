"""Words of a text in any script: what metrics of overlap count.

One rule for all texts. Letters with their marks, and digits, make words; everything else separates them. Case is
folded, and so are differences of mere form, such as full and half width, or a letter and its mark as one character or
two. In scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Burmese and related ones) every letter is a
word of its own. In ASCII these are exactly the words of rouge-score's own tokenizer, which knows no other letters.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import regex

_SCRIPTS = "Han|Hiragana|Katakana|Bopomofo|Yi|Thai|Lao|Khmer|Myanmar|Tai_Le|New_Tai_Lue|Tai_Tham|Tai_Viet"
"""That put no spaces between words."""
_LETTERS = r"\p{L}\p{Nl}"
_ALONE = rf"[[{_LETTERS}]&&[\u30FC" + "".join(rf"\p{{{name}}}" for name in _SCRIPTS.split("|")) + "]]"
_TOGETHER = rf"[[{_LETTERS}\p{{Nd}}]--{_ALONE}]"

_PLAIN = re.compile(r"[a-z0-9]+")
_WORD = rf"(?V1){_ALONE}\p{{M}}*|{_TOGETHER}[{_TOGETHER}\p{{M}}]*"
_PIECE = rf"(?V1){_ALONE}\p{{M}}*|[^{_ALONE}]+"
_RUN = rf"(?V1)[{_LETTERS}\p{{M}}\p{{Nd}}]+"
_IGNORED = r"(?V1)[[\p{Cf}\uFE00-\uFE0F\U000E0100-\U000E01EF]--\u200B]+"
"""What is not seen: joiners, soft hyphens, marks of direction, variants. A zero-width space separates words."""
_FEW = 20
"""One kana among so many letters is a name in a Chinese text; in Japanese more than one in three are kana."""
_LETTER = rf"(?V1)[{_LETTERS}]"
_LONE_LETTER = rf"(?V1){_ALONE}"
_HAN, _KANA = r"\p{Han}", r"[\p{Hiragana}\p{Katakana}\u30FC]"


@functools.cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    # Imported on use: naming the metrics in the help of `dlbench run` must not cost the import.
    import regex

    return regex.compile(pattern)


def words(text: str) -> list[str]:
    """The words of a text, in its order."""
    if text.isascii():
        return _PLAIN.findall(text.lower())
    return list(_compiled(_WORD).findall(fold(text)))


def fold(text: str) -> str:
    """Fold case and mere form of letters and digits; all else stays as it is."""
    if text.isascii():
        return text.lower()
    return str(_compiled(_RUN).sub(lambda run: _plain_form(run.group()), _compiled(_IGNORED).sub("", text)))


def fields(text: str) -> list[str]:
    """Split at white space; a zero-width space is some."""
    return text.replace("\u200b", " ").split()


def pieces(run: str) -> list[str]:
    """Split a run without spaces: letters of scripts without spaces one by one, all else together."""
    return [run] if run.isascii() else list(_compiled(_PIECE).findall(run))


def letters(text: str) -> int:
    """How many letters a text has."""
    return len(_compiled(_LETTER).findall(text))


def unspaced(texts: Iterable[str]) -> Literal["", "Chinese", "other"]:
    """Whether most letters of some texts belong to scripts without spaces between words, and to which.

    Han characters are Chinese, unless more than a few kana stand among them.
    """
    several = list(texts)
    if all(map(str.isascii, several)):
        return ""
    lone = [letter for text in several for letter in _compiled(_LONE_LETTER).findall(text)]
    if len(lone) * 2 <= sum(map(letters, several)):
        return ""
    han, kana = (sum(bool(kind.match(letter)) for letter in lone) for kind in map(_compiled, (_HAN, _KANA)))
    return "Chinese" if han * 2 > len(lone) and kana * _FEW < len(lone) else "other"


def _plain_form(run: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", run).casefold())
