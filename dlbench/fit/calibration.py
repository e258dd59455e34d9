"""What static plans are chosen by on calibration text: how little a layer moves a state, how likely a plan finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlbench.engine.layers.sublayers import sublayers_of
from dlbench.method import Action, Static
from dlbench.prompting.teacher_forcing import IGNORED, Batch, Example, Parted, read_apart, shadowed, state_of

if TYPE_CHECKING:
    from dlbench.fit.probe import FitProbe


@torch.no_grad()
def similarity(probe: FitProbe, part: Action) -> list[float]:
    """Mean cosine of what enters and what leaves each layer, or a half of it; see `dlbench.method.Probe`."""
    sums, count = torch.zeros(probe.depth, dtype=torch.float64), 0
    for batch in probe.batches():
        count += int(batch.mask.sum())
        sums += _similarity(probe, batch, part)
    return (sums / count).tolist()


def _similarity(probe: FitProbe, batch: Batch, part: Action) -> Tensor:
    """Cosines summed over the tokens of a batch: [depth]."""
    there, sums = batch.mask.bool(), torch.zeros(probe.depth, dtype=torch.float64)

    def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = forward(hidden, *args, **kwargs)
        before, after = hidden, state_of(given)
        if part != Action.RUN:
            with parts.only(index, int(Action.ATTN)):
                between = state_of(forward(hidden, *args, **kwargs))
            before, after = (hidden, between) if part == Action.ATTN else (between, after)
        sums[index] = torch.cosine_similarity(before[there].double(), after[there].double(), dim=-1).sum()
        return given

    with sublayers_of(probe.backbone) as parts, shadowed(dict(enumerate(probe.backbone.layers)), around):
        probe.forward(batch)
    return sums


@torch.no_grad()
def nll(probe: FitProbe, method: Static, texts: int | None = None) -> float:
    """Mean negative log-likelihood of references under a plan; see `dlbench.method.Probe`."""
    backbone, plan, total, count = probe.backbone, method.actions(probe.depth), 0.0, 0
    left_out = {i: layer for i, layer in enumerate(backbone.layers) if plan[i] != Action.RUN}
    with sublayers_of(backbone) as parts:

        def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if plan[index] == Action.SKIP:
                return (hidden, None) if backbone.family.returns_tuple else hidden
            with parts.only(index, int(plan[index])):
                return forward(hidden, *args, **kwargs)

        for examples in probe.several("learn", texts):
            logits, labels = _predicted(probe, examples, shadowed(left_out, around))
            flat = logits.flatten(0, 1).float(), labels.flatten()
            total += float(torch.nn.functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum"))
            count += int((labels != IGNORED).sum())
    return total / count


def _predicted(
    probe: FitProbe, examples: Sequence[Example], routed: AbstractContextManager[None]
) -> tuple[Tensor, Tensor]:
    """Logits and labels of texts: [rows, positions, vocabulary] and [rows, positions].

    Args:
        probe: has the backbone and the prompt policy.
        examples: the texts.
        routed: entered while those tokens run that a plan routes under this policy.
    """
    device = probe.backbone.device
    if probe.prompt == "full":
        parted = Parted.of(examples).to(device)
        probe.tokens += parted.tokens
        return read_apart(probe.backbone, parted, nullcontext(), routed), parted.labels
    batch = Batch.of(examples).to(device)
    probe.tokens += int(batch.mask.sum())
    with routed:
        return probe.forward(batch)[:, :-1], batch.labels[:, 1:]
