"""Decoding without prefill: our steps beside those of transformers' generate, and the speed-up by skipping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlbench.bench.clock import Stopwatch, Times, race
from dlbench.bench.models import Shape, random_llama, random_requests
from dlbench.bench.workbench import Workbench
from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.method import Action, Method, View
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import Backbone

UNIT = "ms/step"
MIXED = (1, 16)
"""Batch sizes at which skipping is measured."""
GENERATE, FULL = "generate", "dlbench"
_STOCK, _HALF, _PAID = "dlbench, stock layers", "every second layer", "even and odd in turns"
_STATIC, _SEQUENCE, _TOKEN, _DENSE = "static 50 %", "sequence 50 %", "token 50 %", "full at batch 8"


@dataclass
class EverySecond(Method):
    """Skip every second layer per token, without declaring that any layer never runs: keys and values are owed."""

    turns: bool = False
    """Whether odd and even layers are skipped in turns, so that the next step needs all owed keys and values."""

    def route(self, view: View) -> Action | Tensor:
        if self.turns:
            return (view.layer + view.step) % 2 == 0
        return Action.SKIP if view.layer % 2 else Action.RUN


class Generate:
    """transformers' own generate on prompts of one length: milliseconds per step, from the second forward on."""

    def __init__(self, backbone: Backbone, requests: Sequence[Request], watch: Stopwatch) -> None:
        self._model, self._watch = backbone.model, watch
        self._ids = torch.tensor([r.ids for r in requests], device=backbone.device)
        self._tokens = requests[0].limit
        self.written: list[list[int]] = []
        """New tokens of the latest run."""

    def __call__(self) -> float:
        forwards: list[float] = []

        def note(*_: Any) -> None:
            # Only the second forward's start is needed: waiting for the device at each would slow generate down.
            forwards.append(self._watch.now() if len(forwards) == 1 else 0.0)

        hook = self._model.register_forward_pre_hook(note)
        try:
            out = self._model.generate(
                input_ids=self._ids,
                attention_mask=torch.ones_like(self._ids),
                do_sample=False,
                max_new_tokens=self._tokens,
                pad_token_id=0,
            )
        finally:
            hook.remove()
        seconds = self._watch.now() - forwards[1]
        self.written = out[:, self._ids.shape[1] :].tolist()
        return 1e3 * seconds / (len(forwards) - 1)


def steps(generations: Sequence[Generation]) -> int:
    """Return the number of decode forwards of a batch."""
    return max(len(g.layers) for g in generations)


def step_ms(wave: Wave, method: Method | None, watch: Stopwatch) -> float:
    """Return the milliseconds per step of decoding a batch."""
    seconds, generations = watch.of(partial(wave.decode, method))
    return 1e3 * seconds / steps(generations)


def decode(bench: Workbench) -> None:
    """Time the narrow model beside generate, and with half of its layers skipped per token."""
    sizes, shape = bench.sizes, bench.sizes.narrow
    backbone = random_llama(shape, device=bench.device, dtype=bench.dtype)
    fast, stock = bench.engine(backbone), bench.engine(backbone, kernels="stock")
    for batch in (1, 16):
        requests = random_requests(batch, sizes.prompt, sizes.narrow_tokens, shape.vocabulary)
        generate = Generate(backbone, requests, bench.watch)
        wave, plain = fast.prefill(requests), stock.prefill(requests)
        contenders: dict[str, Callable[[], float]] = {
            GENERATE: generate,
            FULL: partial(step_ms, wave, None, bench.watch),
            _STOCK: partial(step_ms, plain, None, bench.watch),
            _HALF: partial(step_ms, wave, EverySecond(), bench.watch),
            _PAID: partial(step_ms, wave, EverySecond(turns=True), bench.watch),
        }
        times = _race(bench, "decode", shape, fast, batch, contenders, sizes.narrow_rounds)
        note_tokens(bench, str(shape), generate, {FULL: wave, _STOCK: plain})
        bench.ratio(f"decode_vs_generate_b{batch}", times.quotients(GENERATE, FULL), path_of(fast))
        bench.ratio(f"decode_stock_vs_generate_b{batch}", times.quotients(GENERATE, _STOCK), path_of(stock))
        bench.ratio(f"half_project_b{batch}", times.quotients(FULL, _HALF))
        bench.ratio(f"half_project_paid_b{batch}", times.quotients(FULL, _PAID))


