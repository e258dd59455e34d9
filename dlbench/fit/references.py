"""References of the fit split under teacher forcing: token ids, batches, states and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dlbench.data.document import Document
from dlbench.engine import Engine, Request, Wave
from dlbench.engine.keyed_rng import Words, key_of
from dlbench.errors import DlbenchError
from dlbench.fit.kept_prompts import KeptPrompts, States
from dlbench.method import Action, Text
from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head
from dlbench.models.layer_patch import shadowed, state_of
from dlbench.prompting.teacher_forcing import Batch, Example, angles_of, example
from dlbench.prompting.tokenize import limited_prompt

LEARN_SHARE = 0.7
"""Share of the fit documents that are learnt from; the others set thresholds."""
TUNE_DOCUMENTS = 48
"""Most documents that a knob is tuned on."""
BATCH = 8
"""Texts per forward."""

Flags = NDArray[np.bool_]


def halves(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Split documents into those to learn from and those to tune on, by the hash of their ids."""
    learn = [d for d in documents if key_of(d.id) / 2**64 < LEARN_SHARE]
    chosen = {d.id for d in learn}
    return learn, [d for d in documents if d.id not in chosen][:TUNE_DOCUMENTS]


@dataclass
class Trace:
    """Decode forwards of references at full depth: n tokens."""

    states: Tensor
    """[depth + 1, n, width]"""
    row: NDArray[np.int64]
    """Index of each token's text: [n]."""
    step: NDArray[np.int64]
    position: NDArray[np.int64]
    limit: NDArray[np.int64]
    keys: Words
    """Noise key of each text."""
    tokens: int
    """Tokens that went through the backbone."""
    document: NDArray[np.int64]
    """Index of each text's document among those to tune on, of which some give no text."""

    def take(self, chosen: NDArray[np.int64]) -> Trace:
        """Some of the tokens; their texts keep their numbers."""
        states = self.states[:, torch.from_numpy(chosen).to(self.states.device)]
        row, step, position, limit = (x[chosen] for x in (self.row, self.step, self.position, self.limit))
        return Trace(states, row, step, position, limit, self.keys, self.tokens, self.document)

    @property
    def texts(self) -> int:
        return len(self.keys)


@dataclass
class Readings:
    """Results that fits of several methods on one task and backbone share, so that they are computed once."""

    requests: dict[str, list[tuple[Document, Request]]] = field(default_factory=dict)
    """Documents and the token ids of their prompts, by part."""
    examples: dict[tuple[str, int], list[Example]] = field(default_factory=dict)
    """Prompts with references that have a token to decode, by part and by the seed that chose the references."""
    engine: Engine | None = None
    waves: tuple[frozenset[int], list[Wave]] | None = None
    """The last prefill of the prompts to tune on, and the layers whose states it kept."""
    trace: tuple[int, Trace | None] | None = None
    """The last trace of the references to tune on, and the seed that chose the references."""
    prompts: KeptPrompts = field(default_factory=KeptPrompts)
    """Prompts that training and likelihoods read once."""
    similarity: dict[tuple[int, Action], list[float]] = field(default_factory=dict)
    """Mean cosines around layers or halves, by the seed that chose the references."""
    confidences: dict[str, list[Tensor]] = field(default_factory=dict)
    """Confidences of exits on the trace, by the parameters that they depend on; see `fit.open_loop`."""
    reads: frozenset[int] = frozenset()
    """Layers before which any method of the run reads prompts to tune on."""


