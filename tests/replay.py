"""The reference for cached decoding: a whole text forwarded at once, without a cache, under recorded decisions."""

from contextlib import contextmanager
from functools import partial

import torch

from dlbench.engine import Engine, Request
from dlbench.engine.decode import Wave
from dlbench.method import Action, Method


class Recorded(Method):
    """Passes another method's answers on and notes which layers each token ran."""

    def __init__(self, inner):
        self.inner = inner
        self.runs = {}
        """(row, step) -> executed layers, in order."""

    @property
    def scope(self):
        return self.inner.scope

    def live(self, depth):
        return self.inner.live(depth)

    def route(self, view):
        answer = self.inner.route(view)
        rows = view.row.tolist()
        if isinstance(answer, torch.Tensor):
            codes = [int(a) * int(Action.RUN) if answer.dtype == torch.bool else int(a) for a in answer]
        else:
            codes = [int(answer)] * len(rows)
        for row, code in zip(rows, codes, strict=True):
            ran = self.runs.setdefault((row, view.step), [])
            if code == Action.RUN:
                ran.append(view.layer)
        return answer


@contextmanager
def watched_logits(monkeypatch):
    """Collect what the engine chooses tokens from: row -> logits per step."""
    seen = {}
    choose = Wave._choose

    def watch(self, logits, order, *rest):
        for row, values in zip(order.tolist(), logits, strict=True):
            seen.setdefault(row, []).append(values.clone())
        return choose(self, logits, order, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Wave, "_choose", watch)
        yield seen


def replay(backbone, prompt, tokens, runs):
    """Logits that choose each token of `tokens`: [len(tokens), vocabulary].

    Args:
        backbone: the model.
        prompt: its positions run every layer.
        tokens: new tokens; all but the last are forwarded.
        runs: executed layers of each decode step.
    """
    text = [*prompt, *tokens[:-1]]
    patched = []

    def layer_of(forward, run, hidden, *args, **kwargs):
        return torch.where(run[None, :, None], forward(hidden, *args, **kwargs), hidden)

    try:
        for index, layer in enumerate(backbone.layers):
            run = torch.tensor([True] * len(prompt) + [index in ran for ran in runs])
            layer.forward = partial(layer_of, layer.forward, run)
            patched.append(layer)
        with torch.inference_mode():
            logits = backbone.model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
    finally:
        for layer in patched:
            del layer.forward
    return logits[len(prompt) - 1 :]


def check(monkeypatch, backbone, method, prompts, limits, *, seed=0, tolerance):
    """Decode, and hold every logit against the replay; returns the generations and the decisions.

    Args:
        monkeypatch: pytest's.
        backbone: the model.
        method: routes the decoding.
        prompts: token ids.
        limits: most new tokens of each.
        seed: of the method's noise.
        tolerance: largest difference, as a share of the largest logit.
    """
    recorded = Recorded(method)
    wave = Engine(backbone).prefill(
        [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]
    )
    with watched_logits(monkeypatch) as seen:
        written = wave.decode(recorded, seed=seed)
    for row, (prompt, generation) in enumerate(zip(prompts, written, strict=True)):
        runs = [recorded.runs[row, step] for step in range(len(generation.tokens) - 1)]
        assert generation.layers == [len(ran) for ran in runs]
        expected = replay(backbone, prompt, generation.tokens, runs)
        got = torch.stack(seen[row])
        assert got.shape == expected.shape
        scale = float(expected.abs().max())
        assert float((got - expected).abs().max()) < tolerance * scale
        chosen = expected.gather(1, torch.tensor(generation.tokens)[:, None])[:, 0]
        assert bool((expected.max(-1).values - chosen < tolerance * scale).all())
    return written, recorded.runs
