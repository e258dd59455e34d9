"""Noise and sampling: keyed by what they are for, the same whatever the batch, and fair."""

import numpy as np
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from dlbench.engine import Engine, Request
from dlbench.engine.keyed_rng import key_of, uniform
from dlbench.models.backbone import wrap

DEPTH = 3


def engine():
    return Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))


def tokens(generations):
    return [g.tokens for g in generations]


def test_a_stream_is_deterministic_and_does_not_see_the_batch():
    prompts = tiny_models.prompts(7)
    limits = [8, 3, 8, 1, 5, 8, 2]  # rows leave, and those that stay keep their noise
    requests = [Request(f"d{i}", p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]
    wave = engine().prefill(requests)
    sampled = tokens(wave.decode(sample=1))
    assert tokens(wave.decode(sample=1)) == sampled
    assert [engine().prefill([r]).decode(sample=1)[0].tokens for r in requests] == sampled
    assert tokens(engine().prefill(requests[::-1]).decode(sample=1)) == sampled[::-1]


def test_streams_and_documents_differ():
    prompt = tiny_models.prompts(1)[0]
    wave = engine().prefill([Request(f"d{i}", prompt, 8) for i in range(4)])
    texts = [tuple(t) for stream in (None, 0, 1, 2) for t in tokens(wave.decode(sample=stream))]
    assert len(set(texts)) == 1 + 3 * 4  # greedily all four documents write the same


def test_tokens_come_as_often_as_the_model_says():
    count, prompt = 3000, (5, 9)
    model = tiny_models.build("llama", depth=DEPTH)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.6)  # a distribution over several tokens
    wave = Engine(wrap(model)).prefill([Request(str(i), prompt, 1) for i in range(count)])
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy() * count
    assert (expected > 100).sum() > 4
    for stream in (1, 2):
        found = np.bincount([g.tokens[0] for g in wave.decode(sample=stream)], minlength=tiny_models.VOCABULARY)
        common = expected > 20
        groups = [*found[common], found[~common].sum()], [*expected[common], expected[~common].sum()]
        assert chisquare(*groups).pvalue > 1e-4


def test_noise_is_uniform_and_its_counters_matter():
    keys = np.array([key_of(str(i)) for i in range(500)], dtype=np.uint64)
    at = {
        counters: uniform(keys, 8, *counters)
        for counters in ((0, 1, 2), (0, 1, 3), (0, 2, 1), (1, 1, 2), (0, 1), (0, 1, -1))
    }
    for numbers in at.values():
        assert numbers.shape == (500, 8) and numbers.min() >= 0 and numbers.max() < 1
        assert kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    flat = np.stack([numbers.ravel() for numbers in at.values()])
    correlation = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(correlation).max() < 0.08  # 4000 numbers: five standard deviations
    columns = np.corrcoef(at[0, 1, 2].T) - np.eye(8)
    assert np.abs(columns).max() < 0.25


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(-1, 2**63),
    st.integers(-1, 99),
)
def test_noise_does_not_see_its_neighbours(names, count, seed, step):
    keys = np.array([key_of(name) for name in names], dtype=np.uint64)
    together = uniform(keys, count, seed, step)
    for i, key in enumerate(keys):
        assert (uniform(np.array([key]), count, seed, step)[0] == together[i]).all()
        assert (uniform(keys[i : i + 1], count + 3, seed, step)[0, :count] == together[i]).all()
