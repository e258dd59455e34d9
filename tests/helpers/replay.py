"""The reference for cached decoding: a whole text forwarded at once, without a cache, under recorded decisions."""

from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from inspect import signature

import torch
from transformers.cache_utils import DynamicCache

from dlbench.engine import Engine, Request
from dlbench.engine.decoding import Decoding
from dlbench.method import Action, Method, Route
from dlbench.models.exit_head import exit_head
from dlbench.models.families import resolve


class Recorded(Method):
    """Passes another method's answers on and notes what each token did."""

    def __init__(self, inner):
        self.inner = inner
        self.kv, self.uses_future = inner.kv, inner.uses_future
        self.codes = {}
        """(row, step) -> the code of each layer that was asked about, in order."""
        self.scales = {}
        """(row, step) -> what each of these layers was multiplied by."""

    @property
    def scope(self):
        return self.inner.scope

    def live(self, depth):
        return self.inner.live(depth)

    def reads(self, depth):
        return self.inner.reads(depth)

    def begin(self, prompt):
        return self.inner.begin(prompt)

    def bypass(self, layer):
        return self.inner.bypass(layer)

    def route(self, view):
        given = self.inner.route(view)
        answer = given.codes if isinstance(given, Route) else given
        rows = view.row.tolist()
        if isinstance(answer, torch.Tensor):
            codes = [int(a) * int(Action.RUN) if answer.dtype == torch.bool else int(a) for a in answer]
        else:
            codes = [int(answer)] * len(rows)
        for row, step, code in zip(rows, view.step.tolist(), codes, strict=True):
            self.codes.setdefault((row, step), []).append(code)
        scales = given.scale if isinstance(given, Route) and given.scale is not None else torch.ones(len(rows))
        for row, step, scale in zip(rows, view.step.tolist(), scales.tolist(), strict=True):
            self.scales.setdefault((row, step), []).append(scale)
        return given

    def of(self, noted, row, steps):
        """What was noted at each step of a row: what decides by sequence is asked at first only, and held to it."""
        found = []
        for step in range(steps):
            found.append(noted.get((row, step)) or (found[-1] if self.scope != "token" else noted[row, step]))
        return found

    def ran(self):
        """(row, step) -> the layers that ran, whole or in part."""
        return {at: [i for i, code in enumerate(codes) if code & Action.RUN] for at, codes in self.codes.items()}


@contextmanager
def watched_logits(monkeypatch):
    """Collect what the engine chooses tokens from: row -> logits per step."""
    seen = {}
    choose = Decoding._choose

    def watch(self, logits, rows, ahead=None):
        for row, values in zip(rows.tolist(), logits, strict=True):
            seen.setdefault(row, []).append(values.clone())
        return choose(self, logits, rows, ahead)

    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "_choose", watch)
        yield seen


@contextmanager
def shadowed(backbone, around):
    """Every layer called as around(index, layer, forward, hidden, **kwargs); its result alone goes on."""

    def call(index, layer, forward, hidden, *args, **kwargs):
        out = around(index, layer, forward, hidden, **dict(zip(names, args, strict=False)), **kwargs)
        return (out, None) if backbone.family.returns_tuple else out

    layers = list(backbone.layers)
    names = list(signature(layers[0].forward).parameters)[1:]
    try:
        for index, layer in enumerate(layers):
            layer.forward = partial(call, index, layer, layer.forward)
        yield
    finally:
        for layer in layers:
            del layer.forward


def state(out):
    return out[0] if isinstance(out, tuple) else out


def without(backbone, layer, part):
    """A copy of a layer whose attention or feed-forward has weights of zero, so that it adds nothing."""
    copied = deepcopy(layer)
    vars(copied).pop("forward", None)
    family = backbone.family
    for path in (family.attention,) if part == Action.ATTN else family.mlp:
        for parameter in resolve(copied, path).parameters():
            parameter.data.zero_()
    return copied


def hide(mask, gone, window, additive, dtype):
    """A layer's mask over a whole text, without the keys that are gone: a token still sees itself."""
    n = len(gone)
    ones = torch.ones(n, n, dtype=torch.bool)
    seen = ones.tril() if window is None else ones.tril().triu(1 - window)
    seen = seen & (~gone[None] | torch.eye(n, dtype=torch.bool))
    if mask is not None and mask.dtype != torch.bool:
        return mask.masked_fill(~seen, torch.finfo(mask.dtype).min)
    if mask is None and additive:
        return torch.zeros(n, n, dtype=dtype)[None, None].masked_fill(~seen, torch.finfo(dtype).min)
    return seen[None, None] if mask is None else mask & seen


