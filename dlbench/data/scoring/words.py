"""Words of a text in any script: what metrics of overlap count.

One rule for all texts. Letters with their marks, and digits, make words; everything else stands between them. Case
goes, and so do differences of mere form, such as full and half width, or a letter and its mark as one character or two.
Of scripts that put no spaces between words (Han, kana, Thai, Lao, Khmer, Burmese and their kin) every letter is a word
of its own. In ASCII these are exactly the words of rouge-score's own tokenizer, which knows no other letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

import regex

_SCRIPTS = "Han|Hiragana|Katakana|Bopomofo|Yi|Thai|Lao|Khmer|Myanmar|Tai_Le|New_Tai_Lue|Tai_Tham|Tai_Viet"
"""That put no spaces between words."""
_LETTERS = r"\p{L}\p{Nl}"
_ALONE = rf"[[{_LETTERS}]&&[\u30FC" + "".join(rf"\p{{{name}}}" for name in _SCRIPTS.split("|")) + "]]"
_TOGETHER = rf"[[{_LETTERS}\p{{Nd}}]--{_ALONE}]"

_PLAIN = re.compile(r"[a-z0-9]+")
_WORD = regex.compile(rf"(?V1){_ALONE}\p{{M}}*|{_TOGETHER}[{_TOGETHER}\p{{M}}]*")
_PIECE = regex.compile(rf"(?V1){_ALONE}\p{{M}}*|[^{_ALONE}]+")
_RUN = regex.compile(rf"(?V1)[{_LETTERS}\p{{M}}\p{{Nd}}]+")
_IGNORED = regex.compile(r"(?V1)[[\p{Cf}\uFE00-\uFE0F\U000E0100-\U000E01EF]--\u200B]+")
"""What is not seen: joiners, soft hyphens, marks of direction, variants. A space of no width parts words."""
_FEW = 20
"""One kana among so many letters is a name in a Chinese text; in Japanese more than one in three are kana."""
_LETTER = regex.compile(rf"(?V1)[{_LETTERS}]")
_LONE_LETTER = regex.compile(rf"(?V1){_ALONE}")
_HAN, _KANA = regex.compile(r"\p{Han}"), regex.compile(r"[\p{Hiragana}\p{Katakana}\u30FC]")


def words(text: str) -> list[str]:
    """The words of a text, in its order."""
    if text.isascii():
        return _PLAIN.findall(text.lower())
    return list(_WORD.findall(fold(text)))


def fold(text: str) -> str:
    """A text without case and mere form of its letters and digits; all else stays as it stands."""
    if text.isascii():
        return text.lower()
    return str(_RUN.sub(lambda run: _plain_form(run.group()), _IGNORED.sub("", text)))


def fields(text: str) -> list[str]:
    """What stands between white space; a space of no width is some."""
    return text.replace("\u200b", " ").split()


def pieces(run: str) -> list[str]:
    """Part what stands between two spaces where the script puts none: its letters one by one, all else together."""
    return [run] if run.isascii() else list(_PIECE.findall(run))


def letters(text: str) -> int:
    """How many letters a text has."""
    return len(_LETTER.findall(text))


def unspaced(texts: Iterable[str]) -> Literal["", "Chinese", "other"]:
    """Whether most letters of some texts belong to scripts without spaces between words, and to which.

    Han characters are Chinese, unless more than a few kana stand among them.
    """
    several = list(texts)
    if all(map(str.isascii, several)):
        return ""
    lone = [letter for text in several for letter in _LONE_LETTER.findall(text)]
    if len(lone) * 2 <= sum(map(letters, several)):
        return ""
    han, kana = (sum(bool(kind.match(letter)) for letter in lone) for kind in (_HAN, _KANA))
    return "Chinese" if han * 2 > len(lone) and kana * _FEW < len(lone) else "other"


def _plain_form(run: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", run).casefold())
