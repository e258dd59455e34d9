"""Under teacher forcing each text has the rotary angles of its decoding, in whatever batch it stands."""

import one_by_one
import pytest
import tiny_models
import torch
import toy_task
from test_fit import constant
from tiny_models import ORIGINAL
from torch.nn.functional import cross_entropy

from dlbench.fit import FitProbe
from dlbench.fit.router_training import SoftGates
from dlbench.models.backbone import wrap
from dlbench.prompting.teacher_forcing import Batch, Example, Parted
from dlbench.train.objective import Objective
from dlbench.train.recipes import Sorted

DEPTH = 5
LENGTHS = [(4, 5), (ORIGINAL - 3, 8), (ORIGINAL, 4), (ORIGINAL + 3, 6), (40, 3)]
"""Prompts and targets: the second and the third outgrow the original context."""
FAMILIES = ("phi3-longrope", "llama-longrope", "gemma3-longrope", "qwen2-dynamic")


def examples():
    random = torch.Generator().manual_seed(1)
    draw = [torch.randint(2, tiny_models.VOCABULARY, (p + t,), generator=random).tolist() for p, t in LENGTHS]
    return [Example(ids[:p], ids[p:]) for ids, (p, _) in zip(draw, LENGTHS, strict=True)]


def decoded(backbone, text):
    """Logits that predict each target, by stock forwards as in decoding: the prompt, then token by token."""
    model = one_by_one.fresh(backbone.model, backbone.family.layers)
    read = len(text.prompt) + len(text.target) - 1
    with torch.no_grad():
        if backbone.kind == "phi3" and len(text.prompt) <= ORIGINAL < read:  # all as it is when it is read again
            ids = torch.tensor([text.prompt + text.target])
            return model(ids, use_cache=False).logits[0, len(text.prompt) - 1 : -1]
        out = model(torch.tensor([text.prompt]), use_cache=True)
        found = [out.logits[0, -1]]
        for token in text.target[:-1]:
            out = model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
            found.append(out.logits[0, -1])
    return torch.stack(found)


@pytest.fixture(params=FAMILIES)
def backbone(request):
    made = wrap(tiny_models.build(request.param, depth=DEPTH), toy_task.Characters())
    with torch.no_grad():
        made.model(torch.arange(2, 58)[None])  # what it has met must not matter
    return made


def test_whole_texts(backbone):
    probe = FitProbe(backbone, toy_task.Scored(), [], [])
    with torch.no_grad():
        logits = probe.references.forward(Batch.of(examples()))
    for row, text in enumerate(examples()):
        places = slice(len(text.prompt) - 1, len(text.prompt) + len(text.target) - 1)
        torch.testing.assert_close(logits[row, places], decoded(backbone, text), rtol=1e-3, atol=1e-3)
    assert "forward" not in vars(one_by_one.rotary(backbone))


def test_soft_gates(backbone):
    gates = SoftGates(backbone, constant([9.0] * 3), Parted.of(examples()), noise=False)
    with torch.no_grad():
        logits = gates.logits()
    for row, text in enumerate(examples()):
        steps = len(text.target) - 1
        torch.testing.assert_close(logits[row, :steps], decoded(backbone, text)[1:], rtol=1e-3, atol=1e-3)


def test_training(backbone):
    found = Objective(backbone, Sorted((DEPTH,)))(Batch.of(examples()), 0)
    losses = [cross_entropy(decoded(backbone, e), torch.tensor(e.target), reduction="sum") for e in examples()]
    assert found[DEPTH].item() == pytest.approx(sum(losses).item(), rel=1e-4)
    found[DEPTH].backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in backbone.model.parameters())
