"""Teacher forcing: a prompt and one of its references in a single forward, equal to what decoding does later.

A decode forward reads one new token and predicts the next. So all tokens of a target but the last are decode forwards;
the last token of the prompt, which predicts the first target, belongs to the prefill. With kv policy "project" a
skipped layer still computes the token's keys and values from its state: so every layer runs on the whole text, and the
output of a closed gate is discarded.

Where rotary angles depend on the length of the text, each token has the angles that it has in decoding. One case does
not fit a single forward: a text that decoding prefills again (see `engine.decoding.DecodeLoop`) changes its angles
there. Such a text has the angles of the second prefill from its beginning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dlbench.data.document import Document
from dlbench.engine.layers.rotary_tables import RowAngles
from dlbench.models.attention import rotary_module
from dlbench.models.backbone import Backbone
from dlbench.models.layer_patch import shadowed
from dlbench.prompting.tokenize import limited_prompt

IGNORED = -100
"""Label of positions without a target."""


class Example(NamedTuple):
    """Token ids of a prompt and one of its references."""

    prompt: list[int]
    target: list[int]
    """Delimiter, reference and the end token, where the model has one; cut to the context."""


def example(backbone: Backbone, document: Document, reference: int) -> Example:
    """Tokenise a document and one of its references, by index.

    Raises:
        DlbenchError: the model has no embedding for a token.
    """
    whole = backbone.encode(document.prompt)
    both = backbone.encode(document.prompt + document.delimiter + document.references[reference].strip())
    end = backbone.ends.learnt
    target = both[len(whole) :]
    if end is not None and end < backbone.vocabulary:  # the model can predict no other
        target.append(end)
    prompt = limited_prompt(backbone, document, whole)
    target = target[: max(0, backbone.context - len(prompt))]
    backbone.check_ids([*prompt, *target], f"document {document.id}: the prompt with a reference")
    return Example(prompt, target)


@dataclass(frozen=True)
class Batch:
    """Texts padded on the right: [rows, length] each."""

    ids: Tensor
    mask: Tensor
    """1 on tokens, 0 on padding."""
    labels: Tensor
    """Target tokens at their own positions (each is predicted one position earlier), IGNORED elsewhere."""
    routed: Tensor
    """1 on decode forwards: the positions that predict all targets but the first."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Batch:
        """Pad examples to the longest."""
        length = max(len(p) + len(t) for p, t in examples)
        ids = torch.zeros(len(examples), length, dtype=torch.long)
        mask = torch.zeros(len(examples), length, dtype=torch.long)
        labels = torch.full((len(examples), length), IGNORED)
        routed = torch.zeros(len(examples), length)
        for i, (prompt, target) in enumerate(examples):
            end = len(prompt) + len(target)
            ids[i, :end] = torch.tensor(prompt + target)
            mask[i, :end] = 1
            labels[i, len(prompt) : end] = torch.tensor(target)
            routed[i, len(prompt) : end - 1] = 1
        return cls(ids, mask, labels, routed)

    @property
    def prompts(self) -> Tensor:
        """Number of tokens of each prompt: [rows]."""
        return self.mask.sum(1) - (self.labels != IGNORED).sum(1)

    @property
    def read(self) -> Tensor:
        """Number of tokens of each text that decoding reads, all but the last: [rows]."""
        return self.mask.sum(1) - 1

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(x.to(device) for x in (self.ids, self.mask, self.labels, self.routed)))


