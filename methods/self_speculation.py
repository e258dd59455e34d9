"""Self-speculative decoding: LayerSkip (Elhoushi et al., arXiv 2404.16710), Draft & Verify (arXiv 2309.08168).

`drafts=prefix` drafts with the first layers and the model's own head; the verifying layers go on from the states that
the draft has left, so every layer runs once per token (LayerSkip). `drafts=skip` drafts with evenly thinned layers and
verifies with all (Draft & Verify; SWIFT and CLaSp choose such a set by search). A draft ends after `length` tokens, or
after a token whose probability is below `stop`. The text is that of full depth, whatever the draft: what is gained or
lost is time, and the row counts tokens drafted and accepted.

Faithful: shared cache, verification of a whole draft in one forward, greedy acceptance. Different: a draft that is
accepted whole ends the round with its own last token instead of one more from the verifier.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dlbench.method import Draft, LayerSet, Static


@dataclass
class SelfSpeculation(Draft):
    """Draft with some layers, verify with all."""

    share: float = 0.5
    """Share of the layers that draft."""
    drafts: Literal["prefix", "skip"] = "prefix"
    only: tuple[int, ...] = ()
    """Layers that draft, given outright; takes the place of `share`."""
    stop: float = 0.0
    """A draft ends after a token that it gave less probability than this."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie in (0, 1), not {self.share}")
        if self.drafts not in ("prefix", "skip"):
            raise ValueError(f"drafts must be prefix or skip, not {self.drafts!r}")

    def drafter(self, depth: int) -> Static:
        keep = min(depth - 1, max(1, round(self.share * depth)))
        prefix = self.drafts == "prefix"
        layers = range(keep) if prefix else (i * depth // keep for i in range(keep))
        return LayerSet(tuple(self.only or layers))

    def goes_on(self, p: Tensor) -> Tensor:
        return p >= self.stop
