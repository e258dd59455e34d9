"""The recipe: train nano (16 layers) or nano-half (8) from nothing; seeded, resumable, CPU only.

`python -m dlbench.tasks.nano.train --model nano --run RUN_FOLDER --out tasks/nano/weights/nano`

Plain next-token loss on the target and EOS. No layer dropout and no losses at inner layers: how
far depth can be cut is a finding, not something the model was trained for. Both models see the
same tokens in the same order. Started again with the same run folder, a run goes on where its
last checkpoint stood.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import tokenizer as tokenizers
from .evaluate import scores
from .generate import TASKS, committed, draw

LAYERS = {"nano": 16, "nano-half": 8}
SHARES = {"nano_data2text": 4, "nano_summary": 4, "nano_math": 9, "nano_translate": 7}
"""Documents of each task in every 24: the harder tasks get more."""
LATE_SHARES = {"nano_data2text": 2, "nano_summary": 2, "nano_math": 15, "nano_translate": 5}
"""The same for the second half: by then only arithmetic is far from learned."""
LATE_POOL = 88
"""First pool of the second half (step 1,408 of about 2,800)."""


@dataclass(frozen=True)
class PretrainingRecipe:
    """Everything that decides the weights."""

    layers: int = 16
    width: int = 160
    heads: int = 5
    inner: int = 432
    tokens: int = 10_000_000
    """Prompt and target tokens to train on; padding not counted."""
    rows: int = 16
    """Documents per micro-batch."""
    micro: int = 3
    """Micro-batches per step, each of another length."""
    pool_steps: int = 16
    """Steps whose documents are drawn and sorted by length together."""
    muon_rate: float = 0.008
    adam_rate: float = 0.004
    warmup: float = 0.02
    """Share of the tokens over which the rate rises; afterwards it falls linearly to zero."""
    seed: int = 1


@dataclass
class PretrainingState:
    """Where a run stands."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


TokenBatch = list[tuple[torch.Tensor, torch.Tensor]]
"""Micro-batches of ids [rows, length] and labels [rows, length]; -100 where nothing is learned."""


