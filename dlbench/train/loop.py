"""The training loop: steps over the given texts, checkpoints, and resuming from the last one.

A checkpoint is one file, replaced atomically: weights, optimizer, scheduler and the number of steps done. That number
is the position in the data, which depends on the seed alone, and seeds the random numbers of a step (layer dropout, the
model's own dropout). So an interrupted training ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from dlbench.errors import DlbenchError
from dlbench.prompting.teacher_forcing import IGNORED, Batch, Example
from dlbench.train.data import share
from dlbench.train.objective import Objective
from dlbench.train.spec import TrainSpec

SMALL = 50_000_000
"""Number of parameters below which the default learning rate is higher."""
CLIP = 1.0
"""Largest norm of a step's gradient."""
BETAS = (0.9, 0.95)
LOG_EVERY = 10
"""Steps between two lines of the log."""


def rate(parameters: int, lora: bool = False) -> float:
    """Return the default peak learning rate: usual for pre-trained models, higher for very small ones and adapters.

    Args:
        parameters: of the model.
        lora: whether only adapters are trained.
    """
    if lora:
        return 5e-3 if parameters < SMALL else 5e-4
    return 2e-3 if parameters < SMALL else 2e-5


@dataclass
class Totals:
    """Steps, tokens and time so far, over all processes."""

    step: int = 0
    tokens: int = 0
    """Prompt and target tokens, without padding."""
    targets: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """One process of a training."""

    objective: Objective
    steps: Sequence[list[Example]]
    spec: TrainSpec
    lr: float
    accelerator: Accelerator
    device: torch.device
    folder: Path
    """For the checkpoint."""
    log: Path
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        from transformers import get_cosine_schedule_with_warmup

        learnt = [p for p in self.objective.parameters() if p.requires_grad]
        self.learnt = sum(p.numel() for p in learnt)
        """Number of trained parameters."""
        groups = [
            {"params": [p for p in learnt if p.ndim > 1], "weight_decay": self.spec.weight_decay},
            {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
        ]
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=BETAS, fused=fused)
        warmup = round(self.spec.warmup * len(self.steps))
        self.scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, len(self.steps))
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.losses: dict[int, tuple[Tensor, int]] = {}
        """Exit → sum of cross entropies and number of targets since the last log line, of this process."""

    def run(self, done: Callable[..., None]) -> None:
        """Train to the last step, from the last checkpoint or from the beginning.

        Args:
            done: told the number of steps that are finished, as they finish, and at times a line about the loss.

        Raises:
            DlbenchError: the loss is no longer a number, or the checkpoint is damaged.
        """
        if self.checkpoint.is_file():
            self._restore()
        done(self.totals.step)
        main, saved = self.accelerator.is_main_process, time.monotonic()
        if main:
            self._forget_later_lines()
        self.objective.train()
        while self.totals.step < len(self.steps):
            self._step(self.steps[self.totals.step])
            last = self.totals.step == len(self.steps)
            done(1, self._log() if self.totals.step % LOG_EVERY == 0 or last else None)
            if main and (last or time.monotonic() - saved >= 60 * self.spec.save_minutes):
                self._save()
                saved = time.monotonic()
        self.objective.eval()
        self.accelerator.wait_for_everyone()

    def _step(self, texts: list[Example]) -> None:
        started = time.monotonic()
        step, targets = self.totals.step, sum(len(e.target) for e in texts)
        torch.manual_seed(self._seed(step))
        weights = self.objective.recipe.weights(self.objective.backbone.depth, step)
        for batch, counted, last in self._forwards(texts):
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                entropies: dict[int, Tensor] = self.wrapped(batch, step)
                loss = torch.stack([weights[n] * x for n, x in entropies.items()]).sum() / targets
                # gradients are averaged over the processes, but each process has the sum over its own texts
                self.accelerator.backward(loss * self.accelerator.num_processes)
            for n, x in entropies.items():
                total, number = self.losses.get(n, (torch.zeros_like(x), 0))
                self.losses[n] = total + x.detach(), number + counted
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), CLIP)
        if not math.isfinite(float(norm)):
            raise DlbenchError(f"the gradient is no longer a number at step {step + 1}: give a lower --lr")
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.totals.step += 1
        self.totals.tokens += sum(len(e.prompt) + len(e.target) for e in texts)
        self.totals.targets += targets
        self.totals.seconds += time.monotonic() - started

    def _forwards(self, texts: list[Example]) -> Iterator[tuple[Batch, int, bool]]:
        """Yield this process' batches of a step, each with its number of targets and whether it is the last."""
        index, count = self.accelerator.process_index, self.accelerator.num_processes
        groups = share(texts, self.spec.micro_tokens, index, count)
        for i, group in enumerate(groups):
            yield Batch.of(group).to(self.device), sum(len(e.target) for e in group), i == len(groups) - 1
        if not groups:  # fewer texts than processes: the others still wait for this one's gradient
            idle = Batch.of(texts[:1])
            idle.labels.fill_(IGNORED)
            yield idle.to(self.device), 0, True

    def _seed(self, step: int) -> int:
        text = f"{self.spec.seed}/{step}/{self.accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def settings(self) -> dict[str, Any]:
        """Return the optimizer's settings, for the card."""
        return {
            "optimizer": "AdamW",
            "lr": self.lr,
            "betas": BETAS,
            "weight_decay": self.spec.weight_decay,
            "clip": CLIP,
            "schedule": "cosine",
            "warmup": self.spec.warmup,
            "batch_tokens": self.spec.batch_tokens,
            "micro_tokens": self.spec.micro_tokens,
            "dtype": str(self.objective.autocast or torch.float32).removeprefix("torch."),
        }

    def _save(self) -> None:
        """Write the checkpoint to a second file, then replace the old one."""
        state = {
            "totals": asdict(self.totals),
            "model": self.objective.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        part = self.checkpoint.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.checkpoint)

    def _restore(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.objective.restore(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.totals = Totals(**state["totals"])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DlbenchError(
                f"the checkpoint {self.checkpoint} is damaged ({reason[:200]}); delete it to start again"
            ) from error

    def _log(self) -> str | None:
        """Write a line of the log; in the main process, return one for people."""
        exits = sorted(self.losses)
        sums = torch.tensor([[float(x) for x in self.losses[n]] for n in exits], device=self.device)
        sums = self.accelerator.reduce(sums)
        self.losses.clear()
        if not self.accelerator.is_main_process:
            return None
        means = {n: float(s[0] / s[1]) for n, s in zip(exits, sums, strict=True)}
        t = self.totals
        line = {
            "step": t.step,
            "tokens": t.tokens,
            "seconds": round(t.seconds, 1),
            "lr": float(f"{self.scheduler.get_last_lr()[0]:.4g}"),
            "loss": {str(n): round(x, 4) for n, x in means.items()},
        }
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = means[max(means)], means[min(means)]
        early = f", {shown[1]:.3f} after {min(means)} layers" if len(means) > 1 else ""
        return f"step {t.step} of {len(self.steps)}: loss {shown[0]:.3f}{early}, {t.tokens / t.seconds:,.0f} tokens/s"

    def _forget_later_lines(self) -> None:
        """Drop log lines after the checkpoint, whose steps are done again."""
        if self.log.is_file():
            lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.totals.step]
            self.log.write_text("".join(kept), encoding="utf-8")
