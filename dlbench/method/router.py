"""Base class of methods with learned gates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from dlbench.method.actions import Action, Knob, Prompt, Route
from dlbench.method.base import Method
from dlbench.method.view import View


@dataclass
class Router(Method):
    """A learned gate before each layer: the layer, or a half of it, runs where `score >= threshold`.

    The score is differentiable, so `Probe.train` can train the module with straight-through gates. With scope
    "sequence" the gate scores a `summary` of the prompt once, and its decision holds for the whole text.

    A subclass gives `build`, `gated` and `fit`, which calls `probe.train(self, steps=..., lr=..., weight=...,
    share=probe.budget)`; without `fit` it is refused when it is loaded.
    """

    fitted: ClassVar[bool] = True
    fits_budget: ClassVar[bool] = True
    knob: ClassVar[Knob | None] = Knob("threshold", 12.0, -12.0)
    part: ClassVar[Action] = Action.RUN
    """What a gate switches: the whole layer, or one half of it; the other half always runs."""
    scaled: ClassVar[bool] = False
    """Whether the output of a gated layer is multiplied by sigmoid(score), and that of a `bypass` by
    1 - sigmoid(score); for gates on whole layers only."""

    threshold: float = 0.0
    _module: nn.Module | None = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def build(self, depth: int, width: int) -> nn.Module:
        """Build the trainable module: (hidden [..., width], layer) → score [...].

        States are float32 whatever the backbone's dtype; the engine moves the module to the backbone's device.
        """

    @final
    def module(self, depth: int, width: int) -> nn.Module:
        """The trainable module, built on first use."""
        if self._module is None:
            self._module = self.build(depth, width)
            self._module.register_buffer("shape", torch.tensor([depth, width]))
        return self._module

    @abstractmethod
    def gated(self, depth: int) -> frozenset[int]:
        """Layers with a gate; the others always run."""

    def spared(self, step: Tensor, position: Tensor) -> Tensor | None:
        """Tokens that run every layer whatever the gates say: bool [...]; None for no token.

        Args:
            step: decode steps, 0 for a row's first forward after its prompt: [...].
            position: absolute positions, prompt included: [...].
        """
        return None

    def summary(self, prompt: Prompt, layer: int) -> Tensor:
        """Input of a gate with scope "sequence": [n, width]; by default the mean state before the layer."""
        return prompt.mean(layer)

    def noise(self, view: View) -> Tensor | float:
        """Noise added to the score at evaluation: [n], on any device; 0 for a deterministic gate."""
        return 0.0

    def reads(self, depth: int) -> frozenset[int]:
        return self.gated(depth) if self.scope == "sequence" else frozenset()

    @final
    def begin(self, prompt: Prompt) -> Tensor | None:
        if self.scope != "sequence":
            return None
        gates = sorted(self.gated(prompt.depth))
        open_ = [self.score(self.summary(prompt, layer), layer, prompt.depth) >= self.threshold for layer in gates]
        memory = torch.ones(prompt.count, prompt.depth, device=open_[0].device)
        for layer, one in zip(gates, open_, strict=True):
            memory[:, layer] = one.float()  # a model may be spread over devices
        return memory

    @final
    def score(self, hidden: Tensor, layer: int, depth: int) -> Tensor:
        """Score of a gate on states: [n, width] → [n]."""
        module = self.module(depth, hidden.shape[-1])
        if next(module.parameters(), hidden).device != hidden.device:
            module.to(hidden.device)
        scored: Tensor = module(hidden.float(), layer)
        return scored

    @final
    def route(self, view: View) -> Action | Tensor | Route:
        if view.layer not in self.gated(view.depth):
            return Action.RUN
        if view.memory is not None:
            return self._codes(view.memory[:, view.layer] > 0)
        score = self.score(view.hidden, view.layer, view.depth)
        noise = self.noise(view)
        noise = noise.to(score.device) if isinstance(noise, Tensor) else noise
        open_ = view.at_least(score + noise, self.threshold)
        if type(self).spared is not Router.spared:
            spared = self.spared(view.step, view.position)
            open_ = open_ if spared is None else open_ | spared.to(open_.device)
        if not self.scaled or self.part != Action.RUN:
            return self._codes(open_)
        gate = torch.sigmoid(score)
        return Route(self._codes(open_), scale=torch.where(open_, gate, 1 - gate))

    def _codes(self, open_: Tensor) -> Tensor:
        return torch.where(open_, int(Action.RUN), int(Action.RUN & ~self.part))

    @final
    def weights(self) -> dict[str, Tensor]:
        return {} if self._module is None else dict(self._module.state_dict())

    @final
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        depth, width = weights["shape"].tolist()
        self.module(depth, width).load_state_dict(dict(weights))
