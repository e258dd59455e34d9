"""What a fit takes and reads: its bound in tokens, and prompts and measures that are computed once."""

import pytest
import tiny_models
import torch
import toy_task

from dlbench.data.document import Document
from dlbench.fit import FitProbe, Readings, bounded
from dlbench.fit.kept_prompts import KeptPrompts
from dlbench.fit.references import BATCH
from dlbench.method import LayerSet
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.llm_drop import LlmDrop
from dlbench.methods.mind_skip import MindSkip
from dlbench.models.backbone import wrap
from dlbench.prompting.teacher_forcing import Parted, example, read_prompts

DEPTH = 5


@pytest.fixture(scope="module")
def backbone():
    return wrap(tiny_models.build("llama", depth=DEPTH), toy_task.Characters())


@pytest.fixture(scope="module")
def documents(backbone):
    return toy_task.documents(backbone.model, 10)


def probe_of(backbone, documents, **more):
    return FitProbe(backbone, toy_task.Scored(), documents, documents, **more)


def test_a_larger_bound_takes_what_a_smaller_one_takes(backbone):
    every = [Document(f"d{i}", "A" * (3 + i), ("B" * 4,), 4, (), i, None, "fit") for i in range(40)]
    size = {d.id: sum(map(len, example(backbone, d, 0))) for d in every}
    taken: list[str] = []
    for bound in (1, 50, 200, 400, sum(size.values())):
        found = [d.id for d in bounded(backbone, every, bound)]
        assert set(taken) <= set(found) and (sum(size[i] for i in found) <= bound or len(found) == 1)
        assert found == [d.id for d in every if d.id in found]
        taken = found
    assert taken == [d.id for d in bounded(backbone, every, None)] == [d.id for d in every]
    assert 1 < len(bounded(backbone, every, 200)) < 40
    assert [d.id for d in bounded(backbone, every[::-1], 200)] == [d.id for d in bounded(backbone, every, 200)][::-1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "falcon-7b", "opt"])
def test_kept_prompts_are_those_that_are_read_with_the_batch(family):
    """Keys and values at their places after the padding, whichever batches they were read in."""
    model = tiny_models.build(family, depth=DEPTH)
    other = wrap(model, toy_task.Characters())
    examples = [example(other, d, 0) for d in toy_task.documents(model, 6)]
    kept = KeptPrompts()
    first = kept.of(other, examples[:2])[2]
    past, _, more = kept.of(other, examples[::-1])
    assert first + more == sum(len(e.prompt) for e in examples)
    batch = Parted.of(examples[::-1])
    with torch.no_grad():
        expected = read_prompts(other, batch, torch.no_grad())
    there = batch.prompt_mask.bool()
    for layer, wanted in zip(past.layers, expected.layers, strict=True):
        for found, right in ((layer.keys, wanted.keys), (layer.values, wanted.values)):
            rows = found.transpose(1, 2)[there], right.transpose(1, 2)[there]
            torch.testing.assert_close(*rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("router", [HiddenRouter, MindSkip, FlexiDepth], ids=lambda cls: cls.__name__)
def test_training_after_kept_prompts_is_training(backbone, documents, monkeypatch, router):
    def losses(keeps):
        probe = probe_of(backbone, documents)
        with monkeypatch.context() as patch:
            patch.setattr(KeptPrompts, "can_keep", lambda *_: keeps)
            return probe.train(router(), steps=4, lr=1e-3, weight=1.0, noise=False), probe

    kept, with_kept = losses(True)
    read, without = losses(False)
    assert kept == pytest.approx(read, rel=1e-3)
    prompts = sum(len(backbone.encode(d.prompt)) for d in documents)
    assert with_kept.tokens < without.tokens
    assert len(with_kept.readings.prompts) == 10 and with_kept.tokens > prompts
    again = probe_of(backbone, documents, readings=with_kept.readings)
    again.train(router(), steps=4, lr=1e-3, weight=1.0, noise=False)
    assert again.tokens == with_kept.tokens - prompts  # other fits of the run find them


def test_prompts_that_are_read_less_than_twice_are_not_kept(backbone, documents):
    """So fits on small splits, nano's among them, read as they did."""
    references = probe_of(backbone, documents).references
    examples = references.examples()
    assert not references.keeps(examples, 2 * len(examples) - 1) and references.keeps(examples, 2 * len(examples))
    assert min(BATCH, len(examples)) == BATCH


def test_plans_are_scored_after_prompts_that_are_read_once(backbone, documents, monkeypatch):
    probe = probe_of(backbone, documents)
    once = [probe.nll(LayerSet(layers)) for layers in ((0, 1, 4), (0, 2, 4))]
    assert probe.tokens == sum(len(backbone.encode(d.prompt)) for d in documents) + 2 * sum(
        len(example(backbone, d, 0).target) - 1 for d in documents
    )
    monkeypatch.setattr(KeptPrompts, "can_keep", lambda *_: False)
    other = probe_of(backbone, documents)
    assert once == pytest.approx([other.nll(LayerSet(layers)) for layers in ((0, 1, 4), (0, 2, 4))], rel=1e-5)


def test_one_reading_gives_the_similarity_of_both_halves(backbone, documents):
    readings = Readings()
    probe = probe_of(backbone, documents, readings=readings)
    LlmDrop().fit(probe)
    assert probe.tokens == sum(len(e.prompt) + len(e.target) for e in probe.references.examples())
    other = probe_of(backbone, documents, readings=readings)
    LlmDrop().fit(other)
    assert other.tokens == 0
