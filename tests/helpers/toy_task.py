"""A toy task for tests: texts of single characters, a tokenizer for them, and documents that a model continues."""

import tiny_models
import torch

from dlbench.data.document import Document


class Characters:
    """One token per character: token 0 is the space, token i the i-th character after it."""

    bos_token_id = None
    eos_token_id = None

    def __call__(self, text):
        return {"input_ids": [ord(c) - 32 for c in text]}

    def __len__(self):
        return tiny_models.VOCABULARY

    def decode(self, tokens, skip_special_tokens=False):
        return "".join(chr(32 + t) for t in tokens)


class Scored:
    """Scores an output by the share of the reference's characters that stand at their place."""

    metric = "same"

    def score(self, document, output):
        (reference,) = document.references
        same = sum(a == b for a, b in zip(reference, output, strict=False))
        return {"same": same / max(1, len(reference))}


def documents(model, count, *, limit=8, split="fit"):
    """Prompts of random characters; the reference of each is what the model itself writes after a space."""
    tokenizer, found = Characters(), []
    for index, ids in enumerate(tiny_models.prompts(count, seed=7)):
        prompt = tokenizer.decode([2 + i % 58 for i in ids])
        start = tokenizer(prompt + " ")["input_ids"]
        written = model.generate(
            torch.tensor([start]), attention_mask=torch.ones(1, len(start)), do_sample=False, max_new_tokens=limit
        )
        reference = tokenizer.decode(written[0, len(start) :].tolist())
        found.append(Document(f"{split}-{index}", prompt, (reference,), limit, (), index, None, split))
    return found
