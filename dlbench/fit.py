"""Fit a method on the fit split of a task: train what it learns, then tune its knob to the budget.

Seventy per cent of the fit documents are learnt from, thirty tuned on, parted by the hash of their ids; the test split
is never seen. What comes out is an artifact: the parameters as JSON and the weights as safetensors, named by a content
key, so that it is made once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlbench.backbones import Backbone
from dlbench.engine import Engine, Request
from dlbench.engine.noise import key_of
from dlbench.errors import DlbenchError
from dlbench.lines import write_text
from dlbench.method import Knob, Method, Router
from dlbench.prompts import limited_prompt
from dlbench.task import Document
from dlbench.teacher import IGNORED, Batch, Example, example, shadowed, state_of, with_state

LEARN_SHARE = 0.7
TUNE_DOCUMENTS = 48
TUNE_ROUNDS = 12
BATCH = 8


def halves(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Documents to learn from and documents to tune on, parted by the hash of their ids."""
    learn = [d for d in documents if key_of(d.id) / 2**64 < LEARN_SHARE]
    chosen = {d.id for d in learn}
    return learn, [d for d in documents if d.id not in chosen]


@dataclass
class FitProbe:
    """What a method may use while it is fitted; the backbone stays frozen. See `dlbench.method.Probe`."""

    backbone: Backbone
    documents: Sequence[Document]
    seed: int
    budget: float | None
    say: Callable[[int, int], None] | None = None
    """Progress: (steps done, steps in all)."""

    @property
    def depth(self) -> int:
        return self.backbone.depth

    @property
    def width(self) -> int:
        return self.backbone.width

    def train(self, router: Router, *, share: float, steps: int, lr: float, weight: float) -> list[float]:
        torch.manual_seed(self.seed)
        module = router.module(self.depth, self.width).to(self.backbone.device)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.01)
            else:
                torch.nn.init.zeros_(parameter)
        module.requires_grad_(True)
        optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.0)
        order = np.random.default_rng(self.seed)
        examples = [example(self.backbone, d, int(order.integers(len(d.references)))) for d in self.documents]
        examples = [e for e in examples if len(e.target) > 1]  # the first target is full depth
        if not examples:
            raise DlbenchError("the fit split gives nothing to learn from: no reference of two tokens fits the context")
        losses = []
        for step in range(steps):
            picked = order.choice(len(examples), size=min(BATCH, len(examples)), replace=False)
            loss = self._loss(router, [examples[i] for i in picked], share, weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = lr * (1 - step / steps)
            optimiser.step()
            losses.append(loss.item())
            if self.say is not None:
                self.say(step + 1, steps)
        module.requires_grad_(False)
        return losses

    def _loss(self, router: Router, examples: list[Example], share: float, weight: float) -> Tensor:
        batch = Batch.of(examples).to(self.backbone.device)
        gates = SoftGates(self.backbone, router, batch.routed)
        with gates.installed():
            logits = self.backbone.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
        labels = batch.decoded()  # the first target is full depth: nothing to learn
        entropy = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        return entropy + weight * (gates.executed() - share) ** 2


class SoftGates:
    """Straight-through gates over whole texts: every layer runs, and what the gate drops is not taken."""

    def __init__(self, backbone: Backbone, router: Router, routed: Tensor) -> None:
        self.backbone, self.router, self.routed = backbone, router, routed
        self.gated = router.gated(backbone.depth)
        self.kept: list[Tensor] = []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Shadow the gated layers' `forward` for a while."""
        with shadowed({i: self.backbone.layers[i] for i in sorted(self.gated)}, self._layer):
            yield

    def _layer(self, index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = forward(hidden, *args, **kwargs)
        out = state_of(given)
        module = self.router.module(self.backbone.depth, self.backbone.width)
        score = module(hidden.float(), index) - self.router.threshold  # [rows, positions]
        u = torch.rand_like(score).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid(score + torch.logit(u))
        keep = (soft >= 0.5).to(soft) + soft - soft.detach()
        keep = torch.where(self.routed.bool(), keep, torch.ones_like(keep))
        self.kept.append((keep * self.routed).sum() / self.routed.sum())
        return with_state(given, hidden + keep[..., None].to(hidden.dtype) * (out - hidden))

    def executed(self) -> Tensor:
        """Layer share of the routed tokens, with a gradient."""
        always = self.backbone.depth - len(self.gated)
        return (torch.stack(self.kept).sum() + always) / self.backbone.depth


def requests(backbone: Backbone, documents: Sequence[Document]) -> list[Request]:
    """Token ids of documents that fit the context, as the engine takes them."""
    prompts = [limited_prompt(backbone, d, backbone.encode(d.prompt)) for d in documents]
    made = [Request(d.id, tuple(ids), d.limit, d.stop) for d, ids in zip(documents, prompts, strict=True)]
    return [r for r in made if len(r.ids) + r.limit <= backbone.context]


def tune(engine: Engine, method: Method, knob: Knob, budget: float, documents: Sequence[Document], seed: int) -> float:
    """Set the knob by bisection on free-running text; returns the realised layer share.

    Raises:
        DlbenchError: no document fits the context.
    """
    found = requests(engine.backbone, documents[:TUNE_DOCUMENTS])
    if not found:
        raise DlbenchError("the fit split gives nothing to tune on: no prompt fits the context with its new tokens")
    wave = Engine(engine.backbone, metered=False).prefill(found)
    low, high = knob.low, knob.high
    best: tuple[float, float, float] | None = None
    for _ in range(TUNE_ROUNDS):
        middle = (low + high) / 2
        setattr(method, knob.name, middle)
        written = [g.layers for g in wave.decode(method, seed=seed) if g.layers]
        share = float(np.mean([np.mean(n) for n in written])) / engine.backbone.depth if written else 1.0
        if best is None or abs(share - budget) < best[0]:
            best = abs(share - budget), middle, share
        if abs(share - budget) < 0.004:
            break
        low, high = (low, middle) if share > budget else (middle, high)
    assert best is not None
    setattr(method, knob.name, best[1])
    return best[2]


# ---- artifacts


def _shipped() -> Path:
    return Path(str(files("dlbench.tasks.nano"))) / "fits"


def find_artifact(key: str, folders: Sequence[Path]) -> Path | None:
    """The folder of a fitted artifact, among the user's and those that ship with the package."""
    return next((f / key for f in (*folders, _shipped()) if (f / key / "fit.json").is_file()), None)


def save_artifact(folder: Path, method: Method, facts: dict[str, Any]) -> None:
    """Write weights, then `fit.json`, which makes the artifact complete."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights := method.weights():
        save_file({k: v.contiguous().cpu() for k, v in weights.items()}, folder / "weights.safetensors")
    write_text(folder / "fit.json", json.dumps({"params": method.params(), **facts}, indent=1, sort_keys=True) + "\n")


def load_artifact(folder: Path, cls: type[Method]) -> tuple[Method, dict[str, Any]]:
    """The fitted method and what is known of its fit.

    Raises:
        DlbenchError: the artifact is damaged.
    """
    try:
        facts = json.loads((folder / "fit.json").read_text())
        method = cls.from_params(facts.pop("params"))
        if (weights := folder / "weights.safetensors").is_file():
            method.load_weights(load_file(weights))
        elif isinstance(method, Router):
            raise ValueError("weights.safetensors is missing")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DlbenchError(f"the fit in {folder} is damaged ({error}); delete that folder to fit again") from error
    return method, facts
