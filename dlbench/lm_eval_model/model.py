"""The model that lm-eval runs: its own `hf` model around dlbench's engine.

Tokens, windows, chat templates, truncation and the cutting of texts are those of lm-eval's `hf`; only what runs the
network is replaced. At full depth in float32 and with `batch_size=1` every log-likelihood is therefore that of `hf` to
the last bit, and every text the same. In larger batches `hf` pads on the right and lets the padding be attended to by
itself, the engine pads on the left under a mask; sums then differ in their last bits, as those of `hf` do from batch
size to batch size. Log-likelihoods are scored by the model's stock layers, in float32 whatever its dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, final

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from tqdm import tqdm

from dlbench import __version__
from dlbench.engine import Engine
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question, Request
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import source_sha256
from dlbench.lm_eval_model.model_args import parse
from dlbench.lm_eval_model.prepared import prepare
from dlbench.lm_eval_model.task_compute import TaskCompute
from dlbench.models import batch_size as sizes
from dlbench.system import device_memory, process_group
from dlbench.terminal.quiet import quiet_data_libraries

_Scored = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would write it."""
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")
"""Generation arguments that greedy decoding ignores."""


@final
class DlbenchLM(HFLM):  # type: ignore[misc]  # lm-eval ships no types
    """A backbone under one method at one budget."""

    def __init__(
        self, batch_size: int | str = 1, max_batch_size: int = 64, device: str | None = None, **model_args: Any
    ) -> None:
        """Load the model, and fit the method where it has to be.

        Args:
            batch_size: texts decoded together, or "auto".
            max_batch_size: most of them where that is "auto".
            device: "cpu", "cuda", "cuda:N" or "mps"; None takes an accelerator where there is one.
            **model_args: see `dlbench.lm_eval_model.model_args.ModelArgs`, and the parameters of the method.

        Raises:
            DlbenchError: something cannot be done as asked.
        """
        if process_group.launched():
            raise DlbenchError("dlbench's model for lm-eval runs in one process: start it without a launcher")
        asked, of_hf, params = parse({**model_args, "device": device})
        spec = asked.spec(params)
        self._asked, self._prepared = asked, prepare(spec, asked.fit_task is not None)
        self._engine = self._prepared.engine
        self._stock: Engine | None = None
        self._compute: dict[str, TaskCompute] = {}
        self._now = TaskCompute(self._engine.costs)
        backbone = self._engine.backbone
        self._engine.check_generation_config()
        with quiet_data_libraries():  # lm-eval warns of models that are loaded already
            super().__init__(
                pretrained=backbone.model,
                tokenizer=backbone.tokenizer,
                batch_size=batch_size,
                max_batch_size=max_batch_size,
                **of_hf,
            )

    @property
    def max_length(self) -> int:
        """Most tokens of a text: what `hf` takes, but no more than the engine does."""
        return int(min(super().max_length, self._engine.backbone.context))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[_Scored]:
        return self._task_by_task(requests, lambda of: super(DlbenchLM, self).loglikelihood(of, disable_tqdm))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return self._task_by_task(requests, lambda of: super(DlbenchLM, self).loglikelihood_rolling(of, disable_tqdm))

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return self._task_by_task(requests, lambda of: super(DlbenchLM, self).generate_until(of, disable_tqdm))

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes into the `config` of its results: the method, and the compute of every task."""
        setting, backbone = self._prepared.setting, self._engine.backbone
        return {
            **super().get_model_info(),
            "dlbench": {
                "version": __version__,
                "backbone": {"name": backbone.name, "sha256": backbone.sha256, "layers": backbone.depth},
                "dtype": backbone.dtype,
                "method": setting.name,
                "params": setting.method.params(),
                "source_sha256": source_sha256(setting.given),
                "budget": setting.budget,
                "fit": None if setting.fit is None else asdict(setting.fit),
                "prompt": self._asked.prompt,
                "kv": self._prepared.kv,
                "seed": setting.seed,
                "kernels": self._engine.kernels,
                "compute": {task: compute.to_json() for task, compute in self._compute.items()},
            },
        }

    def _task_by_task(self, requests: Sequence[Any], answer: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Answer requests one task after the other, so that what they cost is counted per task."""
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(str(request.task_name), []).append(place)
        answers: list[Any] = [None] * len(requests)
        for task, of_task in places.items():
            self._now = self._compute.setdefault(task, TaskCompute(self._engine.costs))
            for place, one in zip(of_task, answer([requests[place] for place in of_task]), strict=True):
                answers[place] = one
        return answers

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[_Scored]:
        """Score continuations; the answers of one context are scored by the same layers.

        Args:
            requests: texts of context and continuation (None in a window of a longer text), and their token ids.
            disable_tqdm: whether no bar is shown.
            override_bs: rows run together; None: the batch size.
        """
        self._check_routes_prompts()
        if self._stock is None:
            self._stock = Engine(self._engine.backbone, kernels="stock")
        rows = override_bs or (self._detect_batch_size() if self.batch_size == "auto" else int(self.batch_size))
        # What a window of a longer text shares with others is one token: each is a text of its own.
        shared: dict[tuple[int, ...], list[int]] = {}
        cut = [self._cut(context, continuation) for _, context, continuation in requests]
        for place, (context, continuation) in enumerate(cut):
            key = context if requests[place][0] is not None else context + continuation
            shared.setdefault(key, []).append(place)
        ordered = sorted(shared.items(), key=lambda item: len(item[0]), reverse=True)
        answers: list[_Scored] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:
            for start in range(0, len(ordered), rows):
                part = ordered[start : start + rows]
                questions = [Question(_key(ids), tuple(cut[place] for place in places)) for ids, places in part]
                method, seed = self._prepared.method, self._prepared.setting.seed
                verdicts = weigh(self._stock, questions, method, seed, slots=rows, every_position=True)
                for (_, places), verdict in zip(part, verdicts, strict=True):
                    self._now.add_verdict(verdict)
                    for place, scored in zip(places, verdict.answers, strict=True):
                        answers[place] = scored
                        if (texts := requests[place][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", texts, scored)
                    bar.update(len(places))
        return answers

    def _check_routes_prompts(self) -> None:
        """Check that the method can score answers.

        Raises:
            DlbenchError: it decides per token, or from a prompt at full depth.
        """
        method = self._prepared.method
        if method is None or not (method.scope == "token" or method.reads(self._engine.backbone.depth)):
            return
        why = "decides per token" if method.scope == "token" else "decides from a prompt at full depth"
        raise DlbenchError(
            f"method {self._prepared.setting.name!r} {why}: it has no log-likelihoods, whose prompts a method routes"
        )

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Drop the beginning of a context that does not fit; the last token of a continuation is never read."""
        over = max(0, len(context) + len(continuation) - (self.max_length + 1))
        return tuple(context[over:]), tuple(continuation)

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], attention_mask: Tensor, **generation_kwargs: Any
    ) -> Tensor:
        """Continue prompts.

        Args:
            context: token ids of the prompts, padded on the left: [rows, columns].
            max_length: columns, and the most new tokens.
            stop: texts that end a continuation.
            attention_mask: 0 where `context` is padding.
            **generation_kwargs: greedy ones.

        Returns:
            [rows, columns + the most tokens written], filled with the padding token.

        Raises:
            DlbenchError: another decoding than the greedy one is asked for.
        """
        _only_greedy(generation_kwargs)
        prompts = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(context, attention_mask, strict=True)]
        limit = max_length - context.shape[1]
        requests = [Request(_key(ids), ids, limit, tuple(stop)) for ids in prompts]
        method, seed = self._prepared.method, self._prepared.setting.seed
        routed = method if self._asked.prompt == "routed" else None
        reads = frozenset[int]() if method is None else method.reads(self._engine.backbone.depth)
        wave = self._engine.prefill(requests, routed, seed, reads=() if routed else reads)
        generations = wave.decode(method, seed=seed, kv=self._prepared.kv)
        for ids, generation in zip(prompts, generations, strict=True):
            self._now.add_generation(len(ids), generation)
        longest = max(len(generation.tokens) for generation in generations)
        written = torch.full((len(prompts), longest), self.tokenizer.pad_token_id, device=context.device)
        for row, generation in zip(written, generations, strict=True):
            row[: len(generation.tokens)] = torch.tensor(generation.tokens, device=context.device)
        return torch.cat([context, written], 1)

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """Rows of the longest texts that are estimated to fit half of the free memory, for the batch size "auto"."""
        backbone = self._engine.backbone
        most = min(sizes.most_slots(backbone.device.type), int(self.max_batch_size))
        free = device_memory.free_bytes(backbone.device, 1)
        fit = sizes.rows_that_fit(backbone, self.max_length, self.max_gen_toks, backbone.depth, most, free)
        return int(np.clip(fit, 1, most))


def _key(ids: Sequence[int]) -> str:
    """Key of a text's noise: the same in every batch."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()


def _only_greedy(generation_kwargs: dict[str, Any]) -> None:
    """Refuse generation arguments that change what greedy decoding writes.

    Raises:
        DlbenchError: there is one.
    """
    given = dict(generation_kwargs)
    if given.pop("do_sample", None):
        raise DlbenchError("the task samples, and dlbench decodes greedily: add --gen_kwargs do_sample=False")
    neutral = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "use_cache": True}
    for name, value in given.items():
        if name not in _OF_SAMPLING and (name not in neutral or value != neutral[name]):
            raise DlbenchError(f"generation argument {name}={value!r}: dlbench decodes greedily and does not know it")
