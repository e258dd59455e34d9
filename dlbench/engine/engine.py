"""The engine: a backbone made ready to decode under any method."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal, final

import numpy as np
import torch

from dlbench.engine.decoding import Decoding
from dlbench.engine.flops.costs import Costs
from dlbench.engine.prefill import Loop, Wave
from dlbench.engine.proof import prove
from dlbench.engine.requests import Request
from dlbench.engine.runtime import Runtime
from dlbench.engine.speculative import Speculating
from dlbench.errors import DlbenchError
from dlbench.method import Draft, Method
from dlbench.models.backbone import Backbone
from dlbench.models.generation_config import Wishes


def _pick_loop(wave: Wave, method: Method | None, seed: int, sample: int | None, kv: str | None) -> Loop:
    """The loop that decodes a wave under a method.

    Raises:
        DlbenchError: the method does not support sampling, the KV policy, or the model's recurrent layers.
    """
    if not isinstance(method, Draft):
        return Decoding(wave, method, seed, sample, kv)
    if wave.runtime.backbone.recurrent:
        raise DlbenchError(
            f"{type(method).__name__} takes back rejected drafts, and a recurrent layer cannot go back to an earlier "
            f"state: it does not run on {wave.runtime.backbone.kind}"
        )
    if sample is not None:
        raise DlbenchError(f"{type(method).__name__} verifies greedy drafts: it does not sample")
    return Speculating(wave, method)


@final
class Engine:
    """Decodes on one backbone; it holds no weights of its own and leaves the model as it was."""

    def __init__(self, backbone: Backbone, *, metered: bool = True, kernels: Literal["auto", "stock"] = "auto") -> None:
        """Prepare a backbone.

        Args:
            backbone: not changed between calls.
            metered: False counts no FLOPs (all are 0), for timing; executed layers are always counted.
            kernels: "auto" decodes with fused layers where they prove equal to the stock layers; "stock" runs these.

        Raises:
            DlbenchError: the family was recognised from structure, and does not pass its proof.
        """
        shares = prove(backbone)
        self.runtime = Runtime(backbone, metered=metered, kernels=kernels)
        self.runtime.sharing = replace(self.runtime.sharing, usable=self.runtime.sharing.usable and shares)

    @property
    def backbone(self) -> Backbone:
        """The model that it decodes on."""
        return self.runtime.backbone

    @property
    def costs(self) -> Costs:
        """FLOPs per token on the backbone."""
        return self.runtime.costs

    @property
    def wishes(self) -> Wishes:
        """What the model's generation_config asks for."""
        return self.runtime.wishes

    def check_generation_config(self) -> None:
        """Refuse at once what a run of some prompts would refuse.

        Raises:
            DlbenchError: the model's generation_config asks for something that is not supported.
        """
        processors = self.runtime.processors([Request("", (0,), 1)])
        if processors is not None:
            logits = torch.zeros(1, self.backbone.config.vocab_size)
            processors(logits, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))

    @property
    def reread_after(self) -> int | None:
        """Tokens after which a text is read again with other rotary angles, as `generate` does; None: never."""
        return self.runtime.reread_after

    def may_be_reread(self, requests: Sequence[Request]) -> int:
        """How many texts may be read again while they are written."""
        return self.runtime.may_be_reread(requests)

    @property
    def kernels(self) -> str:
        """What runs decode steps: "stock" layers, "fused" layers, or "captured" ones, fused and as CUDA graphs."""
        return self.runtime.kernels

    @property
    def kernels_note(self) -> str:
        """Why layers or steps are not fused or captured although they were asked to be; empty otherwise."""
        return self.runtime.kernels_note

    @property
    def warm_ups(self) -> int:
        """Decoding runs before timing: graphs are captured on the second use of a shape."""
        return 2 if self.kernels == "captured" else 0

    def tokens_read(self, requests: Sequence[Request]) -> int:
        """How many tokens a wave of some prompts runs at full depth: those that all begin with count once."""
        return self.runtime.sharing.tokens_read([r.ids for r in requests])

    def release(self) -> None:
        """Free memory that no wave uses, kept for the next wave."""
        if self.runtime.graph_pool is not None:
            self.runtime.graph_pool.release()

    def idle_bytes(self) -> int:
        """Memory that no wave uses and the next may take, in bytes."""
        return 0 if self.runtime.graph_pool is None else self.runtime.graph_pool.idle_bytes()

    @torch.inference_mode()
    def prefill(
        self,
        requests: Sequence[Request],
        method: Method | None = None,
        seed: int = 0,
        *,
        slots: int | None = None,
        reads: Collection[int] = (),
    ) -> Wave:
        """Run the prompts once, left-padded to the longest of those that are read together.

        Tokens that all of them begin with are read once, as one row, where every layer runs (see
        `dlbench.engine.shared_prefix`).

        Args:
            requests: one row each; neighbours of similar length waste the least.
            method: routes the prompt too (`prompt = routed`); None runs every layer (`prompt = full`).
            seed: seed of the method's noise.
            slots: most rows read and decoded together; None for all. Further rows wait with their prompts read, and
                each enters when another has finished.
            reads: layers before which methods will look at the prompts' states: see `Method.reads`.

        Raises:
            DlbenchError: the method cannot route prompts, a text does not fit the context, or holds a token that the
                model has no embedding for.
        """
        if method is not None and method.reads(self.backbone.depth):
            raise DlbenchError(f"{type(method).__name__} decides from a prompt that was read at full depth")
        if method is not None and method.scope == "token":
            raise DlbenchError(
                f"{type(method).__name__} decides per token; prompt = routed is for static and per-sequence methods"
            )
        for r in requests:
            if not r.ids:
                raise DlbenchError(f"document {r.id}: its prompt has no token")
            if r.limit < 1 or len(r.ids) + r.limit > self.backbone.context:
                raise DlbenchError(
                    f"document {r.id}: {len(r.ids)} prompt tokens and {r.limit} new ones do not fit a context of "
                    f"{self.backbone.context}"
                )
            self.backbone.check_ids(r.ids, f"document {r.id}: the prompt")
        routing = None if method is None else (method, seed)
        return Wave(self.runtime, tuple(requests), routing, slots or len(requests), frozenset(reads), _pick_loop)
