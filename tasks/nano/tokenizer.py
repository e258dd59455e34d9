"""The nano tokenizer: byte-level BPE of 1024 entries, digits one by one, one BOS in front."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .generate import TASKS, draw

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
VOCABULARY = 1024


def build(documents_per_task: int = 2000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on documents of the train split."""
    texts = [
        f"{document.input} {reference}"
        for task in TASKS
        for document in draw(task, "train", documents_per_task, seed)
        for reference in document.references[:2]
    ]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, raw.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        model_max_length=512,
        # The default tidies spaces before punctuation, which would change decoded text.
        clean_up_tokenization_spaces=False,
    )


def encode_example(tokenizer: PreTrainedTokenizerFast, prompt: str, target: str) -> tuple[list[int], int]:
    """Return the token ids of prompt, target and EOS, and the length of the prompt."""
    head = tokenizer(prompt)["input_ids"]
    tail = tokenizer(f" {target}", add_special_tokens=False)["input_ids"]
    return [*head, *tail, tokenizer.eos_token_id], len(head)


def load(folder: Path) -> PreTrainedTokenizerFast:
    """Load a saved tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
