"""A text ends at the first token after which it contains a stop, whatever its tokenizer: held against every prefix."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from dlbench.engine.stop_strings import Stopper

TEXTS = [
    "the cat sat on the mat.\n\nthe dog, the  cat and the end\n",
    "it's naïve, they've said: don't! café – 東京 日本 東",
    "Answer: 42\nQ: how many? A: the answer is a b c\n\n\n",
    "a an and the then there café naïve 東京 cat cats catalogue",
]
SPECIAL = ["<s>", "</s>", "<|im_end|>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
STOPS = [
    " ", "\n", "\n\n", " the", "the", "a", "é", "東", "京 ", ".", "?", "'", "n't", " .", "#", "##", "x'", "e,",
    "</s>", "<|im_end|>", "<|im_end|>\n", "\n</s>", "t</s>", "</s>\n", "cat</s>the", "catthe", ">", "<", "|", "\ufffd",
    "the cat sat on the mat.\n\nthe dog", "\u00e9 \u6771",
]  # fmt: skip


def bpe(decoder, *, fallback=False, split=None):
    inner = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<s>" if fallback else None))
    alphabet = []
    if split is None:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        inner.pre_tokenizer = split
    known = BYTES if fallback else []
    trainer = trainers.BpeTrainer(
        vocab_size=360 + len(known), special_tokens=[*SPECIAL, *known], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXTS * 3, trainer)
    inner.decoder = decoder
    return inner


def pieces(trainer, model, decoder, split):
    inner = Tokenizer(model)
    inner.pre_tokenizer = split
    inner.train_from_iterator(TEXTS * 3, trainer)
    inner.decoder = decoder
    return inner


def llama_like(strip=True):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if strip else [])])


def word_pieces(cleanup):
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=[*SPECIAL, "[UNK]"], show_progress=False)
    split = pre_tokenizers.BertPreTokenizer()
    return pieces(trainer, models.WordPiece(unk_token="[UNK]"), decoders.WordPiece("##", cleanup), split)


def unigrams():
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=SPECIAL, unk_token="<s>", show_progress=False)
    return pieces(trainer, models.Unigram(), decoders.Metaspace(), pre_tokenizers.Metaspace())


def words():
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    return pieces(trainer, models.WordLevel(unk_token="<s>"), None, pre_tokenizers.Whitespace())


def marked_ends():
    inner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.decoder = decoders.BPEDecoder("</w>")
    return inner


KINDS = {
    "bytes": lambda: (bpe(decoders.ByteLevel()), True, {}),
    "metaspace": lambda: (bpe(decoders.Metaspace(), split=pre_tokenizers.Metaspace()), True, {}),
    "llama": lambda: (bpe(llama_like(), fallback=True, split=pre_tokenizers.Metaspace()), True, {}),
    "gemma": lambda: (bpe(llama_like(strip=False), fallback=True, split=pre_tokenizers.Metaspace()), True, {}),
    "word-pieces": lambda: (word_pieces(cleanup=False), True, {}),
    "word-pieces-cleaned": lambda: (word_pieces(cleanup=True), True, {}),
    "unigrams": lambda: (unigrams(), True, {}),
    "unigrams-cleaned": lambda: (unigrams(), False, {"clean_up_tokenization_spaces": True}),
    "word-pieces-cleaned-twice": lambda: (word_pieces(cleanup=True), False, {"clean_up_tokenization_spaces": True}),
    "bytes-not-cleaned": lambda: (bpe(decoders.ByteLevel()), True, {"clean_up_tokenization_spaces": True}),
    "words": lambda: (words(), True, {}),
    "words-cleaned": lambda: (words(), False, {"clean_up_tokenization_spaces": True}),
    "marked-ends": lambda: (marked_ends(), False, {}),
}
"""A tokenizer, whether its tokens are known to be decoded one by one, and more of its settings."""


@cache
def made(kind):
    inner, one_by_one, options = KINDS[kind]()
    options = {"clean_up_tokenization_spaces": False, **options}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **options)
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<tool>", special=False)])
    stopper = Stopper(tokenizer)
    assert (stopper._anchor is not None) == one_by_one
    return tokenizer, stopper


def first_of_prefixes(tokenizer, tokens, stops):
    for count in range(1, len(tokens) + 1):
        texts = [tokenizer.decode(tokens[:count], skip_special_tokens=skip) for skip in (True, False)]
        if any(stop in text for stop in stops for text in texts):
            return count
    return None


def first_hit(stopper, tokens, stops):
    return next((count for count in range(1, len(tokens) + 1) if stopper.hit(tokens[:count], stops)), None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_any_tokens_and_any_stops(kind, data):
    tokenizer, stopper = made(kind)
    texts = st.sampled_from(TEXTS).map(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    special = tokenizer.convert_tokens_to_ids([*SPECIAL, "<tool>"])
    some = st.one_of(st.integers(0, len(tokenizer) - 1), st.sampled_from(special))
    parts = st.one_of(st.lists(some, min_size=1, max_size=6), texts.map(lambda ids: ids[:12]))
    tokens = [token for part in data.draw(st.lists(parts, min_size=1, max_size=4)) for token in part]
    own = tokenizer.decode(tokens, skip_special_tokens=data.draw(st.booleans()))
    start = data.draw(st.integers(0, max(0, len(own) - 1)))
    cut = own[start : start + data.draw(st.integers(1, 9))]
    stops = tuple(filter(None, (*data.draw(st.lists(st.sampled_from(STOPS), max_size=2)), cut)))
    assert first_hit(stopper, tokens, stops) == (first_of_prefixes(tokenizer, tokens, stops) if stops else None)


@pytest.mark.parametrize("kind", KINDS)
def test_what_tasks_stop_at(kind):
    tokenizer, stopper = made(kind)
    end, other = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    tail = tokenizer("\nthe cat", add_special_tokens=False)["input_ids"]
    for text in TEXTS[:3]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:25]
        for tokens in ([*ids, end, *tail], [*ids[:5], other, *tail, *ids[5:]], [other, *ids]):
            for stop in STOPS:
                assert first_hit(stopper, tokens, (stop,)) == first_of_prefixes(tokenizer, tokens, (stop,))


def test_a_space_in_a_sentencepiece_text_stops_at_once():
    """It stands before the second word; alone, that token has none."""
    tokenizer, stopper = made("llama")
    ids = tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    second = next(i for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids)) if i and token.startswith("▁"))
    assert " " not in tokenizer.decode([ids[second]]) and first_hit(stopper, ids, (" ",)) == second + 1


def test_special_tokens_stop_and_are_not_in_the_text():
    tokenizer, stopper = made("bytes")
    ids, break_ = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the cat", "\n"))
    other = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert other != tokenizer.eos_token_id
    assert first_hit(stopper, [*ids, other, *break_, *ids], ("<|im_end|>",)) == len(ids) + 1
    assert first_hit(stopper, [*ids, other, *break_, *ids], ("<|im_end|>\n",)) == len(ids) + 2
    assert first_hit(stopper, [*ids, other, *break_, *ids], ("cat<|im_end|>",)) == len(ids) + 1
    assert first_hit(stopper, [*ids, *ids], ("<|im_end|>",)) is None


@pytest.mark.parametrize("kind", ["bytes", "llama", "word-pieces"])
def test_a_long_text_is_not_decoded_again_and_again(kind, monkeypatch):
    """Every token may complete the stop, none does: what is decoded grows with the length, not with its square."""
    tokenizer, _ = made(kind)
    stopper, decoded = Stopper(tokenizer, ["</s>"]), []
    decode = type(tokenizer).decode
    monkeypatch.setattr(
        tokenizer, "decode", lambda ids, **more: decoded.append(len(ids)) or decode(tokenizer, ids, **more)
    )
    ids = tokenizer("the cat " * 300, add_special_tokens=False)["input_ids"]
    assert len(ids) >= 600 and first_hit(stopper, ids, ("the  mat", "cat t-")) is None
    assert 600 < sum(decoded) < 40 * len(ids)


def test_no_tokenizer_no_stop():
    assert not Stopper(None).hit([1, 2], ("a",)) and not Stopper(made("bytes")[0]).hit([1, 2], ())
