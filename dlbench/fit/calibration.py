"""Measures on calibration text that choose static plans: similarity of states around a layer, likelihood of a plan."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from dlbench.engine.layers.sublayers import sublayers_of
from dlbench.fit.references import References
from dlbench.method import Action, Static
from dlbench.models.layer_patch import shadowed, state_of
from dlbench.prompting.teacher_forcing import IGNORED, Batch, Example, Parted, read_apart, read_targets


@torch.no_grad()
def similarity(references: References, part: Action) -> list[float]:
    """Mean cosine between the input and the output of each layer, or of a half of it; see `dlbench.method.Probe`.

    One reading gives the cosines of both halves, and is shared by all fits on the same references.
    """
    known = references.readings.similarity
    if (references.seed, part) not in known:
        parts = (Action.RUN,) if part == Action.RUN else (Action.ATTN, Action.MLP)
        sums, count = torch.zeros(len(parts), references.backbone.depth, dtype=torch.float64), 0
        for batch in references.batches():
            count += int(batch.mask.sum())
            sums += _summed_cosines(references, batch, parts)
        for each, summed in zip(parts, sums, strict=True):
            known[references.seed, each] = (summed / count).tolist()
    return known[references.seed, part]


def _summed_cosines(references: References, batch: Batch, parts: Sequence[Action]) -> Tensor:
    """Cosines summed over the tokens of a batch: [parts, depth].

    Args:
        references: run the backbone.
        batch: the texts.
        parts: whole layers, or attention and feed-forward.
    """
    backbone, real = references.backbone, batch.mask.bool()
    sums = torch.zeros(len(parts), backbone.depth, dtype=torch.float64)

    def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = forward(hidden, *args, **kwargs)
        states = [hidden, state_of(given)]
        if len(parts) > 1:
            with halves.only(index, int(Action.ATTN)):
                states.insert(1, state_of(forward(hidden, *args, **kwargs)))
        chosen = [state[real].double() for state in states]
        for number, (before, after) in enumerate(itertools.pairwise(chosen)):
            sums[number, index] = torch.cosine_similarity(before, after, dim=-1).sum()
        return given

    with sublayers_of(backbone) as halves, shadowed(dict(enumerate(backbone.layers)), around):
        references.forward(batch, 1)
    return sums


@torch.no_grad()
def nll(references: References, plan: Static, prompt: Literal["full", "routed"], texts: int | None = None) -> float:
    """Mean negative log-likelihood of references under a static plan; see `dlbench.method.Probe`.

    Args:
        references: the texts.
        plan: what each layer runs.
        prompt: whether prompts run at full depth or under the plan.
        texts: number of references, the first ones; None for all.
    """
    backbone, total, count = references.backbone, 0.0, 0
    actions = plan.actions(backbone.depth)
    incomplete = {i: layer for i, layer in enumerate(backbone.layers) if actions[i] != Action.RUN}
    with sublayers_of(backbone) as parts:

        def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if actions[index] == Action.SKIP:
                return (hidden, None) if backbone.family.returns_tuple else hidden
            with parts.only(index, int(actions[index])):
                return forward(hidden, *args, **kwargs)

        groups = list(references.groups("learn", texts))
        # one plan is scored after the other, on the same texts
        keeps = prompt == "full" and references.keeps([e for group in groups for e in group], None)
        for examples in groups:
            planned = shadowed(incomplete, around)
            if keeps:
                logits, labels = _after_kept(references, examples, planned)
            else:
                logits, labels = _predictions(references, examples, prompt, planned)
            flat = logits.flatten(0, 1).float(), labels.flatten()
            total += float(torch.nn.functional.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum"))
            count += int((labels != IGNORED).sum())
    return total / count


def _after_kept(
    references: References, examples: Sequence[Example], planned: AbstractContextManager[None]
) -> tuple[Tensor, Tensor]:
    """The same as `_predictions` with prompts at full depth, which are read once for all plans."""
    parted = Parted.of(examples).to(references.backbone.device)
    past, _ = references.read_once(examples)
    references.tokens += int(parted.mask.sum())
    return read_targets(references.backbone, parted, past, planned), parted.labels


def _predictions(
    references: References,
    examples: Sequence[Example],
    prompt: Literal["full", "routed"],
    planned: AbstractContextManager[None],
) -> tuple[Tensor, Tensor]:
    """Logits and labels of texts: [rows, positions, vocabulary] and [rows, positions].

    Args:
        references: run the backbone.
        examples: the texts.
        prompt: whether prompts run at full depth or under the plan.
        planned: context in which layers run as the plan says.
    """
    device = references.backbone.device
    if prompt == "full":
        parted = Parted.of(examples).to(device)
        references.tokens += parted.tokens
        return read_apart(references.backbone, parted, nullcontext(), planned), parted.labels
    batch = Batch.of(examples).to(device)
    references.tokens += int(batch.mask.sum())
    with planned:
        return references.forward(batch)[:, :-1], batch.labels[:, 1:]
