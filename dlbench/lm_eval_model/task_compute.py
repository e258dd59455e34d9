"""What lm-eval's requests of one task cost: the compute of a record, beside lm-eval's results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlbench.engine import Generation
from dlbench.engine.flops.costs import CATEGORIES, Costs
from dlbench.engine.requests import Verdict


@dataclass
class TaskCompute:
    """Sums over the requests of one task; shares are relative to full depth, per text, then averaged."""

    costs: Costs
    texts: int = 0
    """Texts written, or contexts whose answers were scored."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    flops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    """Credited FLOPs by category: of decoding, or of the log-likelihoods."""
    executed_flops: int = 0
    """Executed FLOPs of the same, padding included."""
    prompt_flops: int = 0
    """Credited FLOPs of the prompts of written texts."""
    _layer_shares: list[float] = field(default_factory=list)
    _decode_shares: list[float] = field(default_factory=list)

    def add_generation(self, prompt: int, generation: Generation) -> None:
        """Count a written text.

        Args:
            prompt: tokens of its prompt.
            generation: what was written.
        """
        self._add(prompt, generation.layers, generation.flops, generation.executed)
        self.generated_tokens += len(generation.tokens)
        self.prompt_flops += generation.prompt_flops
        if generation.layers:
            dense = self.costs.dense(prompt, len(generation.tokens))
            self._decode_shares.append(sum(generation.flops.values()) / dense)

    def add_verdict(self, verdict: Verdict) -> None:
        """Count the scored answers of a context."""
        self._add(verdict.tokens, verdict.layers, verdict.flops, verdict.executed)

    def _add(self, tokens: int, layers: list[float], flops: dict[str, int], executed: int) -> None:
        self.texts += 1
        self.prompt_tokens += tokens
        self.executed_flops += executed
        for category, count in flops.items():
            self.flops[category] += count
        if layers:
            self._layer_shares.append(sum(layers) / (len(self.costs.layer) * len(layers)))

    def to_json(self) -> dict[str, Any]:
        """Return it by the names of a record's compute; shares that nothing was measured for are None."""
        return {
            "texts": self.texts,
            "layer_share": _mean(self._layer_shares),
            "flop_share_decode": _mean(self._decode_shares),
            "flops": dict(self.flops),
            "executed_flops": self.executed_flops,
            "prompt_flops": self.prompt_flops,
            "tokens": {"prompt": self.prompt_tokens, "generated": self.generated_tokens},
        }


def _mean(shares: list[float]) -> float | None:
    return float(np.mean(shares)) if shares else None
