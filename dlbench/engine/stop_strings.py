"""Detect stop texts at the token that completes them.

A text has two spellings, with its special tokens (`</s>`) and without, and a stop may occur in either: lm-eval uses the
first to end a text and the second to cut it. Decoding all tokens after each new one would take time quadratic in the
length. So first it is checked whether the token can complete a stop, by what it adds to a text; then only the end of
the text is decoded, as far back as a stop can reach. Both need a tokenizer that decodes token by token; where it may
not (spaces cleaned up afterwards, marked word ends, tokenizers in Python), everything is decoded at each token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlbench.data.thinking import Thinking

_BROKEN = "\ufffd"
"""Stands for an incomplete character, which the next token may complete."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte token of sentencepiece: a character by itself, or a part of one, depending on its neighbours."""


class Stopper:
    """Looks for stop texts in the text, after tokens that could complete one."""

    def __init__(self, tokenizer: Any, always: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            tokenizer: of the model; with None no stop is ever found.
            always: texts that end every text, besides the stops of a request.
        """
        self.tokenizer, self.always = tokenizer, tuple(text for text in always if text)
        known = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = frozenset(token for token, facts in known.items() if facts.special)
        self._anchor = _anchor(tokenizer)
        self._added: dict[int, str] = {}
        """Token -> the characters that it adds in the middle of a text."""
        self._known: dict[tuple[str, ...], tuple[tuple[str, ...], dict[int, bool]]] = {}
        """A request's stops -> all stops that apply, and for tokens seen so far whether they may complete one."""

    def hit(self, tokens: Sequence[int], stops: tuple[str, ...], thinking: Thinking | None = None) -> bool:
        """Whether the text of these tokens contains a stop, given that it did not without the last token.

        Args:
            tokens: written so far.
            stops: of the request; stops within the model's thinking do not count.
            thinking: how the model marks its thinking; None where all it writes is the answer.
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
        # a part of the text may decode differently at its beginning, so the whole text confirms
        return self._contains(self._end(tokens, max(map(len, wanted))), wanted) and self._ends(tokens, stops, thinking)

    def _begins(self, tokens: Sequence[int]) -> bool:
        """Whether the last token begins the text, which decoders treat differently."""
        return len(tokens) == 1 or (tokens[0] in self._special and self._special.issuperset(tokens[:-1]))

    def _ends(self, tokens: Sequence[int], stops: Sequence[str], thinking: Thinking | None) -> bool:
        """Whether a whole text contains a stop."""
        if thinking is None:
            return self._contains(tokens, (*stops, *self.always))
        spelled, text = self.tokenizer.decode(tokens, skip_special_tokens=False), thinking.text(self.tokenizer, tokens)
        answers = () if thinking.unfinished(text) else (thinking.answer(text), thinking.answer(spelled))
        answered = any(stop in answer for answer in answers for stop in stops)
        return answered or self._contains(tokens, self.always)

    def _contains(self, tokens: Sequence[int], stops: Sequence[str]) -> bool:
        """Whether either spelling of some tokens contains one of the stops."""
        for skip in (True, False):
            text = self.tokenizer.decode(tokens, skip_special_tokens=skip)
            if any(stop in text for stop in stops):
                return True
        return False

    def _adds(self, token: int) -> str:
        """The characters that a token, special ones included, adds in the middle of a text."""
        if token not in self._added:
            several = ([self._anchor], [self._anchor, token])
            before, after = (self.tokenizer.decode(ids, skip_special_tokens=False) for ids in several)
            clear = after.startswith(before) and not _is_byte(self.tokenizer, token)
            self._added[token] = after[len(before) :] if clear else _BROKEN
        return self._added[token]

    def _end(self, tokens: Sequence[int], reach: int) -> Sequence[int]:
        """The last tokens, with at least `reach` characters before the very last one, in either spelling.

        They begin with a whole character that does not count, because the first token of a text may lose its space.
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
    """A token of plain text to decode others after; None where tokens cannot be decoded one by one."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    kind, inner = type(tokenizer), tokenizer.backend_tokenizer
    own = kind.decode is not PreTrainedTokenizerBase.decode or kind._decode is not PreTrainedTokenizerFast._decode
    # spaces of a BPE are cleaned up only if the attribute with the long name says so; in old releases always
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", True)
    cleaned = tokenizer.clean_up_tokenization_spaces and (forced or type(inner.model).__name__ != "BPE")
    # without a decoder, spaces go between tokens
    decoder = None if inner.decoder is None else json.loads(inner.decoder.__getstate__())
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
    """Whether a decoder of `tokenizers` decodes a token alike everywhere but at the beginning."""
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
