"""End tokens: those of the generation_config, and the tokenizer's end-of-text token, as in lm-eval.

Without a generation_config.json, transformers takes the generation_config from config.json, as `generate` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ends:
    """The end tokens of one model."""

    named: tuple[int, ...]
    """Of the generation_config, in its order."""
    own: int | None
    """The tokenizer's end-of-text token."""
    spelled: str
    """The text of that token, which also ends an output; empty where there is none."""

    @property
    def ids(self) -> frozenset[int]:
        """Token ids that end a text."""
        return frozenset(self.named if self.own is None else (*self.named, self.own))

    @property
    def learnt(self) -> int | None:
        """End token of texts to learn from: the tokenizer's, else the first of the generation_config; None for none."""
        return self.own if self.own is not None else next(iter(self.named), None)

    def cut(self, text: str) -> str:
        """Cut a text at the first end token that is spelled out in it."""
        return text.split(self.spelled, 1)[0] if self.spelled else text


def ends_of(model: Any, tokenizer: Any) -> Ends:
    """End tokens of a loaded transformers model with its tokenizer, which may be None."""
    ids = model.generation_config.eos_token_id
    named = () if ids is None else tuple(ids) if isinstance(ids, list | tuple) else (ids,)
    own: int | None = getattr(tokenizer, "eos_token_id", None)
    spelled = "" if own is None else str(tokenizer.decode([own], skip_special_tokens=False))
    return Ends(named, own, spelled)
