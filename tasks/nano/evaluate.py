"""Score a nano model on its tasks, at full depth and with layers deleted uniformly.

`python -m dlbench.tasks.nano.evaluate --model FOLDER [--limit 100] [--out curve.json]`

Deleting layers of the stock model is the `prompt = routed` setting: prompt and continuation both
pass through the kept layers only. Nothing here uses the dlbench engine.
"""

import argparse
import copy
import json
import re
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_chrf
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .documents import Document
from .generate import TASKS, committed
from .tokenizer import load

NEW_TOKENS = 96
_ROUGE = RougeScorer(["rougeL"], use_stemmer=False)


def score(task: str, document: Document, output: str) -> float:
    """Return the task's primary metric for one output, between 0 and 1."""
    if task == "nano_math":
        wanted, found = (re.search(r"answer: (\d+)", text) for text in (document.references[0], output))
        return float(bool(wanted and found and wanted[1] == found[1]))
    if task == "nano_translate":
        return float(sentence_chrf(output, list(document.references)).score) / 100
    return max(float(_ROUGE.score(reference, output)["rougeL"].fmeasure) for reference in document.references)


def write(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], batch_size: int = 64
) -> list[str]:
    """Continue prompts greedily with the stock `generate`; left-padded, similar lengths together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    outputs = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            ids = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            outputs[i] = text.strip()
    return outputs


def scores(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: dict[str, list[Document]]
) -> dict[str, float]:
    """Return the mean primary metric of every task; beside translation's chrF its exact match."""
    means: dict[str, float] = {}
    for task, wanted in documents.items():
        outputs = write(model, tokenizer, [document.input for document in wanted])
        pairs = list(zip(wanted, outputs, strict=True))
        means[task] = sum(score(task, document, output) for document, output in pairs) / len(pairs)
        if task == "nano_translate":
            means["nano_translate_exact"] = sum(output in document.references for document, output in pairs) / len(
                pairs
            )
    return {task: round(mean, 4) for task, mean in means.items()}


def kept_layers(depth: int, keep: int) -> list[int]:
    """Spread the kept layers evenly, first and last included."""
    if keep == 1:
        return [0]
    return [round(i * (depth - 1) / (keep - 1)) for i in range(keep)]


def shortened(model: LlamaForCausalLM, layers: list[int]) -> LlamaForCausalLM:
    """Return a copy of the model with only these layers."""
    short = copy.deepcopy(model)
    short.model.layers = torch.nn.ModuleList(short.model.layers[i] for i in layers)
    for i, layer in enumerate(short.model.layers):
        layer.self_attn.layer_idx = i  # the cache is indexed by it
    short.config.num_hidden_layers = len(layers)
    return short


def main() -> None:
    """Print the table of scores by depth and write it as JSON."""
    parser = argparse.ArgumentParser(description="Score a nano model at several depths.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="documents per task (default: all)")
    parser.add_argument("--keep", type=int, nargs="*", help="numbers of layers to keep (default: an even ladder)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", default="test", choices=("fit", "test"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = load(arguments.model)
    model = LlamaForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    documents = {task: committed(task, arguments.split)[: arguments.limit] for task in TASKS}
    depth = model.config.num_hidden_layers
    rows = []
    for keep in arguments.keep or [depth * part // 8 for part in (8, 7, 6, 5, 4, 3, 2)]:
        layers = kept_layers(depth, keep)
        means = scores(shortened(model, layers), tokenizer, documents)
        rows.append({"keep": keep, "layers": layers, **means})
        print(f"{keep:>3} of {depth}  " + "  ".join(f"{task} {mean:.3f}" for task, mean in means.items()), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