@dataclass
class References:
    """One reference per document of the fit split, chosen by the seed; the backbone stays frozen."""

    backbone: Backbone
    learn: Sequence[Document]
    tune: Sequence[Document]
    seed: int = 0
    readings: Readings = field(default_factory=Readings)
    tokens: int = 0
    """Tokens that went through the backbone, forward."""

    def documents(self, part: str) -> list[Document]:
        """Documents of a part whose prompt and new tokens fit the context."""
        return [document for document, _ in self.requests(part)]

    def requests(self, part: str) -> list[tuple[Document, Request]]:
        """Documents of a part with the token ids of their prompts, where prompt and new tokens fit the context."""
        known = self.readings.requests
        if part not in known:
            fitting = []
            for d in self.learn if part == "learn" else self.tune:
                ids = limited_prompt(self.backbone, d, self.backbone.encode(d.prompt))
                if len(ids) + d.limit <= self.backbone.context:
                    fitting.append((d, Request(d.id, tuple(ids), d.limit, d.stop, d.thinking)))
            known[part] = fitting
        return known[part]

    def examples(self, part: str = "learn") -> list[Example]:
        """Prompts with references that have a token to decode.

        Raises:
            DlbenchError: there is none.
        """
        known = self.readings.examples
        if (part, self.seed) not in known:
            every = self.examples_of(self.learn if part == "learn" else self.tune)
            known[part, self.seed] = [e for e in every if len(e.target) > 1]  # the prefill predicts the first token
        if not (decodable := known[part, self.seed]):
            raise DlbenchError("the fit split gives nothing to learn from: no reference of two tokens fits the context")
        return decodable

    def examples_of(self, documents: Sequence[Document]) -> list[Example]:
        """Each document's prompt with its chosen reference."""
        order = np.random.default_rng(self.seed)
        return [example(self.backbone, d, int(order.integers(len(d.references)))) for d in documents]

    def groups(self, part: str, texts: int | None) -> Iterator[list[Example]]:
        """Examples of a part, or the first `texts` of them, in groups of similar length."""
        examples = sorted(self.examples(part)[:texts], key=lambda e: len(e.prompt) + len(e.target))
        for i in range(0, len(examples), BATCH):
            yield examples[i : i + BATCH]

    def batches(self, part: str = "learn", texts: int | None = None) -> Iterator[Batch]:
        """The same groups as padded batches."""
        for examples in self.groups(part, texts):
            batch = Batch.of(examples).to(self.backbone.device)
            self.tokens += int(batch.mask.sum())
            yield batch

    def keeps(self, examples: Sequence[Example], drawn: int | None) -> bool:
        """Whether prompts are read once and kept: if they have been, or else would be read twice on average.

        Args:
            examples: whose prompts.
            drawn: how many texts a fit draws from them; None for many times all.
        """
        kept = self.readings.prompts
        often = drawn is None or drawn >= 2 * len(examples)
        return (often or not kept.missing(examples)) and kept.can_keep(self.backbone, examples)

    def read_once(self, examples: Sequence[Example]) -> tuple[DynamicCache, States]:
        """Keys, values and states of prompts; those that have not been kept are read, and counted."""
        past, states, tokens = self.readings.prompts.of(self.backbone, examples)
        self.tokens += tokens
        return past, states

    def forward(self, batch: Batch, keep: int = 0) -> Tensor:
        """Logits of a batch, of the last `keep` positions or of all: [rows, positions, vocabulary]."""
        with angles_of(self.backbone, batch):
            out = self.backbone.model(
                input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=keep
            )
        logits: Tensor = out.logits
        return logits

    def texts(self, part: str = "learn") -> Iterator[Text]:
        """States and exit logits of a part, batch by batch."""
        for batch in self.batches(part):
            yield self.text(batch)

    @torch.no_grad()
    def text(self, batch: Batch) -> Text:
        """States of a batch's decode forwards at full depth."""
        states: list[Tensor] = []
        chosen, depth = batch.routed.bool(), self.backbone.depth

        def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            states.append(hidden[chosen])
            given = forward(hidden, *args, **kwargs)
            if index == depth - 1:
                states.append(state_of(given)[chosen])
            return given

        with shadowed(dict(enumerate(self.backbone.layers)), around):
            self.forward(batch, 1)
        return Text(tuple(states), lambda layer: self.logits(states[layer]))

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """The exit head: [n, width] → [n, vocabulary]."""
        return exit_head(self.backbone, states)
