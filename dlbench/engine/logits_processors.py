"""Apply the logits processors of a model's generation_config, to each row as if its prompt were alone.

The processors are transformers' own, made by `generate`'s own code. They look at the tokens of a row so far, prompt
included, and some at their number; in a batch of left-padded rows that enter and leave, one tensor of tokens gives
neither. So every row has its own processors, made for its prompt and limit, and they see its true tokens. Processors
that look at the last tokens only, or at the set of tokens, treat all rows in one call: shorter rows are then padded
with tokens that do not change the result.

Shape letters: n rows of a call, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.requests import Request
from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone
from dlbench.models.generation_config import Wishes, named

_NOTHING = -1
"""Padding before shorter rows for processors to which the position of a token matters."""


class Processors:
    """The processors of one run over a wave, and the tokens of its rows so far."""

    def __init__(self, backbone: Backbone, wishes: Wishes, requests: Sequence[Request]) -> None:
        """Prepare.

        Args:
            backbone: the model.
            wishes: what its generation_config asks for.
            requests: rows of the wave.

        Raises:
            DlbenchError: transformers refuses what is asked for.
        """
        self.backbone, self.wishes, self.requests = backbone, wishes, requests
        self.device = backbone.device
        self.lengths = np.array([len(r.ids) for r in requests], dtype=np.int64)
        longest = max(len(r.ids) + r.limit for r in requests)
        ids = np.zeros((len(requests), longest), dtype=np.int64)
        for row, request in enumerate(requests):
            ids[row, : len(request.ids)] = request.ids
        self.ids = torch.from_numpy(ids).to(self.device)
        """Tokens of each row from its first column on."""
        self._lists: dict[int, list[Any]] = {}
        self._shared = self._of(0)

    def __call__(self, logits: Tensor, rows: Slots, steps: Slots) -> Tensor:
        """Scores of the next tokens, a copy: [n, V], float32.

        Args:
            logits: [n, V].
            rows: of the wave.
            steps: how many new tokens each row has, all of them noted.

        Raises:
            DlbenchError: transformers refuses what is asked for.
        """
        scores = logits.to(self.device, torch.float32, copy=True)
        known = self.lengths[rows] + steps
        before: dict[bool, Tensor] = {}
        try:
            for place, processor in enumerate(self._shared):
                repeated = _padding_for(processor)
                if repeated is None:
                    scores = self._alone(scores, place, rows, known)
                    continue
                if repeated not in before:
                    before[repeated] = self._padded(rows, known, repeat=repeated)
                scores = processor(before[repeated], scores)
        except (ValueError, IndexError) as error:
            raise _refusal(self.backbone, self.wishes, error) from error
        return scores

    def note(self, rows: Slots, steps: Slots, tokens: Tensor) -> None:
        """Note the tokens [n] chosen at these steps of the rows, in place of any chosen there before."""
        chosen = on(tokens.numpy(), self.device) if tokens.is_cpu else tokens
        self.ids[on(rows, self.device), on(self.lengths[rows] + steps, self.device)] = chosen

    def _alone(self, scores: Tensor, place: int, rows: Slots, known: Slots) -> Tensor:
        """Apply one of the processors that each row has its own of: [n, V]."""
        several = zip(rows.tolist(), known.tolist(), torch.split(scores, 1), strict=True)
        return torch.cat([self._of(row)[place](self.ids[row : row + 1, :n], one) for row, n, one in several])

    def _padded(self, rows: Slots, known: Slots, *, repeat: bool) -> Tensor:
        """Tokens of rows so far, [n, T]; shorter rows are padded with their own first token, or with `_NOTHING`."""
        width = int(known.max())
        at = torch.arange(width, device=self.device) - on(width - known, self.device)[:, None]
        tokens = self.ids[on(rows, self.device)].gather(1, at.clamp(min=0))
        return tokens if repeat else tokens.masked_fill_(at < 0, _NOTHING)

    def _of(self, row: int) -> list[Any]:
        """The processors of a row, in transformers' order."""
        if row not in self._lists:
            self._lists[row] = processors(self.backbone, self.wishes, self.requests[row])
        return self._lists[row]


def processors(backbone: Backbone, wishes: Wishes, request: Request) -> list[Any]:
    """What `generate` would make for a single prompt.

    Raises:
        DlbenchError: transformers refuses what is asked for.
    """
    model, device, length = backbone.model, backbone.device, len(request.ids)
    try:
        config = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
            **wishes.processed,
            eos_token_id=model.generation_config.eos_token_id,
            max_length=length + request.limit,
        )
        if config.min_new_tokens is not None:  # as `generate` does
            config.min_length = length + config.min_new_tokens
        model._prepare_special_tokens(config, device=device)
        made = model._get_logits_processor(
            config,
            input_ids_seq_length=length,
            encoder_input_ids=torch.tensor([request.ids], device=device),
            device=device,
            model_kwargs={},
        )
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise _refusal(backbone, wishes, error) from error
    return list(made)


def _padding_for(processor: Any) -> bool | None:
    """How to pad shorter rows for a processor: True, by their first token; False, by `_NOTHING`; None: one row each."""
    kind = type(processor)
    if kind is transformers.RepetitionPenaltyLogitsProcessor:
        return True
    if kind is transformers.NoRepeatNGramLogitsProcessor:
        return False if processor.ngram_size > 1 else None
    if kind in (
        transformers.SequenceBiasLogitsProcessor,
        transformers.NoBadWordsLogitsProcessor,
        transformers.SuppressTokensLogitsProcessor,
        transformers.InfNanRemoveLogitsProcessor,
        transformers.LogitNormalization,
    ):
        return False
    return None


def _refusal(backbone: Backbone, wishes: Wishes, error: Exception) -> DlbenchError:
    text = " ".join(str(error).split())
    return DlbenchError(
        f"model {backbone.name!r}: transformers refuses what its generation_config asks for, among "
        f"{named(wishes.processed)}: {text}; mend its generation_config.json, or take that out of it"
    )
