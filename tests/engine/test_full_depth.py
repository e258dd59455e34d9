"""Full depth through the engine is `model.generate(do_sample=False)` of the unmodified model, token for token."""

from collections import Counter

import pytest
import tiny_models
import torch

from dlbench.engine import Engine, Request
from dlbench.engine.stop_strings import Stopper
from dlbench.methods.full import Full
from dlbench.models.backbone import wrap

LIMIT = 10
EACH = [(family, attention) for family in tiny_models.FAMILIES for attention in ("sdpa", "eager")]


def generate(model, prompts, eos=None):
    """New tokens of stock generation, left-padded, up to and with the end token."""
    columns = max(map(len, prompts))
    ids = torch.tensor([[0] * (columns - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (columns - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT, eos_token_id=eos, pad_token_id=0
    )
    found = []
    for row in out[:, columns:].tolist():
        ends = [i for i, token in enumerate(row) if token in (eos or [])]
        found.append(row[: ends[0] + 1] if ends else row)
    return found


def decode(engine, prompts, method=None, limits=None):
    requests = [Request(str(i), p, LIMIT if limits is None else limits[i]) for i, p in enumerate(prompts)]
    return engine.prefill(requests).decode(method)


@pytest.mark.parametrize(("family", "attention"), EACH)
@pytest.mark.parametrize("batch", [1, 16])
def test_equals_stock_generation(family, attention, batch):
    backbone = tiny_models.backbone(family, attention=attention)
    prompts = tiny_models.prompts(batch)
    expected = generate(backbone.model, prompts)
    written = decode(Engine(backbone), prompts)
    assert [g.tokens for g in written] == expected
    assert len({tuple(g.tokens) for g in written}) == batch  # the rows do differ
    assert all(g.layers == [5] * (LIMIT - 1) and not g.acted for g in written)


@pytest.mark.parametrize(("family", "attention"), EACH)
@pytest.mark.parametrize("batch", [1, 16])
def test_equals_stock_generation_with_end_tokens(family, attention, batch):
    model = tiny_models.build(family, attention=attention)
    prompts = tiny_models.prompts(batch)
    free = generate(model, prompts)
    # Two end tokens: one with which a row begins, and the one that most rows write.
    common = Counter(token for row in free for token in set(row[1:])).most_common(1)[0][0]
    model.generation_config.eos_token_id = eos = [free[0][0], common]
    expected = generate(model, prompts, eos)
    written = decode(Engine(wrap(model)), prompts)
    assert [g.tokens for g in written] == expected
    assert [g.layers for g in written] == [[5] * (len(tokens) - 1) for tokens in expected]
    if batch > 1:
        assert len({len(tokens) for tokens in expected}) > 2  # rows finish at different times


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_prompts_of_one_length_need_no_mask(family):
    backbone = tiny_models.backbone(family)
    prompts = [p[-2:] for p in tiny_models.prompts(6)]
    assert [g.tokens for g in decode(Engine(backbone), prompts)] == generate(backbone.model, prompts)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_row_has_its_own_limit(family):
    backbone = tiny_models.backbone(family)
    prompts = tiny_models.prompts(8)
    limits = [1, 9, 2, 10, 1, 5, 10, 3]
    expected = [tokens[:limit] for tokens, limit in zip(generate(backbone.model, prompts), limits, strict=True)]
    assert [g.tokens for g in decode(Engine(backbone), prompts, limits=limits)] == expected


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_gates_that_always_run_change_nothing(family):
    backbone = tiny_models.backbone(family)
    prompts = tiny_models.prompts(5)
    engine = Engine(backbone)
    wave = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(prompts)])
    plain, gated = wave.decode(None), wave.decode(Full())
    assert gated == plain
    assert [g.tokens for g in plain] == generate(backbone.model, prompts)


def test_stop_texts_end_a_row_and_are_counted():
    class Letters:
        """Writes token i as a letter, and nothing for the first 30."""

        def __len__(self):
            return tiny_models.VOCABULARY

        def decode(self, tokens, skip_special_tokens=False):
            return "".join(chr(65 + t - 30) if t >= 30 else "" for t in tokens)

    backbone = wrap(tiny_models.build("llama"), Letters())
    backbone.model.generation_config.eos_token_id = []
    (prompt,) = tiny_models.prompts(1)
    free = generate(backbone.model, [prompt])[0]
    text = Letters().decode(free)
    stop = text[2:4]
    request = Request("a", prompt, LIMIT, ("unseen", stop))
    (written,) = Engine(backbone).prefill([request]).decode()
    count = next(i for i in range(len(free)) if stop in Letters().decode(free[: i + 1])) + 1
    assert count < LIMIT and written.tokens == free[:count]


def test_a_stop_text_may_end_within_a_character():
    """A byte-level token that completes a character decodes, alone, to a replacement mark."""

    class Bytes:
        def __len__(self):
            return 4

        def decode(self, tokens, skip_special_tokens=False):
            return b"".join([b"x", b"\xc3", b"\xa9", b"\n"][t] for t in tokens).decode(errors="replace")

    stopper = Stopper(Bytes())
    assert not stopper.hit([0, 1], ("xé",)) and stopper.hit([0, 1, 2], ("xé",))
    assert not stopper.hit([0], ("\n",)) and stopper.hit([0, 3], ("\n", "é"))