@dataclass(frozen=True)
class Parted:
    """Texts split where decoding begins: prompts, which no gate changes, and decode forwards."""

    prompt: Tensor
    """Padded on the left: [rows, longest prompt]."""
    prompt_mask: Tensor
    """1 on tokens, 0 on padding."""
    ids: Tensor
    """Input of the decode forwards, all targets but the last, padded on the right: [rows, steps]."""
    mask: Tensor
    labels: Tensor
    """Target of each decode forward; IGNORED on padding."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Parted:
        """Pad prompts and decode forwards each to the longest; at least one target must have two tokens."""
        rows = len(examples)
        columns, steps = max(len(p) for p, _ in examples), max(len(t) - 1 for _, t in examples)
        prompt, prompt_mask = (torch.zeros(rows, columns, dtype=torch.long) for _ in range(2))
        ids, mask = (torch.zeros(rows, steps, dtype=torch.long) for _ in range(2))
        labels = torch.full((rows, steps), IGNORED)
        for i, (before, target) in enumerate(examples):
            prompt[i, columns - len(before) :] = torch.tensor(before)
            prompt_mask[i, columns - len(before) :] = 1
            count = max(0, len(target) - 1)
            ids[i, :count] = torch.tensor(target[:-1])
            mask[i, :count] = 1
            labels[i, :count] = torch.tensor(target[1:])
        return cls(prompt, prompt_mask, ids, mask, labels)

    @property
    def prompts(self) -> Tensor:
        """Number of tokens of each prompt: [rows]."""
        return self.prompt_mask.sum(1)

    @property
    def read(self) -> Tensor:
        """Number of tokens of each text that decoding reads, all but the last: [rows]."""
        return self.prompts + self.mask.sum(1)

    def to(self, device: torch.device) -> Parted:
        """The same on a device."""
        return Parted(*(x.to(device) for x in (self.prompt, self.prompt_mask, self.ids, self.mask, self.labels)))

    @property
    def steps(self) -> Tensor:
        """Decode step of each token, padding included: [rows, steps]."""
        return torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)

    @property
    def positions(self) -> Tensor:
        """Position of each token, prompt included: [rows, steps]."""
        return self.prompt_mask.sum(1, keepdim=True) + self.steps

    @property
    def tokens(self) -> int:
        """Number of tokens, without padding."""
        return int(self.prompt_mask.sum() + self.mask.sum())


def read_apart(
    backbone: Backbone,
    batch: Parted,
    prompts: AbstractContextManager[Any],
    decoding: AbstractContextManager[Any],
) -> Tensor:
    """Read the prompts without a gradient, then the decode forwards; logits of these: [rows, steps, vocabulary].

    Args:
        backbone: the model.
        batch: the texts.
        prompts: context entered while the prompts are read.
        decoding: context entered while the decode forwards run.
    """
    return read_targets(backbone, batch, read_prompts(backbone, batch, prompts), decoding)


def read_prompts(backbone: Backbone, batch: Parted, entered: AbstractContextManager[Any]) -> DynamicCache:
    """Read the prompts without a gradient; returns their keys and values, left-padded.

    Args:
        backbone: the model.
        batch: the texts.
        entered: context of the forward.
    """
    past = DynamicCache(config=backbone.model.config)
    positions = (batch.prompt_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), entered:
        _forward(backbone, batch, past, batch.prompt, batch.prompt_mask, positions, 1)
    return past


def read_targets(backbone: Backbone, batch: Parted, past: DynamicCache, entered: AbstractContextManager[Any]) -> Tensor:
    """Read the decode forwards after their prompts; logits: [rows, steps, vocabulary].

    Args:
        backbone: the model.
        batch: the texts.
        past: keys and values of the prompts, to which those of the decode forwards are added.
        entered: context of the forward.
    """
    mask = torch.cat([batch.prompt_mask, batch.mask], 1)
    with entered:
        return _forward(backbone, batch, past, batch.ids, mask, batch.positions.clamp(max=backbone.context - 1), 0)


def _forward(
    backbone: Backbone, batch: Parted, past: DynamicCache, ids: Tensor, mask: Tensor, positions: Tensor, keep: int
) -> Tensor:
    with angles_of(backbone, batch):
        out = backbone.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            logits_to_keep=keep,
        )
    logits: Tensor = out.logits
    return logits


@contextlib.contextmanager
def angles_of(backbone: Backbone, batch: Batch | Parted) -> Iterator[None]:
    """Give forwards over a batch the rotary angles of decoding, whatever other texts are in the batch.

    Args:
        backbone: unchanged where its angles depend on the position alone.
        batch: the rows of the forwards.
    """
    angles = RowAngles.of(backbone)
    if angles is None:
        yield
        return
    prompts, read, turn = batch.prompts[:, None], batch.read[:, None], angles.reread_after

    def around(_: int, __: Any, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, ...]:
        positions = position_ids.expand(len(prompts), -1)
        lengths = torch.maximum(prompts, positions + 1)  # of the whole prompt, later of the text up to the token
        if turn is not None:
            lengths = torch.where((prompts <= turn) & (read > turn), lengths.clamp(min=turn + 1), lengths)
        return angles.at(x, positions, lengths, () if layer_type is None else (layer_type,))

    with shadowed({0: rotary_module(backbone)}, around):
        yield
