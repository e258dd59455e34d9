"""Notice when a stop text has been written."""

from __future__ import annotations

from typing import Any


class Stopper:
    """Looks at the text only after a token that could complete a stop text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._candidates: dict[tuple[str, ...], frozenset[int]] = {}

    def hit(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        """Whether the text of these tokens contains one of the stop texts."""
        if self.tokenizer is None:
            return False
        if stops not in self._candidates:
            ends = {s[-1] for s in stops} | {"\ufffd"}  # a token may be the last byte of a character
            self._candidates[stops] = frozenset(
                i for i in range(len(self.tokenizer)) if ends & set(self.tokenizer.decode([i]))
            )
        if tokens[-1] not in self._candidates[stops]:
            return False
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return any(s in text for s in stops)
