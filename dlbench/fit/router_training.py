"""Train a router through the frozen backbone: straight-through gates over the decode forwards of references.

Prompts run at full depth and without a gradient. Then every layer runs on every decoded token, and a closed gate
discards the output of its layer, or of the half that it switches.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from dlbench.engine.flops.costs import Costs
from dlbench.engine.kv.masks import add_to_mask
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.fit.kept_prompts import States
from dlbench.fit.references import BATCH, References
from dlbench.method import Action, Prompt, Router
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve
from dlbench.models.layer_patch import shadowed, state_of, with_state
from dlbench.prompting.teacher_forcing import IGNORED, Parted, read_apart, read_targets


@dataclass(frozen=True)
class TrainingOptions:
    """How a router is trained; see `dlbench.method.base.TrainOptions`."""

    steps: int
    lr: float
    weight: float
    cost: Literal["squared", "absolute", "linear"] = "squared"
    share: float = 0.5
    noise: bool = True
    rises: bool = False

    def weight_at(self, step: int) -> float:
        """Weight of the cost at an optimiser step."""
        return self.weight * math.sin(math.pi / 2 * step / self.steps) if self.rises else self.weight


def train(
    references: References, router: Router, options: TrainingOptions, say: Callable[[int, int], None]
) -> list[float]:
    """Train a router's module in place; see `dlbench.method.Probe.train`.

    Args:
        references: the texts, and the frozen backbone.
        router: has the module.
        options: steps, learning rate and cost.
        say: called after each step with the number done and their total.

    Returns:
        The loss of each step.
    """
    backbone = references.backbone
    torch.manual_seed(references.seed)
    module = router.module(backbone.depth, backbone.width).to(backbone.device)
    module.requires_grad_(True)
    optimiser = torch.optim.AdamW(module.parameters(), lr=options.lr, weight_decay=0.0)
    order, examples = np.random.default_rng(references.seed + 1), references.examples()
    keeps = references.keeps(examples, options.steps * min(BATCH, len(examples)))
    losses = []
    for step in range(options.steps):
        picked = order.choice(len(examples), size=min(BATCH, len(examples)), replace=False)
        batch = Parted.of([examples[i] for i in picked]).to(backbone.device)
        gates = SoftGates(backbone, router, batch, noise=options.noise)
        if keeps:
            past, states = references.read_once([examples[i] for i in picked])
            references.tokens += int(batch.mask.sum())
            logits = gates.logits_after(past, states)
        else:
            references.tokens += batch.tokens
            logits = gates.logits()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.labels.flatten(), ignore_index=IGNORED)
        loss = loss + options.weight_at(step) * _cost(gates, options.cost, options.share)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = options.lr * (1 - step / options.steps)
        optimiser.step()
        losses.append(loss.item())
        say(step + 1, options.steps)
    module.requires_grad_(False)
    return losses


def _cost(gates: SoftGates, cost: Literal["squared", "absolute", "linear"], share: float) -> Tensor:
    if cost == "linear":
        return gates.opened()
    if cost == "squared":
        return (gates.executed() - share) ** 2
    return gates.mean((gates.shares() - share).abs(), ~gates.always)


class SoftGates:
    """Gates of one router over one batch of texts."""

    def __init__(self, backbone: Backbone, router: Router, batch: Parted, *, noise: bool) -> None:
        """Set the gates up.

        Args:
            backbone: frozen.
            router: computes the scores.
            batch: texts under teacher forcing.
            noise: whether gates are sampled or cut at the threshold.
        """
        self.backbone, self.router, self.batch, self.noise = backbone, router, batch, noise
        self._names = list(inspect.signature(backbone.layers[0].forward).parameters)[1:]  # after the hidden state
        self.gated = {i: backbone.layers[i] for i in sorted(router.gated(backbone.depth))}
        self.kept: list[Tensor] = []
        """1 for decode forwards whose gate was open, else 0, with a gradient: [rows, steps] per gated layer."""
        self._costs = Costs(backbone)
        self._routed = batch.mask.bool()
        spared = router.spared(batch.steps, batch.positions)
        self.always = ~self._routed if spared is None else ~self._routed | spared.to(batch.ids.device)
        """Padding, and decode forwards that run every layer whatever the gates decide: [rows, steps]."""
        self._noted = PromptStates(backbone.depth, len(batch.ids), frozenset(self.gated))
        self._prompts: Prompt = self._noted
        self._starts = (batch.prompt.shape[1] - batch.prompt_mask.sum(1)).cpu().numpy()
        self._inside: Tensor | None = None

    def logits(self) -> Tensor:
        """Run the prompts, then the decode forwards through the gates: [rows, steps, vocabulary]."""
        noted = self.gated if self.router.scope == "sequence" else {}
        return read_apart(self.backbone, self.batch, shadowed(noted, self._note), self.installed())

    def logits_after(self, past: DynamicCache, states: States) -> Tensor:
        """Run the decode forwards through the gates after prompts that have been read; see `KeptPrompts.of`."""
        self._prompts = states
        return read_targets(self.backbone, self.batch, past, self.installed())

    def _note(self, index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Store the prompts' states before a layer, which its gate scores."""
        self._noted.note(index, hidden, np.arange(len(self._starts)), self._starts)
        return forward(hidden, *args, **kwargs)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Run the gated layers through their gates while entered."""
        with contextlib.ExitStack() as stack:
            if self.router.part != Action.RUN:
                self._install_inside(stack)
            stack.enter_context(shadowed(self.gated, self._layer))
            yield

    def shares(self) -> Tensor:
        """Layer share of each decode forward, with a gradient; halves count by their share of the FLOPs."""
        weights = [float(self._costs.shares[int(self.router.part), i]) for i in self.gated]
        saved = torch.stack([(1 - kept) * weight for kept, weight in zip(self.kept, weights, strict=True)])
        return 1 - saved.sum(0) / self.backbone.depth  # [rows, steps]

    def mean(self, values: Tensor, of: Tensor | None = None) -> Tensor:
        """Mean over the decode forwards, or over some `of` them, of values: [rows, steps]."""
        of = self._routed if of is None else of
        return (values * of).sum() / of.sum().clamp(min=1)

    def executed(self) -> Tensor:
        """Mean layer share of the decode forwards, with a gradient."""
        return self.mean(self.shares())

    def opened(self) -> Tensor:
        """Mean share of open gates, with a gradient."""
        return torch.stack([self.mean(kept) for kept in self.kept]).mean()

    def _keep(self, index: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Hard gates with the gradient of soft ones (straight-through), and their scores: [rows, positions] each."""
        router = self.router
        module = router.module(self.backbone.depth, self.backbone.width)
        if router.scope == "sequence":
            summary = router.summary(self._prompts, index)
            score = module(summary.float(), index)[:, None].expand(hidden.shape[:2])
        else:
            score = module(hidden.float(), index)
        margin = score - router.threshold
        if self.noise:
            u = torch.rand_like(margin[:, :1] if router.scope == "sequence" else margin).clamp(1e-6, 1 - 1e-6)
            margin = margin + torch.logit(u)
        soft = torch.sigmoid(margin)
        keep = (soft >= 0.5).to(soft) + soft - soft.detach()
        keep = torch.where(self.always, torch.ones_like(keep), keep)
        self.kept.append(keep)
        return keep, score

    def _layer(self, index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs |= zip(self._names, args, strict=False)
        keep, score = self._keep(index, hidden)
        if self.router.kv[0] == "evict":
            hides = self.backbone.family.mask_hides
            kwargs["attention_mask"] = _evicted(kwargs.get("attention_mask"), keep.detach() > 0.5, hides=hides)
        if self.router.part != Action.RUN:
            self._inside = keep
            try:
                return forward(hidden, **kwargs)
            finally:
                self._inside = None
        given = forward(hidden, **kwargs)
        taken, passed = keep[..., None], (1 - keep)[..., None]
        if self.router.scaled:
            gate = torch.sigmoid(score)[..., None]
            taken, passed = taken * gate, passed * (1 - gate)
        out = hidden + taken.to(hidden.dtype) * (state_of(given) - hidden)
        if (bypass := self.router.bypass(index)) is not None:
            out = out + (passed * bypass(hidden.float())).to(hidden.dtype)
        return with_state(given, out)

    # ---- gates on a half of the layer

    def _install_inside(self, stack: contextlib.ExitStack) -> None:
        family = self.backbone.family
        for index in self.gated:
            layer = self.backbone.layers[index]
            if self.router.part == Action.ATTN:
                stack.enter_context(shadowed({index: resolve(layer, family.attention)}, self._half))
            else:
                stack.enter_context(shadowed({index: resolve(layer, family.mlp[-1])}, self._half))

    def _half(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = forward(*args, **kwargs)
        if self._inside is None:
            return given
        state, keep = state_of(given), self._inside
        if state.ndim == 2:  # written inline, some families flatten rows and positions
            keep = keep.flatten()
        part: Literal["attention", "mlp"] = "attention" if self.router.part == Action.ATTN else "mlp"
        if part in self.backbone.family.adds_residual:
            residual = args[1] if len(args) > 1 else kwargs["residual"]
            return with_state(given, residual + keep[..., None].to(state.dtype) * (state - residual))
        return with_state(given, keep[..., None].to(state.dtype) * state)


def _evicted(mask: Any, keep: Tensor, *, hides: bool) -> Any:
    """A layer's attention mask that also hides the keys of closed gates.

    A token still sees itself. No mask, no change: everything before a single new token is prompt.

    Args:
        mask: of all keys, boolean or additive.
        keep: which gates are open: [rows, steps].
        hides: whether a boolean mask is True where a key is hidden, instead of where it is visible.
    """
    if mask is None:
        return None
    steps = keep.shape[1]
    own = torch.eye(steps, dtype=torch.bool, device=keep.device)
    seen = nn.functional.pad(keep[:, None, None, :] | own, (mask.shape[-1] - steps, 0), value=True)
    return add_to_mask(mask, seen, form="hidden" if hides else "additive", dtype=mask.dtype)