def replay(backbone, prompt, tokens, codes, kv="project", scales=None, bypass=lambda layer: None):
    """Logits that choose each token of `tokens`: [len(tokens), vocabulary].

    Args:
        backbone: the model.
        prompt: its positions run every layer.
        tokens: new tokens; all but the last are forwarded.
        codes: of each decode step, the codes of the layers that were asked about; nothing runs after them.
        kv: what becomes of the keys and values of skipped tokens.
        scales: of each decode step, what each layer adds is multiplied by.
        bypass: layer -> what tokens that skip it go through instead, or None.
    """
    text = [*prompt, *tokens[:-1]]
    depth = backbone.depth
    full = [int(Action.RUN)] * depth
    plan = torch.tensor([full] * len(prompt) + [[c & Action.RUN for c in (*step, *full)][:depth] for step in codes])
    for row, step in enumerate(codes, len(prompt)):
        plan[row, len(step) :] = 0
    if kv == "recompute":
        return replay_exits(backbone, text, plan)[len(prompt) - 1 :]
    stock = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=backbone.model.config).layers]
    windows = stock if len(stock) == depth else [None] * depth
    additive = backbone.model.config._attn_implementation != "sdpa"

    scale = torch.ones(len(text), depth, dtype=torch.float64)
    awake = torch.zeros(len(text), depth, dtype=torch.bool)  # decode steps that were asked about the layer and stayed
    for row, step in enumerate(codes, len(prompt)):
        awake[row, : len(step)] = torch.tensor([c != Action.EXIT for c in step], dtype=torch.bool)
        if scales is not None:
            scale[row, : len(step)] = torch.tensor(scales[row - len(prompt)], dtype=torch.float64)

    def around(index, layer, forward, hidden, **kwargs):
        code = plan[:, index]
        if kv == "evict":
            gone = (code & Action.ATTN) == 0
            kwargs["attention_mask"] = hide(kwargs["attention_mask"], gone, windows[index], additive, hidden.dtype)
        ran = hidden + scale[:, index][None, :, None].to(hidden) * (state(forward(hidden, **kwargs)) - hidden)
        out = torch.where((code == Action.RUN)[None, :, None], ran, hidden)
        if (module := bypass(index)) is not None:
            passing = awake[:, index] & (code == Action.SKIP)
            added = scale[:, index][None, :, None].to(hidden) * module(hidden.float()).to(hidden)
            out = torch.where(passing[None, :, None], hidden + added, out)
        for part, left_out in ((Action.ATTN, Action.MLP), (Action.MLP, Action.ATTN)):
            if (code == part).any():
                half = state(without(backbone, layer, left_out)(hidden, **kwargs))
                out = torch.where((code == part)[None, :, None], half, out)
        return out

    with shadowed(backbone, around), torch.inference_mode():
        return backbone.model(input_ids=torch.tensor([text]), use_cache=False).logits[0][len(prompt) - 1 :]


def replay_exits(backbone, text, plan):
    """Exits that leave every key and value as at full depth: the exit head on the states of a full forward."""
    states = []

    def around(index, layer, forward, hidden, **kwargs):
        states.append(hidden)
        return state(forward(hidden, **kwargs))

    with shadowed(backbone, around), torch.inference_mode():
        logits = backbone.model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
        for position, codes in enumerate(plan.tolist()):
            if 0 in codes:
                logits[position] = exit_head(backbone, states[codes.index(0)][:, position])[0]
    return logits


def check(monkeypatch, backbone, method, prompts, limits, *, seed=0, tolerance, kv=None, kernels="stock", slots=None):
    """Decode, and hold every logit against the replay; returns the generations and the layers that ran.

    Args:
        monkeypatch: pytest's.
        backbone: the model.
        method: routes the decoding.
        prompts: token ids.
        limits: most new tokens of each.
        seed: of the method's noise.
        tolerance: largest difference, as a share of the largest logit.
        kv: policy; None for the method's own.
        kernels: of the engine.
        slots: rows decoded together; None for all.
    """
    recorded = Recorded(method)
    engine = Engine(backbone, kernels=kernels)
    assert kernels == "stock" or engine.kernels == "fused", engine.kernels_note
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]
    wave = engine.prefill(requests, slots=slots, reads=method.reads(backbone.depth))
    with watched_logits(monkeypatch) as seen:
        written = wave.decode(recorded, seed=seed, kv=kv)
    for row, (prompt, generation) in enumerate(zip(prompts, written, strict=True)):
        codes = recorded.of(recorded.codes, row, len(generation.tokens) - 1)
        routes = [route for route, times in generation.routes for _ in range(times)]
        ran = [[c & Action.RUN for c in step] for step in codes]  # nothing runs after the layers that were asked about
        assert [list(r[: len(c)]) for r, c in zip(routes, ran, strict=True)] == ran
        assert not any(any(r[len(c) :]) for r, c in zip(routes, ran, strict=True))
        if kv != "recompute" and not {Action.ATTN, Action.MLP} & {c for step in codes for c in step}:
            assert generation.layers == [sum(c == Action.RUN for c in step) for step in codes]
        scales = recorded.of(recorded.scales, row, len(generation.tokens) - 1)
        expected = replay(backbone, prompt, generation.tokens, codes, kv or method.kv[0], scales, method.bypass)
        got = torch.stack(seen[row])
        assert got.shape == expected.shape
        scale = float(expected.abs().max())
        assert bool(torch.isfinite(got).all())
        assert float((got - expected).abs().max()) < tolerance * scale
        chosen = expected.gather(1, torch.tensor(generation.tokens)[:, None])[:, 0]
        assert bool((expected.max(-1).values - chosen < tolerance * scale).all())
    return written, recorded.ran()