def wide(bench: Workbench) -> None:
    """Time the wide model beside generate, and the realised speed-up of half of its layers, chosen in three ways."""
    sizes, shape = bench.sizes, bench.sizes.wide
    backbone = random_llama(shape, device=bench.device, dtype=bench.dtype)
    fast, metered = bench.engine(backbone), bench.engine(backbone, metered=True)
    limit = memory_bandwidth(bench)
    for batch in sorted({*MIXED, *sizes.wide_batches}):
        requests = random_requests(batch, sizes.prompt, sizes.wide_tokens, shape.vocabulary)
        wave = fast.prefill(requests)
        contenders: dict[str, Callable[[], float]] = {FULL: partial(step_ms, wave, None, bench.watch)}
        generate = Generate(backbone, requests, bench.watch)
        if batch in sizes.wide_batches:
            contenders = {GENERATE: generate, **contenders}
        if batch in MIXED:
            contenders |= {name: partial(step_ms, wave, method, bench.watch) for name, method in halves().items()}
        if batch == 16:
            contenders[_DENSE] = partial(step_ms, fast.prefill(requests[:8]), None, bench.watch)
        times = _race(bench, "wide", shape, fast, batch, contenders, sizes.wide_rounds)
        if batch in sizes.wide_batches:
            note_tokens(bench, str(shape), generate, {FULL: wave})
            bench.ratio(f"decode_vs_generate_wide_b{batch}", times.quotients(GENERATE, FULL), path_of(fast))
            moved = bytes_per_step(backbone, batch, sizes.prompt + sizes.wide_tokens // 2)
            shares = [moved / (1e6 * ms) / limit for ms in times.rounds[FULL]]
            bench.ratio(f"bandwidth_share_b{batch}", shares, f"{moved / 1e9:.2f} GB per step, limit {limit:.0f} GB/s")
        if batch in MIXED:
            _realised(bench, times, batch, metered.prefill(requests))
    bench.worse_of(
        "decode_vs_generate_wide", {f"decode_vs_generate_wide_b{b}": f"batch {b}" for b in sizes.wide_batches}
    )
    bench.worse_of("static50_vs_ideal", {f"static50_vs_ideal_b{b}": f"batch {b}" for b in MIXED})


def halves() -> dict[str, Method]:
    """Return methods that skip half of the layers, by name."""
    return {
        _STATIC: StaticSkip(share=0.5),
        _SEQUENCE: RandomSkip(share=0.5, per="sequence"),
        _TOKEN: RandomSkip(share=0.5, per="token"),
    }


def _realised(bench: Workbench, times: Times, batch: int, wave: Wave) -> None:
    """Keep speed-ups, beside those that the FLOPs, counted in a separate run, would allow."""
    full = _flops(wave.decode())
    for name, method in halves().items():
        spent = _flops(wave.decode(method))
        share = sum(spent.values()) / sum(full.values())
        gains = times.quotients(FULL, name)
        key = name.split()[0]
        bench.ratio(f"{key}50_b{batch}", gains, f"ideal {1 / share:.2f}, FLOP share {share:.3f}")
        if (key, batch) in (("static", 1), ("static", 16), ("token", 1)):
            bench.ratio(f"{key}50_vs_ideal_b{batch}", [gain * share for gain in gains], f"ideal {1 / share:.2f}")
        if (key, batch) == ("token", 16):
            # Half of the rows are as many as `full` at batch 8 has, at whose rate the K/V fills are counted.
            fills = spent["kv"] / (sum(full.values()) / 2)
            dense = [ms * (1 + fills) for ms in times.rounds[_DENSE]]
            mixed = times.rounds[name]
            how = f"fills priced by their FLOPs at the rate of full at batch 8: {fills:.1%} of its step"
            bench.ratio("token50_vs_dense_b16", [d / m for d, m in zip(dense, mixed, strict=True)], how)


def _flops(generations: Sequence[Generation]) -> dict[str, int]:
    """Credited FLOPs of decoding a batch, by category."""
    return {category: sum(g.flops[category] for g in generations) for category in generations[0].flops}


def _race(
    bench: Workbench,
    part: str,
    shape: Shape,
    engine: Engine,
    batch: int,
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
) -> Times:
    group = f"{shape}, batch {batch}"
    bench.say(f"{part}: {group}")
    times = race(contenders, rounds, warm_ups=max(1, engine.warm_ups), patience=bench.sizes.patience)
    bench.keep_times(part, group, UNIT, times)
    return times


def path_of(engine: Engine) -> str:
    """Return which layers an engine runs, and why none that are faster."""
    return f"{engine.kernels} kernels" + (f" ({engine.kernels_note})" if engine.kernels_note else "")


def note_tokens(bench: Workbench, model: str, generate: Generate, waves: Mapping[str, Wave]) -> None:
    """Note whether generate chose the same tokens; where it did not, a tie closer than rounding must be the reason."""
    for name, wave in waves.items():
        equal, tied = same_tokens(wave.decode(), generate.written)
        rows = len(generate.written)
        text = f"{name}, {model}, batch {rows}: {equal} of {rows} rows equal generate's tokens"
        if equal < rows:
            text += f", {tied} part at a near-tie, {rows - equal - tied} for no such reason"
        bench.notes.append(text)


def same_tokens(generations: Sequence[Generation], reference: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the number of equal rows, and of others that first differ at a token which was a near-tie."""
    equal = tied = 0
    for generation, expected in zip(generations, reference, strict=True):
        pairs = enumerate(zip(generation.tokens, expected, strict=True))
        first = next((i for i, (ours, theirs) in pairs if ours != theirs), None)
        equal += first is None
        tied += first is not None and any(step == first for step, _ in generation.near_ties)
    return equal, tied


def bytes_per_step(backbone: Backbone, batch: int, context: int) -> int:
    """Return the bytes that a step at full depth must read: weights without the embedding table, keys and values."""
    model, config = backbone.model, backbone.model.config
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    table = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is not table:
        weights -= table.numel() * table.element_size()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * backbone.depth * batch * context * config.num_key_value_heads * width * table.element_size()
    return int(weights + cached)


def memory_bandwidth(bench: Workbench) -> float:
    """Return the bandwidth of the device's memory in GB/s: the better of copying a large array and summing it."""
    size = 1 << (30 if bench.device.startswith("cuda") else 27)
    source = torch.ones(size // 4, device=bench.device)
    target = torch.empty_like(source)
    copy = partial(target.copy_, source)
    bandwidths: list[float] = []
    for _ in range(4):
        rates = (2 * size / bench.watch.of(copy)[0], size / bench.watch.of(source.sum)[0])
        bandwidths.append(max(rates) / 1e9)
    return bench.keep("wide", "memory", "bandwidth", "GB/s", bandwidths[1:]).median
