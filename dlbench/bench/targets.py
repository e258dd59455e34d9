"""What is measured, and the ratios that are promised."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = {
    "decode": "decoding a narrow model, beside generate",
    "wide": "decoding a wide model, beside generate; realised speed-up of skipping",
    "requests": "nano's tasks from text to text, beside lm-eval",
    "sweep": "twelve configurations of long prompts, beside lm-eval",
    "memory": "peak memory beside generate, each in a process of its own; cache sizes",
    "start": "what the first use costs: imports, loading, preparing an engine",
}
"""Parts of the benchmark, in the order in which they run."""


MODEL_PARTS = ("decode", "requests")
"""Parts of the benchmark of a given model."""


@dataclass(frozen=True)
class Target:
    """One ratio: higher is better, and at least `bound` is promised."""

    name: str
    part: str
    bound: float | None
    """None where nothing is promised."""
    meaning: str


# A step at batch 16 that costs at most 1.3 times the same work run densely, a sweep that takes at most 0.35 of the
# time, memory of at most 1.1 times generate's: promised the other way round, so that higher is better everywhere.
_DENSE, _SWEEP, _MEMORY = 1 / 1.3, 1 / 0.35, 1 / 1.1

TARGETS = (
    Target("decode_vs_generate_b1", "decode", 1.3, "generate's time per step / ours, full depth, narrow model"),
    Target("decode_vs_generate_b16", "decode", 1.3, "the same at batch 16"),
    Target("decode_stock_vs_generate_b1", "decode", 1.0, "generate's time per step / ours with stock layers"),
    Target("decode_stock_vs_generate_b16", "decode", 1.0, "the same at batch 16"),
    Target("half_project_b1", "decode", 1.7, "full depth / every second layer skipped per token, K/V owed"),
    Target("half_project_b16", "decode", 1.7, "the same at batch 16"),
    Target("half_project_paid_b1", "decode", None, "the same with even and odd layers in turns: every K/V is filled"),
    Target("half_project_paid_b16", "decode", None, "the same at batch 16"),
    Target("decode_vs_generate_wide", "wide", 1.0, "generate's time per step / ours, wide model, the worse batch size"),
    Target("decode_vs_generate_wide_b1", "wide", None, "of which batch 1"),
    Target("decode_vs_generate_wide_b16", "wide", None, "of which batch 16"),
    Target("decode_vs_generate_wide_b32", "wide", None, "of which batch 32"),
    Target("static50_vs_ideal", "wide", 0.9, "speed-up of a static half / (1 / its FLOP share), the worse batch size"),
    Target("static50_vs_ideal_b1", "wide", None, "of which batch 1"),
    Target("static50_vs_ideal_b16", "wide", None, "of which batch 16"),
    Target("token50_vs_ideal_b1", "wide", 0.9, "speed-up of a random half per token / (1 / its FLOP share)"),
    Target("token50_vs_dense_b16", "wide", _DENSE, "(full at batch 8 + K/V fills) / random half per token"),
    Target("static50_b1", "wide", None, "realised speed-up of a static half"),
    Target("static50_b16", "wide", None, "the same at batch 16"),
    Target("sequence50_b1", "wide", None, "realised speed-up of a random half per sequence"),
    Target("sequence50_b16", "wide", None, "the same at batch 16: FLOPs are saved, reading weights is not"),
    Target("token50_b1", "wide", None, "realised speed-up of a random half per token"),
    Target("token50_b16", "wide", None, "the same at batch 16: FLOPs are saved, reading weights is not"),
    Target("bandwidth_share_b1", "wide", None, "bytes of weights and K/V per second / the memory's bandwidth"),
    Target("bandwidth_share_b16", "wide", None, "the same at batch 16"),
    Target("bandwidth_share_b32", "wide", None, "the same at batch 32"),
    Target("end_to_end_vs_lm_eval", "requests", 2.0, "lm-eval's time for the requests / ours, batch 16"),
    Target("end_to_end_vs_lm_eval_b48", "requests", None, "the same at batch 48"),
    Target("sweep_speedup_vs_lm_eval", "sweep", _SWEEP, "12 lm-eval runs / our sweep of 12 configurations"),
    Target("model_decode_vs_generate_b1", "decode", 1.2, "generate's time per step / ours, full depth, given model"),
    Target("model_decode_vs_generate_b16", "decode", 1.2, "the same at batch 16"),
    Target("model_static50_b1", "decode", None, "full depth / a static half of its layers, given model"),
    Target("model_sequence50_b1", "decode", None, "full depth / a random half per sequence"),
    Target("model_token50_b1", "decode", None, "full depth / a random half per token"),
    Target("model_static50_b16", "decode", None, "full depth / a static half at batch 16"),
    Target("model_sequence50_b16", "decode", None, "full depth / a random half per sequence at batch 16"),
    Target("model_token50_b16", "decode", 0.95, "full depth / a random half per token at batch 16"),
    Target(
        "model_end_to_end_vs_lm_eval", "requests", 1.5, "lm-eval's time for the tasks / ours, given model, batch 16"
    ),
    Target("peak_memory_ratio", "memory", _MEMORY, "generate's peak memory / ours, full depth"),
    Target("cache_static50_routed_ratio", "memory", 1.9, "cache of full / of a static half with routed prompts"),
)
BY_NAME = {target.name: target for target in TARGETS}