def pool(recipe: PretrainingRecipe, tokenizer: PreTrainedTokenizerFast, index: int) -> list[TokenBatch]:
    """Make the batches of `pool_steps` steps; the same for the same recipe and index."""
    rng = Random(f"{recipe.seed}/{index}")
    wanted = recipe.pool_steps * recipe.micro * recipe.rows
    shares = SHARES if index < LATE_POOL else LATE_SHARES
    total = sum(shares.values())
    examples: list[tuple[list[int], int]] = []
    for task, share in shares.items():
        seed = recipe.seed * 1_000_000 + index
        for document in draw(task, "train", -(-wanted * share // total), seed):
            examples.append(tokenizers.encode_example(tokenizer, document.input, document.references[0]))
    examples = sorted(rng.sample(examples, wanted), key=lambda example: len(example[0]))
    groups = [examples[i : i + recipe.rows] for i in range(0, wanted, recipe.rows)]
    # Each step takes one group from every band of lengths, so that no step sees short prompts only.
    bands = [groups[i * recipe.pool_steps : (i + 1) * recipe.pool_steps] for i in range(recipe.micro)]
    for band in bands:
        rng.shuffle(band)
    return [[_pad(band[step]) for band in bands] for step in range(recipe.pool_steps)]


def _pad(group: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad: with causal attention what follows the target cannot touch it, so no mask is needed."""
    length = -(-max(len(ids) for ids, _ in group) // 8) * 8
    ids = torch.zeros(len(group), length, dtype=torch.long)
    labels = torch.full((len(group), length), -100)
    for row, (example, prompt) in enumerate(group):
        ids[row, : len(example)] = torch.tensor(example)
        labels[row, prompt - 1 : len(example) - 1] = torch.tensor(example[prompt:])
    return ids, labels


class Pretrainer:
    """A model in bfloat16, its float32 master weights and the two optimizers on them."""

    def __init__(
        self, recipe: PretrainingRecipe, tokenizer: PreTrainedTokenizerFast, compile_layers: bool = True
    ) -> None:
        self.recipe, self.tokenizer, self.progress = recipe, tokenizer, PretrainingState()
        torch.manual_seed(recipe.seed)
        self.model = LlamaForCausalLM(config(recipe, tokenizer))
        self.masters = {name: p.detach().clone().requires_grad_() for name, p in self.model.named_parameters()}
        self.model.to(torch.bfloat16)
        hidden = [p for name, p in self.masters.items() if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in self.masters.items() if p.ndim != 2 or "embed" in name]
        self.optimizers = (
            torch.optim.Muon(hidden, lr=recipe.muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        )
        if compile_layers:
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)

    def rate(self) -> float:
        """Return the share of the peak learning rate at the tokens seen so far."""
        done = min(self.progress.tokens / self.recipe.tokens, 1.0)
        return min(1.0, (done + 1e-3) / self.recipe.warmup) * (1.0 - done)

    def step(self, batch: TokenBatch) -> float:
        """Take one optimizer step and return the mean loss per target token."""
        started = time.monotonic()
        targets = sum(int((labels >= 0).sum()) for _, labels in batch)
        total = 0.0
        for ids, labels in batch:
            learned = labels >= 0
            states = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[learned]  # [targets, width]
            loss = functional.cross_entropy(self.model.lm_head(states).float(), labels[learned], reduction="sum")
            (loss / targets).backward()
            total += float(loss.detach())
        for name, p in self.model.named_parameters():
            self.masters[name].grad = p.grad.float()
            p.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for optimizer, peak in zip(self.optimizers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * self.rate()
            optimizer.step()
        self._publish()
        self.progress.step += 1
        self.progress.tokens += sum(int((ids != 0).sum()) for ids, _ in batch)
        self.progress.seconds += time.monotonic() - started
        return total / targets

    def _publish(self) -> None:
        """Copy the master weights into the bfloat16 model."""
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.masters[name])

    def batches(self) -> Iterator[TokenBatch]:
        """Yield the batches from the current step on, until the tokens are used up."""
        while True:
            index, offset = divmod(self.progress.step, self.recipe.pool_steps)
            for batch in pool(self.recipe, self.tokenizer, index)[offset:]:
                if self.progress.tokens >= self.recipe.tokens:
                    return
                yield batch

    def save(self, path: Path) -> None:
        """Write a checkpoint; the rename is atomic, so a kill leaves the old one or the new one."""
        state = {
            "recipe": vars(self.recipe),
            "progress": vars(self.progress),
            "masters": {name: p.detach() for name, p in self.masters.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint.

        Raises:
            ValueError: The checkpoint belongs to another recipe.
        """
        state = torch.load(path, weights_only=True)
        if state["recipe"] != vars(self.recipe):
            raise ValueError(f"{path} was written by another recipe: {state['recipe']}; use another --run folder")
        self.progress = PretrainingState(**state["progress"])
        with torch.no_grad():
            for name, p in self.masters.items():
                p.copy_(state["masters"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._publish()

    def plain(self) -> LlamaForCausalLM:
        """Return an uncompiled float32 model with the bfloat16 weights that would be exported now."""
        model = LlamaForCausalLM(config(self.recipe, self.tokenizer))
        model.load_state_dict(self.model.state_dict())
        return model.eval()


def config(recipe: PretrainingRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Describe the stock Llama model of a recipe."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",  # faster than SDPA at these lengths on CPU
    )


def train(trainer: Pretrainer, run: Path, save_seconds: float = 120, score_tokens: int = 1_500_000) -> None:
    """Run to the end of the token budget, with checkpoints and a log of JSON lines in the run folder."""
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
    log, progress, saved = run / "log.jsonl", trainer.progress, time.monotonic()
    fit = {task: committed(task, "fit")[:40] for task in TASKS}
    next_score = (progress.tokens // score_tokens + 1) * score_tokens
    losses: list[float] = []
    for batch in trainer.batches():
        losses.append(trainer.step(batch))
        if progress.step % 20 == 0:
            _log(log, progress, loss=round(sum(losses) / len(losses), 4), rate=round(trainer.rate(), 4))
            losses.clear()
        if progress.tokens >= next_score:
            next_score += score_tokens
            _log(log, progress, fit_scores=scores(trainer.plain(), trainer.tokenizer, fit))
        if time.monotonic() - saved > save_seconds:
            trainer.save(checkpoint)
            saved = time.monotonic()
    trainer.save(checkpoint)


def _log(path: Path, progress: PretrainingState, **values: object) -> None:
    """Append one line."""
    line = {"step": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 1), **values}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def export(trainer: Pretrainer, run: Path, out: Path) -> None:
    """Write bfloat16 weights, configuration, tokenizer and the thinned log; score the fit split once more."""
    model = trainer.plain()
    final = scores(model, trainer.tokenizer, {task: committed(task, "fit")[:100] for task in TASKS})
    _log(run / "log.jsonl", trainer.progress, final_fit_scores=final)
    model.config._attn_implementation = "sdpa"
    model.generation_config.do_sample = False
    model.to(torch.bfloat16).save_pretrained(out)
    trainer.tokenizer.backend_tokenizer.no_padding()  # scoring left its padding switched on; don't save that
    trainer.tokenizer.save_pretrained(out)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    last = max(row["step"] for row in rows)
    kept = [row for row in rows if "loss" not in row or row["step"] % 100 == 0 or row["step"] >= last - 100]
    header = {"recipe": vars(trainer.recipe), "shares": SHARES, "late_shares": LATE_SHARES, "torch": torch.__version__}
    (out / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [header, *kept]))


def main() -> None:
    """Train one of the two models and export it."""
    parser = argparse.ArgumentParser(description="Train nano or nano-half.")
    parser.add_argument("--model", choices=LAYERS, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported model")
    parser.add_argument("--tokens", type=int, default=PretrainingRecipe.tokens)
    parser.add_argument("--muon-rate", type=float, default=PretrainingRecipe.muon_rate)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = PretrainingRecipe(layers=LAYERS[arguments.model], tokens=arguments.tokens, muon_rate=arguments.muon_rate)
    trainer = Pretrainer(recipe, tokenizers.build())
    train(trainer, arguments.run)
    export(trainer, arguments.run, arguments.out)


if __name__ == "__main__":
    main()
