"""What ends a text: tokens that the generation_config names, and the tokenizer's own end token, as lm-eval has it.

What stands in config.json counts as for `generate`: where transformers took it for the generation_config, because the
model has no generation_config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ends:
    """The ends of one model's texts."""

    named: tuple[int, ...]
    """Those of the generation_config, in its order."""
    own: int | None
    """The tokenizer's."""
    spelled: str
    """The same in letters, which end a text too; empty where it has none."""

    @property
    def ids(self) -> frozenset[int]:
        """Token ids that end a text."""
        return frozenset(self.named if self.own is None else (*self.named, self.own))

    @property
    def learnt(self) -> int | None:
        """The token that ends a text to learn from: the tokenizer's, else the first that is named; None for none."""
        return self.own if self.own is not None else next(iter(self.named), None)

    def cut(self, text: str) -> str:
        """A text up to an end token in letters."""
        return text.split(self.spelled, 1)[0] if self.spelled else text


def ends_of(model: Any, tokenizer: Any) -> Ends:
    """The ends of a loaded transformers model with its tokenizer, which may be None."""
    ids = model.generation_config.eos_token_id
    named = () if ids is None else tuple(ids) if isinstance(ids, list | tuple) else (ids,)
    own: int | None = getattr(tokenizer, "eos_token_id", None)
    spelled = "" if own is None else str(tokenizer.decode([own], skip_special_tokens=False))
    return Ends(named, own, spelled)
