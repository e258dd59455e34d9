"""Notice when a stop text has been written, at the very token that completes it.

A text has two spellings, with its special tokens (`</s>`) and without, and a stop may stand in either: lm-eval looks at
the first to end a text and at the second to cut it. To decode all tokens after each new one would say it, in a time
that grows with the square of the length. So a token is asked first what it adds to a text, and then only the text's end
is decoded, as far back as a stop can reach. Both need a decoder that works token by token; where it may not (spaces
that are cleaned up afterwards, word ends that are marked, tokenizers in Python), everything is decoded at each token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlbench.data.thinking import Thinking

_BROKEN = "\ufffd"
"""Stands for a part of a character: what follows may complete it."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte of sentencepiece, which may be a character by itself, and none beside one that is not."""


class Stopper:
    """Looks at the text after a token that could complete a stop text."""

    def __init__(self, tokenizer: Any, always: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            tokenizer: of the model; None finds no stop.
            always: texts that end every text, beside those of a request.
        """
        self.tokenizer, self.always = tokenizer, tuple(text for text in always if text)
        known = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(token for token, facts in known.items() if facts.special)
        self._anchor = _anchor(tokenizer)
        self._added: dict[int, str] = {}
        """Token → what it adds in the middle of a text."""
        self._known: dict[tuple[str, ...], tuple[tuple[str, ...], dict[int, bool]]] = {}
        """A request's stops → all that it has, and which tokens may complete one, as far as they have been met."""

    def hit(self, tokens: Sequence[int], stops: tuple[str, ...], thinking: Thinking | None = None) -> bool:
        """Whether the text of these tokens contains a stop; it did not without the last of them.

        Args:
            tokens: written so far.
            stops: a request's; where the model thinks, those within its thinking do not count.
            thinking: how it does; None where all that it writes is the answer.
        """
        known = self._known.get(stops)
        if known is None:
            known = self._known[stops] = () if self.tokenizer is None else stops + self.always, {}
        wanted, candidates = known
        if not wanted:
            return False
        if self._anchor is None or self._begins(tokens):
            return self._ends(tokens, stops, thinking)
        token = tokens[-1]
        if token not in candidates:
            ends = {stop[-1] for stop in wanted} | {_BROKEN}
            candidates[token] = not ends.isdisjoint(self._adds(token))
        if not candidates[token]:
            return False
        # a part may say what the whole does not, as its beginning was none: it finds, and the whole confirms
        return self._found(self._end(tokens, max(map(len, wanted))), wanted) and self._ends(tokens, stops, thinking)

    def _begins(self, tokens: Sequence[int]) -> bool:
        """Whether the last token begins the text, where decoders treat it differently."""
        return len(tokens) == 1 or (tokens[0] in self._special and self._special.issuperset(tokens[:-1]))

    def _ends(self, tokens: Sequence[int], stops: Sequence[str], thinking: Thinking | None) -> bool:
        """Whether a whole text contains a stop."""
        if thinking is None:
            return self._found(tokens, (*stops, *self.always))
        spelled, text = self.tokenizer.decode(tokens, skip_special_tokens=False), thinking.text(self.tokenizer, tokens)
        answers = () if thinking.unfinished(text) else (thinking.answer(text), thinking.answer(spelled))
        answered = any(stop in answer for answer in answers for stop in stops)
        return answered or self._found(tokens, self.always)

    def _found(self, tokens: Sequence[int], stops: Sequence[str]) -> bool:
        for skip in (True, False):
            text = self.tokenizer.decode(tokens, skip_special_tokens=skip)
            if any(stop in text for stop in stops):
                return True
        return False

    def _adds(self, token: int) -> str:
        """What a token adds in the middle of a text, a special one too."""
        if token not in self._added:
            several = ([self._anchor], [self._anchor, token])
            before, after = (self.tokenizer.decode(ids, skip_special_tokens=False) for ids in several)
            clear = after.startswith(before) and not _is_byte(self.tokenizer, token)
            self._added[token] = after[len(before) :] if clear else _BROKEN
        return self._added[token]

    def _end(self, tokens: Sequence[int], reach: int) -> Sequence[int]:
        """The last tokens, with at least `reach` characters before the last one, in either spelling.

        They begin with a whole character, which does not count: the first token of a text may lose its space.
        """
        seen = 0
        for start in range(len(tokens) - 2, 0, -1):
            added = self._adds(tokens[start])
            whole = tokens[start] not in self._special and _BROKEN not in added
            if whole and seen >= reach:
                return tokens[start:]
            seen += len(added) if whole else 0
        return tokens


def _anchor(tokenizer: Any) -> int | None:
    """A token of plain text to put before another; None where tokens may not be decoded one by one."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    kind, inner = type(tokenizer), tokenizer.backend_tokenizer
    own = kind.decode is not PreTrainedTokenizerBase.decode or kind._decode is not PreTrainedTokenizerFast._decode
    # a BPE's spaces are cleaned up only where this is asked for by its long name; by old releases always
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", True)
    cleaned = tokenizer.clean_up_tokenization_spaces and (forced or type(inner.model).__name__ != "BPE")
    decoder = None if inner.decoder is None else json.loads(inner.decoder.__getstate__())  # None puts spaces between
    if own or cleaned or not (decoder is None or _one_by_one(decoder)):
        return None
    for token in range(len(tokenizer)):
        text = str(tokenizer.decode([token], skip_special_tokens=True)).strip()
        if text and _BROKEN not in text and not _is_byte(tokenizer, token):
            return token
    return None


def _is_byte(tokenizer: Any, token: int) -> bool:
    return bool(_BYTE.fullmatch(tokenizer.convert_ids_to_tokens(token) or ""))


def _one_by_one(decoder: Mapping[str, Any]) -> bool:
    """Whether a decoder of `tokenizers` makes the same of a token wherever it stands, but at the beginning."""
    match decoder["type"]:
        case "Sequence":
            return all(map(_one_by_one, decoder["decoders"]))
        case "ByteLevel" | "Metaspace" | "WordPiece" | "ByteFallback" | "Fuse":
            return True
        case "Replace":
            return len(decoder["pattern"].get("String", "")) == 1
        case "Strip":
            return bool(decoder["start"] <= 1 and decoder["stop"] == 0)
    return False
