"""The engine: decode with dynamic depth, on stock models with gates around their layers, and count the FLOPs.

Modules import downwards only: keyed_rng, stop_strings, flops, kv < sampling, requests, interfaces < logits_processors
< layers < kernels < routing < shared_prefix < runtime < prefill < decoding < proof < speculative < engine <
loglikelihood.
"""

from dlbench.engine.engine import Engine
from dlbench.engine.prefill import Wave
from dlbench.engine.requests import Generation, Request

__all__ = ["Engine", "Generation", "Request", "Wave"]
