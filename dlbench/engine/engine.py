"""The engine: a backbone made ready to decode under any method."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch

from dlbench.engine.flops.costs import Costs
from dlbench.engine.kernels.cuda_graphs import recorder
from dlbench.engine.kernels.fuse import NotFused, fuse
from dlbench.engine.kernels.fused_model import NotStacked, Stack
from dlbench.engine.kernels.graph_pool import Captures
from dlbench.engine.layers.gating import Gates
from dlbench.engine.logits_processors import Processors
from dlbench.engine.prefill import Wave
from dlbench.engine.requests import Request
from dlbench.engine.stop_strings import Stopper
from dlbench.errors import DlbenchError
from dlbench.method import Method
from dlbench.models.backbone import Backbone
from dlbench.models.generation_config import wishes


class Engine:
    """Decodes on one backbone; holds no weights of its own and leaves the model as it was."""

    def __init__(self, backbone: Backbone, *, metered: bool = True, kernels: Literal["auto", "stock"] = "auto") -> None:
        """Prepare a backbone.

        Args:
            backbone: stays untouched between calls.
            metered: False counts no FLOPs (all are 0), for timing; executed layers are always counted.
            kernels: "auto" decodes with fused layers where they prove equal to the model's own; "stock" runs these.
        """
        self.backbone = backbone
        self.costs = Costs(backbone)
        self.metered = metered
        fused, self._note = None, ""
        self.stack: Stack | None = None
        """Stands in for the model's forward where one new token per row runs; None where the model's own runs."""
        if kernels == "auto":
            try:
                fused = fuse(backbone)
                self.stack = Stack(backbone, fused)
            except (NotFused, NotStacked) as reason:
                self._note = str(reason)
        self.captures: Captures | None = None
        """Decode steps that a GPU has captured; None where there are none."""
        if self.stack is not None and (record := recorder(backbone.device)) is not None:
            self.captures = Captures(self.stack, record)
        self.gates = Gates(backbone, self.costs, fused, accelerate=kernels == "auto")
        self.wishes = wishes(backbone.model)
        """What the model's generation_config asks for."""
        self.stopper = Stopper(backbone.tokenizer, (backbone.ends.spelled, *self.wishes.stops))

    def processors(self, requests: Sequence[Request]) -> Processors | None:
        """What the model's generation_config makes of the logits of some rows; None where it leaves them as they are.

        Raises:
            DlbenchError: it asks for what is not done.
        """
        self.wishes.heed(self.backbone.name)
        return Processors(self.backbone, self.wishes, requests) if self.wishes.processed else None

    def heed(self) -> None:
        """Refuse at once what a run of some prompts would refuse.

        Raises:
            DlbenchError: the model's generation_config asks for what is not done.
        """
        made = self.processors([Request("", (0,), 1)])
        if made is not None:
            logits = torch.zeros(1, self.backbone.model.config.vocab_size)
            made(logits, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))

    @property
    def turn(self) -> int | None:
        """Tokens after which a text is read again, as `generate` reads it, with other rotary angles; None: never."""
        return None if self.gates.rotary is None else self.gates.rotary.turn

    def turning(self, requests: Sequence[Request]) -> int:
        """How many texts may come to that while they are written; the last token that is written is never read."""
        turn = self.turn
        return 0 if turn is None else sum(len(r.ids) <= turn < len(r.ids) + r.limit - 1 for r in requests)

    @property
    def kernels(self) -> str:
        """What decode steps run: "stock" layers, "fused" ones, or "captured", fused ones as graphs of a GPU."""
        if self.gates.fused is None:
            return "stock"
        return "fused" if self.captures is None or self.captures.failed else "captured"

    @property
    def kernels_note(self) -> str:
        """Why the layers, or the step around them, are not fused or captured, where they were to be."""
        return self._note or ("" if self.captures is None else self.captures.failed)

    @property
    def warm_ups(self) -> int:
        """Decoding runs after which the same run captures nothing more: what is met for the second time is captured."""
        return 2 if self.kernels == "captured" else 0

    def release(self) -> None:
        """Give back memory that no wave uses, and that was kept for the next."""
        if self.captures is not None:
            self.captures.release()

    def idle_bytes(self) -> int:
        """How much memory that is, in bytes."""
        return 0 if self.captures is None else self.captures.idle_bytes()

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

        Args:
            requests: one row each; rows of similar length next to each other waste the least.
            method: routes the prompt too (`prompt = routed`); None runs every layer (`prompt = full`).
            seed: seed of the method's noise.
            slots: most rows read and decoded together; None for all. Of more rows than these the others wait with
                their prompts read, and each enters when one has finished.
            reads: layers before which methods will look at the prompts' states: see `Method.reads`.

        Raises:
            DlbenchError: a method that cannot was asked to route prompts, a text does not fit the context, or holds a
                token that the model has no embedding for.
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
        return Wave(self, tuple(requests), method, seed, slots or len(requests), frozenset(reads))
