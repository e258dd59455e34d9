"""Train a router through the frozen backbone: straight-through gates over whole texts.

Every layer runs on every token; what a closed gate governs is not taken. Decode forwards are gated, prompts are not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlbench.backbones import Backbone
from dlbench.engine.halves import Halves
from dlbench.engine.meter import Costs
from dlbench.families import resolve
from dlbench.method import Action, Router
from dlbench.teacher import IGNORED, Batch, shadowed, state_of, with_state

if TYPE_CHECKING:
    from dlbench.fit.probe import FitProbe

BATCH = 8
Cost = Literal["squared", "absolute", "linear"]


def train(
    probe: FitProbe,
    router: Router,
    *,
    steps: int,
    lr: float,
    weight: float,
    cost: Cost = "squared",
    share: float = 0.5,
    noise: bool = True,
) -> list[float]:
    """Train a router's module in place; see `dlbench.method.Probe.train`."""
    torch.manual_seed(probe.seed)
    module = router.module(probe.depth, probe.width).to(probe.backbone.device)
    module.requires_grad_(True)
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.0)
    order, examples = np.random.default_rng(probe.seed + 1), probe.examples()
    losses = []
    for step in range(steps):
        picked = order.choice(len(examples), size=min(BATCH, len(examples)), replace=False)
        batch = Batch.of([examples[i] for i in picked]).to(probe.backbone.device)
        probe.tokens += int(batch.mask.sum())
        gates = SoftGates(probe.backbone, router, batch, noise=noise)
        with gates.installed():
            logits = probe.forward(batch)
        labels = batch.decoded()  # the first target is full depth: nothing to learn
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        loss = loss + weight * _cost(gates, cost, share)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimiser.step()
        losses.append(loss.item())
        probe.say(step + 1, steps)
    module.requires_grad_(False)
    return losses


def _cost(gates: SoftGates, cost: Cost, share: float) -> Tensor:
    if cost == "linear":
        return gates.opened()
    gap = gates.executed() - share
    return gap**2 if cost == "squared" else gap.abs()


class SoftGates:
    """Gates of one router over one batch of texts."""

    def __init__(self, backbone: Backbone, router: Router, batch: Batch, *, noise: bool) -> None:
        """Prepare.

        Args:
            backbone: frozen.
            router: gives the scores.
            batch: texts under teacher forcing.
            noise: whether gates are sampled or cut at the threshold.
        """
        self.backbone, self.router, self.batch, self.noise = backbone, router, batch, noise
        self.gated = sorted(router.gated(backbone.depth))
        self.routed = batch.routed.bool()
        self.kept: list[Tensor] = []
        """Share of the decode forwards for which each gate was open, with a gradient."""
        self._costs = Costs(backbone)
        spared = router.spared((batch.routed.cumsum(1) - 1).long())
        self._always = ~self.routed if spared is None else ~self.routed | spared.to(self.routed.device)
        self._inside: Tensor | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Shadow the gated layers' `forward` for a while."""
        with contextlib.ExitStack() as stack:
            if self.router.part != Action.RUN:
                self._install_inside(stack)
            stack.enter_context(shadowed({i: self.backbone.layers[i] for i in self.gated}, self._layer))
            yield

    def executed(self) -> Tensor:
        """Layer share of the decode forwards, with a gradient; halves count by their share of the FLOPs."""
        depth = self.backbone.depth
        part = [float(self._costs.parts[int(self.router.part)][i] / self._costs.layer[i]) for i in self.gated]
        saved = torch.stack([(1 - kept) * share for kept, share in zip(self.kept, part, strict=True)]).sum()
        return 1 - saved / depth

    def opened(self) -> Tensor:
        """Mean share of the decode forwards for which a gate was open, with a gradient."""
        return torch.stack(self.kept).mean()

    def _keep(self, index: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Hard gates with the gradient of soft ones, and the scores: [rows, positions] each."""
        router = self.router
        module = router.module(self.backbone.depth, self.backbone.width)
        if router.scope == "sequence":
            prompt = self.batch.mask.bool() & ~self.routed & (self.routed.cumsum(1) == 0)
            mean = (hidden * prompt[..., None]).sum(1) / prompt.sum(1, keepdim=True)
            score = module(mean.float(), index)[:, None].expand(hidden.shape[:2])
        else:
            score = module(hidden.float(), index)
        margin = score - router.threshold
        if self.noise:
            u = torch.rand_like(margin[:, :1] if router.scope == "sequence" else margin).clamp(1e-6, 1 - 1e-6)
            margin = margin + torch.logit(u)
        soft = torch.sigmoid(margin)
        keep = (soft >= 0.5).to(soft) + soft - soft.detach()
        keep = torch.where(self._always, torch.ones_like(keep), keep)
        self.kept.append((keep * self.routed).sum() / self.routed.sum())
        return keep, score

    def _layer(self, index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        keep, score = self._keep(index, hidden)
        if self.router.kv[0] == "evict":
            kwargs = {**kwargs, "attention_mask": _evicted(kwargs.get("attention_mask"), keep.detach() > 0.5)}
        if self.router.part != Action.RUN:
            self._inside = keep
            try:
                return forward(hidden, *args, **kwargs)
            finally:
                self._inside = None
        given = forward(hidden, *args, **kwargs)
        taken = keep[..., None]
        if self.router.scaled:
            taken = taken * torch.where(self.routed, torch.sigmoid(score), 1.0)[..., None]
        out = hidden + taken.to(hidden.dtype) * (state_of(given) - hidden)
        if (bypass := self.router.bypass(index)) is not None:
            out = out + ((1 - keep)[..., None] * bypass(hidden.float())).to(hidden.dtype)
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
        if self.backbone.family.adds_residual:
            residual = args[1] if len(args) > 1 else kwargs["residual"]
            return with_state(given, residual + keep[..., None].to(state.dtype) * (state - residual))
        return with_state(given, keep[..., None].to(state.dtype) * state)


def _evicted(mask: Any, keep: Tensor) -> Tensor:
    """A layer's mask over whole texts that also hides the keys of closed gates; a token still sees itself."""
    length = keep.shape[1]
    ones = torch.ones(length, length, dtype=torch.bool, device=keep.device)
    seen = ones.tril() & (keep[:, None, None, :] | torch.eye(length, dtype=torch.bool, device=keep.device))
    if mask is None:
        return seen
    if mask.dtype == torch.bool:
        return mask & seen  # type: ignore[no-any-return]
    return torch.where(seen, mask, torch.finfo(mask.dtype).min)


@contextlib.contextmanager
def halves_of(backbone: Backbone) -> Iterator[Halves]:
    """Let a half of a layer run alone, while it is entered."""
    shadowed_: list[nn.Module] = []

    def shadow(module: nn.Module, forward: Callable[..., Any]) -> None:
        if "forward" not in vars(module):
            shadowed_.append(module)
        vars(module)["forward"] = forward

    try:
        yield Halves(backbone, shadow)
    finally:
        while shadowed_:
            del vars(shadowed_.pop())["forward"]
